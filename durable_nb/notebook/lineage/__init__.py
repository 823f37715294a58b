"""The code from which each name got its value: edits and drift."""

"""Which code gave a name its value: edits and drift."""

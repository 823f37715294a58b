"""Signals: values that a run waits for, how they are checked, delivered and asked for."""

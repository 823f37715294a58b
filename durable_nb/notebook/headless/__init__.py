"""Execution of notebooks without a front end."""

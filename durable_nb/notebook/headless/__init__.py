"""Notebooks executed without a front end."""

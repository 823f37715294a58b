"""Prompts to the user: forms in the notebook page, input lines in a terminal."""

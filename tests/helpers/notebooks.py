"""Notebooks on disk."""

import json


def write_notebook(path, cells):
    """Write a notebook of code cells, without a kernel's name."""
    made = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []} for cell in cells]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))

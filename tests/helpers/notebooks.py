"""Notebooks on disk, and one that is open in a front end."""

import json


class OpenNotebook:
    """A notebook that a front end has open, which sends the ids of its cells.

    Args:
        kernel: Its kernel, which is restarted to be told of the notebook's file.
        cells: Its cells by their ids.
    """

    def __init__(self, kernel, **cells):
        self.kernel, self.cells = kernel, cells
        self.file = kernel.cwd / "book.ipynb"
        kernel.setenv("JPY_SESSION_NAME", str(self.file))
        self.restart()

    def save(self):
        """Write its file, as a front end does before cells are executed."""
        made = [
            {"cell_type": "code", "id": name, "source": source, "metadata": {}, "outputs": []}
            for name, source in self.cells.items()
        ]
        self.file.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))

    def restart(self):
        """Save it, kill its kernel, and start another."""
        self.save()
        if self.kernel.alive:
            self.kernel.sigkill()
        self.kernel.restart()

    def run(self, name):
        """Execute a cell."""
        return self.kernel.run(self.cells[name], cell=name)

    def run_all(self):
        """Execute all cells; gives what came back, by their ids."""
        return {name: self.run(name) for name in self.cells}


def write_notebook(path, cells):
    """Write a notebook of code cells, without a kernel's name."""
    made = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []} for cell in cells]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def facts(done, key):
    """What the durable line of each cell says under a key; None for an ordinary cell."""
    lines = {
        name: [one.get("metadata", {}).get("durable_nb", {}) for one in cell.outputs]
        for name, cell in done.items()
    }
    return {name: next((each[key] for each in found if key in each), None) for name, found in lines.items()}

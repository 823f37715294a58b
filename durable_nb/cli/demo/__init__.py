"""``durable-nb demo``: the command and the notebook that it executes."""

from durable_nb.cli.demo.command import add_arguments, run

__all__ = ["add_arguments", "run"]

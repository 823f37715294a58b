"""``durable-nb demo``: the command and the notebook that it executes."""

from durable_nb.cli.demo.command import demo_arguments, run_demo

__all__ = ["demo_arguments", "run_demo"]

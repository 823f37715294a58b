"""``durable-nb``: what one does with durable notebooks from a terminal.

Each sub-command is a module of this package: ``add_arguments(parser)``, and ``run(options)``, which gives the
exit code.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Final

from durable_nb.cli.spelling import COMMAND_LINE
from durable_nb.errors import DurableError, RunNotFound, StoreError, spell_actions

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[Mapping[str, str]] = {
    "demo": "run a notebook, kill its kernel, run it again, and show what came back",
    "plan": "say cell by cell what would replay and what would run, running nothing",
    "runs": "list the runs of a database: where each stands, who has it, what it waits for",
    "signal": "deliver a value to a run that waits for it, or will",
    "signals": "list what runs wait for",
    "status": "show where one run stands, step by step",
    "trust": "sign checkpoints that somebody else has made, so that they may be loaded here",
}
"""The sub-commands, each with its help; the module has the command's name."""

NOT_THERE = 1
"""The exit code where the run or the database is not there, or cannot be read: a script may ask."""

REFUSED = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``durable-nb`` and give its exit code.

    Args:
        argv: The arguments, by default those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    _spell_what_the_terminal_cannot()
    spell_actions(lambda _: COMMAND_LINE)
    options = _parser(argv).parse_args(argv)
    try:
        code: int = options.run(options)
    except DurableError as error:
        print(f"durable-nb: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        return NOT_THERE if isinstance(error, RunNotFound | StoreError) else REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "durable-nb", description="Durable Jupyter notebooks: finished cells survive the kernel."
    )
    parser.add_argument("--version", action="version", version=f"durable_nb {version('durable_nb')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in argv:  # `--version` and `--help` need not wait for what the others import
            module = import_module(f"{__name__}.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _spell_what_the_terminal_cannot() -> None:
    # A question mark in an old terminal is better than a UnicodeEncodeError in the middle.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

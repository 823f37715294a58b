"""The command ``durable-nb``.

Each sub-command is a pair of functions in a module of this package: ``<command>_arguments(parser)`` adds its
arguments, ``run_<command>(options)`` runs it and returns the exit code. The module is imported on use.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Final, NamedTuple

from durable_nb.cli.spelling import COMMAND_LINE
from durable_nb.cli.terminal import show_error
from durable_nb.errors import DurableError, RunNotFound, StoreError, spell_actions

__all__ = ["COMMANDS", "main"]


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        module: The module of this package that defines it.
        help: Its help.
    """

    module: str
    help: str


COMMANDS: Final[Mapping[str, Command]] = {
    "backup": Command("check", "copy a database that may be in use"),
    "check": Command("check", "look for what is missing, damaged or left over in a database"),
    "demo": Command("demo", "run a notebook, kill its kernel, run it again, and show what was replayed"),
    "forget": Command("forget", "take a run, a step or their values out of a database for good"),
    "fork": Command("steps", "copy the history of a run to a new run"),
    "plan": Command("commands", "show which cells of a notebook would be replayed or executed, and why"),
    "reset": Command("steps", "have a step run again when its run is resumed"),
    "resolve": Command("steps", "answer what became of a step that was never finished, or that failed"),
    "run": Command("run", "execute a notebook without a front end, and go on where it stopped"),
    "runs": Command("commands", "list the runs of a database: status, steps, owner, awaited signals"),
    "send": Command("commands", "send a message to a run, which receives each one once"),
    "show": Command("steps", "show a step: its arguments, its result or error, what a cell showed"),
    "signal": Command("commands", "deliver a signal to a run, which may not wait for it yet"),
    "signals": Command("commands", "list the signals that runs wait for"),
    "status": Command("commands", "show the status of a run and of each of its steps"),
    "trust": Command("trust", "sign checkpoints that another user made, so that they can be loaded"),
}
"""The sub-commands by name."""

NOT_FOUND: Final = 1
"""The exit code if the run or the database does not exist, or cannot be read."""

REFUSED: Final = 2
"""The exit code of other errors, such as an invalid argument."""

INTERRUPTED: Final = 130
"""The exit code after a KeyboardInterrupt."""

UNREAD: Final = 141
"""The exit code where nothing reads the output any more, as in ``durable-nb runs | head -1``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``durable-nb`` and return its exit code.

    Args:
        argv: The arguments; by default those of the process.

    Example:
        >>> main(["runs", "--db", "orders.db"])  # doctest: +SKIP
        0
    """
    argv = sys.argv[1:] if argv is None else argv
    _replace_unencodable()
    spell_actions(lambda _: COMMAND_LINE)
    options = _parser(argv).parse_args(_parameters_marked(argv))
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except DurableError as error:
        show_error(error)
        return NOT_FOUND if isinstance(error, RunNotFound | StoreError) else REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own flush
        return UNREAD
    return code


def _parameters_marked(argv: Sequence[str]) -> list[str]:
    """Return the arguments with a NUL before the values of parameters: one may begin with a hyphen."""
    if "run" not in argv[:1]:
        return [*argv]
    pairs = zip(["", "", *argv], argv, strict=False)
    return [f"\0{each}" if before in ("-p", "--parameter") else each for before, each in pairs]


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "durable-nb", description="Durable Jupyter notebooks: finished cells survive the kernel."
    )
    parser.add_argument("--version", action="version", version=f"durable_nb {version('durable_nb')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    parser.set_defaults(run=lambda _: _help(parser))
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.help)
        if name in argv:  # imported late: `--version` and `--help` need none of the modules
            module = import_module(f"{__name__}.{command.module}")
            getattr(module, f"{name}_arguments")(subparser)
            subparser.set_defaults(run=getattr(module, f"run_{name}"))
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _replace_unencodable() -> None:
    """Print a question mark for a character that the terminal's encoding lacks: raise no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

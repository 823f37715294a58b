"""The only way in which commands print: a text from a database controls no terminal."""

from __future__ import annotations

import sys

from durable_nb.errors import printable

__all__ = ["confirmed", "show", "show_error"]


def show(*texts: object) -> None:
    """Print texts, each on lines of its own."""
    for text in texts:
        print(printable(str(text)))  # noqa: T201 - a command's output


def show_error(text: object) -> None:
    """Print a text to the standard error."""
    print(printable(f"durable-nb: {text}"), file=sys.stderr)  # noqa: T201


def confirmed(question: str) -> bool:
    """Ask, and return whether the user said yes; no without a user."""
    try:
        answer = input(printable(question))
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")

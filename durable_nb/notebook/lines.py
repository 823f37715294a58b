"""A magic's line, taken apart."""

from __future__ import annotations

import argparse
import io
import shlex
from typing import NoReturn

from IPython.core.error import UsageError

__all__ = ["LineParser"]

LINE_WIDTH = 1000


def _one_line(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=LINE_WIDTH)


class LineParser(argparse.ArgumentParser):
    """Says what is wrong with a magic's line in one line, and takes each option once."""

    def __init__(self, magic: str) -> None:
        super().__init__(prog=magic, add_help=False, allow_abbrev=False, formatter_class=_one_line)

    def error(self, message: str) -> NoReturn:
        """Refuse the line."""
        raise UsageError(f"{self.prog}: {message}. {self.usage_line()}")

    def usage_line(self) -> str:
        """How the line is written: what stands there in any case, then the options."""
        placed = [action for action in self._actions if not action.option_strings]
        options = [action for action in self._actions if action.option_strings]
        return " ".join(filter(None, (f"usage: {self.prog}", self._spelled(placed), self._spelled(options))))

    def _spelled(self, actions: list[argparse.Action]) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(None, actions, (), prefix="")
        return formatter.format_help().strip().removeprefix(self.prog).strip()

    def parse_line(self, line: str) -> argparse.Namespace:
        """Take a line apart as a shell would."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            self.error(str(error))
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        for flag in sorted({flag for flag in flags if flags.count(flag) > 1}):
            self.error(f"{flag} is given twice")
        return self.parse_args(words)

    def first_words(self, line: str, count: int) -> tuple[list[str], str]:
        """So many words, and the rest of the line as it is: quotes and braces are its own."""
        typed = io.StringIO(line)
        words = shlex.shlex(typed, posix=True)
        words.whitespace_split, words.commenters = True, ""
        try:
            first = [word for _ in range(count) if (word := words.get_token()) is not None]
        except ValueError as error:
            self.error(str(error))
        return first, typed.read().strip()

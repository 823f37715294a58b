"""Whatever can ask a person: a notebook's front end, or a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from durable_nb.records import SignalRequest

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal

__all__ = ["Ask", "Interrupted", "Prompter", "attach", "attached"]

Ask = Callable[[SignalRequest], Awaitable[Any]]
"""Asks a person, and gives the answer; ended when somebody else was faster."""


class Interrupted(Exception):
    """A person interrupted the asking; where the answer was wanted it is a KeyboardInterrupt."""


class Prompter(Protocol):
    """Where a person may be: a notebook's front end, or a terminal."""

    def headless_timeout(self) -> float | None:
        """Seconds that a call may wait where nobody can be asked; None for ever."""

    def askers(self) -> Sequence[Ask]:
        """The ways in which a person can be asked here and now, all at once."""

    def can_prompt(self, *, blocking: bool) -> bool:
        """Whether a person can answer here: to what ``show_waiting`` shows, or asked while code awaits."""

    def show_waiting(self, journal: Journal, request: SignalRequest, command: str) -> Callable[[str], None]:
        """Show that a call waits; gives what takes the text that is shown in its place."""

    def show_answer(self, run_id: str, name: str, by: str, at: float) -> None:
        """Show who answered a call that did not have to wait."""


_prompters: list[Prompter] = []


def attach(prompter: Prompter) -> None:
    """Have calls of this process ask through a prompter; there is one at a time."""
    _prompters[:] = [prompter]


def attached() -> Prompter | None:
    """The prompter of this process, if it has one."""
    return next(iter(_prompters), None)

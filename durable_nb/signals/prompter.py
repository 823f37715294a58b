"""The interface through which a process prompts its user: a notebook's front end, or a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from durable_nb.records import SignalRequest

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal

__all__ = ["Ask", "Interrupted", "Prompter", "current_prompter", "set_prompter"]

Ask = Callable[[SignalRequest], Awaitable[Any]]
"""Asks the user and returns the answer; cancelled if an answer is delivered in another way first."""


class Interrupted(Exception):
    """The user interrupted the prompt; in the waiting call it becomes a KeyboardInterrupt."""


class Prompter(Protocol):
    """A session that can prompt its user: a notebook's front end, or a terminal."""

    def headless_timeout(self) -> float | None:
        """Return the seconds for which a call waits if there is no one to prompt; None waits without end."""

    def askers(self) -> Sequence[Ask]:
        """Return the ways to ask the user now; all are used at once, in any thread."""

    def can_prompt(self) -> bool:
        """Return whether the user can answer in this session."""

    def show_waiting(self, journal: Journal, request: SignalRequest, command: str) -> Callable[[str], None]:
        """Show that a call waits; return a function that replaces the text shown.

        Args:
            journal: The journal of the run.
            request: The request.
            command: What to type in another process to answer it.
        """

    def show_answer(self, run_id: str, name: str, by: str, at: float) -> None:
        """Show who answered, and when, for a call that did not have to wait."""


_prompters: list[Prompter] = []


def set_prompter(prompter: Prompter) -> None:
    """Set the prompter of this process; it has one at a time."""
    _prompters[:] = [prompter]


def current_prompter() -> Prompter | None:
    """Return the prompter of this process, or None."""
    return next(iter(_prompters), None)

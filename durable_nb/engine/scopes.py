"""What step names are counted in: a workflow's body, a branch of it, a task's body, a durable cell.

A call takes its id when it is called. Within one scope calls come in the program's own order, so counting
them is enough; a concurrent branch (``gather``, ``TaskGroup``, ``create_task``) is a scope of its own, named
when it is created, so that no interleaving can swap two results. Another thread has no place in that order:
what it calls is named by its arguments.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from durable_nb import fingerprint
from durable_nb.engine.naming import check_name
from durable_nb.errors import InvalidOption, StepError
from durable_nb.records import BRANCH, KEY

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle
    from durable_nb.stores.base import Journal

__all__ = [
    "CURRENT",
    "CellScope",
    "KeyedScope",
    "Scope",
    "current",
    "entered",
    "open_here",
]

COUNTED = ""
_QUOTED = str.maketrans({"%": "%25", "/": "%2F", "#": "%23", "~": "%7E", "[": "%5B"})

CURRENT: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("durable_nb_scope", default=None)
"""The scope of the code that asks; None outside every run."""


class Scope:
    """Names the steps that are called in one place of a run, in order.

    Args:
        run: The open run.
        path: What every id of this scope begins with: empty, or ending in a slash.
    """

    __slots__ = ("_branches", "_counts", "_owners", "_prefix", "_thread", "path", "run")

    def __init__(self, run: RunHandle, path: str = "") -> None:
        self.run = run
        self.path = path
        self._counts: dict[str, itertools.count[int]] = {}
        self._owners: dict[str, str] = {}
        self._branches = 0
        self._prefix = path + BRANCH
        self._thread = threading.get_ident()

    def step_id(self, name: str, arguments: str) -> str:
        """The id of the next call of ``name``: ``fetch``, ``fetch#1``; in another thread ``fetch[9f1c…]``.

        Args:
            name: The task's name.
            arguments: The fingerprints of the arguments.

        Raises:
            StepError: The arguments are to name the call, and one of them has no fingerprint.
        """
        self.run.check_stopped()
        if threading.get_ident() == self._thread:
            return self._counted(_quoted(name))
        return self._keyed(name, arguments, "in a thread")

    def named_id(self, step_id: str, owner: str = "") -> str:
        """The id of a call that the user named.

        Args:
            step_id: The name.
            owner: The task that is called.

        Raises:
            InvalidOption: It cannot name a step.
            StepError: Another call in this scope has the name already.
        """
        return self.own_id(check_name(step_id, "a step", InvalidOption), owner)

    def own_id(self, step_id: str, owner: str = "") -> str:
        """The same for a name that we made ourselves."""
        self.run.check_stopped()
        key = _quoted(step_id)
        holder = self._owners.setdefault(key, owner or step_id)
        if holder != (owner or step_id):
            called = f"a call of {holder!r}" if holder != COUNTED else "an unnamed call"
            raise StepError(
                f"{called} has that name already",
                run_id=self.run.run.run_id,
                step=self.path + key,
                remedy="Give this call a step_id='…' of its own.",
            )
        return self.path + key

    def moved_here(self) -> None:
        """Count the calls of this thread."""
        self._thread = threading.get_ident()

    def tick(self) -> int:
        """When a call is made, on the run's own counter."""
        return self.run.tick()

    def branch(self) -> Scope:
        """The scope of the next concurrent branch."""
        self._branches += 1
        kind = CellScope if isinstance(self, CellScope) else Scope
        return kind(self.run, f"{self._prefix}{self._branches - 1}/")

    def around(self, name: str) -> Scope:
        """The same scope, but for its branches: theirs are counted apart, under ``name``.

        For a block in which a library creates tasks of its own, as many as time allows.
        """
        scope = copy.copy(self)
        scope._branches, scope._prefix = 0, f"{self._prefix}{name}/{BRANCH}"  # noqa: SLF001 - a copy of itself
        return scope

    def _counted(self, key: str) -> str:
        # setdefault and next are atomic: threads may count in one scope.
        before = next(self._counts.setdefault(key, itertools.count()))
        if before:
            return f"{self.path}{key}#{before}"
        if self._owners.setdefault(key, COUNTED) != COUNTED:
            return self._counted(key)  # the user gave that name to another call
        return self.path + key

    def _keyed(self, name: str, arguments: str, where: str) -> str:
        unknown = fingerprint.unknown(arguments)
        if unknown:
            raise StepError(
                f"{where} the arguments name a call, and {', '.join(unknown)} cannot be fingerprinted",
                run_id=self.run.run.run_id,
                step=name,
                remedy=f"Name the call: {name}(…, step_id='…'). In a durable cell the order names it.",
            )
        key = (fingerprint.value(arguments) or "")[:12]
        return self._counted(f"{_quoted(name)}{KEY}{key}]")


class KeyedScope(Scope):
    """Names steps by their arguments, where there is no order to count on: an ordinary cell."""

    __slots__ = ()

    def step_id(self, name: str, arguments: str) -> str:
        """The id of a call with these arguments, equal ones counted: ``fetch[9f1c…]``, ``fetch[9f1c…]#1``."""
        return self._keyed(name, arguments, "outside a durable cell")

    def tick(self) -> int:
        """Nothing: no call is later than another, whatever order the cells were run in."""
        return 0


class CellScope(Scope):
    """Names the steps of a durable cell: in order, but what is on record is found by its arguments.

    A cell may have been edited since, so that its calls come in another order, and some are new or gone.
    """

    __slots__ = ("_taken",)

    def __init__(self, run: RunHandle, path: str = "") -> None:
        super().__init__(run, path)
        self._taken: set[str] = set()

    def step_id(self, name: str, arguments: str) -> str:
        """The id of the next call of ``name``, or of a call on record with these arguments."""
        step_id = super().step_id(name, arguments)
        if not self._fits(step_id, arguments):
            step_id = next(filter(lambda other: self._fits(other, arguments), self._like(name)))
        self._taken.add(step_id)
        return step_id

    def _fits(self, step_id: str, arguments: str) -> bool:
        recorded = self.run.history.get(step_id)
        free = step_id not in self._taken
        return free and (recorded is None or not fingerprint.differ(recorded.arguments, arguments))

    def _like(self, name: str) -> Iterator[str]:
        """The ids of calls of that name: those on record, then ever new ones."""
        first = self.path + _quoted(name)
        recorded = list(self.run.history)
        yield from (each for each in recorded if each == first or each.startswith(f"{first}#"))
        yield from (each for number in itertools.count(1) if (each := f"{first}#{number}") not in recorded)


@functools.lru_cache
def _quoted(name: str) -> str:
    return name.translate(_QUOTED)


def current() -> Scope | None:
    """The scope that a call here and now belongs to, or None outside every run."""
    return CURRENT.get()


def open_here(journal: Journal, run_id: str, *attached: Scope | None) -> RunHandle | None:
    """The run of that id if the caller is in it, or one of the attached scopes is of it."""
    runs = (scope.run for scope in (current(), *attached) if scope is not None)
    return next((run for run in runs if run.run_id == run_id and run.journal is journal), None)


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Make ``scope`` the current one; the calls of this thread have their order in it."""
    scope.moved_here()
    token = CURRENT.set(scope)
    try:
        yield scope
    finally:
        with suppress(ValueError):  # thrown away half-way, in another context
            CURRENT.reset(token)

"""Scopes name the steps of a run. A workflow's body, each branch, a task's body and a durable cell have one.

A call gets its id when it is made. The calls of one scope come in the program's own order, so that counting
them is enough. A concurrent branch (``gather``, ``TaskGroup``, ``create_task``) is a scope of its own, named
when it is created, so that no interleaving can swap two results. The calls of another thread have no place in
that order: they are named by their arguments.
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
from durable_nb.errors import InvalidOption, NoOpenRun, OpenRun, StepError
from durable_nb.records import BRANCH, KEY, child_step

if TYPE_CHECKING:
    from durable_nb.engine.passes import Pass
    from durable_nb.engine.run import RunHandle
    from durable_nb.stores.base import Journal

__all__ = [
    "CURRENT",
    "CellScope",
    "KeyedScope",
    "Scope",
    "current_scope",
    "enter_scope",
    "escaped",
    "find_pass",
    "required_scope",
]

_UNNAMED = ""
_ESCAPES = str.maketrans({"%": "%25", "/": "%2F", "#": "%23", "~": "%7E", "[": "%5B"})

CURRENT: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("durable_nb_scope", default=None)
"""The scope of the current code; None outside every run."""


class Scope:
    """Names the steps of one part of a run, in the order of their calls.

    Args:
        current: The pass that its code is part of, whose run is open.
        path: The prefix of every id of this scope: empty, or ending in a slash.
        branched: The scopes from which it was branched, each with the sequence number of that moment.
    """

    __slots__ = (
        "_branches",
        "_counts",
        "_owners",
        "_prefix",
        "_thread",
        "branched",
        "current",
        "path",
        "run",
    )

    def __init__(self, current: Pass, path: str = "", branched: tuple[tuple[str, int], ...] = ()) -> None:
        assert current.run is not None
        self.current = current
        self.run: RunHandle = current.run
        self.path = path
        self.branched = branched
        self._counts: dict[str, itertools.count[int]] = {}
        self._owners: dict[str, str] = {}
        self._branches = 0
        self._prefix = path + BRANCH
        self._thread = threading.get_ident()

    def step_id(self, name: str, arguments: str) -> str:
        """Return the id of the next call: ``fetch``, then ``fetch#1``; in other threads ``fetch[9f1c…]``.

        Args:
            name: The task's name.
            arguments: The fingerprints of the arguments.

        Raises:
            StepError: The call is named by its arguments, and one of them has no stable fingerprint.
        """
        self.current.check_stopped()
        if self.is_ordered():
            return self._counted(escaped(name))
        return self._keyed(name, arguments, "calls from other threads are identified")

    def is_ordered(self) -> bool:
        """Return whether the calls of this thread come in the order of the program."""
        return threading.get_ident() == self._thread

    def ordered_id(self, name: str, remedy: str = "") -> str:
        """Return the id of the next call of what has no arguments: ``now``, then ``now#1``.

        Args:
            name: The name.
            remedy: What to do about a call without an order; by default, to name it.

        Raises:
            StepError: The calls have no order here, and nothing else tells them apart.
        """
        self.current.check_stopped()
        if not self.is_ordered():
            raise StepError(
                "calls in ordinary cells and from other threads have no order that identifies them",
                run_id=self.run.run_id,
                step=name,
                remedy=remedy
                or f"Name the call: {name}(step_id='…'). In a durable cell calls are named by order.",
            )
        return self._counted(escaped(name))

    def named_id(self, step_id: str, owner: str = "") -> str:
        """Return the id of a call that the user named.

        Args:
            step_id: The name.
            owner: The name of the task.

        Raises:
            InvalidOption: The name is not valid.
            StepError: Another call in this scope has the name already.
        """
        return self.internal_id(check_name(step_id, "a step", InvalidOption), owner)

    def internal_id(self, step_id: str, owner: str = "") -> str:
        """Return the id of a call that this package named: see ``named_id``."""
        self.current.check_stopped()
        key = escaped(step_id)
        holder = self._owners.setdefault(key, owner or step_id)
        if holder != (owner or step_id):
            called = f"a call of {holder!r}" if holder != _UNNAMED else "a call without step_id="
            raise StepError(
                f"the name is taken by {called}",
                run_id=self.run.run_id,
                step=self.path + key,
                remedy="Give this call a step_id='…' of its own.",
            )
        return self.path + key

    def child_id(self, run_id: str) -> str:
        """Return the id of a call of another run: ``run:order-a17``, then ``run:order-a17#1``."""
        self.current.check_stopped()
        return self._counted(escaped(child_step(run_id)))

    def move_here(self) -> None:
        """Name the calls of this thread in their order from now on."""
        self._thread = threading.get_ident()

    def tick(self) -> int:
        """Return the sequence number of a call that is made now."""
        return self.run.tick()

    def reserve_branches(self, count: int = 1) -> int:
        """Return the number of the next concurrent branch; the one after it is so many further."""
        self._branches += count
        return self._branches - count

    def branch(self, number: int | None = None) -> Scope:
        """Return the scope of a concurrent branch.

        Args:
            number: A number that was reserved; None for the next.
        """
        number = self.reserve_branches() if number is None else number
        kind = CellScope if isinstance(self, CellScope) else Scope
        return kind(self.current, f"{self._prefix}{number}/", (*self.branched, (self.path, self.tick())))

    def with_named_branches(self, name: str) -> Scope:
        """Return a copy of this scope whose branches are counted separately, under ``name``.

        For a block in which a library creates tasks of its own, whose number depends on timing.
        """
        scope = copy.copy(self)
        scope._branches, scope._prefix = 0, f"{self._prefix}{name}/{BRANCH}"  # noqa: SLF001 - a copy of itself
        return scope

    def _counted(self, key: str) -> str:
        # setdefault and next are atomic: threads may count in one scope.
        before = next(self._counts.setdefault(key, itertools.count()))
        if before:
            return f"{self.path}{key}#{before}"
        if self._owners.setdefault(key, _UNNAMED) != _UNNAMED:
            return self._counted(key)  # the user gave that name to a call: take the next
        return self.path + key

    def _keyed(self, name: str, arguments: str, where: str) -> str:
        unknown = fingerprint.unknown(arguments)
        if unknown:
            raise StepError(
                f"{where} by their arguments, but no stable fingerprint exists for {', '.join(unknown)}",
                run_id=self.run.run_id,
                step=name,
                remedy=f"Name the call: {name}(…, step_id='…'). In a durable cell calls are named by order.",
            )
        key = (fingerprint.value(arguments) or "")[:12]
        return self._counted(f"{escaped(name)}{KEY}{key}]")


class KeyedScope(Scope):
    """Names steps by their arguments: the calls of ordinary cells have no fixed order."""

    __slots__ = ()

    def step_id(self, name: str, arguments: str) -> str:
        """Return the id of a call with these arguments: ``fetch[9f1c…]``, then ``fetch[9f1c…]#1``."""
        return self._keyed(name, arguments, "calls in ordinary cells are identified")

    def is_ordered(self) -> bool:
        """Return False: the cells may be run in any order."""
        return False

    def tick(self) -> int:
        """Return 0: no call is later than another, in whatever order the cells were run."""
        return 0


class CellScope(Scope):
    """Names the steps of a durable cell: in order, but a recorded step is found by its arguments.

    The cell may have been edited since, so that its calls come in another order, or some are new or gone.
    """

    __slots__ = ("_taken",)

    def __init__(self, current: Pass, path: str = "", branched: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(current, path, branched)
        self._taken: set[str] = set()

    def step_id(self, name: str, arguments: str) -> str:
        """Return the id of a recorded call with these arguments, or of the next call of ``name``."""
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
        """Yield the ids of calls of that name: the recorded ones, then new ones without end."""
        first = self.path + escaped(name)
        recorded = list(self.run.history)
        yield from (each for each in recorded if each == first or each.startswith(f"{first}#"))
        yield from (each for number in itertools.count(1) if (each := f"{first}#{number}") not in recorded)


@functools.lru_cache
def escaped(name: str) -> str:
    """Return a name as it is part of a step id.

    Example:
        >>> escaped("a/b")
        'a%2Fb'
    """
    return name.translate(_ESCAPES)


def current_scope() -> Scope | None:
    """Return the scope that a call made here belongs to; None outside every run."""
    return CURRENT.get()


def required_scope(attached: Scope | None, what: str) -> Scope:
    """Return the scope that a call made here belongs to: see ``current_scope``.

    Args:
        attached: The scope of calls outside every scope, as in ordinary cells.
        what: The call, for the message.

    Raises:
        NoOpenRun: The call is outside every run.
    """
    scope = current_scope() or attached
    if scope is None:
        raise NoOpenRun(
            f"{what} was called outside a run",
            remedy=("Call it in a @wf.workflow, or open a run: ", OpenRun()),
        )
    return scope


def find_pass(journal: Journal, run_id: str, *attached: Scope | None) -> Pass | None:
    """Return the pass of that run if the caller or one of the attached scopes is part of it, else None."""
    passes = (scope.current for scope in (current_scope(), *attached) if scope is not None)
    return next((each for each in passes if (each.journal, each.opening.run_id) == (journal, run_id)), None)


@contextmanager
def enter_scope(scope: Scope) -> Iterator[Scope]:
    """Make ``scope`` the current one in a block, and name the calls of this thread in their order."""
    scope.move_here()
    token = CURRENT.set(scope)
    try:
        yield scope
    finally:
        with suppress(ValueError):  # a generator that is thrown away half-way is closed in another context
            CURRENT.reset(token)

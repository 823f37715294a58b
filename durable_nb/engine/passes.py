"""A pass: one execution of a run's code by this process, and what can end it."""

from __future__ import annotations

import asyncio
import threading
import warnings
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from durable_nb.concurrency import interrupts
from durable_nb.concurrency.forking import forks
from durable_nb.engine.turns import Turns
from durable_nb.engine.unsettled import Unsettled
from durable_nb.errors import DurableNotice, StepError

if TYPE_CHECKING:
    from durable_nb.engine.given import Given
    from durable_nb.engine.in_place import Watch
    from durable_nb.engine.run import RunHandle
    from durable_nb.errors import RunHeld
    from durable_nb.records import Run
    from durable_nb.stores.base import Journal

__all__ = ["NOTHING", "Pass"]

NOTHING: Final = object()
"""Stands for what is not there yet: the value of a pass, and the run as it was recorded before."""


class Pass:
    """One pass through a run's code, from before the run is opened until its end is recorded.

    Args:
        journal: The journal of the run.
        opening: The run as its caller sees it.
        task: The task that executes the code, which is cancelled like any other; None if the code is
            synchronous, or the cells of a notebook.

    Attributes:
        forks: How often its process was forked: a forked child must not continue it.
        known: The run as it was recorded before this pass, or None; ``NOTHING`` until it is read.
        run: The open run; None until it is open.
        claims: The ids of the steps whose calls are running, each with an object that identifies the call.
        replays: The ids of the calls that replayed, in order.
        lost_error: The error that says which process has cancelled or taken over the run, once it has.
        outcome: The future of its result or exception, for the calls that join.
        value: What its code returned, once it has.
        waits_for: The passes that its code has called or joined, and that have not ended.
        in_use: The steps that are running and have an object, by its id, with their watches of it.
        noticed: The code of the tasks about whose replays the user was told once.
        given: The arguments of its call; None if it is no call of a workflow function.
        unsettled: The steps that failed or were cancelled, and after which the code has not continued yet.
    """

    def __init__(self, journal: Journal, opening: Run, task: asyncio.Task[Any] | None = None) -> None:
        self.journal = journal
        self.opening = opening
        self.thread = threading.get_ident()
        self.forks = forks()
        self.known: Any = NOTHING
        self.run: RunHandle | None = None
        self.claims: dict[str, object] = {}
        self.replays: list[str] = []
        self.lost_error: RunHeld | None = None
        self.outcome: Future[Any] = Future()
        # Or a call that joined could cancel the future, since wrap_future links its own to it both ways.
        self.outcome.set_running_or_notify_cancel()
        self.value: Any = NOTHING
        self.waits_for: list[Pass] = []
        self._branches: list[weakref.ref[asyncio.Future[Any]]] = []
        self.unsettled = Unsettled()
        self.given: Given | None = None
        self.in_use: dict[int, list[tuple[str, Watch]]] = {}
        self.noticed: set[str] = set()
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = weakref.WeakKeyDictionary()
        self._task = task
        self._cancelling = task.cancelling() if task is not None else 0
        self._cancel_requested = False
        self._ended = False

    def claim(self, step_id: str) -> None:
        """Claim a step's name for a call, which deletes the claim at its end.

        Raises:
            StepError: Another call of that name is running.
        """
        # setdefault is atomic: of two threads one gets the claim, and the other the object of the first.
        claim = object()
        if self.claims.setdefault(step_id, claim) is not claim:
            raise StepError(
                "another call of that name is still running",
                run_id=self.opening.run_id,
                step=step_id,
                remedy="Give each call a step_id='…' of its own, or await the first call before the second.",
            )

    def check_stopped(self) -> None:
        """Raise ``RunHeld`` if the run is lost, ``CancelledError`` if synchronous code is asked to end."""
        if self.lost_error is not None:
            raise self.lost_error
        if self._cancel_requested and self._task is None:
            raise asyncio.CancelledError

    def add_branch(self, task: asyncio.Future[Any]) -> None:
        """Note the task of a concurrent branch."""
        self._branches.append(weakref.ref(task))

    def _has_branches(self) -> bool:
        branches = self._branches
        while branches and ((task := branches[-1]()) is None or task.done()):
            branches.pop()
        return bool(branches)

    def turns(self) -> Turns | None:
        """Return what orders the results of concurrent branches in this event loop; None without branches."""
        if not self._has_branches():
            return None
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            turns = self._turns[loop] = Turns(loop)
        return turns

    def is_ending(self) -> bool:
        """Return whether the pass itself was interrupted or cancelled, and not a part of it by its code."""
        cancelled = self._task is not None and self._task.cancelling() > self._cancelling
        return cancelled or self._cancel_requested or interrupts.was_interrupted()

    def lose(self, error: RunHeld) -> None:
        """Note that another process owns the run now, and end the pass. Called on the loop thread."""
        self.lost_error = error
        if self._task is not None:
            self.cancel()
        else:  # it ends at its next durable call, which may be hours away
            warnings.warn(str(error), DurableNotice, stacklevel=2)

    def end(self) -> None:
        """Note that the code has ended: from now on the pass cannot be cancelled."""
        self._ended = True
        if self._cancel_requested and self._task is not None:
            self._cancel_requested = False
            # The cancellation was meant for the pass. Its task may be the caller's own, which continues.
            self._task.uncancel()

    def cancel(self) -> None:
        """Ask the pass to end, from any thread; a synchronous pass ends at its next durable call."""
        if self._task is None:
            self._cancel_requested = True
        else:
            self._task.get_loop().call_soon_threadsafe(self._cancel_task, self._task)

    def _cancel_task(self, task: asyncio.Task[Any]) -> None:
        # Checked here, on the task's own loop: between the request and now the code may have ended.
        if not self._ended and not self._cancel_requested:
            self._cancel_requested = task.cancel()

    def leads_to(self, other: Pass) -> bool:
        """Return whether this pass is the other one, or waits for it, directly or through others."""
        return self is other or any(each.leads_to(other) for each in self.waits_for)

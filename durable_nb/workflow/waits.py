"""What a run waits for: signals, and time. The part of ``Workflow`` that says so, in two colours."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from durable_nb import codec, fingerprint, settings
from durable_nb.concurrency.bridge import ASYNC, SYNC, run_blocking
from durable_nb.engine import scopes
from durable_nb.engine.naming import check_name, check_run_id
from durable_nb.errors import DurableNotice, InvalidOption, NoOpenRun, OpenRun, SignalTimeout, error_context
from durable_nb.records import Call, StepKind, signal_step
from durable_nb.signals import delivery
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import attached
from durable_nb.signals.waiting import NOTHING, Question, wait_for_answer, while_waiting
from durable_nb.stores.host import this_process
from durable_nb.workflow.perform import notice, replay

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle, StepHandle
    from durable_nb.stores.base import Journal

__all__ = ["SyncWaits", "Waits", "wait_for_signal"]


class Waits:
    """What a workflow's code can wait for, and how others answer it."""

    attached: scopes.Scope | None

    @property
    def journal(self) -> Journal:
        """Where its runs are kept."""
        raise NotImplementedError

    async def signal(
        self,
        name: str,
        poll: float = settings.SIGNAL_POLL,
        *,
        prompt: str | None = None,
        schema: Any = None,
        choices: Sequence[Any] | None = None,
        timeout: float | timedelta | None = None,
        default: Any = NOTHING,
    ) -> Any:
        """Wait in a run for a value from outside; one that came before is there at once, a restart or not.

        A value that is not accepted is set aside, and the next one waited for.

        Args:
            name: The signal's name; its value is the same wherever the run waits for it.
            poll: Seconds between two looks at a store that cannot tell when a value came; ours can.
            prompt: What to tell whoever is asked.
            schema: A type: bool, int, float, str, list, dict, or where pydantic is installed whatever it
                understands, such as a model, a dataclass or a TypedDict. What came is converted to it.
            choices: A list of the only values that are accepted.
            timeout: Seconds, or a timedelta, after which nobody is waited for any more; a restart does not
                begin them anew.
            default: What is returned then.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).
            SignalTimeout: Nobody answered in time, and there is no ``default`` (also a TimeoutError).
            SignalPending: Nobody is there to be asked, in a notebook that runs without a front end.

        Example:
            >>> async def review(wf: Workflow) -> str:
            ...     return "published" if await wf.signal("approval") else "withdrawn"
        """
        question = Question(name, prompt, Accepted(schema, choices), _seconds(timeout), default, poll)
        return await self._signal(question, ASYNC)

    async def complete(self, run_id: str, name: str, payload: Any = None) -> bool:
        """Deliver a signal to a run, from anywhere, also before it exists; the first delivery of a name wins.

        Args:
            run_id: The run.
            name: The signal's name.
            payload: The value, kept as it is: False and None are answers too.

        Returns:
            True if this was the first delivery.

        Raises:
            SignalInvalid: The run waits for it already, and would not accept this (also a ValueError).

        Example:
            >>> async def approve(wf: Workflow) -> bool:
            ...     return await wf.complete("order-a17", "approval", {"approved": True})
        """
        return await self._complete(run_id, name, payload, ASYNC)

    async def sleep(self, seconds: float | timedelta) -> None:
        """Let time pass in a run; after a restart, what is left of it.

        Args:
            seconds: How long, in seconds or as a timedelta.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).

        Example:
            >>> async def remind(wf: Workflow) -> None:
            ...     await wf.sleep(timedelta(days=3))
        """
        await self._sleep(_seconds(seconds) or 0.0, ASYNC)

    async def sleep_until(self, moment: datetime) -> None:
        """Wait in a run until a moment, recorded when this is first called.

        Args:
            moment: The moment; one without a time zone is in local time.

        Raises:
            NoOpenRun: It is called outside a run (also a RuntimeError).

        Example:
            >>> async def new_year(wf: Workflow) -> None:
            ...     await wf.sleep_until(datetime(2030, 1, 1))
        """
        await self._sleep_until(moment, ASYNC)

    async def _signal(self, question: Question, mode: CallMode) -> Any:
        name = check_name(question.name, "a signal", InvalidOption)
        return await wait_for_signal(self._scope(f"signal({name!r})"), question, mode)

    async def _complete(self, run_id: str, name: str, payload: Any, mode: CallMode) -> bool:
        check_name(name, "a signal", InvalidOption)
        signal = delivery.pack(check_run_id(run_id), name, payload, this_process())
        return await mode.store(delivery.deliver(self.journal, signal, payload)) is None

    async def _sleep(self, seconds: float, mode: CallMode) -> None:
        scope = self._scope(f"sleep({seconds:g})")
        arguments = fingerprint.arguments({"seconds": seconds})
        call = Call(
            scope.step_id("sleep", arguments),
            StepKind.SLEEP,
            arguments=arguments,
            on_change="keep",
            called_seq=scope.tick(),
        )
        await _slept(scope.run, call, time.time() + seconds, seconds, mode)

    async def _sleep_until(self, moment: datetime, mode: CallMode) -> None:
        scope = self._scope("sleep_until")
        until = moment.timestamp()
        step_id = scope.step_id("sleep", fingerprint.arguments({"until": until}))
        call = Call(step_id, StepKind.SLEEP, called_seq=scope.tick())
        await _slept(scope.run, call, until, max(0.0, until - time.time()), mode)

    def _scope(self, what: str) -> scopes.Scope:
        scope = scopes.current() or self.attached
        if scope is None:
            raise NoOpenRun(
                f"{what} was called outside a run",
                remedy=("Call it in a @wf.workflow; in a notebook, open a run first: ", OpenRun()),
            )
        return scope


class SyncWaits:
    """The same for synchronous code.

    Args:
        workflow: The workflow.
    """

    def __init__(self, workflow: Waits) -> None:
        self._waits = workflow

    def signal(
        self,
        name: str,
        poll: float = settings.SIGNAL_POLL,
        *,
        prompt: str | None = None,
        schema: Any = None,
        choices: Sequence[Any] | None = None,
        timeout: float | timedelta | None = None,
        default: Any = NOTHING,
    ) -> Any:
        """Wait in a run for a value from outside: see ``Workflow.signal``."""
        question = Question(name, prompt, Accepted(schema, choices), _seconds(timeout), default, poll)
        return run_blocking(self._waits._signal(question, SYNC))  # noqa: SLF001 - the same object's other face

    def complete(self, run_id: str, name: str, payload: Any = None) -> bool:
        """Deliver a signal to a run: see ``Workflow.complete``."""
        return run_blocking(self._waits._complete(run_id, name, payload, SYNC))  # noqa: SLF001

    def sleep(self, seconds: float | timedelta) -> None:
        """Let time pass in a run: see ``Workflow.sleep``."""
        run_blocking(self._waits._sleep(_seconds(seconds) or 0.0, SYNC))  # noqa: SLF001

    def sleep_until(self, moment: datetime) -> None:
        """Wait in a run until a moment: see ``Workflow.sleep_until``."""
        run_blocking(self._waits._sleep_until(moment, SYNC))  # noqa: SLF001


def _seconds(length: float | timedelta | None) -> float | None:
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise InvalidOption(f"{length!r} is no length of time", remedy="Give seconds, or a timedelta.")
    return seconds


async def wait_for_signal(scope: scopes.Scope, question: Question, mode: CallMode) -> Any:
    """The answer to a question that code of a run asks, or its replay.

    Args:
        scope: Where it is asked.
        question: What it wants to know.
        mode: How the caller waits.

    Raises:
        SignalTimeout: Nobody answered in time.
        SignalPending: Nobody is there to be asked.
    """
    call = Call(scope.own_id(signal_step(question.name)), StepKind.SIGNAL, called_seq=scope.tick())
    handle = await scope.run.begin_step(call, mode)
    with error_context(run_id=scope.run.run_id, step=call.step_id):
        if not handle.replayed:
            return await _answered(scope.run, handle, question, mode)
        if face := attached():
            step = handle.step
            face.show_answer(step.run_id, question.name, step.delivered_by or "", step.finished_at or 0.0)
        return await replay(scope.run, handle, mode)


async def _answered(run: RunHandle, handle: StepHandle, question: Question, mode: CallMode) -> Any:
    try:
        answer = await wait_for_answer(run, question, mode, handle)
    except SignalTimeout as late:
        await run.fail_step(handle, late, mode)
        raise
    step = await run.complete_step(handle, codec.encode(answer.value), mode, delivered_by=answer.by)
    return codec.decode(await run.load(step, mode))


async def _slept(run: RunHandle, call: Call, until: float, seconds: float, mode: CallMode) -> None:
    """Record until when, once, and wait for what is left of it."""
    handle = await run.begin_step(call, mode)
    if handle.decision.notice:
        warnings.warn(notice(run, handle), DurableNotice, stacklevel=2)
    if not handle.replayed:
        await run.complete_step(handle, codec.encode((until, seconds)), mode)
    elif run.history.moved_past(handle.step):  # it was over, whatever the clock says now
        return
    else:
        until, seconds = await replay(run, handle, mode)
    if _left(until, seconds) > settings.LONG_SLEEP:
        async with while_waiting(run, mode):
            await _pass_time(run, until, seconds, mode)
    else:
        await _pass_time(run, until, seconds, mode)


async def _pass_time(run: RunHandle, until: float, seconds: float, mode: CallMode) -> None:
    # By the clock, since a machine may have been asleep; but a clock that is set back adds nothing.
    end = time.monotonic() + _left(until, seconds)
    while (left := min(until - time.time(), end - time.monotonic())) > 0:
        await mode.sleep(min(left, settings.SLEEP_SLICE))
        run.check_stopped()


def _left(until: float, seconds: float) -> float:
    return max(0.0, min(until - time.time(), seconds))

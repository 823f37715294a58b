"""Waiting for somebody's answer: in the store, and through whatever face can ask a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from durable_nb import codec, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import branches
from durable_nb.errors import RunError, SignalInvalid, SignalPending, SignalTimeout, StoreError
from durable_nb.records import RunStatus, Signal, SignalRequest, signal_step
from durable_nb.signals import delivery, watcher
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import Ask, Interrupted, Prompter, attached
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle, StepHandle

__all__ = ["NOTHING", "Answer", "Question", "wait_for_answer", "while_waiting"]

NOTHING: Final = object()
"""Stands for a default that was not given."""

_BY_TIMEOUT = "its timeout"


@dataclass(frozen=True, slots=True)
class Question:
    """What a call wants to know.

    Attributes:
        name: The signal's name.
        prompt: What to tell whoever is asked.
        accepted: Which values will do.
        timeout: Seconds after which nobody is waited for any more; for ever if None.
        default: What is taken then; none if ``NOTHING``.
        poll: Seconds between two looks at a store that cannot tell when it has changed.
    """

    name: str
    prompt: str | None = None
    accepted: Accepted = field(default_factory=Accepted)
    timeout: float | None = None
    default: Any = NOTHING
    poll: float = settings.SIGNAL_POLL


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and from whom."""

    value: Any
    by: str
    at: float


@asynccontextmanager
async def while_waiting(run: RunHandle, mode: CallMode) -> AsyncIterator[None]:
    """Mark a run as waiting in the block, unless another block has; as running after the last of them."""
    run.waits += 1
    try:
        if run.waits == 1:
            await run.mark(RunStatus.WAITING, mode)
        yield
    except GeneratorExit:  # thrown away half-way: nothing can be awaited any more
        run.waits -= 1
        raise
    except BaseException:
        with suppress(StoreError, RunError):  # what ended the waiting is the one to see
            await _go_on(run, mode)
        raise
    await _go_on(run, mode)


async def _go_on(run: RunHandle, mode: CallMode) -> None:
    run.waits -= 1
    if not run.waits:
        await run.mark(RunStatus.RUNNING, mode)


async def wait_for_answer(
    run: RunHandle, question: Question, mode: CallMode, handle: StepHandle | None = None
) -> Answer:
    """The first valid answer that is delivered; one that was there before is given at once.

    Args:
        run: The run that wants to know.
        question: What it wants to know.
        mode: How the caller waits.
        handle: The step that waits for it, which is noted if it has to.

    Raises:
        SignalTimeout: None came in time.
        SignalPending: Nobody is there to be asked.
    """
    signal = await mode.store(run.journal.get_signal(run.run_id, question.name))
    refused = None
    if signal is not None:
        answer = await _accept(run, question, signal, mode)
        if isinstance(answer, Answer):
            _show(lambda prompter: prompter.show_answer(run.run_id, question.name, answer.by, answer.at))
            return answer
        refused = answer
    if handle is not None:
        await run.note_started(handle, mode)
    return await _Asked(run, question, mode).answer(refused)


async def _accept(run: RunHandle, question: Question, signal: Signal, mode: CallMode) -> Answer | str:
    """The answer; one that will not do is set aside, and why is given."""
    value = codec.decode(await mode.store(delivery.load(run.journal, signal)))
    try:
        if signal.delivered_by != _BY_TIMEOUT:  # a default need not be what others may say
            value = question.accepted.validated(value)
    except SignalInvalid as error:
        name = f"{signal.name}~{time.time_ns()}"
        await mode.store(run.journal.set_aside_signal(signal, name))
        return f"{error.what} (from {signal.delivered_by}, kept as {name!r})"
    return Answer(value, signal.delivered_by, signal.delivered_at)


class _Asked:
    """A question that is open: from its request to its answer."""

    def __init__(self, run: RunHandle, question: Question, mode: CallMode) -> None:
        self._run, self._question, self._mode = run, question, mode
        self._began = time.monotonic()
        self._prompter = attached()
        self._update: Callable[[str], None] = lambda _: None

    async def answer(self, refused: str | None) -> Answer:
        """Wait until a valid one is there."""
        async with while_waiting(self._run, self._mode):
            while True:
                request = await self._request(refused)
                self._update = self._shown(request)
                signal = await self._delivered(request)
                answer = await _accept(self._run, self._question, signal, self._mode)
                if isinstance(answer, Answer):
                    self._update(f"answered by {answer.by} at {delivery.spell_moment(answer.at)}")
                    return answer
                refused = answer

    async def _request(self, refused: str | None) -> SignalRequest:
        question = self._question
        request = SignalRequest(
            self._run.run_id,
            question.name,
            question.prompt,
            question.accepted.schema_json(),
            question.accepted.choices_json(),
            refused,
            this_process(),
            time.time(),
        )
        return await self._mode.store(self._run.journal.request_signal(request))

    def _shown(self, request: SignalRequest) -> Callable[[str], None]:
        if self._prompter is None:
            return lambda _: None
        if request.refused:
            self._update(f"set aside: {request.refused}")
        return self._prompter.show_waiting(self._run.journal, request, self._command(request))

    def _command(self, request: SignalRequest) -> str:
        return delivery.command(request, self._run.journal.address)

    async def _delivered(self, request: SignalRequest) -> Signal:
        left = self._left(request)
        askers = self._prompter.askers() if self._prompter and self._mode is ASYNC else ()
        headless_timeout = self._prompter.headless_timeout() if self._prompter and not askers else None
        limits = [limit for limit in (left, headless_timeout) if limit is not None]
        signal = await self._first(request, askers, min(limits, default=None))
        if signal is None:  # in the last moment, perhaps, after the last look
            signal = await self._mode.store(self._run.journal.get_signal(request.run_id, request.name))
        if signal is not None:
            return signal
        if headless_timeout is not None and (left is None or headless_timeout < left):
            raise self._pending(request)
        return await self._timed_out(request)

    def _left(self, request: SignalRequest) -> float | None:
        """Seconds until the timeout: by the clock since the first asking, and never more than was asked."""
        timeout = self._question.timeout
        if timeout is None:
            return None
        asked = timeout - (time.time() - request.asked_at)
        return max(0.0, min(asked, timeout - (time.monotonic() - self._began)))

    async def _first(
        self, request: SignalRequest, askers: Sequence[Ask], seconds: float | None
    ) -> Signal | None:
        looking = self._mode.wait_cancellable(
            watcher.delivered(
                self._run.journal,
                request.run_id,
                request.name,
                poll=self._question.poll,
                seconds=seconds,
                check=self._run.check_stopped,
            )
        )
        if not askers:
            return await looking
        return await _raced(looking, [self._ask(ask, request) for ask in askers])

    async def _ask(self, ask: Ask, request: SignalRequest) -> None:
        """Ask a person until a valid answer is in the store, this one or an earlier one."""
        while True:
            value = await ask(request)
            try:
                self._question.accepted.validated(value)
                signal = delivery.pack(request.run_id, request.name, value, f"{this_process()}, asked there")
                await ASYNC.store(delivery.deliver(self._run.journal, signal, value))
            except SignalInvalid as error:
                request = request._replace(refused=error.what)
            else:
                return

    async def _timed_out(self, request: SignalRequest) -> Signal:
        """Deliver the default as anybody would: who was faster has won, and who comes later is told."""
        run, question = self._run, self._question
        if question.default is NOTHING:
            await self._mode.store(run.journal.withdraw_signal(run.run_id, request.name))
            self._update("nobody answered in time")
            raise SignalTimeout(
                f"nobody answered within {question.timeout:g} s",
                run_id=run.run_id,
                step=signal_step(request.name),
                remedy=f"It is asked again when the run is; to answer before: {self._command(request)}",
            )
        signal = delivery.pack(run.run_id, request.name, question.default, _BY_TIMEOUT)
        return await self._mode.store(_put_or_get(run, signal))

    def _pending(self, request: SignalRequest) -> SignalPending:
        self._update("nobody is here to answer")
        pending = SignalPending(
            "it waits for a signal, and nobody is here to be asked",
            run_id=request.run_id,
            step=signal_step(request.name),
            remedy=f"Deliver it, then run this again: {self._command(request)}",
        )
        pending._render_traceback_ = lambda: [f"SignalPending: {pending}"]  # type: ignore[attr-defined]
        return pending


async def _put_or_get(run: RunHandle, signal: Signal) -> Signal:
    """The signal that is in the store then: this one, or the one that was faster. On the loop thread."""
    await delivery.put(run.journal, signal)
    return await run.journal.get_signal(signal.run_id, signal.name) or signal


async def _raced(looking: Awaitable[Signal | None], asking: Sequence[Awaitable[None]]) -> Signal | None:
    """Look in the store while people are asked; nothing is taken from them but through the store."""
    # In tasks that belong to no scope: they are no branches of the user's code.
    tasks = [branches.outside(work) for work in (looking, *asking)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks[1:]:
            if task.done():
                task.result()  # the answer is in the store, or asking failed
        found: Signal | None = await tasks[0]
    except Interrupted:
        raise KeyboardInterrupt from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


def _show(what: Callable[[Prompter], None]) -> None:
    if prompter := attached():
        what(prompter)

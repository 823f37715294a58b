"""Waiting for the answer to a question: in the store, and by prompting the user where a prompter is set."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from durable_nb import codec, settings
from durable_nb.concurrency.bridge import ASYNC
from durable_nb.engine import branches
from durable_nb.errors import SignalInvalid, SignalPending, SignalTimeout
from durable_nb.records import Signal, SignalRequest, signal_step
from durable_nb.signals import delivery, watcher
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.asking import asking
from durable_nb.signals.prompter import Ask, Interrupted, current_prompter
from durable_nb.stores.host import this_process
from durable_nb.stores.payloads import is_at_hand

if TYPE_CHECKING:
    from durable_nb.engine.caller import Caller
    from durable_nb.records import Step
    from durable_nb.stores.base import Journal

__all__ = ["NOTHING", "Answer", "Question", "wait_for_answer"]

NOTHING: Final = object()
"""Stands for a default that was not given."""

_BY_TIMEOUT = "its timeout"


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a run, answered by a signal.

    Attributes:
        name: The name of the signal.
        prompt: The text shown to the user who is asked.
        accepted: The values that are accepted.
        timeout: Seconds after which the wait ends; None waits without end.
        default: The answer then; ``NOTHING`` raises ``SignalTimeout``.
        poll: Seconds between two reads of a store that cannot report changes.
    """

    name: str
    prompt: str | None = None
    accepted: Accepted = field(default_factory=Accepted)
    timeout: float | None = None
    default: Any = NOTHING
    poll: float = settings.SIGNAL_POLL


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted answer: its value, who delivered it, and when, in seconds since the epoch."""

    value: Any
    by: str
    at: float


async def wait_for_answer(caller: Caller, question: Question, step: Step | None = None) -> Answer:
    """Return the first answer that is accepted; one that was delivered before is returned at once.

    Args:
        caller: The caller of the run that asks.
        question: The question.
        step: The step of the call; recorded as started, with the request, if it has to wait.

    Raises:
        SignalTimeout: No answer was delivered in time.
        SignalPending: This session has no one to prompt, and its ``headless_timeout`` has passed.
    """
    return await _OpenQuestion(caller, question, step).answer()


class _OpenQuestion:
    """A question from its first look for an answer to the answer."""

    def __init__(self, caller: Caller, question: Question, step: Step | None) -> None:
        self._caller, self._question, self._step = caller, question, step
        self._run, self._store = caller.run, caller.mode.store
        self._started = time.monotonic()
        self._prompter = current_prompter()
        self._update: Callable[[str], None] | None = None

    async def answer(self) -> Answer:
        """Wait until an answer is accepted."""
        refused = None
        while True:
            found = await self._store(self._find_or_request(self._request(refused)))
            signal = found if isinstance(found, Signal) else await self._wait_for_signal(found)
            answer = await self._accept(signal)
            if isinstance(answer, Answer):
                self._show_answer(answer)
                return answer
            refused = answer

    def _request(self, refused: str | None) -> SignalRequest:
        question = self._question
        return SignalRequest(
            self._run.run_id,
            question.name,
            question.prompt,
            question.accepted.schema_json(),
            question.accepted.choices_json(),
            refused,
            this_process(),
            time.time(),
        )

    async def _find_or_request(self, request: SignalRequest) -> Signal | SignalRequest:
        """Return the signal if it was delivered, else commit the request. Runs on the loop thread."""
        signal = await self._run.journal.get_signal(request.run_id, request.name)
        return signal or await self._run.commit_request(request, self._step)

    async def _accept(self, signal: Signal) -> Answer | str:
        """Return the answer, or set a signal that is not accepted aside and return the reason."""
        payload = signal.payload
        if not is_at_hand(payload):
            payload = await self._store(delivery.load_payload(self._run.journal, signal))
        value = codec.decode(payload)
        try:
            if signal.delivered_by != _BY_TIMEOUT:  # a default need not be among the accepted values
                value = self._question.accepted.validated(value)
        except SignalInvalid as error:
            name = f"{signal.name}~{time.time_ns()}"
            await self._store(self._run.journal.set_aside_signal(signal, name))
            return f"{error.what} (from {signal.delivered_by}, kept as {name!r})"
        return Answer(value, signal.delivered_by, signal.delivered_at)

    def _show_request(self, request: SignalRequest) -> None:
        if self._prompter is None:
            return
        if request.refused and self._update:
            self._update(f"set aside: {request.refused}")
        journal = self._run.journal
        self._update = self._prompter.show_waiting(journal, request, self._command(request))

    def _show_answer(self, answer: Answer) -> None:
        if self._update:
            self._update(f"answered by {answer.by} at {delivery.format_time(answer.at)}")
        elif self._prompter:
            self._prompter.show_answer(self._run.run_id, self._question.name, answer.by, answer.at)

    def _show_end(self, text: str) -> None:
        if self._update:
            self._update(text)

    def _command(self, request: SignalRequest) -> str:
        return delivery.answer_command(request, self._run.journal.address)

    async def _wait_for_signal(self, request: SignalRequest) -> Signal:
        self._show_request(request)
        left = self._remaining(request)
        askers = self._prompter.askers() if self._prompter else ()
        headless_timeout = self._prompter.headless_timeout() if self._prompter and not askers else None
        limits = [limit for limit in (left, headless_timeout) if limit is not None]
        signal = await self._watch_and_ask(request, askers, min(limits, default=None))
        if signal is None:  # it may have been delivered after the last read
            signal = await self._store(self._run.journal.get_signal(request.run_id, request.name))
        if signal is not None:
            return signal
        if headless_timeout is not None and (left is None or headless_timeout < left):
            raise self._pending(request)
        return await self._timed_out(request)

    def _remaining(self, request: SignalRequest) -> float | None:
        """Return the seconds until the timeout, counted from the first request, in any pass."""
        timeout = self._question.timeout
        if timeout is None:
            return None
        remaining = timeout - (time.time() - request.asked_at)
        # A clock that is set back makes the wait no longer.
        return max(0.0, min(remaining, timeout - (time.monotonic() - self._started)))

    async def _watch_and_ask(
        self, request: SignalRequest, askers: Sequence[Ask], seconds: float | None
    ) -> Signal | None:
        watching = self._caller.mode.wait_cancellable(
            watcher.wait_for_delivery(
                self._run.journal,
                request.run_id,
                request.name,
                poll=self._question.poll,
                seconds=seconds,
                check=self._caller.current.check_stopped,
            )
        )
        if not askers:
            return await watching
        if self._caller.mode is not ASYNC:
            with asking([functools.partial(self._ask, ask, request) for ask in askers]):
                return await watching
        return await _first_of(watching, [self._ask(ask, request) for ask in askers])

    async def _ask(self, ask: Ask, request: SignalRequest) -> None:
        """Ask the user until an accepted answer is in the store, this one or an earlier one."""
        while True:
            value = await ask(request)
            try:
                self._question.accepted.validated(value)
                signal = delivery.make_signal(
                    request.run_id, request.name, value, f"{this_process()}, asked there"
                )
                await ASYNC.store(delivery.deliver(self._run.journal, signal, value))
            except SignalInvalid as error:
                request = request._replace(refused=error.what)
            else:
                return

    async def _timed_out(self, request: SignalRequest) -> Signal:
        """Deliver the default like any other answer: if one was delivered before it, that one counts."""
        journal, question = self._run.journal, self._question
        if question.default is NOTHING:
            await self._store(journal.withdraw_signal(request.run_id, request.name))
            self._show_end("no answer in time")
            raise SignalTimeout(
                f"no answer to signal {request.name!r} within {question.timeout:g} s",
                run_id=request.run_id,
                step=signal_step(request.name),
                remedy=f"The run asks again when it is resumed. To answer now: {self._command(request)}",
            )
        signal = delivery.make_signal(request.run_id, request.name, question.default, _BY_TIMEOUT)
        return await self._store(_put_or_get(journal, signal))

    def _pending(self, request: SignalRequest) -> SignalPending:
        self._show_end("no one to prompt in this session")
        pending = SignalPending(
            f"waiting for signal {request.name!r}, and this session has no one to prompt",
            run_id=request.run_id,
            step=signal_step(request.name),
            remedy=f"Deliver the signal, then resume the run: {self._command(request)}",
        )
        pending._render_traceback_ = lambda: [f"SignalPending: {pending}"]  # type: ignore[attr-defined]
        return pending


async def _put_or_get(journal: Journal, signal: Signal) -> Signal:
    """Deliver a signal; return the one in the store, which may be an earlier one. Runs on the loop thread."""
    await delivery.put_signal(journal, signal)
    return await journal.get_signal(signal.run_id, signal.name) or signal


async def _first_of(watching: Awaitable[Signal | None], asking: Sequence[Awaitable[None]]) -> Signal | None:
    """Watch the store while the user is asked, and return the signal that is found.

    An answer of the user is delivered to the store, and found there like any other.
    """
    # In tasks without a scope: they must not count as branches of the user's code.
    tasks = [branches.task_without_scope(work) for work in (watching, *asking)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks[1:]:
            if task.done():
                task.result()  # raise if asking failed; otherwise the answer is in the store
        found: Signal | None = await tasks[0]
    except Interrupted:
        raise KeyboardInterrupt from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found

"""Running a coroutine from synchronous code, also where an event loop is running: in a notebook's cell."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any

from durable_nb import settings
from durable_nb.concurrency.bridge import check_process
from durable_nb.concurrency.interrupts import Relay
from durable_nb.errors import DurableError, InvalidOption

__all__ = ["run_here"]

_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run_here(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on one loop of a thread of its own, in the caller's context.

    One loop for all: clients of a model keep their connections on it. An interrupt cancels the coroutine,
    and waits a little until it has ended.

    Raises:
        ForkedProcess: It is called in a forked child.
        InvalidOption: It is called in such a coroutine, and would wait for itself.
    """
    try:
        check_process()
        _check_elsewhere()
    except DurableError:
        work.close()
        raise
    loop, context, outcome = _background(), contextvars.copy_context(), Future[Any]()
    relay = Relay()
    context.run(relay.enter)
    tasks: list[asyncio.Task[Any]] = []

    async def relayed() -> None:
        try:
            outcome.set_result(await work)
        except BaseException as error:  # whatever it is, it is the caller's
            outcome.set_exception(error)

    loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(relayed(), context=context)))
    try:
        return outcome.result()
    except KeyboardInterrupt:
        relay.interrupted = True
        if not outcome.done():
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())
        wait([outcome], settings.INTERRUPT_GRACE)
        raise


def _check_elsewhere() -> None:
    if _loop is not None and asyncio._get_running_loop() is _loop:  # noqa: SLF001 - None where none runs
        raise InvalidOption(
            "run_sync was called in async code that run_sync runs", remedy="Use: await agent.run(…)"
        )


def _background() -> asyncio.AbstractEventLoop:
    global _loop
    with _guard:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="durable_nb agents", daemon=True).start()
        return _loop

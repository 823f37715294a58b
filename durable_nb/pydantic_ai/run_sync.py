"""Running a coroutine from synchronous code, also if an event loop is running, as in a notebook."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any

from durable_nb import settings
from durable_nb.concurrency.forking import in_forked_child
from durable_nb.concurrency.interrupts import Relay
from durable_nb.errors import DurableError, InvalidOption

__all__ = ["run_coroutine"]

_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _forget() -> None:
    global _guard, _loop
    _guard, _loop = threading.Lock(), None


in_forked_child(_forget)


def run_coroutine(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the background loop in the caller's context, and return its result.

    All calls share one loop, because the clients of models keep their connections on it. A KeyboardInterrupt
    cancels the coroutine, and is raised again after at most ``settings.INTERRUPT_GRACE`` seconds.

    Args:
        work: The coroutine.

    Raises:
        InvalidOption: The caller is itself running on the background loop, and would wait for itself.
    """
    try:
        _check_not_nested()
    except DurableError:
        work.close()
        raise
    loop, context, outcome = _background_loop(), contextvars.copy_context(), Future[Any]()
    relay = Relay()
    context.run(relay.enter)
    tasks: list[asyncio.Task[Any]] = []

    async def run_work() -> None:
        try:
            outcome.set_result(await work)
        except BaseException as error:  # passed on to the caller
            outcome.set_exception(error)

    loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(run_work(), context=context)))
    try:
        return outcome.result()
    except KeyboardInterrupt:
        relay.interrupted = True
        if not outcome.done():
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())
        wait([outcome], settings.INTERRUPT_GRACE)
        raise


def _check_not_nested() -> None:
    if _loop is not None and asyncio._get_running_loop() is _loop:  # noqa: SLF001 - None where none runs
        raise InvalidOption(
            "run_sync() cannot be called from code that run_sync() is running",
            remedy="Use: await agent.run(…)",
        )


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _guard:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="durable_nb agents", daemon=True).start()
        return _loop

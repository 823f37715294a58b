"""Streamed model requests: events are handed on as they come and recorded; a replay emits the same ones."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from pydantic_ai.durable_exec._utils import DurableModel
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestContext, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

__all__ = ["Feed", "LiveModel", "Requests", "feed", "finishing"]

Requests: TypeAlias = "list[asyncio.Task[Any]]"

feed: contextvars.ContextVar[Feed | None] = contextvars.ContextVar("durable_nb_feed", default=None)
"""Where the model request that this code is part of puts its events."""


class Feed:
    """The events of one streamed request, from the task that makes it to whoever consumes them.

    Attributes:
        recorded: Copies of them, taken as they came: a consumer may change what it gets.
    """

    def __init__(self) -> None:
        self.recorded: list[Any] = []
        self._events: list[Any] = []
        self._news = asyncio.Event()
        self._over = False

    def put(self, event: Any) -> None:
        """Hand an event on."""
        self.recorded.append(copy.deepcopy(event))
        self._events.append(event)
        self._news.set()

    def end(self) -> None:
        """Say that no more will come."""
        self._over = True
        self._news.set()

    async def handle(self) -> None:
        """Wait for the first event, or the end."""
        await self._news.wait()

    async def read(self) -> AsyncIterator[Any]:
        """The events, each as soon as it is there."""
        seen = 0
        while True:
            while seen < len(self._events):
                seen += 1
                yield self._events[seen - 1]
            if self._over:
                return
            self._news.clear()
            await self._news.wait()

    def through(self, handler: Any) -> Callable[[RunContext[Any], AsyncIterator[Any]], Any]:
        """A handler that takes all events of the model's stream, also those that ``handler`` leaves."""

        async def handle(ctx: RunContext[Any], stream: AsyncIterator[Any]) -> None:
            events = self._passed(stream)
            if handler is not None:
                await handler(ctx, events)
            async for _ in events:
                pass

        return handle

    async def _passed(self, stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for event in stream:
            self.put(event)
            yield event


class _LiveStream(CompletedStreamedResponse):
    """A response that is still coming; complete as soon as the request is."""

    def __init__(
        self, events: Feed, request: asyncio.Task[Any], model: Model[Any], parameters: ModelRequestParameters
    ) -> None:
        handle = ModelResponse(parts=[], model_name=model.model_name, provider_name=model.system)
        super().__init__(handle, model_request_parameters=parameters, replay_events=[])
        self._feed, self._request = events, request

    async def _iter_buffered(self, events: list[Any]) -> AsyncIterator[Any]:  # noqa: ARG002 - the feed has them
        async for event in self._feed.read():
            self._parts_manager.apply_event(event)
            yield event
        await self.complete()

    async def complete(self) -> None:
        """Wait for the request, also where nobody read to the end: what was begun is recorded."""
        self.response = await asyncio.shield(self._request)
        self.state = self.response.state
        self._replay_events = False
        self._finished = True


@asynccontextmanager
async def finishing(left: Requests) -> AsyncIterator[None]:
    """Finish at the end of the block the requests that were left in it; one that fails has them cancelled."""
    try:
        yield
        await asyncio.gather(*left)
    except GeneratorExit:  # thrown away half-way: nothing can be awaited any more
        _cancel(left)
        raise
    except BaseException:
        _cancel(left)
        if left:
            await asyncio.wait(left)
        raise


def _cancel(left: Requests) -> None:
    for task in left:
        task.cancel()


class LiveModel(DurableModel):
    """Makes each streamed request a step whose events are seen while they come.

    Attributes:
        left: Where a request is put whose reader is gone, for whoever ends the run; None where nobody does.
    """

    left: Requests | None = None

    @classmethod
    def of(cls, model: DurableModel, left: Requests | None, wrapped: Model[Any] | None = None) -> LiveModel:
        """The same model, live."""
        live = cls(
            wrapped or model.wrapped,
            request_segment=model._request_segment,  # noqa: SLF001
            request_stream_segment=model._request_stream_segment,  # noqa: SLF001
            compact_messages_segment=model._compact_messages_segment,  # noqa: SLF001
            cancel_suspended_response_segment=model._cancel_suspended_response_segment,  # noqa: SLF001
        )
        live.left = left
        return live

    def _with_serving_wrapper(self, wrap: Callable[[Model[Any]], Model[Any]]) -> Model[Any]:
        wrapped = wrap(self.wrapped)
        return self if wrapped is self.wrapped else self.of(self, self.left, wrapped)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002 - part of the signature
    ) -> Any:
        """Begin the request, or give back the recorded one; its events come as they come."""
        request = ModelRequestContext(
            model=self.wrapped,
            messages=messages,
            model_settings=model_settings,
            model_request_parameters=model_request_parameters,
        )
        events, context = Feed(), contextvars.copy_context()
        context.run(feed.set, events)
        segment: Any = self._request_stream_segment(request)
        task = asyncio.get_running_loop().create_task(segment, context=context)
        task.add_done_callback(lambda _: events.end())
        try:
            await events.handle()
            if task.done() and not events.recorded:
                task.result()  # it failed before anything was seen: the request may be made elsewhere
            stream = _LiveStream(events, task, self.wrapped, model_request_parameters)
            try:
                yield stream
            except GeneratorExit:  # whoever reads it has stopped half-way
                await stream.complete()
                raise
            await stream.complete()
        finally:
            if not task.done():
                await self._leave(task)

    async def _leave(self, task: asyncio.Task[Any]) -> None:
        """See a request off whose reader was cancelled: by the user, or by a ``stream_text`` that stops."""
        if self.left is not None:
            self.left.append(task)
        else:
            task.cancel()
            await asyncio.wait([task])

"""Streamed model requests: events are passed on as they arrive and recorded; a replay emits them again."""

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

__all__ = ["Feed", "LiveModel", "Requests", "awaited_at_end", "feed"]

Requests: TypeAlias = "list[asyncio.Task[Any]]"

feed: contextvars.ContextVar[Feed | None] = contextvars.ContextVar("durable_nb_feed", default=None)
"""The feed for the events of the model request that the current code is part of."""


class Feed:
    """The events of one streamed request, passed from the task that makes it to their consumer.

    Attributes:
        recorded: Copies of the events, made as they arrive, since a consumer may change an event.
    """

    def __init__(self) -> None:
        self.recorded: list[Any] = []
        self._events: list[Any] = []
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, event: Any) -> None:
        """Add an event."""
        self.recorded.append(copy.deepcopy(event))
        self._events.append(event)
        self._changed.set()

    def end(self) -> None:
        """Mark the end of the events."""
        self._ended = True
        self._changed.set()

    async def wait_for_first(self) -> None:
        """Wait for the first event, or for the end."""
        await self._changed.wait()

    async def read(self) -> AsyncIterator[Any]:
        """Yield the events as they arrive, until the end."""
        count = 0
        while True:
            while count < len(self._events):
                count += 1
                yield self._events[count - 1]
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()

    def through(self, handler: Any) -> Callable[[RunContext[Any], AsyncIterator[Any]], Any]:
        """Return a handler that adds all events of a stream to the feed, read by ``handler`` or not."""

        async def handle(ctx: RunContext[Any], stream: AsyncIterator[Any]) -> None:
            events = self._recording(stream)
            if handler is not None:
                await handler(ctx, events)
            async for _ in events:
                pass

        return handle

    async def _recording(self, stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for event in stream:
            self.put(event)
            yield event


class _LiveStream(CompletedStreamedResponse):
    """A response that is still being received; it is complete when the request is."""

    def __init__(
        self, events: Feed, request: asyncio.Task[Any], model: Model[Any], parameters: ModelRequestParameters
    ) -> None:
        response = ModelResponse(parts=[], model_name=model.model_name, provider_name=model.system)
        super().__init__(response, model_request_parameters=parameters, replay_events=[])
        self._feed, self._request = events, request

    async def _iter_buffered(self, events: list[Any]) -> AsyncIterator[Any]:  # noqa: ARG002 - read from the feed
        async for event in self._feed.read():
            self._parts_manager.apply_event(event)
            yield event
        await self.complete()

    async def complete(self) -> None:
        """Wait for the request, also if its events were not read to the end, so that it is recorded."""
        self.response = await asyncio.shield(self._request)
        self.state = self.response.state
        self._replay_events = False
        self._finished = True


@asynccontextmanager
async def awaited_at_end(requests: Requests) -> AsyncIterator[None]:
    """Await the given requests at the end of the block; if the block raises, cancel them.

    Args:
        requests: A list to which requests are appended inside the block.
    """
    try:
        yield
        await asyncio.gather(*requests)
    except GeneratorExit:  # the generator is closed: nothing can be awaited
        _cancel(requests)
        raise
    except BaseException:
        _cancel(requests)
        if requests:
            await asyncio.wait(requests)
        raise


def _cancel(requests: Requests) -> None:
    for task in requests:
        task.cancel()


class LiveModel(DurableModel):
    """A model that makes each streamed request a step, and passes its events on as they arrive.

    Attributes:
        unread_requests: Receives requests whose reader was cancelled; if None, they are cancelled.
    """

    unread_requests: Requests | None = None

    @classmethod
    def of(
        cls, model: DurableModel, unread_requests: Requests | None, wrapped: Model[Any] | None = None
    ) -> LiveModel:
        """Return a live model for a durable one.

        Args:
            model: The durable model.
            unread_requests: Receives requests whose reader was cancelled.
            wrapped: The model that makes the requests; by default the one that ``model`` wraps.
        """
        live = cls(
            wrapped or model.wrapped,
            request_segment=model._request_segment,  # noqa: SLF001
            request_stream_segment=model._request_stream_segment,  # noqa: SLF001
            compact_messages_segment=model._compact_messages_segment,  # noqa: SLF001
            cancel_suspended_response_segment=model._cancel_suspended_response_segment,  # noqa: SLF001
        )
        live.unread_requests = unread_requests
        return live

    def _with_serving_wrapper(self, wrap: Callable[[Model[Any]], Model[Any]]) -> Model[Any]:
        wrapped = wrap(self.wrapped)
        return self if wrapped is self.wrapped else self.of(self, self.unread_requests, wrapped)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002 - part of the signature
    ) -> Any:
        """Start or replay a request, and pass its events on as they arrive: see ``Model.request_stream``."""
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
            await events.wait_for_first()
            if task.done() and not events.recorded:
                task.result()  # it failed without an event: a fallback model may take the request
            stream = _LiveStream(events, task, self.wrapped, model_request_parameters)
            try:
                yield stream
            except GeneratorExit:  # the reader stopped before the end
                await stream.complete()
                raise
            await stream.complete()
        finally:
            if not task.done():
                await self._detach(task)

    async def _detach(self, task: asyncio.Task[Any]) -> None:
        """Keep or cancel a request whose reader was cancelled, by the user or the end of ``stream_text``."""
        if self.unread_requests is not None:
            self.unread_requests.append(task)
        else:
            task.cancel()
            await asyncio.wait([task])

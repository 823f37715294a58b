"""Prompts in the notebook's page: the form that the page shows, and the answers that it sends back.

The page's script uses the kernel's control channel, which has a thread of its own: an answer arrives even
while the waiting cell blocks the kernel. It is delivered to the store, where the waiting call reads it.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import secrets
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from durable_nb.concurrency.bridge import submit
from durable_nb.errors import DurableError
from durable_nb.signals import accepted, delivery, schema
from durable_nb.stores.host import this_process

if TYPE_CHECKING:
    from durable_nb.records import SignalRequest
    from durable_nb.stores.base import Journal

__all__ = ["Prompts"]

_REQUEST: Final = "durable_signal_request"
_REPLY: Final = "durable_signal_reply"

_FRAME: Final = """\
<style>{style}</style>
<div class="dnb" data-durable-nb="{id}">
<div class="dnb-title">{title}</div>
<div class="dnb-who">{who}</div>
{refused}<div class="dnb-form"></div>
<div class="dnb-command">To answer: <code>{command}</code></div>
</div>
<script>(ask => ({prompt})(ask, ({fields})(ask)))({ask})</script>"""

_GONE: Final = "The kernel no longer waits for this answer. Run the cell again, or use the command below."
_SILENT: Final = (
    "The kernel does not reply: it was restarted, or cannot be reached from here. Use the command below."
)


class Prompts:
    """The prompts that pages show, each with a token that is valid for one answer.

    Args:
        kernel: The kernel on whose control channel answers arrive.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._open: dict[str, tuple[Journal, SignalRequest]] = {}
        self._over: dict[str, str] = {}
        kernel.control_handlers[_REQUEST] = self._handle

    def show(
        self, journal: Journal, request: SignalRequest, command: str
    ) -> tuple[str, Callable[[str], None]]:
        """Create the prompt for a request.

        Args:
            journal: The store that the answer is delivered to.
            request: The request.
            command: The command that answers it from elsewhere.

        Returns:
            The prompt's HTML, and a function that closes the prompt with a text that says how it ended.
        """
        schema.load()  # now, so that the first answer is fast
        token = secrets.token_urlsafe()
        self._open[token] = journal, request

        def close(message: str) -> None:
            self._over.setdefault(token, message)  # first: the page asks from another thread
            self._open.pop(token, None)

        return _html(request, command, token, self._kernel_id()), close

    def _kernel_id(self) -> str:
        # The server names the connection file after the id; the kernel has no other source for it.
        found = re.search(r"kernel-([\w-]+)\.json$", self._kernel.config["IPKernelApp"]["connection_file"])
        return found[1] if found else ""

    async def _handle(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Answer a message of the page; runs in the kernel's control thread."""
        reply = await self._replied(parent["content"])
        self._kernel.session.send(stream, _REPLY, reply, parent, ident=ident)

    async def _replied(self, content: dict[str, Any]) -> dict[str, Any]:
        token = str(content.get("token"))
        if token in self._over:
            return {"status": "over", "text": self._over[token]}
        prompt = self._open.get(token)
        if prompt is None:
            return {"status": "unknown"}
        if "value" not in content:
            return {"status": "open"}
        journal, request = prompt
        if problems := await asyncio.to_thread(accepted.problems, request, content["value"]):
            return {
                "status": "invalid",
                "problems": [{"path": one.path, "text": one.text} for one in problems],
            }
        return await self._delivered(token, journal, request, content["value"])

    async def _delivered(
        self, token: str, journal: Journal, request: SignalRequest, value: Any
    ) -> dict[str, Any]:
        signal = delivery.make_signal(
            request.run_id, request.name, value, f"{this_process()}, in the notebook"
        )
        try:
            earlier = await asyncio.wrap_future(submit(delivery.deliver(journal, signal, value)))
        except DurableError as error:
            return {"status": "invalid", "problems": [{"path": [], "text": str(error)}]}
        first = earlier or signal
        self._over[token] = f"answered by {first.delivered_by} at {delivery.format_time(first.delivered_at)}"
        return {"status": "over", "text": self._over[token]}


def _html(request: SignalRequest, command: str, token: str, kernel_id: str) -> str:
    title = request.prompt or f"{request.name}?"
    ask = {
        "id": f"dnb-{secrets.token_hex(8)}",
        "token": token,
        "kernel": kernel_id,
        "title": title,
        "schema": json.loads(request.schema) if request.schema else None,
        "choices": json.loads(request.choices) if request.choices else None,
        "gone": _GONE,
        "silent": _SILENT,
    }
    refused = f'<div class="dnb-problem">{html.escape(request.refused)}</div>\n' if request.refused else ""
    return _FRAME.format(
        style=_asset("page.css"),
        id=ask["id"],
        title=html.escape(title),
        who=html.escape(f"signal {request.name!r} of run {request.run_id!r}"),
        refused=refused,
        command=html.escape(command),
        prompt=_asset("page.js"),
        fields=_asset("fields.js"),
        ask=json.dumps(ask).replace("<", "\\u003c"),  # no value can end the script element
    )


@cache
def _asset(name: str) -> str:
    return (files("durable_nb.notebook.prompts") / name).read_text(encoding="utf-8").strip()

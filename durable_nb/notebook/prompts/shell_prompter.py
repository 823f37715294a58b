"""How a person is asked in a shell: in the page, over the front end's own input line, or in a terminal."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.errors import SignalInvalid
from durable_nb.notebook.display import badge
from durable_nb.notebook.prompts.page import Prompts
from durable_nb.notebook.shell import frontend
from durable_nb.signals.delivery import format_time
from durable_nb.signals.prompter import Interrupted
from durable_nb.signals.typed import hint, read_answer

if TYPE_CHECKING:
    from durable_nb.notebook.session import Session
    from durable_nb.records import SignalRequest
    from durable_nb.signals.prompter import Ask
    from durable_nb.stores.base import Journal

__all__ = ["GRACE", "ShellPrompter"]

GRACE = "DURABLE_NB_SIGNAL_GRACE"
"""The environment variable with the seconds that a notebook without a person waits for a signal."""

END_OF_INPUT = "\x04"


class ShellPrompter:
    """Shows and asks in one IPython shell.

    Args:
        shell: The shell.
        session: How its lines are to look.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        self._turn = asyncio.Lock()
        kernel = getattr(shell, "kernel", None)
        self._page = Prompts(kernel) if kernel is not None and frontend.is_jupyter_server() else None

    def headless_timeout(self) -> float | None:
        """Seconds that a call may wait: for ever where a person is there, or a terminal."""
        if not frontend.is_headless(self._shell):
            return None
        return float(os.environ.get(GRACE, settings.SIGNAL_GRACE))

    def askers(self) -> Sequence[Ask]:
        """The one way in which this front end can ask, if it can."""
        read = self._reader()
        return () if read is None else (functools.partial(self._ask, read),)

    def can_prompt(self, *, blocking: bool) -> bool:
        """Whether a person can answer here: in the page, or asked while code awaits."""
        return self._open_page() is not None or (not blocking and bool(self.askers()))

    def show_waiting(self, journal: Journal, request: SignalRequest, command: str) -> Callable[[str], None]:
        """Show what is waited for, and how to answer from elsewhere; in a page, with a form."""
        choices = f"one of {hint(request)}" if request.choices else None
        waits = f"waiting for signal {request.name!r} of run {request.run_id!r}"
        parts = [request.prompt, waits, request.refused, choices, command]
        text = " · ".join(filter(None, parts))
        page = self._open_page()
        form, close = page.show(journal, request, command) if page else (None, None)
        line = badge.SignalLine(self._session.badge, request.name, text, form=form)

        def over(message: str) -> None:
            if close is not None:
                close(message)
            line.update(f"{self._elsewhere(request.run_id)}{message}")

        return over

    def _open_page(self) -> Prompts | None:
        return None if frontend.is_headless(self._shell) else self._page

    def show_answer(self, run_id: str, name: str, by: str, at: float) -> None:
        """Show who had answered."""
        text = f"{self._elsewhere(run_id)}answered by {by} at {format_time(at)}"
        badge.SignalLine(self._session.badge, name, text, is_over=True)

    def _elsewhere(self, run_id: str) -> str:
        """The run, where that is not the notebook's own."""
        run = self._session.run
        return "" if run is not None and run.run_id == run_id else f"run {run_id!r} · "

    def _reader(self) -> Callable[[str], Awaitable[str]] | None:
        """What reads a line that a person types, without blocking the loop."""
        if threading.current_thread() is not threading.main_thread():
            return None
        kernel = getattr(self._shell, "kernel", None)
        if kernel is None:
            return _read_in_terminal if sys.stdin.isatty() else None
        # An input line that nobody uses any more stops all later cells of JupyterLab and Notebook.
        if frontend.is_headless(self._shell) or frontend.is_jupyter_server():
            return None
        return functools.partial(_read_over_stdin, kernel)

    async def _ask(self, read: Callable[[str], Awaitable[str]], request: SignalRequest) -> Any:
        async with self._turn:  # one input line at a time
            while True:
                typed = await read(_prompt(request))
                try:
                    return read_answer(request, typed)
                except SignalInvalid as error:
                    request = request._replace(refused=error.what)


def _prompt(request: SignalRequest) -> str:
    refused = f"{request.refused}\n" if request.refused else ""
    return f"{refused}{request.prompt or request.name} [{hint(request)}]: "


async def _read_in_terminal(prompt: str) -> str:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.patch_stdout import patch_stdout

    try:
        with patch_stdout():
            return await PromptSession[str]().prompt_async(prompt)
    except (KeyboardInterrupt, EOFError):  # out of a task, the first one would end the loop
        raise Interrupted from None


async def _read_over_stdin(kernel: Any, prompt: str) -> str:
    """Ask as ``input()`` does, but look for what was typed instead of waiting for it."""
    while _received(kernel) is not None:
        pass  # what was typed for a question that is over
    ident, parent = frontend.stdin_route(kernel)
    content = {"prompt": prompt, "password": False}
    kernel.session.send(kernel.stdin_socket, "input_request", content, parent, ident=ident)
    while (reply := _received(kernel)) is None:  # noqa: ASYNC110 - a socket of another event loop's
        await asyncio.sleep(settings.ANSWER_POLL)
    typed = str(reply["content"].get("value", ""))
    if typed == END_OF_INPUT:
        raise Interrupted
    return typed


def _received(kernel: Any) -> dict[str, Any] | None:
    import zmq

    _, reply = kernel.session.recv(kernel.stdin_socket, mode=zmq.NOBLOCK)
    message: dict[str, Any] | None = reply
    return message

"""Prompt the user of a shell: in the notebook page, over the front end's input line, or in a terminal."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.errors import SignalInvalid, printable
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
"""The environment variable with the seconds that a headless notebook waits for a signal."""

END_OF_INPUT = "\x04"


class ShellPrompter:
    """The prompter of one IPython shell.

    Args:
        shell: The shell.
        session: The session, which determines the badge of status lines.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        self._is_asking = False
        kernel = getattr(shell, "kernel", None)
        self._page = Prompts(kernel) if kernel is not None and frontend.is_jupyter_server() else None

    def headless_timeout(self) -> float | None:
        """Return the seconds that a call may wait; None, without limit, unless the shell is headless."""
        if not frontend.is_headless(self._shell):
            return None
        return float(os.environ.get(GRACE, settings.SIGNAL_GRACE))

    def askers(self) -> Sequence[Ask]:
        """Return the function that prompts in this front end, if there is one."""
        read = self._reader()
        return () if read is None else (functools.partial(self._ask, read),)

    def can_prompt(self) -> bool:
        """Return whether the user can answer here: in the page or at a prompt."""
        return self._open_page() is not None or bool(self.askers())

    def show_waiting(self, journal: Journal, request: SignalRequest, command: str) -> Callable[[str], None]:
        """Show that a call waits for a signal, and how to answer it; in a page, with a form."""
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
        """Show by whom and when a signal was answered."""
        text = f"{self._elsewhere(run_id)}answered by {by} at {format_time(at)}"
        badge.SignalLine(self._session.badge, name, text, is_over=True)

    def _elsewhere(self, run_id: str) -> str:
        """Return a prefix that names the run, unless it is the notebook's own."""
        current = self._session.current
        return "" if current is not None and current.opening.run_id == run_id else f"run {run_id!r} · "

    def _reader(self) -> Callable[[str], Awaitable[str]] | None:
        """Return a function that reads a line without blocking the event loop, if there is one."""
        if threading.current_thread() is not threading.main_thread():
            return None
        kernel = getattr(self._shell, "kernel", None)
        if kernel is None:
            return _read_in_terminal if sys.stdin.isatty() else None
        # In JupyterLab and Notebook an abandoned input line blocks all later cells.
        if frontend.is_headless(self._shell) or frontend.is_jupyter_server():
            return None
        return functools.partial(_read_over_stdin, kernel)

    async def _ask(self, read: Callable[[str], Awaitable[str]], request: SignalRequest) -> Any:
        while self._is_asking:  # noqa: ASYNC110 - one input line at a time, of any event loop
            await asyncio.sleep(settings.ANSWER_POLL)
        self._is_asking = True
        try:
            while True:
                typed = await read(_prompt(request))
                try:
                    return read_answer(request, typed)
                except SignalInvalid as error:
                    request = request._replace(refused=error.what)
        finally:
            self._is_asking = False


def _prompt(request: SignalRequest) -> str:
    refused = f"{request.refused}\n" if request.refused else ""
    return printable(f"{refused}{request.prompt or request.name} [{hint(request)}]: ")


async def _read_in_terminal(prompt: str) -> str:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.patch_stdout import patch_stdout

    try:
        with patch_stdout():
            return await PromptSession[str]().prompt_async(prompt)
    except (KeyboardInterrupt, EOFError):  # raised in a task, KeyboardInterrupt would end the event loop
        raise Interrupted from None


async def _read_over_stdin(kernel: Any, prompt: str) -> str:
    """Prompt as ``input()`` does, but poll for the reply instead of blocking."""
    while _received(kernel) is not None:
        pass  # replies to an earlier prompt
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

"""Record the outputs of a cell, and display them again.

A recording holds the outputs that a front end shows once the cell is finished, as JSON messages such as
``{"type": "stream", "content": {"name": "stdout", "text": "done"}}``. It omits overwritten lines, cleared
outputs and superseded displays. Widgets are recorded as text, since their state is not in the output.
"""

from __future__ import annotations

import functools
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from IPython.lib.pretty import pretty

from durable_nb import _stored, settings
from durable_nb.notebook.display.coalesce import DISPLAYS, coalesced
from durable_nb.notebook.namespace.restore import NO_RESULT

__all__ = ["MARK", "Recorder", "Recording", "replay", "unseen_ends"]

MARK: Final = "durable_nb"
"""The metadata key of displays that this package makes; they are not recorded."""

KEPT: Final = DISPLAYS | {"stream", "execute_result", "clear_output"}
WIDGET: Final = "application/vnd.jupyter.widget-view+json"
"""The MIME type that refers to a widget's state in its kernel; in another kernel it shows an error."""


class Recording:
    """The outputs displayed while a block of code ran.

    Attributes:
        cell: The id of the request that runs the cell; None in a terminal.
        result: The last value passed to the display hook, or ``NO_RESULT``.
        messages: All messages so far, oldest first.
    """

    def __init__(self, cell: str | None) -> None:
        self.cell = cell
        self.result: Any = NO_RESULT
        self.messages: list[dict[str, Any]] = []

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The visible outputs, as JSON messages; widgets as the text of their last state."""
        return coalesced(filter(None, map(_without_widget, self.messages)))


class Recorder:
    """Listens to the outputs of a shell; one per shell, see `of`.

    Two recordings in one cell, nested or concurrent, each contain all outputs of the cell during their time:
    outputs are attributed to cells, not to smaller units.

    Args:
        shell: The IPython shell, of a kernel or of a terminal.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._recordings: list[Recording] = []
        self._pauses = 0
        self._silent: str | None = None
        self._in_terminal = not hasattr(shell, "kernel")
        self._listen_for_values(shell.displayhook)
        if self._in_terminal:
            self._listen_to_terminal(shell.displayhook)
        else:
            self._listen_to_kernel(shell.kernel.session)

    @classmethod
    def of(cls, shell: Any) -> Recorder:
        """Return the recorder of a shell, installing it at the first call."""
        recorder: Recorder | None = getattr(shell, "durable_nb_recorder", None)
        if recorder is None:
            recorder = shell.durable_nb_recorder = cls(shell)
        return recorder

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Collect the outputs of the current cell during the block; they are displayed as usual."""
        _flush_figures()
        _drain_pipes()  # a subprocess of an earlier cell may have written late
        _flush_streams()
        recording = Recording(self._cell())
        with ExitStack() as stack:
            for name in ("stdout", "stderr") if self._in_terminal and not self._recordings else ():
                stack.enter_context(self._tee(name))
            self._recordings.append(recording)
            try:
                yield recording
                _flush_figures()
            finally:
                _drain_pipes()
                _flush_streams()
                self._recordings.remove(recording)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing during the block."""
        _flush_streams()
        self._pauses += 1
        try:
            yield
        finally:
            _flush_streams()
            self._pauses -= 1

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """In a kernel, drop what the current cell prints during the block."""
        _flush_streams()
        self._silent = self._cell()
        try:
            yield
        finally:
            _flush_streams()
            self._silent = None

    def _cell(self) -> str | None:
        parent = getattr(self._shell.displayhook, "parent_header", {})
        return parent.get("msg_id")

    def _concerned(self, cell: str | None) -> list[Recording]:
        return [] if self._pauses else [one for one in self._recordings if one.cell == cell]

    def _keep(self, cell: str | None, kind: str, content: dict[str, Any]) -> None:
        for recording in self._concerned(cell):
            recording.messages.append({"type": kind, "content": content})

    def _listen_for_values(self, hook: Any) -> None:
        # Not every value sends an execute_result: some display themselves and send another message or none.
        update_user_ns = hook.update_user_ns

        @functools.wraps(update_user_ns)
        def listening(value: Any) -> None:
            update_user_ns(value)
            for recording in self._concerned(self._cell()):
                recording.result = value

        hook.update_user_ns = listening

    def _listen_to_kernel(self, session: Any) -> None:
        send = session.send

        @functools.wraps(send)
        def listening(*args: Any, **kwargs: Any) -> Any:
            if self._silent is not None and _stream_of(*args[1:2], **kwargs) == self._silent:
                return None
            message = send(*args, **kwargs)
            if message is not None and self._recordings and message["msg_type"] in KEPT:
                self._keep_message(session, message)
            return message

        session.send = listening

    def _keep_message(self, session: Any, message: dict[str, Any]) -> None:
        content = message["content"]
        if MARK in message["metadata"] or MARK in (content.get("metadata") or {}):
            return
        if message["msg_type"] != "stream":  # copy: a display may hold objects that the cell changes later
            content = session.unpack(session.pack(content))
        self._keep(message["parent_header"].get("msg_id"), message["msg_type"], content)

    def _listen_to_terminal(self, hook: Any) -> None:
        # The prompt Out[3] has another number at replay, so it is not recorded.
        for name in ("write_output_prompt", "write_format_data", "finish_displayhook"):
            setattr(hook, name, self._unrecorded(getattr(hook, name)))
        write_format_data = hook.write_format_data

        @functools.wraps(write_format_data)
        def listening(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
            text = {mime: value for mime, value in data.items() if mime == "text/plain"}
            self._keep(self._cell(), "execute_result", {"data": text, "metadata": {}})
            write_format_data(data, metadata)

        hook.write_format_data = listening

    def _unrecorded(self, write: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(write)
        def unrecorded(*args: Any, **kwargs: Any) -> None:
            with self.paused():
                write(*args, **kwargs)

        return unrecorded

    @contextmanager
    def _tee(self, name: str) -> Iterator[None]:
        stream = getattr(sys, name)
        write = stream.write

        def teed(text: str) -> Any:
            count = write(text)
            self._keep(self._cell(), "stream", {"name": name, "text": text})
            return count

        stream.write = teed
        try:
            yield
        finally:
            stream.write = write


def replay(shell: Any, outputs: Iterable[dict[str, Any]], *, result: Any = NO_RESULT) -> None:
    """Display a recording as outputs of the current cell, and set ``Out`` and ``_``; runs no user code.

    Args:
        shell: The IPython shell, of a kernel or of a terminal.
        outputs: A recording's outputs.
        result: The value of the cell's last expression, if it has one.
    """
    with Recorder.of(shell).paused():
        for output in outputs:
            _display_output(shell, output["type"], output["content"])
        if result is not NO_RESULT:
            hook = shell.displayhook
            hook.check_for_underscore()
            hook.update_user_ns(result)
            hook.fill_exec_result(result)


@contextmanager
def unseen_ends(shell: Any) -> Iterator[None]:
    """Drop what objects print that come to their end because the block binds their names to others.

    A bar of progress shows itself once more then; the cell that is replayed did not.

    Args:
        shell: The IPython shell, of a kernel or of a terminal.
    """
    ending = [value for value in shell.user_ns.values() if hasattr(type(value), "__del__")]
    try:
        yield
    finally:
        with Recorder.of(shell).silenced() if ending else nullcontext():
            ending.clear()


def _stream_of(message: Any = None, *, parent: Any = None, **_: Any) -> str | None:
    """Return the cell that a printed text is of, which a kernel is about to send; None for others."""
    if isinstance(message, dict):  # from ipykernel 7 on
        return message["parent_header"].get("msg_id") if message["msg_type"] == "stream" else None
    return (parent or {}).get("msg_id") if message == "stream" else None


def _display_output(shell: Any, kind: str, content: dict[str, Any]) -> None:
    if kind == "stream":
        stream = _stream(content["name"])
        stream.write(content["text"])
        stream.flush()
    elif kind == "execute_result":
        _display_result(shell.displayhook, content["data"], content["metadata"])
    else:
        shell.display_pub.publish(
            data=content["data"],
            metadata=content["metadata"],
            transient=content.get("transient"),
            update=kind == "update_display_data",
        )


def _display_result(hook: Any, data: dict[str, Any], metadata: dict[str, Any]) -> None:
    # As DisplayHook.__call__, with recorded data in place of the value's representation.
    hook.start_displayhook()
    hook.write_output_prompt()
    hook.write_format_data(data, metadata)
    hook.log_output(data)
    hook.finish_displayhook()


def _without_widget(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return a message that needs no widget's state in its kernel; None if its widget was closed."""
    content = message["content"]
    data = content.get("data", {})
    if WIDGET not in data or len(data) == 1:
        return message
    rest = {mime: value for mime, value in data.items() if mime != WIDGET}
    text = _widget_text(data[WIDGET].get("model_id"))
    if text is not None:
        rest["text/plain"] = text
    return None if text == "" else {**message, "content": {**content, "data": rest}}


def _widget_text(model_id: str | None) -> str | None:
    """Return the text of a widget's state now; "" if it is not shown any more, None if it is not known."""
    module = sys.modules.get("ipywidgets.widgets.widget")
    widget = getattr(module, "_instances", {}).get(model_id)
    if widget is None:
        return None if module is None else ""
    try:
        hidden = widget.layout.visibility == "hidden" or widget.layout.display == "none"
        text: str = "" if hidden else pretty(widget)  # type: ignore[no-untyped-call]
    except Exception:  # a widget without a layout, or of the user's
        return None
    return text


def _stream(name: str) -> Any:
    """Return the stream on which a kernel sends output, also while a cell has put another in its place."""
    own = _stored.STREAMS[name]
    return own if hasattr(own, "watch_fd_thread") else getattr(sys, name)


def _flush_figures() -> None:
    # Otherwise matplotlib would display them only after the cell.
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None:
        inline.flush_figures()


def _flush_streams() -> None:
    # A kernel sends printed text up to 0.2 s later, from another thread.
    for name in ("stdout", "stderr"):
        _stream(name).flush()


def _drain_pipes() -> None:
    """Wait until a kernel's threads have read the output of subprocesses and C code from the pipes."""
    streams = [_stream("stdout"), _stream("stderr")]
    piped = [stream for stream in streams if getattr(stream, "_fid", None) is not None]
    deadline = time.monotonic() + settings.OUTPUT_PATIENCE
    while any(map(_has_pending_output, piped)) and time.monotonic() < deadline:
        time.sleep(settings.OUTPUT_POLL)


def _has_pending_output(stream: Any) -> bool:
    """Return whether output written to the file descriptor has not reached the stream yet."""
    if select.select([stream._fid], [], [], 0)[0]:  # noqa: SLF001 - ipykernel's end of the pipe
        return True
    # The reader thread may have read the pipe and be waiting for the GIL: on Linux /proc shows what it does.
    try:
        call = Path(f"/proc/self/task/{stream.watch_fd_thread.native_id}/syscall").read_text("ascii")
    except (OSError, AttributeError):
        time.sleep(settings.OUTPUT_POLL)
        return False
    return call.split()[1:2] != [hex(stream._fid)]  # noqa: SLF001

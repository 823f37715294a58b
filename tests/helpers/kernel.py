"""Real kernels for tests: started, interrupted, killed, and never left behind."""

import contextlib
import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

import zmq
from jupyter_client.blocking import BlockingKernelClient

from . import spare

ANSI = re.compile(r"\x1b\[[\d;]*m")
TIMEOUT = 60.0


class KernelDied(Exception):
    """The kernel's process ended while a cell was running."""


@dataclass
class Cell:
    """What came back from one execution of a cell."""

    reply: dict
    messages: list[dict] = field(repr=False)
    seconds: float

    @property
    def status(self):
        return self.reply["status"]

    @property
    def execution_count(self):
        return self.reply["execution_count"]

    @property
    def outputs(self):
        """What the notebook would hold, as nbclient computes it."""
        outputs = []
        clear = False
        for message in self.messages:
            kind, content = message["msg_type"], message["content"]
            if kind == "update_display_data":
                _update(outputs, content)
                continue
            clear = clear or kind == "clear_output"
            if clear and not (kind == "clear_output" and content["wait"]):
                outputs.clear()
                clear = False
            if kind != "clear_output":
                _append(outputs, kind, content)
        return [{key: value for key, value in one.items() if key != "transient"} for one in outputs]

    @property
    def error(self):
        """Name, message and plain traceback of the error that ended the cell; None if none did."""
        for one in self.outputs:
            if one["output_type"] == "error":
                return ANSI.sub("", "\n".join([f"{one['ename']}: {one['evalue']}", *one["traceback"]]))
        return None

    @property
    def text(self):
        return self._stream("stdout")

    @property
    def stderr(self):
        return self._stream("stderr")

    @property
    def result(self):
        """The last expression's value by MIME type, or None."""
        data = [one["data"] for one in self.outputs if one["output_type"] == "execute_result"]
        return data[-1] if data else None

    @property
    def visible(self):
        """The outputs as they look: no counts, nothing overwritten, and not the durable line."""
        return visible(self.outputs)

    @property
    def told(self):
        """The text of the durable line."""
        return "\n".join(one["data"]["text/plain"] for one in self.outputs if _is_ours(one))

    @property
    def facts(self):
        """What the durable line says, for machines."""
        return next(one["metadata"]["durable_nb"] for one in self.outputs if _is_ours(one))

    def _stream(self, name):
        return "".join(one["text"] for one in self.outputs if one.get("name") == name)


def visible(outputs):
    """Outputs as they look: no counts, nothing overwritten, and not the durable line."""
    shown = []
    for one in outputs:
        if _is_ours(one):
            continue
        if one["output_type"] == "stream" and shown and shown[-1].get("name") == one["name"]:
            shown[-1]["text"] += one["text"]
        else:
            shown.append(one | {"execution_count": 0})
    for one in shown:
        if one["output_type"] == "stream":
            one["text"] = overwritten(ANSI.sub("", one["text"]))
    return shown


def overwritten(text):
    """What JupyterLab makes of carriage returns, one character at a time."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown)
    return "\n".join(lines)


def _is_whole(connection_file):
    try:
        return bool(json.loads(connection_file.read_text()))
    except (FileNotFoundError, ValueError):
        return False


def _is_ours(output):
    return "durable_nb" in output.get("metadata", {})


def _update(outputs, content):
    for one in outputs:
        if one.get("transient", {}).get("display_id") == content["transient"]["display_id"]:
            one.update(content)


def _append(outputs, kind, content):
    last = outputs[-1] if outputs else {}
    if kind == "stream" and last.get("name") == content["name"]:
        last["text"] += content["text"]
    else:
        outputs.append({"output_type": kind, **content})


class Kernel:
    """A kernel of this interpreter in a directory, cut off from the user's own configuration.

    Args:
        cwd: Where it works.
        python: Another interpreter.
        env: Further environment variables.
    """

    DISPLAYED = frozenset(
        {"stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"}
    )

    def __init__(self, cwd, home, *, python=sys.executable, **env):
        self.cwd = Path(cwd)
        self._home = Path(home)
        self._python = python
        self._env = {**os.environ, **self._isolation(), **env}
        self._env["JPY_PARENT_PID"] = str(os.getpid())  # it ends with this process
        self._env.pop("PYTEST_CURRENT_TEST", None)  # with it ipykernel captures no file descriptors
        self._start()

    def run(self, code, *, timeout=TIMEOUT, **request):
        """Execute a cell and wait for the end of it; `request` goes to ``client.execute``."""
        return self.wait(self.start(code, **request), timeout=timeout)

    def start(self, code, *, cell=None, **request):
        """Begin to execute a cell, with its id if a front end sends one; gives what to pass to `wait`."""
        self._started_at = time.monotonic()
        send = self.client.shell_channel.send
        if cell is not None:
            self.client.shell_channel.send = lambda message: send(message | {"metadata": {"cellId": cell}})
        try:
            return self.client.execute(code, **{"allow_stdin": False, **request})
        finally:
            self.client.shell_channel.send = send

    def wait(self, request, *, timeout=TIMEOUT, until=None):
        """Wait for the end of a cell, or until it displayed the text `until`, which gives None."""
        deadline = time.monotonic() + timeout
        while (reply := self._reply(request)) is None or not self._idle(request):
            self._receive(deadline)
            if until is not None and until in self._text(request):
                return None
        seconds = time.monotonic() - self._started_at
        shown = [one for one in self._messages[request] if one["msg_type"] in self.DISPLAYED]
        return Cell(reply, shown, seconds)

    def interrupt(self):
        """Interrupt it as front ends do: the kernel, and what it has started."""
        os.killpg(self.process.pid, signal.SIGINT)

    def sigkill(self):
        """Kill the kernel's process as the kernel's out-of-memory killer would, and see it dead."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def setenv(self, name, value):
        """Set an environment variable for kernels from the next on; None takes it away."""
        self._env.pop(name, None)
        self._env |= {} if value is None else {name: value}

    def move(self, cwd):
        """Have it work in another directory, in an empty namespace."""
        self.cwd = Path(cwd)
        assert self.run(f"%cd -q {self.cwd}\n%reset -f").status == "ok"

    def restart(self):
        """A new kernel in the same directory."""
        self.shutdown()
        self._start()

    def shutdown(self):
        """End it, with what it has started."""
        if self.client.channels_running:
            self.client.stop_channels()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    @property
    def alive(self):
        return self.process.poll() is None

    def _isolation(self):
        names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        folders = {name: self._home / name.lower() for name in names}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {
            **{name: str(folder) for name, folder in folders.items()},
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }

    def _start(self):
        self._messages = {}
        self._replies = {}
        deadline = time.monotonic() + TIMEOUT
        at = self._home / f"kernel-{time.monotonic_ns()}.json"
        self.process = spare.launch("-f", str(at), cwd=self.cwd, env=self._env, python=self._python)
        self.client = BlockingKernelClient(context=zmq.Context.instance())
        try:
            self._connect(at, deadline)
        except BaseException:
            self.shutdown()
            raise
        spare.prepare(self._env, self._python)

    def _connect(self, at, deadline):
        """Wait until it has said where it listens, and until what it tells everybody is heard here."""
        while not _is_whole(at):
            self._check(deadline)
            time.sleep(0.005)
        self.client.load_connection_file(str(at))
        self.client.start_channels(hb=False)
        self._poller = zmq.Poller()
        for channel in (self.client.shell_channel, self.client.iopub_channel):
            self._poller.register(channel.socket, zmq.POLLIN)
        self._started_at = time.monotonic()
        heard = None
        while heard is None:
            self._check(deadline)
            with contextlib.suppress(TimeoutError):
                heard = self.wait(self.client.kernel_info(), timeout=0.2)

    def _check(self, deadline):
        if not self.alive:
            raise KernelDied
        if time.monotonic() > deadline:
            raise TimeoutError("the kernel did not start", self._messages)

    def _receive(self, deadline):
        if time.monotonic() > deadline:
            raise TimeoutError(self._messages)
        if not self._poller.poll(50) and not self.alive:
            raise KernelDied
        with contextlib.suppress(Empty):
            message = self.client.get_iopub_msg(timeout=0)
            self._messages.setdefault(message["parent_header"].get("msg_id"), []).append(message)

    def _reply(self, request):
        with contextlib.suppress(Empty):
            reply = self.client.get_shell_msg(timeout=0)
            self._replies[reply["parent_header"]["msg_id"]] = reply["content"]
        return self._replies.get(request)

    def _idle(self, request):
        return any(one["content"].get("execution_state") == "idle" for one in self._messages.get(request, ()))

    def _text(self, request):
        return "".join(one["content"].get("text", "") for one in self._messages.get(request, ()))

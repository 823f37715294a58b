"""The identity of this machine and process; processes on one machine see at once whether another is alive."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from pathlib import Path
from typing import NamedTuple

__all__ = ["Machine", "Process", "lock_holder", "machine", "process", "this_process"]


class Machine(NamedTuple):
    """A machine and its boot; ``boot_id`` is empty where it is unknown."""

    host: str
    boot_id: str


@functools.cache
def machine() -> Machine:
    """Return this machine; ``DURABLE_NB_HOST`` and ``DURABLE_NB_BOOT_ID`` override it."""
    boot = os.environ.get("DURABLE_NB_BOOT_ID")
    if boot is None:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            boot = ""
    return Machine(os.environ.get("DURABLE_NB_HOST") or socket.gethostname(), boot)


def this_process() -> str:
    """Return a description of this process, for people."""
    return f"process {os.getpid()} on {machine().host}"


class Process(NamedTuple):
    """A process, identified among all others.

    Attributes:
        host: Its machine.
        boot_id: The boot of that machine; empty where it is unknown.
        pid_namespace: The namespace of its process id, since containers have their own; empty where unknown.
        pid: Its process id.
        started: Its start in ticks since the boot, since process ids are reused; empty where unknown.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: str

    def is_alive(self) -> bool | None:
        """Return whether the process is alive; None if this process cannot see that."""
        here = process()
        if self.host != here.host:
            return None
        if self.boot_id and here.boot_id and self.boot_id != here.boot_id:
            return False
        if not self.started or self.pid_namespace != here.pid_namespace:
            return None
        return _started(self.pid) == self.started


def process() -> Process:
    """Return this process."""
    try:
        pid_namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        pid_namespace = ""
    return Process(*machine(), pid_namespace, os.getpid(), _started(os.getpid()))


def lock_holder(path: Path, byte: int) -> str | None:
    """Return a description of the process that holds a lock on a byte of a file; None if it is not visible.

    Args:
        path: The file.
        byte: The offset of the byte.
    """
    with contextlib.suppress(OSError):
        inode = path.stat().st_ino
        for process in Path("/proc").glob("[0-9]*"):
            if process.name != str(os.getpid()) and _holds(process, inode, byte):
                stopped = ", which is stopped," if _state(int(process.name)) in ("T", "t") else ""
                return f"process {process.name} ({_name(process)}){stopped}"
    return None


def _holds(process: Path, inode: int, byte: int) -> bool:
    """Return whether a process has a descriptor with a lock of its own on a byte of a file."""
    with contextlib.suppress(OSError):
        for file in (process / "fdinfo").iterdir():
            with contextlib.suppress(OSError):
                for line in file.read_text(encoding="ascii").splitlines():
                    words = line.split()
                    if words[:1] == ["lock:"] and words[-3].endswith(f":{inode}") and words[-2] == str(byte):
                        return True
    return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"


def _state(pid: int) -> str:
    """Return the state of a process in one letter; empty if no such process exists."""
    return (_status(pid) or [""])[0]


def _started(pid: int) -> str:
    """Return the start of a process in ticks since the boot; empty if no such process is alive."""
    state, *rest = _status(pid) or ["X"]
    return "" if state in "ZX" else rest[18]


def _status(pid: int) -> list[str]:
    """Return the state of a process and what follows it in ``/proc``; empty if no such process exists."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return status.rpartition(")")[2].split()

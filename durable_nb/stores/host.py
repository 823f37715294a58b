"""Which machine this is, and which process: those on one can tell at once whether each other lives."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import NamedTuple

__all__ = ["Machine", "Process", "machine", "process", "this_process"]


class Machine(NamedTuple):
    """Which machine this is, and since which boot; the second is empty where it cannot be known."""

    host: str
    boot_id: str


@functools.cache
def machine() -> Machine:
    """This machine; ``DURABLE_NB_HOST`` and ``DURABLE_NB_BOOT_ID`` say otherwise."""
    boot = os.environ.get("DURABLE_NB_BOOT_ID")
    if boot is None:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            boot = ""
    return Machine(os.environ.get("DURABLE_NB_HOST") or socket.gethostname(), boot)


def this_process() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {machine().host}"


class Process(NamedTuple):
    """A process, told from every other one.

    Attributes:
        host: Its machine.
        boot_id: Since which boot; empty where it cannot be known.
        space: Among which process ids: those of a container are its own; empty where there is no telling.
        pid: Its process id.
        began: When it was started, in the system's own words: ids are used again; empty where unknown.
    """

    host: str
    boot_id: str
    space: str
    pid: int
    began: str

    def lives(self) -> bool | None:
        """Whether it lives; None where that cannot be seen from here."""
        here = process()
        if self.host != here.host:
            return None
        if self.boot_id and here.boot_id and self.boot_id != here.boot_id:
            return False
        if not self.began or self.space != here.space:
            return None
        return _began(self.pid) == self.began


def process() -> Process:
    """This process."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return Process(*machine(), space, os.getpid(), _began(os.getpid()))


def _began(pid: int) -> str:
    """When a process was started, in ticks since the boot; empty where none of that id lives."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = status.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]

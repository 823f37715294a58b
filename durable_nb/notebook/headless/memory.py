"""Whether the system killed a kernel because memory ran out, as its control group counts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["KillsForMemory"]

_GROUPS: Final = Path("/sys/fs/cgroup")
_KILLS: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class KillsForMemory:
    """Counts the processes of a kernel's control group that the system kills when memory runs out.

    Args:
        pid: The kernel's process id; None if it is no process of this machine.
    """

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._file: Path | None = None
        self._before: int | None = None

    def note(self) -> None:
        """Note the control group that the kernel is in now: a cell may have moved it into another one."""
        file = _counter(self._pid)
        if file is not None and file != self._file:
            self._file, self._before = file, _kills(file)

    def found(self) -> bool | None:
        """Return whether there were such kills since; None where the system does not say."""
        now = _kills(self._file)
        return None if now is None or self._before is None else now > self._before


def _counter(pid: int | None) -> Path | None:
    """Return the file with the counter of a process's control group, of version 1 or 2."""
    lines = (line.split(":", 2) for line in _groups_of(pid).splitlines())
    groups = {kinds: path.lstrip("/") for _, kinds, path in lines}
    found = [
        _GROUPS / "memory" / groups.get("memory", "") / "memory.oom_control",
        _GROUPS / groups.get("", "") / "memory.events",
    ]
    return next((file for file in found if _kills(file) is not None), None)


def _groups_of(pid: int | None) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _kills(file: Path | None) -> int | None:
    try:
        counted = None if file is None else _KILLS.search(file.read_text())
    except OSError:
        return None
    return None if counted is None else int(counted[1])

"""Which machine this is: processes on one can tell at once whether each other lives."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import NamedTuple

__all__ = ["Machine", "machine"]


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

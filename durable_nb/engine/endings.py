"""Recording that a process ends by SIGTERM, or normally, while a body runs: it does not count as a crash.

Only runs whose last pass has died are concerned, so that other processes keep the default action of SIGTERM.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.concurrency.bridge import submit
from durable_nb.records import RunStatus

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle

__all__ = ["record_endings"]

_open: weakref.WeakSet[RunHandle] = weakref.WeakSet()
_process = os.getpid()


def record_endings(run: RunHandle) -> None:
    """Have it recorded if this process ends in an orderly way while a run is open. Called by its caller."""
    global _process
    _process = os.getpid()
    _open.add(run)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # another handler ends in `_record`
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(signum: int, _frame: Any) -> None:
    _record()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def _record() -> None:
    runs = [run for run in _open if run.run.crashes and not run.stopped] if os.getpid() == _process else []
    try:
        for written in [submit(run.write_status(RunStatus.INTERRUPTED)) for run in runs]:
            written.exception(settings.INTERRUPT_GRACE)
    except Exception:  # it counts as a crash then
        return


atexit.register(_record)

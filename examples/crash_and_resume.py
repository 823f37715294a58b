"""A process that is killed in the middle of a run, and another one that resumes the run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from durable_nb import Workflow

wf = Workflow("orders", db="crash.db")
CRASHED = Path("crashed")


@wf.task
def charge(order: str) -> str:
    print("  charging", order, flush=True)
    return f"receipt for {order}"


@wf.task
def ship(order: str) -> str:
    print("  shipping", order, flush=True)
    if not CRASHED.exists():
        CRASHED.touch()
        os.kill(os.getpid(), signal.SIGKILL)  # no exception, no clean-up, as in a power failure
    return f"{order} is on its way"


@wf.workflow(id="order-{order}")
def process(order: str) -> list[str]:
    return [charge(order), ship(order)]


def main() -> None:
    for title in "first process", "second process":
        print(title, flush=True)
        ended = subprocess.run([sys.executable, __file__, "worker"], check=False)
        print("  ended with", ended.returncode, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        print("  result:", process("a17"), flush=True)
    else:
        main()

"""Named points at which a test can kill the process, raise or delay. Off unless the environment asks.

``DURABLE_NB_FAILPOINTS="commit.before=kill@3; body.after=delay:0.2"`` kills the process with SIGKILL when
``commit.before`` is reached for the third time, and waits 0.2 s each time a body has returned.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

__all__ = ["FAILPOINTS", "POINTS", "hit"]

FAILPOINTS: Final = "DURABLE_NB_FAILPOINTS"

POINTS: Final = (
    "run.opened",
    "step.started",
    "body.before",
    "body.after",
    "blob.before",
    "blob.after",
    "commit.before",
    "commit.after",
    "step.recorded",
    "run.marked",
)
"""The names of the points, in the order in which a step passes them."""

_reached: Counter[str] = Counter()


def _kill(_argument: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(argument: str) -> None:
    raise OSError(argument or "a failpoint raised")


def _delay(argument: str) -> None:
    time.sleep(float(argument))


_ACTIONS: Final[dict[str, Callable[[str], None]]] = {"kill": _kill, "raise": _raise, "delay": _delay}


def _parse(plan: str) -> dict[str, tuple[Callable[[str], None], str, int]]:
    parsed = {}
    for rule in filter(None, map(str.strip, plan.split(";"))):
        point, _, what = rule.partition("=")
        what, _, time_reached = what.partition("@")
        action, _, argument = what.partition(":")
        if point not in POINTS:
            raise ValueError(f"{FAILPOINTS}: no failpoint {point!r}, expected one of {', '.join(POINTS)}")
        parsed[point] = (_ACTIONS[action], argument, int(time_reached or 0))
    return parsed


_plan = _parse(os.environ.get(FAILPOINTS, ""))


def _hit(point: str) -> None:
    _reached[point] += 1
    if point in _plan:
        action, argument, wanted = _plan[point]
        if wanted in (0, _reached[point]):
            action(argument)


def _skip(point: str) -> None:
    """Do nothing: the environment has set no failpoints."""


hit: Callable[[str], None] = _hit if _plan else _skip
"""Note that a point was reached, and do what the environment asks for there."""

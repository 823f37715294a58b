"""What the agents of a run have used, and what replaying saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic_ai.usage import RunUsage

from durable_nb import codec
from durable_nb.loop import BLOCKING, drive
from durable_nb.pydantic_ai.place import MODEL
from durable_nb.records import Step, StepStatus, scope_of

if TYPE_CHECKING:
    from durable_nb.engine import OpenRun

__all__ = ["AgentUsage", "usage"]


@dataclass(frozen=True)
class AgentUsage:
    """What the agents of a run have used.

    Attributes:
        spent: Requests and tokens of all passes.
        saved: Those of them that were made before this pass, and were replayed instead of made again.
    """

    spent: RunUsage = field(default_factory=RunUsage)
    saved: RunUsage = field(default_factory=RunUsage)


def usage(run: OpenRun) -> AgentUsage:
    """Count the recorded model requests of an open run, sub-agents included.

    Args:
        run: The run.
    """
    found = AgentUsage()
    for step in _requests(list(run.history.values())):
        response = codec.decode(drive(run.load(step, BLOCKING)))["value"]
        for total in [found.spent, *([found.saved] if step.epoch < run.run.epoch else [])]:
            total.incr(response.usage)
            total.requests += 1
    return found


def _requests(steps: Iterable[Step]) -> Iterable[Step]:
    for step in steps:
        name = step.step_id.removeprefix(scope_of(step.step_id)).partition("#")[0]
        if name == MODEL and step.status is StepStatus.DONE:
            yield step

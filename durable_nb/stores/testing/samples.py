"""Sample records of the conformance suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from durable_nb.records import Payload, Run, RunStatus, Step, StepKind, StepStatus
from durable_nb.stores.base import Journal

__all__ = ["BLOB", "JSON", "ODD", "PICKLE", "RUN", "Reopen", "opened", "read_steps", "sample_step"]

Reopen = Callable[[], Awaitable[Journal]] | None
"""The type of the fixture ``reopen``."""

JSON = Payload("json", b'{"a": 1}')
PICKLE = Payload("pickle", b"\x00\xff\n'\"\\", signature=b"\x00\x01")
BLOB = Payload("npy", b"", blob="ab" * 32)

RUN = Run(
    "r/1",
    "etl.main",
    RunStatus.WAITING,
    code="c1",
    arguments="n=1",
    arguments_repr='{"n": "1"}',
    python="3.11",
    parent="r/0",
    owner="process 1 on a",
    created_at=1.25,
    updated_at=2.5,
    given=PICKLE,
)

ODD = ["", " ", "é☃😀", "a'b\"c", "50%_", "{x}}", "a\nb", "a\x00b", "a:b/c#1~0", "NULL", "x" * 2000]


def sample_step(run: Run, step_id: str = "load", **changes: object) -> Step:
    """Return a finished step of a run, under the run's epoch.

    Args:
        run: The run that ``open_run`` returned.
        step_id: The step's id.
        **changes: Further fields of the step.
    """
    step = Step(run.run_id, step_id, StepKind.TASK, StepStatus.DONE, epoch=run.epoch, payload=JSON)
    return step._replace(**changes)  # type: ignore[arg-type]


async def opened(journal: Journal, run_id: str = "r/1", **changes: object) -> Run:
    """Open a run like ``RUN``, and return it as recorded."""
    opening = RUN._replace(run_id=run_id, **changes)  # type: ignore[arg-type]
    return (await journal.open_run(opening)).run


async def read_steps(journal: Journal, run_id: str = "r/1") -> dict[str, Step]:
    """Return the recorded steps of a run, by id."""
    snapshot = await journal.read_run(run_id)
    return {} if snapshot is None else {step.step_id: step for step in snapshot.steps}

"""Where runs stand, in words for people: the same in a notebook and in a terminal."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from durable_nb import leases
from durable_nb.errors import StoreUnavailable
from durable_nb.records import Progress, RunSnapshot, RunStatus, StepStatus
from durable_nb.stores.base import unknown_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from durable_nb.records import Run, Step
    from durable_nb.stores.base import Journal

__all__ = ["Status", "Table", "Used", "all_runs", "one_run", "set_up"]

_RUN = ("run", "workflow", "status", "steps", "waits for", "updated", "owner")
_STEP = ("step", "kind", "status", "attempts", "took", "finished")
_USED = ("requests", "input tokens", "output tokens", "requests saved", "tokens saved")
_VOLATILE = {"updated", "owner", "took", "finished", "requests saved", "tokens saved"}
_COLUMN_GAP = "  "


class Table(NamedTuple):
    """Rows of text under their headings.

    Attributes:
        headings: One a column.
        rows: As many texts each.
    """

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def lasting(self) -> Table:
        """The same without the columns that are others every time."""
        kept = [number for number, heading in enumerate(self.headings) if heading not in _VOLATILE]
        return Table(_picked(self.headings, kept), [_picked(row, kept) for row in self.rows])

    def __str__(self) -> str:
        lines = [self.headings, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ([text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines)
        return "\n".join(_COLUMN_GAP.join(line).rstrip() for line in padded)


class Used(NamedTuple):
    """What requests to models have used, retries that failed apart.

    Attributes:
        requests: How many there were.
        input_tokens: What they were asked with.
        output_tokens: What they answered with.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def by(cls, steps: Iterable[Step]) -> Used:
        """What the recorded results of these steps have used."""
        found = [cls(**json.loads(step.used)) for step in steps if step.used]
        return cls(*map(sum, zip(*found, strict=True)))

    def as_json(self) -> str:
        """The same as a step records it."""
        return json.dumps(self._asdict())


class Status(RunSnapshot):
    """Where a run stands, with its steps; as text it is what ``durable-nb status`` shows."""

    __slots__ = ()

    @property
    def spent(self) -> Used:
        """What went into the results of its agents that are on record, in whatever pass."""
        return Used.by(self.steps)

    @property
    def saved(self) -> Used:
        """The part of that which the last pass found on record, and replayed instead of spending it again."""
        return Used.by(step for step in self.steps if self.run.passes > 1 and step.epoch < self.run.epoch)

    @property
    def tables(self) -> list[Table]:
        """The run as one row of all runs, its steps, and what its agents have used, if it has any."""
        done = sum(step.status is StepStatus.DONE for step in self.steps)
        waits_for = tuple(step.step_id for step in self.steps if step.is_awaited)
        tables = [
            Table(_RUN, [_run_row(self.run, Progress(done, waits_for))]),
            Table(_STEP, [_step_row(step) for step in self.steps]),
        ]
        spent, saved = self.spent, self.saved
        if spent.requests:
            numbers = (*spent, saved.requests, saved.input_tokens + saved.output_tokens)
            tables.append(Table(_USED, [tuple(map(str, numbers))]))
        return tables

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables))


async def all_runs(journal: Journal) -> Table:
    """Every run, the latest first: when, who, how many steps, what it waits for. Runs on the loop thread.

    Args:
        journal: Where they are kept.

    Raises:
        StoreUnavailable: There is no such database.
    """
    await set_up(journal)
    runs = await leases.list_runs(journal)
    progress = await journal.progress()
    return Table(_RUN, [_run_row(run, progress.get(run.run_id, Progress())) for run in runs])


async def one_run(journal: Journal, run_id: str) -> Status:
    """A run and its steps; nothing is taken over. Runs on the loop thread.

    Args:
        journal: Where it is kept.
        run_id: The run.

    Raises:
        RunNotFound: There is no such run.
        StoreUnavailable: There is no such database.
    """
    await set_up(journal)
    snapshot = await leases.read_run(journal, run_id)
    if snapshot is None:
        raise unknown_run(run_id)
    return Status(snapshot.run, snapshot.steps)


async def set_up(journal: Journal) -> None:
    """Set a journal up, but create nothing: a mistyped path is no empty database. Runs on the loop thread.

    Raises:
        StoreUnavailable: There is none.
    """
    if not journal.is_there:
        raise StoreUnavailable(
            f"there is no database {journal.location!r}",
            remedy="Name the one that the runs were kept in: --db PATH.",
        )
    await journal.setup()


def _run_row(run: Run, progress: Progress) -> tuple[str, ...]:
    waits_for = ", ".join(progress.waits_for) if run.status is RunStatus.WAITING else ""
    facts = (run.run_id, run.workflow, run.status.value, f"{progress.done} done", waits_for)
    return tuple(map(_printable, (*facts, _moment(run.updated_at), run.owner or "")))


def _step_row(step: Step) -> tuple[str, ...]:
    took = f"{step.seconds:.3f} s" if step.finished_at else ""
    facts = (step.step_id, step.kind.value, step.status.value, str(step.attempt), took)
    return tuple(map(_printable, (*facts, _moment(step.finished_at))))


def _moment(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _printable(text: str) -> str:
    """Without what could break a line or steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _picked(texts: Sequence[str], kept: list[int]) -> tuple[str, ...]:
    return tuple(texts[number] for number in kept)

"""Where runs stand, in words for people: the same in a notebook and in a terminal."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from durable_nb import codec
from durable_nb.errors import DurableError, StepNotRestored, StoreUnavailable
from durable_nb.records import Progress, RunSnapshot, RunStatus, StepStatus
from durable_nb.stores import payloads
from durable_nb.stores.errors import unknown_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from durable_nb.records import Payload, Run, Step
    from durable_nb.stores.base import Journal

__all__ = ["Status", "Table", "Used", "all_runs", "list_runs", "one_run", "read_run", "set_up", "spell"]

_RUN = ("run", "workflow", "status", "steps", "waits for", "updated", "owner")
_STEP = ("step", "kind", "status", "attempts", "took", "finished")
_USED = ("requests", "input tokens", "output tokens", "requests saved", "tokens saved")
_VOLATILE = {"updated", "owner", "took", "finished", "requests saved", "tokens saved"}
_FAILED = ("failed", "error")
_OPTIONAL = {"waits for", "finished"}
_COLUMN_GAP = "  "
_ERROR_WIDTH = 200
_MINUTE = 60
_HOUR = 3600


def spell(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> spell(0.004), spell(12.41), spell(75), spell(9000)
        ('4 ms', '12.4 s', '1 min 15 s', '2 h 30 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"


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
        return self._only([heading not in _VOLATILE for heading in self.headings])

    def filled(self) -> Table:
        """The same without the columns in which nothing need stand, and nothing does."""
        empty = [not any(column) for column in zip(*self.rows, strict=True)] or [True] * len(self.headings)
        return self._only(
            [not (empty[at] and heading in _OPTIONAL) for at, heading in enumerate(self.headings)]
        )

    def _only(self, kept: Sequence[bool]) -> Table:
        rows = [tuple(compress(row, kept)) for row in self.rows]
        return Table(tuple(compress(self.headings, kept)), rows)

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
        found = [cls(**json.loads(step.usage)) for step in steps if step.usage]
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
        tables.append(Table(_FAILED, self._failures()))
        return [table.filled() for table in tables if table.rows]

    def _failures(self) -> list[tuple[str, ...]]:
        """What failed for good, and with what: steps, then the run."""
        failed = [step for step in self.steps if step.status is StepStatus.FAILED]
        found: list[tuple[str, ...]] = [(_printable(one.step_id), _error(one.payload)) for one in failed]
        own = _error(self.run.result)
        if self.run.status is RunStatus.FAILED and own not in {error for _, error in found}:
            found.append(("the run", own))
        return found

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables))


async def list_runs(journal: Journal) -> Sequence[Run]:
    """All runs as they stand, the latest first. Runs on the loop thread.

    Args:
        journal: Where they are kept.
    """
    runs = await journal.list_runs()
    abandoned = await journal.abandoned()  # last: a run that is taken up meanwhile must not show as left
    return [_with_owner(run, abandoned) for run in runs]


async def read_run(journal: Journal, run_id: str) -> RunSnapshot | None:
    """A run as it stands, and its steps; takes no ownership. Runs on the loop thread.

    Args:
        journal: Where it is kept.
        run_id: The run.
    """
    snapshot = await journal.read_run(run_id)
    if snapshot is None:
        return None
    return snapshot._replace(run=_with_owner(snapshot.run, await journal.abandoned()))


def _with_owner(run: Run, abandoned: frozenset[str]) -> Run:
    if run.run_id in abandoned and run.status in (RunStatus.RUNNING, RunStatus.WAITING):
        return run._replace(status=RunStatus.INTERRUPTED)
    return run


async def all_runs(journal: Journal) -> Table:
    """Every run, the latest first: when, who, how many steps, what it waits for. Runs on the loop thread.

    Args:
        journal: Where they are kept.

    Raises:
        StoreUnavailable: There is no such database.
    """
    await set_up(journal)
    runs = await list_runs(journal)
    progress = await journal.progress()
    return Table(_RUN, [_run_row(run, progress.get(run.run_id, Progress())) for run in runs]).filled()


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
    snapshot = await read_run(journal, run_id)
    if snapshot is None:
        raise unknown_run(run_id, journal.address)
    run, steps = snapshot
    read = [one._replace(payload=await _failure(journal, one.payload, run_id, one.step_id)) for one in steps]
    return Status(run._replace(result=await _failure(journal, run.result, run_id, "")), tuple(read))


async def _failure(journal: Journal, payload: Payload | None, run_id: str, step: str) -> Payload | None:
    """With its bytes if it is a failure in a blob, as one is that held much, and these can be read."""
    if payload is None or payload.blob is None or payload.format != "failure":
        return payload
    with suppress(DurableError):
        return await payloads.fetch(journal, payload, run_id, step)
    return payload


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
    took = spell(step.seconds) if step.finished_at else ""
    facts = (step.step_id, step.kind.value, step.status.value, str(step.attempt), took)
    return tuple(map(_printable, (*facts, _moment(step.finished_at))))


def _moment(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _printable(text: str) -> str:
    """Without what could break a line or steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _error(payload: Payload | None) -> str:
    if payload is None:
        return "not on record"
    try:
        line = codec.failure_line(payload)
    except StepNotRestored:
        return "on record, but it cannot be read here"
    return _printable(line if len(line) <= _ERROR_WIDTH else f"{line[:_ERROR_WIDTH]}…")

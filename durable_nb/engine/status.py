"""Run status as users see it, as tables; a run whose owner has died is reported as interrupted."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from contextlib import suppress
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from durable_nb import codec, settings
from durable_nb.errors import DurableError, StepNotRestored, StoreUnavailable, StoreUnreadable, printable
from durable_nb.records import (
    Progress,
    RunSnapshot,
    RunStatus,
    SignalRequest,
    Step,
    StepKind,
    StepStatus,
    signal_step,
)
from durable_nb.stores import payloads
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.rows import StepRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from durable_nb.records import Payload, Run
    from durable_nb.stores.base import Journal

__all__ = [
    "Status",
    "Table",
    "Used",
    "all_runs",
    "current_snapshot",
    "format_duration",
    "format_time",
    "list_runs",
    "one_line",
    "one_run",
    "set_up",
]

_RUN_HEADINGS = ("run", "workflow", "status", "steps", "waits for", "updated", "owner")
_STEP_HEADINGS = ("step", "kind", "status", "attempts", "took", "finished")
_USAGE_HEADINGS = ("requests", "input tokens", "output tokens", "requests saved", "tokens saved")
_VOLATILE = {"updated", "owner", "took", "finished", "requests saved", "tokens saved"}
_FAILURE_HEADINGS = ("failed", "error")
_OPTIONAL = {"waits for", "finished"}
_COLUMN_GAP = "  "
_ERROR_WIDTH = 200
_MINUTE = 60
_HOUR = 3600


def format_duration(seconds: float) -> str:
    """Return a duration as text for people.

    Args:
        seconds: The duration, in seconds.

    Example:
        >>> format_duration(0.004), format_duration(12.41), format_duration(75), format_duration(9000)
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
    """A table of texts; its own text is aligned in columns.

    Attributes:
        headings: The headings of the columns.
        rows: Tuples of one text for each column.
    """

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def without_volatile(self) -> Table:
        """Drop the columns that differ from one pass to the next, such as times and the owner."""
        return self._only([heading not in _VOLATILE for heading in self.headings])

    def without_empty(self) -> Table:
        """Drop optional columns that are empty in every row."""
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
    """Requests to models and their tokens, without those of attempts that failed.

    Attributes:
        requests: The number of requests.
        input_tokens: The tokens sent.
        output_tokens: The tokens received.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def by(cls, steps: Iterable[Step]) -> Used:
        """Return the sum over the recorded results of these steps."""
        found = [json.loads(step.usage) for step in steps if step.usage]
        return cls(*(sum(one.get(name, 0) for one in found) for name in cls._fields))

    def as_json(self) -> str:
        """Return the numbers as JSON, as a step records them."""
        return json.dumps(self._asdict())


class Status(RunSnapshot):
    """The status of a run and its steps; its text is the output of ``durable-nb status``."""

    __slots__ = ()

    @property
    def spent(self) -> Used:
        """Requests and tokens behind the recorded results of its agents, over all passes."""
        return Used.by(self.steps)

    @property
    def saved(self) -> Used:
        """The part of ``spent`` that the last pass replayed instead of spending it again."""
        return Used.by(step for step in self.steps if self.run.passes > 1 and step.epoch < self.run.epoch)

    @property
    def progress(self) -> Progress:
        """The number of its finished steps, and what it waits for."""
        return _progress(self.steps)

    @property
    def tables(self) -> list[Table]:
        """The tables of its text: the run, its steps, the usage of its agents, failures."""
        tables = [
            Table(_RUN_HEADINGS, [_run_row(self.run, self.progress)]),
            Table(_STEP_HEADINGS, [_step_row(step) for step in self.steps]),
        ]
        spent, saved = self.spent, self.saved
        if spent.requests:
            numbers = (*spent, saved.requests, saved.input_tokens + saved.output_tokens)
            tables.append(Table(_USAGE_HEADINGS, [tuple(map(str, numbers))]))
        tables.append(Table(_FAILURE_HEADINGS, self._failures()))
        return [table.without_empty() for table in tables if table.rows]

    def _failures(self) -> list[tuple[str, ...]]:
        """Return a row for each failure: those of steps, then the run's own if it is another one."""
        ended_badly = (StepStatus.FAILED, StepStatus.CAUGHT, StepStatus.DAMAGED)
        failed = [step for step in self.steps if step.status in ended_badly]
        found: list[tuple[str, ...]] = [(one_line(one.step_id), _failure_line(one.payload)) for one in failed]
        own = _failure_line(self.run.result)
        if self.run.status is RunStatus.FAILED and own not in {error for _, error in found}:
            found.append(("the run", own))
        return found

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables))


async def list_runs(journal: Journal) -> list[tuple[Run, Progress]]:
    """Return all runs with their progress, the latest first. Runs on the loop thread.

    Args:
        journal: The journal of the runs.
    """
    runs, progress = await journal.list_runs(), await journal.progress()
    requests: defaultdict[str, list[SignalRequest]] = defaultdict(list)
    for request in await journal.open_signals():
        requests[request.run_id].append(request)
    abandoned = await journal.abandoned()  # last: a run that is resumed meanwhile must not show as abandoned
    known = [(run, _waiting(progress.get(run.run_id, Progress()), requests[run.run_id])) for run in runs]
    return [(_with_status(run, waits, abandoned), waits) for run, waits in known]


async def current_snapshot(journal: Journal, run_id: str) -> RunSnapshot | None:
    """Return a run and its steps, or None; takes no ownership. Runs on the loop thread.

    Args:
        journal: The journal of the run.
        run_id: The run.
    """
    snapshot = await journal.read_run(run_id)
    if snapshot is None:
        return None
    steps = tuple(_readable(StepRows.of(snapshot.steps)))
    requests = await journal.open_signals() if journal.whole_runs else ()
    waits = _waiting(_progress(steps), [one for one in requests if one.run_id == run_id])
    run = _with_status(snapshot.run, waits, await journal.abandoned())
    return snapshot._replace(run=run, steps=steps)


def _readable(steps: StepRows) -> Iterator[Step]:
    """Yield steps; in place of a damaged one, a step that says so."""
    for row in steps.rows:
        try:
            yield steps.read(row)
        except StoreUnreadable as error:
            where = error.run_id or "", error.step or ""
            yield Step(*where, StepKind.TASK, StepStatus.DAMAGED, payload=codec.encode_failure(error))


def _progress(steps: Sequence[Step]) -> Progress:
    done = sum(step.status is StepStatus.DONE for step in steps)
    return Progress(done, tuple(step.step_id for step in steps if step.waits))


def _waiting(progress: Progress, requests: Iterable[SignalRequest]) -> Progress:
    """Return the progress of a run, with its questions about steps in doubt that are no steps themselves."""
    asked = tuple(signal_step(request.name) for request in requests)
    return progress if progress.waits_for else progress._replace(waits_for=asked)


def _with_status(run: Run, progress: Progress, abandoned: frozenset[str]) -> Run:
    """Return a run with the status that users see: a store records that it runs."""
    if run.status not in (RunStatus.RUNNING, RunStatus.WAITING):
        return run
    if run.run_id in abandoned:
        return run._replace(status=RunStatus.INTERRUPTED)
    return run._replace(status=RunStatus.WAITING if progress.waits_for else RunStatus.RUNNING)


async def all_runs(journal: Journal) -> Table:
    """Return a table of all runs, the latest first. Runs on the loop thread.

    Args:
        journal: The journal of the runs.

    Raises:
        StoreUnavailable: The database does not exist.
    """
    await set_up(journal)
    return Table(_RUN_HEADINGS, [_run_row(*each) for each in await list_runs(journal)]).without_empty()


async def one_run(journal: Journal, run_id: str) -> Status:
    """Return the status of a run; takes no ownership. Runs on the loop thread.

    Args:
        journal: The journal of the run.
        run_id: The run.

    Raises:
        RunNotFound: The database has no run of that id.
        StoreUnavailable: The database does not exist.
    """
    await set_up(journal)
    snapshot = await current_snapshot(journal, run_id)
    if snapshot is None:
        raise unknown_run(run_id, journal.address)
    run, steps = snapshot.run, snapshot.steps
    read = [
        one._replace(payload=await _with_failure(journal, one.payload, run_id, one.step_id)) for one in steps
    ]
    return Status(run._replace(result=await _with_failure(journal, run.result, run_id, "")), tuple(read))


async def _with_failure(journal: Journal, payload: Payload | None, run_id: str, step: str) -> Payload | None:
    """Return a payload, with its bytes if it is a failure that is kept in a blob and can be read."""
    if payload is None or payload.blob is None or payload.format != "failure":
        return payload
    with suppress(DurableError):
        return await payloads.fetch(journal, payload, run_id, step)
    return payload


async def set_up(journal: Journal) -> None:
    """Set up a journal, but do not create it: a mistyped path is an error. Runs on the loop thread.

    Raises:
        StoreUnavailable: The database does not exist.
    """
    if not journal.is_there:
        raise StoreUnavailable(
            f"no database at {journal.location!r}",
            remedy="Name the database of the runs: --db PATH.",
        )
    await journal.setup()


def _run_row(run: Run, progress: Progress) -> tuple[str, ...]:
    waits_for = ", ".join(progress.waits_for) if run.status is RunStatus.WAITING else ""
    facts = (run.run_id, run.workflow, run.status.value, f"{progress.done} done", waits_for)
    return tuple(map(one_line, (*facts, format_time(run.updated_at), run.owner or "")))


def _step_row(step: Step) -> tuple[str, ...]:
    took = format_duration(step.seconds) if step.finished_at else ""
    facts = (step.step_id, step.kind.value, step.status.value, str(step.attempt), took)
    return tuple(map(one_line, (*facts, format_time(step.finished_at))))


def format_time(seconds: float | None) -> str:
    """Return a time as text for people, in local time; empty if there is none.

    Args:
        seconds: The time, in seconds since the epoch.
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
    except (OverflowError, ValueError, OSError):  # a sleep may end after the last year that the system knows
        return f"{seconds:g} s after 1970"


def one_line(text: str) -> str:
    """Return text on one line that controls no terminal, and is not longer than a name may be."""
    text = text if len(text) <= settings.LONGEST_NAME else f"{text[: settings.LONGEST_NAME]}…"
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _failure_line(payload: Payload | None) -> str:
    if payload is None:
        return "not recorded"
    try:
        line = codec.failure_line(payload)
    except StepNotRestored:
        return "recorded, but not readable here"
    return one_line(line if len(line) <= _ERROR_WIDTH else f"{line[:_ERROR_WIDTH]}…")

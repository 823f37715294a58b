"""The SQLite journal: one persistent connection, and commits that take along whatever else is waiting."""

# ruff: noqa: S608 - what is put into SQL as text is column names of ours

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import aiosqlite

from durable_nb import settings
from durable_nb.errors import InvalidOption, OpenRun, RunHeld, StoreUnavailable
from durable_nb.records import Progress, Run, RunSnapshot, RunStatus, Step
from durable_nb.stores.blobs.folder import BlobFolder, Blobs
from durable_nb.stores.errors import id_taken, lost_run, unknown_run
from durable_nb.stores.sqlite import schema
from durable_nb.stores.sqlite.connection import READ, WRITE, Database, Outcome, Work
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.schema import RUN, STEP, excluded, marks
from durable_nb.stores.sqlite.sessions import Sessions
from durable_nb.stores.sqlite.signals import Observer, SignalTables

__all__ = ["SqliteJournal"]


_REOPENED = "status, owner, python, updated_at, result_format, result_data, result_blob, result_signature"

_GET_RUN = f"SELECT {RUN} FROM runs WHERE run_id = ?"
_LIST_RUNS = f"SELECT {RUN} FROM runs ORDER BY updated_at DESC, created_at DESC, run_id"
_GET_STEPS = f"SELECT {STEP} FROM steps WHERE run_id = ? ORDER BY recorded, step_id"
_GET_STEP = f"SELECT {STEP} FROM steps WHERE run_id = ? AND step_id = ?"
_OPEN_RUN = f"""
    INSERT INTO runs ({RUN}, sid) VALUES ({marks(RUN)}, ?) ON CONFLICT (run_id) DO UPDATE
    SET {excluded(_REOPENED)}, sid = excluded.sid, epoch = runs.epoch + 1, passes = runs.passes + 1
    WHERE ? OR runs.epoch = ?"""
_NEW_EPOCH = "UPDATE runs SET epoch = (SELECT max(epoch) FROM runs) + 1 WHERE run_id = ? AND epoch = 0"
_PUT_STEP = f"""
    INSERT INTO steps ({STEP}) SELECT {marks(STEP)}
    WHERE EXISTS (SELECT 1 FROM runs WHERE run_id = ? AND epoch = ?)
    ON CONFLICT (run_id, step_id) DO UPDATE SET {excluded(STEP, "run_id", "step_id")}"""
_FINISH_RUN = """
    UPDATE runs SET status = ?, updated_at = ?, result_format = ?, result_data = ?, result_blob = ?,
        result_signature = ? WHERE run_id = ? AND epoch = ?"""
_IS_OURS = "SELECT 1 FROM runs WHERE run_id = ? AND epoch = ?"
_RESET_STEP = f"UPDATE steps SET status = 'reset' WHERE run_id = ? AND step_id = ? AND EXISTS ({_IS_OURS})"
# changes() is what the statement before it changed: signals of a run that is not there stay where they are.
_RENAME_RUN = (
    "UPDATE runs SET run_id = ?, sid = NULL WHERE run_id = ?",
    "UPDATE signals SET run_id = ? WHERE run_id = ? AND changes() > 0",
    "UPDATE steps SET run_id = ? WHERE run_id = ?",
    "UPDATE requests SET run_id = ? WHERE run_id = ?",
)

_OWNED = (RunStatus.RUNNING, RunStatus.WAITING)


class SqliteJournal(SignalTables):
    """Runs in a SQLite file, on this machine's disk, shared with any number of processes.

    Args:
        path: The file; created when it is not there, its folder must be.
        synchronous: ``full``: an acknowledged step survives power loss. ``normal``: faster; it survives the
            death of the process, but power loss may take the last steps.
        busy_timeout: Seconds to wait for another process's lock.

    Attributes:
        commits: How many write transactions this object has committed.
        selects: How many times it has read the steps of a run.

    Raises:
        InvalidOption: ``synchronous`` is neither.

    Example:
        >>> journal = SqliteJournal("durable.db", synchronous="normal")
        >>> wf = Workflow("etl", db=journal)
    """

    has_leases = True

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["full", "normal"] = "full",
        busy_timeout: float = settings.BUSY_TIMEOUT,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise InvalidOption(
                f"synchronous={synchronous!r} makes no sense", remedy="Use 'full' or 'normal'."
            )
        self.selects = 0
        self._database = Database(Path(path).resolve(), synchronous, busy_timeout)
        self._blobs = BlobFolder(Path(f"{self._database.path}.blobs"))
        self._connection: aiosqlite.Connection | None = None
        self._closed = False
        self._changing = asyncio.Lock()
        self._queue: list[tuple[Work, asyncio.Future[None]]] = []
        self._busy = False
        self._drainer: asyncio.Task[None] | None = None
        self._observed = Observer(self._database)
        self._sessions = Sessions(self._database, self._read, self._run)

    @property
    def location(self) -> str:
        """The resolved path of the file."""
        return str(self._database.path)

    @property
    def address(self) -> str:
        """The resolved path of the file."""
        return self.location

    @property
    def is_there(self) -> bool:
        """Whether the file exists."""
        return self._database.path.exists()

    @property
    def blobs(self) -> Blobs:
        """Where large payloads are kept: ``<path>.blobs``."""
        return self._blobs

    @property
    def commits(self) -> int:
        """How many write transactions this object has committed."""
        return self._database.commits

    @property
    def closed(self) -> bool:
        """Whether it is of no more use: closed, or its file was deleted or replaced."""
        return self._closed or self._database.moved()

    async def setup(self) -> None:
        """Open the file, created or migrated as need be."""
        async with self._changing:
            if self._closed:
                raise self._shut()
            if self._connection is None:
                self._connection = await self._connect()
                await asyncio.to_thread(self._blobs.sweep)

    async def close(self) -> None:
        """Commit what is waiting, then close the file. Whatever is called from now on is refused."""
        self._closed = True
        async with self._changing:
            if self._busy:
                await self._queued(Work(()))  # comes after all that is waiting
            connection, self._connection = self._connection, None
            try:
                self._sessions.end()
                self._observed.close()
                if connection is not None:
                    await connection.close()
            except sqlite3.Error as error:
                raise translated(error, self._database.path) from error
            finally:
                self._database.release()

    async def open_run(self, opening: Run, *, take_over: bool = False) -> RunSnapshot:
        """Create the run, or take it over for another pass, under the next epoch."""
        self._check_open()
        run_id = opening.run_id
        new = opening._replace(epoch=0, passes=1, result=None)
        sid = await self._sessions.enrol()
        changed = 0
        while not changed:  # until nobody else has opened it between our look at its owner and our opening
            epoch = None if take_over else await self._sessions.free_epoch(run_id)
            (_, changed), _, run, steps = await self._write(
                (_OPEN_RUN, (*schema.run_row(new), sid, take_over, epoch)),
                (_NEW_EPOCH, (run_id,)),
                (_GET_RUN, (run_id,)),
                (_GET_STEPS, (run_id,)),
            )
        opened = schema.read_run(run.rows[0])
        self._sessions.hold(opened)
        self.selects += 1
        return RunSnapshot(opened, tuple(map(schema.read_step, steps.rows)))

    async def check_owner(self, run_id: str) -> None:
        """Raise ``RunHeld`` as ``open_run`` would; changes nothing."""
        await self._sessions.free_epoch(run_id)

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:
        """Have the owner of a run told with the next sign of life if somebody else has opened it."""
        self._sessions.watch(run, lost)

    async def abandoned(self) -> frozenset[str]:
        """The runs that are recorded as running or waiting, and whose owners are known to be dead."""
        return await self._sessions.abandoned()

    async def get_run(self, run_id: str) -> Run | None:
        """The run alone, or None."""
        (run,) = await self._read((_GET_RUN, (run_id,)))
        return schema.read_run(run.rows[0]) if run.rows else None

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """The run and its steps, or None."""
        run, steps = await self._read((_GET_RUN, (run_id,)), (_GET_STEPS, (run_id,)))
        self.selects += 1
        if not run.rows:
            return None
        return RunSnapshot(schema.read_run(run.rows[0]), tuple(map(schema.read_step, steps.rows)))

    async def list_runs(self) -> Sequence[Run]:
        """All runs, the one with the latest ``updated_at`` first."""
        (runs,) = await self._read((_LIST_RUNS, ()))
        return [schema.read_run(row) for row in runs.rows]

    async def progress(self) -> Mapping[str, Progress]:
        """How far each run has come."""
        done, awaited = await self._read(*((sql, ()) for sql in schema.PROGRESS))
        return schema.read_progress(done.rows, awaited.rows)

    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Set a run, its steps and its signals aside under another id."""
        if new_id == run_id:
            raise id_taken(run_id, new_id)
        work = await self._commit([(sql, (new_id, run_id)) for sql in _RENAME_RUN])
        if isinstance(work.error, sqlite3.IntegrityError):
            raise id_taken(run_id, new_id) from work.error
        if not self._outcomes(work)[0].changed:
            raise unknown_run(run_id)

    async def put_step(self, step: Step) -> None:
        """Record a step, over what was recorded under its id; fenced by ``step.epoch``."""
        (put,) = await self._write((_PUT_STEP, (*schema.step_row(step), step.run_id, step.epoch)))
        if not put.changed:
            raise lost_run(step.run_id, await self.get_run(step.run_id), step=step.step_id)

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """One step as it was last recorded, or None."""
        (step,) = await self._read((_GET_STEP, (run_id, step_id)))
        return schema.read_step(step.rows[0]) if step.rows else None

    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""
        result = schema.payload_row(run.result)
        values = (run.status.value, run.updated_at, *result, run.run_id, run.epoch)
        (finished,) = await self._write((_FINISH_RUN, values))
        if run.status not in _OWNED or not finished.changed:
            self._sessions.let_go(run)
        if not finished.changed:
            raise lost_run(run.run_id, await self.get_run(run.run_id))

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps ``reset``; gives how many of them there were; fenced by ``run.epoch``."""
        ours = run.run_id, run.epoch
        steps = ((_RESET_STEP, (run.run_id, step_id, *ours)) for step_id in set(step_ids))
        held, *reset = await self._write((_IS_OURS, ours), *steps)
        if not held.rows:
            raise lost_run(run.run_id, await self.get_run(run.run_id))
        return sum(outcome.changed for outcome in reset)

    async def _connect(self) -> aiosqlite.Connection:
        database = self._database
        connection = await aiosqlite.connect(
            database.uri, uri=True, timeout=database.timeout, isolation_level=None, factory=database.open
        )
        if database.refusal is not None:
            await connection.close()
            raise translated(database.refusal, database.path) from database.refusal
        return connection

    async def _read(self, *statements: tuple[str, Sequence[Any]]) -> list[Outcome]:
        self._check_open()
        work = Work(statements)
        await self._run(READ, [work])
        return self._outcomes(work)

    async def _write(self, *statements: tuple[str, Sequence[Any]]) -> list[Outcome]:
        return self._outcomes(await self._commit(statements))

    async def _commit(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> Work:
        """Commit at once if nothing is under way; else share the next transaction with whoever waits too."""
        self._check_open()
        work = Work(statements)
        if self._busy:
            await self._queued(work)
            return work
        self._busy = True
        try:
            await self._run(WRITE, [work])
        finally:  # also when cancelled: the transaction goes on, and the others must not wait for nobody
            if self._queue:
                self._drainer = asyncio.create_task(self._drain())
            else:
                self._busy = False
        return work

    async def _queued(self, work: Work) -> None:
        settled = asyncio.get_running_loop().create_future()
        self._queue.append((work, settled))
        await settled

    async def _drain(self) -> None:
        # A task of its own: a caller that is cancelled takes nobody else's work along.
        batch: list[tuple[Work, asyncio.Future[None]]] = []
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                await self._run(WRITE, [work for work, _ in batch])
                for _, settled in batch:
                    if not settled.done():
                        settled.set_result(None)
        finally:
            self._busy = False
            for _, settled in batch + self._queue:  # something is left only when the loop is being shut down
                settled.cancel()

    async def _run(self, begin: str, batch: list[Work]) -> None:
        assert self._connection is not None
        try:
            await self._connection.executemany(begin, batch)
        except Exception as error:
            for work in batch:
                work.error = error

    def _outcomes(self, work: Work) -> list[Outcome]:
        if work.error is not None:
            raise translated(work.error, self._database.path) from work.error
        return work.outcomes

    def _check_open(self) -> None:
        if self._closed:
            raise self._shut()
        if self._connection is None:
            raise StoreUnavailable(f"{self.location!r} is not open yet", remedy="Await setup() first.")

    def _shut(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.location!r} was closed",
            remedy=("Open it again: ", OpenRun(), ", or open_journal(path)."),
        )

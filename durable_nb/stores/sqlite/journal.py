"""The SQLite journal: one persistent connection, and commits that include all other waiting writes."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import aiosqlite

from durable_nb import settings
from durable_nb.concurrency.forking import UNOPENED, check_process, forks, is_inherited
from durable_nb.errors import InvalidOption, OpenRun, RunHeld, StoreUnavailable, StoreUnreadable
from durable_nb.records import (
    Message,
    Progress,
    Run,
    RunSnapshot,
    RunStatus,
    Signal,
    SignalRequest,
    Step,
)
from durable_nb.stores.base import Journal
from durable_nb.stores.blobs.folder import BlobFolder, Blobs
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.errors import check_found, id_taken, lost_run, unknown_run
from durable_nb.stores.payloads import preload
from durable_nb.stores.rows import RUN_COLUMNS
from durable_nb.stores.sqlite import schema, sql, statements
from durable_nb.stores.sqlite.checkpoints import Checkpoints
from durable_nb.stores.sqlite.connection import READ, WRITE, Outcome, Statement, Work
from durable_nb.stores.sqlite.database import Database
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.rowcheck import stray_step
from durable_nb.stores.sqlite.sessions import Sessions

__all__ = ["SqliteJournal"]

_OWNED = (RunStatus.RUNNING, RunStatus.WAITING)

# At level DEBUG, aiosqlite logs each statement with its values: where the root logger has that level, results
# would be printed, unredacted, between the outputs of cells. A level that the user set for aiosqlite stays.
if logging.getLogger("aiosqlite").level == logging.NOTSET:
    logging.getLogger("aiosqlite").setLevel(logging.INFO)


def _snapshot_of(run_id: str) -> tuple[Statement, ...]:
    """Return the statements that read a run and its steps."""
    return (sql.GET_RUN, (run_id,)), (sql.GET_STEPS, (run_id,))


class SqliteJournal(Journal):
    """Keeps runs in a SQLite file on this machine's disk, shared by any number of processes.

    Args:
        path: The file; it is created if it does not exist. Its folder must exist.
        synchronous: ``full``: a recorded step survives power loss. ``normal``: faster; a recorded step
            survives the death of the process, but power loss may lose the last ones.
        busy_timeout: Seconds to wait for a lock that another process holds.

    Attributes:
        commits: Number of write transactions that this object has committed.
        selects: Number of times it has read the steps of a run.

    Raises:
        InvalidOption: ``synchronous`` is neither ``full`` nor ``normal``.

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
            raise InvalidOption(f"invalid synchronous={synchronous!r}: expected 'full' or 'normal'")
        self.selects = 0
        self._database = Database(Path(path).resolve(), synchronous, busy_timeout)
        self._blobs = BlobFolder(Path(f"{self._database.path}.blobs"))
        self._connection: aiosqlite.Connection | None = None
        self._rows = CheckedRows("")
        self._busy, self._closed, self._forks = False, False, UNOPENED
        self._setup_lock = asyncio.Lock()
        self._queue: list[tuple[Work, asyncio.Future[None]]] = []
        self._drain_task: asyncio.Task[None] | None = None
        self._acknowledged = self._database.acknowledged
        self._checkpoints = Checkpoints(self._database, self._run)
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
    def identity(self) -> str:
        """The random id that the database got when it was made."""
        return self._rows.database

    @property
    def is_there(self) -> bool:
        """True if the file exists."""
        return self._database.path.exists()

    @property
    def blobs(self) -> Blobs:
        """The folder of large payloads: ``<path>.blobs``."""
        return self._blobs

    @property
    def commits(self) -> int:
        """Number of write transactions that this object has committed."""
        return self._database.commits

    @property
    def closed(self) -> bool:
        """True after ``close``, in a forked child, and after the file was deleted or replaced."""
        return self._closed or is_inherited(self._forks) or self._database.moved()

    async def setup(self) -> None:
        """Open the file, and create or migrate it if necessary."""
        async with self._setup_lock:
            if self._closed:
                raise self._closed_error()
            if self._connection is None:
                self._connection, self._forks = await self._connect(), forks()
                self._checkpoints.start()
                asyncio.get_running_loop().run_in_executor(None, preload)
                await asyncio.to_thread(self._blobs.sweep)

    async def close(self) -> None:
        """Commit the waiting writes, then close the file; later calls raise ``StoreUnavailable``."""
        self._closed = True
        async with self._setup_lock:
            if self._busy:
                await self._commit_in_batch(Work(()))  # is committed after all writes that wait
            if self._connection is not None:
                await self._checkpoints.stop()
            connection, self._connection = self._connection, None
            try:
                self._sessions.end()
                self._database.observer.close()
                if connection is not None:
                    await connection.close()
            except sqlite3.Error as error:
                raise translated(error, self._database.path) from error
            finally:
                self._database.release()

    async def open_run(self, opening: Run, *, take_over: bool = False) -> RunSnapshot:
        """Create the run, or open it again under the next epoch; see ``Journal.open_run``."""
        self._check_open()
        run_id = opening.run_id
        if self._database.stray is not None and await self.get_run(run_id) is not None:
            raise stray_step(self._database.stray, self.location, run_id)
        new = opening._replace(epoch=0, passes=1, result=None)
        sid = await self._sessions.start()
        changed = 0
        while not changed:  # another process may open the run after its owner was checked
            epoch = None if take_over else await self._sessions.free_epoch(run_id)
            check_found(opening, epoch)
            opened = await self._write(
                (sql.OPEN_RUN, (*self._rows.run_row(new), sid, take_over, epoch)),
                (sql.NEW_EPOCH, (run_id,)),
                *_snapshot_of(run_id),
                (sql.GET_EARLIER, (run_id,)),
                *statements.drop_late(run_id),
                acknowledged=partial(self._acknowledged.opened, sid),
            )
            changed = opened[0].changed
            if not changed:
                await self.get_run(run_id)  # raises if the run is damaged: it would never be opened
        snapshot = self._snapshot(opened[2:4])
        assert snapshot is not None
        self._sessions.hold(snapshot.run)
        return snapshot

    async def check_owner(self, run_id: str) -> None:
        """Raise ``RunHeld`` if ``open_run`` would, and change nothing."""
        await self._sessions.free_epoch(run_id)

    def watch(self, run: Run, lost: Callable[[RunHeld], None]) -> None:
        """Call ``lost`` with the next heartbeat after another process has opened the run."""
        self._sessions.watch(run, lost)

    async def abandoned(self) -> frozenset[str]:
        """Return the ids of runs recorded as running or waiting whose owners are known to be dead."""
        return await self._sessions.abandoned()

    async def get_run(self, run_id: str) -> Run | None:
        """Return the run without its steps, or None."""
        (run,) = await self._read((sql.GET_RUN, (run_id,)))
        return self._rows.run(run.rows[0]) if run.rows else None

    async def read_run(self, run_id: str) -> RunSnapshot | None:
        """Return the run and its steps, or None."""
        return self._snapshot(await self._read(*_snapshot_of(run_id)))

    async def list_runs(self) -> Sequence[Run]:
        """Return all runs, the one with the latest ``updated_at`` first."""
        (runs,) = await self._read((sql.LIST_RUNS, ()))
        return [self._rows.run_or_damaged(row) for row in runs.rows]

    async def progress(self) -> Mapping[str, Progress]:
        """Return the progress of each run."""
        done, awaited = await self._read(*((each, ()) for each in schema.PROGRESS))
        return schema.read_progress(done.rows, awaited.rows)

    async def rename_run(self, run_id: str, new_id: str) -> None:
        """Rename a run with its steps, its signals, its messages and its requests."""
        if new_id == run_id:
            raise id_taken(run_id, new_id)
        change = self._rows.renamed_run(run_id, new_id)
        changes = [(each, (new_id, run_id, change)) for each in sql.RENAME_RUN]
        work = await self._commit(changes, partial(self._acknowledged.renamed, run_id))
        if isinstance(work.error, sqlite3.IntegrityError) and "UNIQUE" in str(work.error):
            raise id_taken(run_id, new_id) from work.error
        if not self._outcomes(work)[0].changed:
            raise unknown_run(run_id, self.address)
        await self._checkpoints.make()  # the copies under the old id are gone

    async def put_step(self, step: Step) -> None:
        """Record a step in place of its previous record; fenced by ``step.epoch``."""
        await self._record(step, statements.put_step(self._rows, step))

    async def _record(self, step: Step, work: list[Statement]) -> None:
        *_, put = await self._write(*work, keep=(step.run_id, step.step_id))
        if not put.changed:
            raise lost_run(step.run_id, await self.get_run(step.run_id), step=step.step_id)

    async def get_step(self, run_id: str, step_id: str) -> Step | None:
        """Return a step as it was last recorded, or None."""
        (step,) = await self._read((sql.GET_STEP, (run_id, step_id)))
        return self._rows.steps(step.rows)[0] if step.rows else None

    async def versions(self, run_id: str, step_id: str) -> Sequence[Step]:
        """Return the earlier results of a step, the oldest first."""
        (found,) = await self._read((sql.GET_VERSIONS, (run_id, step_id)))
        return self._rows.steps(found.rows)

    async def drop_versions(self, run_id: str) -> int:
        """Delete the earlier results of a run's steps, and return how many there were."""
        (dropped,) = await self._write((sql.DROP_VERSIONS, (run_id,)))
        return dropped.changed

    async def finish_run(self, run: Run) -> None:
        """Record ``status``, ``result`` and ``updated_at`` of a run; fenced by ``run.epoch``."""
        row = dict(zip(RUN_COLUMNS, self._rows.run_row(run), strict=True))
        values = (*(row[name] for name in sql.ENDED.split(", ")), run.run_id, run.epoch)
        statement, ended = (sql.FINISH_RUN, values), run.status not in _OWNED
        noted = partial(self._acknowledged.finished, run.run_id, statement, ended)
        (finished,) = await self._write(statement, acknowledged=noted)
        if ended or not finished.changed:
            self._sessions.let_go(run)
        if not finished.changed:
            raise lost_run(run.run_id, await self.get_run(run.run_id))
        if not self._sessions.owns_runs:
            await self._checkpoints.make()

    async def reset_steps(self, run: Run, step_ids: Sequence[str]) -> int:
        """Mark steps as ``reset``, and return how many of them exist; fenced by ``run.epoch``."""
        ours = run.run_id, run.epoch
        found = await self._read(*((sql.GET_STEP, (run.run_id, each)) for each in dict.fromkeys(step_ids)))
        rows = [row for outcome in found for row in outcome.rows]
        keep = run.run_id, ("reset", tuple(step_ids))
        work = statements.reset(self._rows, run, rows)
        held, *_ = await self._write((sql.IS_OURS, ours), *work, keep=keep)
        if not held.rows:
            raise lost_run(run.run_id, await self.get_run(run.run_id))
        return len(rows)

    async def put_signal(self, signal: Signal, *, ttl: float | None = None) -> bool:
        """Deliver a signal; return True if it is the first of its name. The run need not exist."""
        put, key = statements.deliver(self._rows, signal, ttl), (signal.run_id, signal.name)
        keep = signal.run_id, ("signal", signal.name)
        first, there = (await self._write(*put, (sql.GET_SIGNAL, key), keep=keep))[-2:]
        try:
            self._rows.signal(there.rows[0])
        except StoreUnreadable:  # what cannot be read was not delivered
            *_, first = await self._write((sql.DROP_SIGNAL, (*key, there.rows[0][-1])), *put, keep=keep)
        return first.changed == 1

    async def get_signal(self, run_id: str, name: str) -> Signal | None:
        """Return the signal delivered under a name, or None."""
        (signal,) = await self._read((sql.GET_SIGNAL, (run_id, name)))
        return self._rows.signal(signal.rows[0]) if signal.rows else None

    async def find_signals(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Signal]:
        """Return those of the wanted signals that were delivered."""
        (signals,) = await self._read((sql.FIND_SIGNALS, (json.dumps(wanted),)))
        return [self._rows.signal(row) for row in signals.rows]

    async def set_aside_signal(self, signal: Signal, name: str) -> None:
        """Rename a delivered signal, so that its name is free for another delivery."""
        change = self._rows.renamed_signal(signal.name, name)
        delivery = signal.name, signal.delivered_by, signal.delivered_at
        keep = signal.run_id, ("set aside", name)
        await self._write((sql.SET_ASIDE, (name, signal.run_id, change, *delivery)), keep=keep)

    async def put_message(self, message: Message, *, ttl: float | None = None) -> None:
        """Append a message to its topic, unless one of its ``delivery`` is there."""
        keep = message.run_id, ("message", message.topic, message.delivery)
        await self._write(*statements.send(self._rows, message, ttl), keep=keep)

    async def unread(self, run_id: str, topic: str, limit: int) -> Sequence[Message]:
        """Return the first messages of a topic that were not received yet."""
        (found,) = await self._read((sql.UNREAD, (run_id, topic, limit)))
        return [self._rows.message(row) for row in found.rows]

    async def receive(self, message: Message, step: Step) -> None:
        """Record a step, and that it has received a message, whose value is kept by the step alone then."""
        await self._record(step, statements.receive(self._rows, message, step))

    async def version(self) -> Hashable:
        """Return a value that changes with each commit, of this process or of another."""
        return self._database.observer.version()

    async def request_signal(self, request: SignalRequest, step: Step | None = None) -> SignalRequest:
        """Record a request for a signal, and the step that waits for it, in one transaction."""
        work = statements.request(self._rows, request, step)
        keep = request.run_id, ("request", request.name)
        put, recorded, *_ = await self._write(*work, keep=keep)
        if step is not None and not put.changed:
            raise lost_run(step.run_id, await self.get_run(step.run_id), step=step.step_id)
        return self._rows.request(recorded.rows[0])

    async def withdraw_signal(self, run_id: str, name: str) -> None:
        """Delete a request."""
        await self._write((sql.WITHDRAW, (run_id, name)), keep=(run_id, ("request", name)))

    async def get_request(self, run_id: str, name: str) -> SignalRequest | None:
        """Return a run's request for a signal of that name, or None."""
        (request,) = await self._read((sql.GET_REQUEST, (run_id, name)))
        return self._rows.request(request.rows[0]) if request.rows else None

    async def open_signals(self) -> Sequence[SignalRequest]:
        """Return the requests for signals that were not delivered yet, the oldest first."""
        (requests,) = await self._read((sql.OPEN_SIGNALS, ()))
        return [self._rows.request_or_damaged(row) for row in requests.rows]

    def _snapshot(self, found: list[Outcome]) -> RunSnapshot | None:
        self.selects += 1
        run, steps = (outcome.rows for outcome in found)
        return RunSnapshot(self._rows.run(run[0]), self._rows.steps(steps)) if run else None

    async def _connect(self) -> aiosqlite.Connection:
        database = self._database
        connection = await aiosqlite.connect(
            database.uri, uri=True, timeout=database.timeout, isolation_level=None, factory=database.open
        )
        if database.open_error is not None:
            await connection.close()
            raise translated(database.open_error, database.path) from database.open_error
        self._rows = CheckedRows(database.id)
        return connection

    async def _read(self, *statements: Statement) -> list[Outcome]:
        self._check_open()
        work = Work(statements)
        await self._run(READ, [work])
        return self._outcomes(work)

    async def _write(
        self,
        *statements: Statement,
        keep: tuple[str, Hashable] | None = None,
        acknowledged: Callable[[list[Outcome]], None] | None = None,
    ) -> list[Outcome]:
        if keep is not None:
            acknowledged = partial(self._acknowledged.wrote, *keep, statements)
        return self._outcomes(await self._commit(statements, acknowledged))

    async def _commit(
        self,
        statements: Sequence[Statement],
        acknowledged: Callable[[list[Outcome]], None] | None = None,
    ) -> Work:
        """Commit at once if no transaction is under way, else together with all writes that wait."""
        self._check_open()
        work = Work(statements, acknowledged)
        self._checkpoints.expect()
        if self._busy:
            await self._commit_in_batch(work)
            return work
        self._busy = True
        try:
            await self._run(WRITE, [work])
        finally:  # also when cancelled: the transaction goes on, and the queued writes still need a task
            if self._queue:
                self._drain_task = asyncio.create_task(self._drain())
            else:
                self._busy = False
        return work

    async def _commit_in_batch(self, work: Work) -> None:
        finished = asyncio.get_running_loop().create_future()
        self._queue.append((work, finished))
        await finished

    async def _drain(self) -> None:
        # Runs in a task of its own: cancelling one caller must not cancel the writes of others.
        batch: list[tuple[Work, asyncio.Future[None]]] = []
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                await self._run(WRITE, [work for work, _ in batch])
                for _, finished in batch:
                    if not finished.done():
                        finished.set_result(None)
        finally:
            self._busy = False
            for _, finished in batch + self._queue:  # not empty only while the loop is shutting down
                finished.cancel()

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
        check_process(self._forks)
        if self._closed:
            raise self._closed_error()
        if self._connection is None:
            raise StoreUnavailable(f"{self.location!r} is not open yet", remedy="Call await setup() first.")

    def _closed_error(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.location!r} was closed",
            remedy=("Open it again: ", OpenRun(), ", or open_journal(path)."),
        )

"""Take a run, a step or their values out of a database for good: rows, free pages, log and blobs.

Synchronous, and without a journal, like ``inspection``: it rewrites the whole file.
"""

# ruff: noqa: S608 - only constants are formatted into SQL

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

from durable_nb import codec, settings
from durable_nb.errors import StepNotFound
from durable_nb.records import Payload, Run, RunStatus, Step, signal_step
from durable_nb.stores import rows
from durable_nb.stores.blobs.folder import DIGEST
from durable_nb.stores.checked import CheckedRows
from durable_nb.stores.errors import unknown_run
from durable_nb.stores.sqlite import inspection, schema, sql
from durable_nb.stores.sqlite.errors import translated
from durable_nb.stores.sqlite.lockfile import LockFile
from durable_nb.stores.sqlite.mark import COUNT_COMMIT, Identity, Mark
from durable_nb.stores.sqlite.opening import check_files, check_path, connect
from durable_nb.stores.sqlite.schema import RUN, SIGNAL, STEP, marks

__all__ = ["Target", "forget"]

_FORGOTTEN: Final = Payload(codec.FORGOTTEN, b"")
_ELSEWHERE: Final = (
    "what other steps and the run itself returned, and its arguments, are still there, and may contain it"
)
_SET_ASIDE: Final = re.compile(r"~\d+")
_INSIDE: Final = (
    "run_id = ?1 AND (?2 IS NULL OR step_id = ?2 OR substr(step_id, 1, length(?2) + 1) = ?2 || '/')"
)
_PUT: Final = {
    "runs": f"UPDATE runs SET ({RUN}) = ({marks(RUN)}) WHERE run_id = ?1",
    "steps": f"UPDATE steps SET ({STEP}) = ({marks(STEP)}) WHERE run_id = ?1 AND step_id = ?2",
    "signals": f"UPDATE signals SET ({SIGNAL}) = ({marks(SIGNAL)}) WHERE run_id = ?1 AND name = ?2",
}


class Target(NamedTuple):
    """A run, a step or their values that are to be forgotten.

    Attributes:
        run_id: The run.
        step_id: The step, with all steps inside it; None for the whole run.
        value_only: Whether the records stay, without the values: the step does not run again then.
    """

    run_id: str
    step_id: str | None = None
    value_only: bool = False


def forget(path: Path, target: Target) -> list[str]:
    """Take something out of a database for good, and return what was done, one line each.

    A run that another process has opened meanwhile is lost to it: its next write is refused.

    Args:
        path: The file.
        target: What is to be forgotten.

    Raises:
        RunNotFound: The database has no such run.
        StepNotFound: The run has no such step.
        StoreError: The database cannot be written, or is damaged.
    """
    path = path.resolve()
    check_path(path)
    lock = LockFile.shared(Path(f"{path}.lock"))
    try:
        check_files(path, lock, settings.BUSY_TIMEOUT)
        with lock.mutex(settings.BUSY_TIMEOUT):
            return _forget(path, lock, target)
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path) from error
    finally:
        lock.release()


def _forget(path: Path, lock: LockFile, target: Target) -> list[str]:
    options = {"uri": True, "timeout": settings.BUSY_TIMEOUT, "isolation_level": None}
    uri = f"{path.as_uri()}?mode=rw"
    connection = connect(path, uri, options, lock=lock, synchronous="full", mutex=nullcontext())
    with closing(connection):
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        before = inspection.referenced_blobs(path, connection)
        counts = _Removal(connection, path, target).removed()
        connection.execute(COUNT_COMMIT).fetchall()
        connection.execute("COMMIT")
        unneeded = before - inspection.referenced_blobs(path, connection)
        whole = _rewritten(connection)
        identity = Identity.of(connection)
        assert identity is not None
        lock.write_mark(Mark(identity.database, identity.commits).encode())
    lines = [_summary(target, counts), *_blobs_removed(path, unneeded), *whole]
    return lines if target.step_id is None else [*lines, _ELSEWHERE]


class _Removal:
    """Removes what is to be forgotten, in one transaction.

    Args:
        connection: A connection inside the transaction.
        path: The file, for messages.
        target: What is to be forgotten.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, target: Target) -> None:
        self._connection, self._path, self._target = connection, path, target
        self._rows = CheckedRows(schema.database_id(connection))
        self._key = target.run_id, target.step_id

    def removed(self) -> dict[str, int]:
        """Remove it, and return the number of rows of each kind."""
        run_id, step_id, value_only = self._target
        if not self._select("SELECT 1 FROM runs WHERE run_id = ?", run_id) and step_id is None:
            raise unknown_run(run_id, str(self._path))
        signals = list(self._signals())
        counts = {
            "step": self._blank_steps() if value_only else self._delete("steps", _INSIDE, *self._key),
            "earlier result": self._delete("versions", _INSIDE, *self._key),
            "signal": sum(self._forget_signal(name) for name in signals),
        }
        if step_id is None:
            self._forget_run()
        elif not any(counts.values()):
            remedy = f"Look at its steps: durable-nb status {run_id} --db {self._path}"
            raise StepNotFound("no step of that name", run_id=run_id, step=step_id, remedy=remedy)
        elif not value_only:
            self._enter_again()
        self._connection.execute("UPDATE runs SET epoch = epoch + 1 WHERE run_id = ?", (run_id,))  # fence it
        return counts

    def _select(self, statement: str, *values: object) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def _delete(self, table: str, where: str, *values: object) -> int:
        return self._connection.execute(f"DELETE FROM {table} WHERE {where}", values).rowcount

    def _blank_steps(self) -> int:
        found = self._select(f"SELECT {STEP} FROM steps WHERE {_INSIDE}", *self._key)
        for step in map(rows.read_step, map(self._rows.checked_step, found)):
            self._connection.execute(_PUT["steps"], self._rows.step_row(_blank(step)))
        return len(found)

    def _signals(self) -> Iterator[str]:
        """Yield the names of the signals concerned, also of answers that were set aside."""
        run_id, step_id, _ = self._target
        known = "SELECT name FROM signals WHERE run_id = ?1 UNION SELECT name FROM requests WHERE run_id = ?1"
        steps = {each for (each,) in self._select(f"SELECT step_id FROM steps WHERE {_INSIDE}", *self._key)}
        ends = {each.rpartition("/")[2] for each in steps | {step_id or ""}}
        for (name,) in self._select(known, run_id):
            asked = _SET_ASIDE.sub("", name) if _SET_ASIDE.search(name) else name
            if step_id is None or signal_step(name) in ends or signal_step(asked) in ends:
                yield name

    def _forget_signal(self, name: str) -> int:
        key = self._target.run_id, name
        self._delete("requests", "run_id = ? AND name = ?", *key)
        if not self._target.value_only:
            return self._delete("signals", "run_id = ? AND name = ?", *key)
        found = self._select(f"SELECT {SIGNAL} FROM signals WHERE run_id = ? AND name = ?", *key)
        for signal in map(self._rows.signal, found):
            self._connection.execute(
                _PUT["signals"], self._rows.signal_row(signal._replace(payload=_FORGOTTEN))
            )
        return len(found)

    def _enter_again(self) -> None:
        """Have a run that is done entered again: its result rests on the step."""
        for found in self._select(sql.GET_RUN, self._target.run_id):
            run = self._rows.run(found)
            if run.status is RunStatus.DONE:
                self._put_run(run._replace(status=RunStatus.INTERRUPTED, result=None))

    def _forget_run(self) -> None:
        run_id = self._target.run_id
        self._delete("messages", "run_id = ?", run_id)
        if not self._target.value_only:
            self._delete("runs", "run_id = ?", run_id)
            return
        (found,) = self._select(sql.GET_RUN, run_id)
        run = self._rows.run(found)
        self._put_run(run._replace(result=run.result and _FORGOTTEN, arguments_repr=None, given=None))

    def _put_run(self, run: Run) -> None:
        self._connection.execute(_PUT["runs"], self._rows.run_row(run))


def _blank(step: Step) -> Step:
    return step._replace(payload=step.payload and _FORGOTTEN, arguments_repr=None)


def _rewritten(connection: sqlite3.Connection) -> list[str]:
    """Rewrite the file without what is free in it, and empty its log; return a line if others hold it."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("VACUUM")
    ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if not busy:
        return []
    return [
        "another process reads the database: its log still holds it. Run the command again when it has ended"
    ]


def _blobs_removed(path: Path, unneeded: set[str]) -> list[str]:
    folder = inspection.blob_folder(path).folder
    gone = 0
    for digest in filter(DIGEST.fullmatch, unneeded):
        found = list((folder / digest[:2]).glob(f"{digest}*"))
        gone += bool(found)
        for file in found:
            file.unlink(missing_ok=True)
    lines = [f"deleted {gone:,} large values"] if gone else []
    if missing := len(unneeded) - gone:
        lines.append(
            f"{missing:,} large values are not in {str(folder)!r}: delete them where blobs= keeps them"
        )
    return lines


def _summary(target: Target, counts: dict[str, int]) -> str:
    what = f"run {target.run_id!r}" + ("" if target.step_id is None else f", step {target.step_id!r}")
    values = "the values of " if target.value_only else ""
    return f"forgot {values}{what}: {_counted(list(counts.items()))}"


def _counted(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts)

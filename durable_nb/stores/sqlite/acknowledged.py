"""What this process has written and reported as committed, so that it can be written again.

The files of a database may be deleted, replaced or truncated while a run is open. The process then still has
in memory what it has recorded.
"""

# ruff: noqa: S608 - only constants are formatted into SQL

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from durable_nb.stores.sqlite.connection import Outcome, Statement
from durable_nb.stores.sqlite.schema import RUN, STEP, excluded, marks

__all__ = ["Acknowledged"]

_PUT_RUN: Final = f"""
    INSERT INTO runs ({RUN}, sid) VALUES ({marks(RUN)}, ?)
    ON CONFLICT (run_id) DO UPDATE SET {excluded(f"{RUN}, sid", "run_id")}"""
_PUT_STEP: Final = f"""
    INSERT INTO steps ({STEP}) VALUES ({marks(STEP)})
    ON CONFLICT (run_id, step_id) DO UPDATE SET {excluded(STEP, "run_id", "step_id")}"""
_PUT_VERSION: Final = f"INSERT OR REPLACE INTO versions ({STEP}) VALUES ({marks(STEP)})"
_NEWER: Final = "SELECT 1 FROM runs WHERE run_id = ? AND epoch > ?"
_EPOCH: Final = RUN.split(", ").index("epoch")


@dataclass(slots=True)
class _Writes:
    """The writes of one run: its row and its steps when it was opened, then statements in order."""

    row: tuple[Any, ...] | None = None
    steps: Sequence[Sequence[Any]] = ()
    earlier: Sequence[Sequence[Any]] = ()
    statements: dict[Hashable, Sequence[Statement]] = field(default_factory=dict)
    ended: bool = True


class Acknowledged:
    """The acknowledged writes of this process: all of its open runs, else those not in the file yet.

    It is used in the thread of the connection, so that no batch begins before the last one is noted.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Writes] = {}

    def opened(self, sid: int, outcomes: Sequence[Outcome]) -> None:
        """Note that a run was opened.

        Args:
            sid: The session that owns it.
            outcomes: Those of the statements that opened it, and read its row and the rows of its steps.
        """
        opening, _, run, steps, earlier, *_ = outcomes
        if opening.changed:
            row = (*run.rows[0], sid)
            self._runs[run.rows[0][0]] = _Writes(row, steps.rows, earlier.rows, ended=False)

    def wrote(
        self, run_id: str, key: Hashable, statements: Sequence[Statement], outcomes: Sequence[Outcome]
    ) -> None:
        """Note that statements were committed, in place of earlier ones under the same key."""
        if outcomes[0].changed <= 0 and not any(outcome.changed > 0 for outcome in outcomes):
            return
        written = self._runs.setdefault(run_id, _Writes()).statements
        written.pop(key, None)  # the order is that of the last writes
        written[key] = statements

    def finished(self, run_id: str, statement: Statement, ended: bool, outcomes: Sequence[Outcome]) -> None:
        """Note that the status of a run was committed; those of an ended run are kept until a checkpoint."""
        if not outcomes[0].changed:  # another process owns it now
            self._runs.pop(run_id, None)
            return
        self.wrote(run_id, "finished", (statement,), outcomes)
        self._runs[run_id].ended = ended or self._runs[run_id].row is None

    def renamed(self, run_id: str, _outcomes: Sequence[Outcome]) -> None:
        """Forget a run: its id may become that of another one."""
        self._runs.pop(run_id, None)

    def checkpointed(self) -> None:
        """Note that the database's file holds all commits, without its write-ahead log."""
        self._runs = {run_id: writes for run_id, writes in self._runs.items() if not writes.ended}

    def write_again(self, connection: sqlite3.Connection) -> list[str]:
        """Write all of it again, inside a transaction, but for runs that another process has opened since.

        Args:
            connection: A connection to the database.

        Returns:
            The ids of the runs that were written again.
        """
        written = []
        for run_id, writes in self._runs.items():
            epoch = writes.row[_EPOCH] if writes.row else 0
            if writes.row and connection.execute(_NEWER, (run_id, epoch)).fetchone():
                continue
            if writes.row:
                connection.execute(_PUT_RUN, writes.row)
            connection.executemany(_PUT_STEP, writes.steps)
            connection.executemany(_PUT_VERSION, writes.earlier)
            for statements in writes.statements.values():
                for statement in statements:
                    connection.execute(*statement)
            written.append(run_id)
        return written

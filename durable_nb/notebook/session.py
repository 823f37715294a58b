"""What one IPython shell has open: the workflow, its run, and how durable cells show themselves."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from durable_nb import settings
from durable_nb.concurrency.bridge import SYNC, run_blocking
from durable_nb.concurrency.pending import wait_for_pending
from durable_nb.engine import resolve
from durable_nb.engine.fork import fork
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.opening import open_run
from durable_nb.engine.status import all_runs, one_run
from durable_nb.errors import SCRIPT, NoOpenRun, RemedyAction, RunHeld, Spelling, StepChanged
from durable_nb.notebook.lineage.compare import downstream
from durable_nb.notebook.lineage.tracker import Tracker
from durable_nb.notebook.shell import frontend
from durable_nb.notebook.spelling import NOTEBOOK as NOTEBOOK_SPELLING
from durable_nb.records import Run, RunStatus, StepStatus
from durable_nb.signals import delivery
from durable_nb.stores import open_journal
from durable_nb.stores.host import this_process
from durable_nb.stores.urls import without_password
from durable_nb.workflow.workflow import NOTEBOOK

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle
    from durable_nb.engine.status import Table
    from durable_nb.records import Step
    from durable_nb.stores import Journal, StoreLike

__all__ = ["Session"]


class Session:
    """The open run of one shell; a ContextVar would not outlive the cell.

    Args:
        shell: The IPython shell.

    Attributes:
        on_record: The names that finished cells wrote, in this pass.
        reported_unseen: The names of which a person was told that changes in them cannot be seen.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.workflow = NOTEBOOK
        self.run: RunHandle | None = None
        self.badge = settings.BADGE
        self.on_record: set[str] = set()
        self.reported_unseen: set[str] = set()
        self.tracker = Tracker(shell)
        self._cells: dict[str, tuple[str | None, str]] = {}
        self._asked_for: str | None = None

    def spelling(self, action: RemedyAction) -> Spelling:
        """Return how to spell an action: by magics for the notebook's own run, as in a script for others."""
        return NOTEBOOK_SPELLING if action.run_id in (None, self._asked_for) else SCRIPT

    def open(
        self,
        run_id: str,
        *,
        db: StoreLike | None,
        name: str | None,
        fresh: bool = False,
        take_over: bool = False,
    ) -> RunHandle:
        """Open a run, or start a new pass of it; another one that was open is left.

        Args:
            run_id: What names the run.
            db: Where it is kept; as before if not given, at first in ``durable.db``.
            name: The workflow's name; as before if not given.
            fresh: Set an old history of that id aside, and start over.
            take_over: Open it even if another living kernel owns it.

        Raises:
            RunHeld: Another living kernel owns it.
            RunChanged: The id belongs to another workflow.
        """
        self._asked_for = run_id
        place = self._place(db)
        opening = Run(check_run_id(run_id), name or self.workflow.name)
        try:
            run = run_blocking(open_run(place, opening, SYNC, fresh=fresh, take_over=take_over))
        except RunHeld as held:
            held.remedy = f"Go on there, or take it over: {_taking_over(run_id, db, name, fresh=fresh)}"
            raise
        if self.run is not None and (self.run.run_id, self.run.journal) != (run_id, place):
            with suppress(RunHeld):  # taken over meanwhile: how it goes on is said elsewhere
                self.leave(RunStatus.INTERRUPTED)
        self.workflow.move_to(name=name, db=db)
        self.run = run
        self._cells.clear()
        self.on_record.clear()
        self.new_cell()
        return run

    def leave(self, status: RunStatus) -> None:
        """Record how the open run was left, and close it."""
        run = self.require_run()
        run_blocking(run.mark(status, SYNC))
        self.workflow.attach(None)
        self.run = None

    def require_run(self) -> RunHandle:
        """The open run.

        Raises:
            NoOpenRun: There is none.
        """
        if self.run is None:
            raise NoOpenRun("no run is open", remedy="Type: %durable_workflow RUN_ID")
        return self.run

    def new_cell(self, *_: object) -> None:
        """Forget how often a call came in the last cell: equal calls are counted within one execution."""
        self.workflow.attach(self.run)

    @contextmanager
    def named(self, name: str, code: str) -> Iterator[None]:
        """Note which cell has a step's name, if it succeeds; another cell cannot have it too.

        Args:
            name: The step's name.
            code: Fingerprint of the cell.

        Raises:
            StepChanged: Another cell of the notebook, with other code, has that name.
        """
        cell = frontend.cell_id(self.shell)
        known, known_code = self._cells.get(name, (cell, code))
        another = known != cell or (cell is None and frontend.is_headless(self.shell))
        if another and known_code != code:
            raise StepChanged(
                "another cell of this notebook has that name",
                run_id=self.require_run().run_id,
                step=name,
                remedy=f"Give one of them another name; if the other is gone: %durable_reset {name}",
            )
        yield
        self._cells[name] = cell, code

    @property
    def called(self) -> Collection[str]:
        """The names of the durable cells that succeeded in this pass."""
        return self._cells

    def reset(self, name: str, *, with_downstream: bool = False) -> list[str]:
        """Have a step and all inside it run again at its next call; gives their ids.

        Args:
            name: The step's id.
            with_downstream: Also the cells that read what it gave, and so on.

        Raises:
            StepNotFound: The run has no step of that name.
        """
        run = self.require_run()
        # A task that never finished is not on record itself, what had finished inside it is.
        found = resolve.with_inner(run, name) or [run_blocking(resolve.find_step(run, name, SYNC)).step_id]
        after = downstream(run, name) if with_downstream else []
        found += [each for cell in after for each in resolve.with_inner(run, cell)]
        run_blocking(run.reset(found, SYNC))
        for cell in (name, *after):
            self._cells.pop(cell, None)
        return found

    def fork(self, new_id: str, before: str | None) -> None:
        """Open another run with the open one's history up to a step.

        Raises:
            StepNotFound: The open run has no such step.
            StoreError: There is a run of that id.
        """
        run = self.require_run()
        run_blocking(wait_for_pending(SYNC))
        run_blocking(SYNC.store(fork(run.journal, run.run_id, check_run_id(new_id), before)))
        self.open(new_id, db=None, name=run.run.workflow)

    def resolve(self, name: str, answer: str, value: Any) -> None:
        """Record what a person says of a step in doubt.

        Raises:
            StepNotFound: The run has no step of that name.
            StepError: It is not in doubt.
        """
        run_blocking(resolve.resolve_step(self.require_run(), name, answer, value, SYNC))
        self._cells.pop(name, None)

    def deliver(self, run_id: str, name: str, value: Any) -> str:
        """Deliver a signal to a run of the same database; gives what became of it, for people.

        Raises:
            SignalInvalid: The run would not accept it.
        """
        signal = delivery.make_signal(check_run_id(run_id), name, value, this_process())
        earlier = run_blocking(SYNC.store(delivery.deliver(self.workflow.journal, signal, value)))
        return delivery.describe_delivery(signal, earlier)

    def runs(self, db: StoreLike | None) -> Table:
        """All runs of a database, by default the notebook's own.

        Raises:
            StoreUnavailable: There is none.
        """
        return run_blocking(SYNC.store(all_runs(self._place(db))))

    def status(self, run_id: str | None, db: StoreLike | None) -> list[Table]:
        """Where a run stands, by default the open one.

        Raises:
            NoOpenRun: There is none open.
            RunNotFound: There is none of that id.
        """
        if run_id is None:
            run = self.require_run()
            return run_blocking(SYNC.store(one_run(run.journal, run.run_id))).tables
        return run_blocking(SYNC.store(one_run(self._place(db), run_id))).tables

    def _place(self, db: StoreLike | None) -> Journal:
        return open_journal(self.workflow.db if db is None else db)

    def finished(self) -> list[Step]:
        """The finished steps of the open run, in the order in which they were recorded."""
        return [step for step in self.require_run().history.values() if step.status is StepStatus.DONE]


def _taking_over(run_id: str, db: StoreLike | None, name: str | None, *, fresh: bool) -> str:
    """The line that was typed, as it would take the run over."""
    words = ["%durable_workflow", shlex.quote(run_id), "--take-over"]
    words += ["--fresh"] if fresh else []
    words += ["--name", shlex.quote(name)] if name is not None else []
    words += ["--db", shlex.quote(without_password(str(db)))] if db is not None else []
    return " ".join(words)

"""The session of one IPython shell: its workflow, the open run, and the style of status lines."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from durable_nb import fingerprint, settings
from durable_nb.concurrency.bridge import SYNC, run_blocking, wait_for_pending
from durable_nb.engine import resolve
from durable_nb.engine.caller import Caller
from durable_nb.engine.fork import fork
from durable_nb.engine.naming import check_run_id
from durable_nb.engine.opening import open_run
from durable_nb.engine.passes import Pass
from durable_nb.engine.status import all_runs, one_run
from durable_nb.errors import SCRIPT, ListRuns, NoOpenRun, RemedyAction, RunHeld, Spelling, StepChanged
from durable_nb.errors.redaction import redacted_message
from durable_nb.notebook.configured import own_run
from durable_nb.notebook.every_cell import UnmarkedSteps, is_ordinary
from durable_nb.notebook.lineage.compare import downstream, lineage_of
from durable_nb.notebook.lineage.tracker import Tracker
from durable_nb.notebook.made_again import Made
from durable_nb.notebook.namespace.large import Large
from durable_nb.notebook.namespace.trial import Trial
from durable_nb.notebook.room import Room
from durable_nb.notebook.shell import frontend
from durable_nb.notebook.shell.execute import source_as_run
from durable_nb.notebook.spelling import NOTEBOOK as NOTEBOOK_SPELLING
from durable_nb.records import Run, RunStatus, StepStatus, scope_of
from durable_nb.signals import delivery
from durable_nb.stores import open_journal
from durable_nb.stores.host import this_process
from durable_nb.workflow.workflow import NOTEBOOK

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.run import RunHandle
    from durable_nb.engine.status import Table
    from durable_nb.notebook.namespace.scan import Identities
    from durable_nb.notebook.namespace.snapshot import Changes, NamesSnapshot
    from durable_nb.records import Step
    from durable_nb.stores import Journal, StoreLike

__all__ = ["Session"]


class Session:
    """The open run of one shell. It is not a ContextVar, which would not outlive a cell.

    Args:
        shell: The IPython shell.

    Attributes:
        saved_names: Names that finished cells wrote in this pass.
        reported_unseen: Unpicklable names that the user has been warned about.
        reported_secrets: Names that look like secrets, likewise.
        trial: Loads saved objects of new kinds once.
        unmarked: The steps of the cells without a magic; None if these are no steps.
        made: The cells of this pass that are steps, by the ids of their steps.
        open_first: Opens the notebook's own run before its first step; None once a run was open.
        max_result: Bytes of the largest value that a cell keeps, if there is room for it.
        max_database: Bytes of a database, with its files, from which on a cell says so; None: see `Room`.
        room: The room that the open run's database has.
        moved: Names that something else than a cell, such as a thread or a task, has changed in place since
            a cell has saved them.
        interrupted: Commits what the current cell has made, if it is a step that was interrupted.
        keepable: Likewise, for the cell before.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.workflow = NOTEBOOK
        self.current: Pass | None = None
        self.badge = settings.BADGE
        self.saved_names: set[str] = set()
        self.reported_unseen: set[str] = set()
        self.reported_secrets: set[str] = set()
        self.tracker = Tracker(shell)
        self.trial = Trial()
        self.unmarked: UnmarkedSteps | None = None
        self.made: dict[str, Made] = {}
        self.open_first: Callable[[], None] | None = None
        self.max_result = settings.MAX_RESULT
        self.max_database: int | None = None
        self.room = Room("", None)
        self.moved: set[str] = set()
        self._last: tuple[int, Identities] | None = None
        self._large: tuple[int, Mapping[str, Large]] | None = None
        self._executed = 0
        self.interrupted: Callable[[], None] | None = None
        self.keepable: Callable[[], None] | None = None
        self._cells: dict[str, tuple[str | None, str]] = {}
        self._requested_id: str | None = None

    def spelling(self, action: RemedyAction) -> Spelling:
        """Return how to spell an action: by magics for the notebook's own run, as in a script for others."""
        is_own = action.run_id in (None, self._requested_id) or isinstance(action, ListRuns)
        return NOTEBOOK_SPELLING if is_own else SCRIPT

    def open(
        self,
        run_id: str,
        *,
        db: StoreLike | None,
        name: str | None,
        fresh: bool = False,
        take_over: bool = False,
        cells: str = "marked",
    ) -> None:
        """Open a run, or start a new pass of it; closes another run that was open.

        Args:
            run_id: The run's id.
            db: The database, a path or URL; unchanged if not given, initially ``durable.db``.
            name: The workflow's name; unchanged if not given.
            fresh: Set an existing history of that id aside, and start over.
            take_over: Open the run even if another running kernel owns it.
            cells: The cells that are durable: ``marked`` or ``all``.

        Raises:
            RunHeld: Another running kernel owns the run.
            RunChanged: The id belongs to a run of another workflow.
        """
        self._requested_id = run_id
        journal = self._journal(db)
        current = Pass(journal, Run(check_run_id(run_id), name or self.workflow.name))
        try:
            run_blocking(open_run(current, SYNC, fresh=fresh, take_over=take_over))
        except RunHeld as held:
            line = _take_over_line(run_id, db, name, fresh=fresh)
            held.remedy = f"Continue there, or take the run over: {line}"
            raise
        open_now = self.current
        if open_now and (open_now.opening.run_id, open_now.journal) != (run_id, journal):
            with suppress(RunHeld):  # it was taken over meanwhile: its new owner records its status
                self.leave(RunStatus.INTERRUPTED)
        self.workflow.move_to(name=name, db=db)
        self.current, self.open_first = current, None
        self.room = Room(journal.location, self.max_database)
        recorded = self.require_run().history.values()
        self.unmarked = UnmarkedSteps(recorded) if cells == "all" else None
        self._cells.clear()
        self.made.clear()
        self.saved_names.clear()
        self.moved.clear()
        self._last = self._large = self.interrupted = None
        self.new_cell()

    def open_own(self, file: Path) -> str:
        """Open the last run of a notebook, or a new one, with all cells as steps; return its id.

        Args:
            file: The notebook's file.
        """
        run_id = run_blocking(SYNC.store(own_run(self._journal(None), file)))
        self.open(run_id, db=None, name=None, cells="all")
        return run_id

    def leave(self, status: RunStatus) -> None:
        """Record the status of the open run, and close it."""
        run_blocking(self.caller(SYNC).mark(status))
        self.workflow.attach(None)
        self.current = self.unmarked = None

    def require_run(self) -> RunHandle:
        """Return the open run.

        Raises:
            NoOpenRun: No run is open.
        """
        return self.caller(SYNC).run

    def caller(self, mode: CallMode) -> Caller:
        """Return a caller of the open run that waits in that mode.

        Raises:
            NoOpenRun: No run is open.
        """
        if self.current is None:
            raise NoOpenRun("no run is open", remedy="To open one: %durable_workflow RUN_ID")
        return Caller(self.current, mode)

    def new_cell(self, info: Any = None) -> None:
        """Reset the counters of equal calls within a cell: a ``pre_run_cell`` callback."""
        self.workflow.attach(self.current)
        self._executed += 1
        if info is None or info.store_history:  # not a front end's own code
            self.keepable, self.interrupted = self.interrupted, None

    def large(self) -> Mapping[str, Large]:
        """Return the large values that the cell before left, by name, if it was a step; call it once."""
        last, self._large = self._large, None
        return last[1] if last is not None and last[0] + 1 == self._executed else {}

    def note_moved(self, before: NamesSnapshot) -> None:
        """Note what has changed between the last cell and this one, if all cells are steps.

        Args:
            before: The names before this cell.
        """
        last, self._last = self._last, None
        if self.unmarked is not None and last is not None and last[0] + 1 == self.shell.execution_count:
            self.moved |= before.moved_since(last[1])

    def note_before(self, names: NamesSnapshot) -> None:
        """Note the names before something is executed that is no cell, such as what makes a name again."""
        self._last, self._large = (self.shell.execution_count - 1, names.marks), None

    def note_saved(self, changes: Changes) -> None:
        """Note that a cell saves its changes now, and what something else has changed meanwhile."""
        self._large = self._executed, changes.scan.marks.large
        if self.unmarked is not None:
            self._last = self.shell.execution_count, changes.scan.marks
            self.moved = (self.moved | {*changes.elsewhere}) - {*changes.names, *changes.deleted}

    def largest_result(self) -> int:
        """Return the bytes beyond which a value is not kept."""
        folder = Path(self.require_run().journal.location).parent
        free = shutil.disk_usage(folder).free // 2 if folder.is_dir() else self.max_result
        return min(self.max_result, free)

    def other_notebook(self) -> str:
        """Return the notebook in which the cells of the run were executed; empty if it is this one."""
        here = frontend.notebook_file()
        steps = (
            step
            for step in self.require_run().history.values()
            if step.lineage and not scope_of(step.step_id)
        )
        known = {lineage_of(step).notebook for step in steps} - {""}
        if here is None or not known or str(here) in known:
            return ""
        return next((each for each in sorted(known) if Path(each).is_file()), "")  # or it was renamed

    def is_step(self, source: str) -> bool:
        """Return whether a cell without the magic is a step now."""
        opens = self.open_first if frontend.is_typed(self.shell) else None
        if self.unmarked is None and opens is None:
            return False
        if is_ordinary(frontend.this_cell(self.shell, source), source_as_run(self.shell, source)):
            return False
        if opens is not None:
            opens()
        return self.unmarked is not None

    def claim_unmarked(self, unmarked: UnmarkedSteps, source: str) -> tuple[str, bool]:
        """Return the id of the step of the current cell, and whether this pass has executed the cell before.

        Args:
            unmarked: The steps of the cells without a magic.
            source: The cell.
        """
        code = fingerprint.source(source_as_run(self.shell, source))
        return unmarked.claim(frontend.this_cell(self.shell, source), code, frontend.placed_cells())

    @contextmanager
    def claim_name(self, name: str, code: str, *, marked: bool = True) -> Iterator[None]:
        """Reserve a step's name for the current cell, if the block succeeds.

        Args:
            name: The step's name.
            code: Fingerprint of the cell.
            marked: Whether the user has named the step; otherwise the name is the cell's own.

        Raises:
            StepChanged: Another cell of the notebook, with other code, uses that name.
        """
        cell = frontend.cell_id(self.shell)
        known, known_code = self._cells.get(name, (cell, code))
        another = known != cell or (cell is None and frontend.is_headless(self.shell))
        if marked and another and known_code != code:
            raise StepChanged(
                "another cell of this notebook already uses this step name",
                run_id=self.require_run().run_id,
                step=name,
                remedy=f"Rename one of the two; if the other cell was deleted: %durable_reset {name}",
            )
        yield
        self._cells[name] = cell, code

    @property
    def called_steps(self) -> Collection[str]:
        """The names of the durable cells that succeeded in this pass."""
        return self._cells

    def reset(self, name: str, *, with_downstream: bool = False) -> list[str]:
        """Make a step and the steps inside it run again at their next call.

        Args:
            name: The step's id.
            with_downstream: Also reset the cells that depend on its result, directly or through others.

        Returns:
            The ids of all steps that were reset.

        Raises:
            StepNotFound: The run has no step of that name.
        """
        run = self.require_run()
        # A task that never finished is not recorded, but tasks inside it that finished are.
        caller = self.caller(SYNC)
        found = resolve.with_inner(run, name) or [run_blocking(resolve.find_step(caller, name)).step_id]
        after = downstream(run, name) if with_downstream else []
        found += [each for cell in after for each in resolve.with_inner(run, cell)]
        run_blocking(caller.reset(found))
        for cell in (name, *after):
            self._cells.pop(cell, None)
        return found

    def fork(self, new_id: str, before: str | None) -> None:
        """Create and open another run that starts with the open run's history.

        Args:
            new_id: The id of the new run.
            before: The first step that is left out of the history; by default all steps are copied.

        Raises:
            StepNotFound: The open run has no such step.
            StoreError: A run of that id exists.
        """
        run = self.require_run()
        run_blocking(wait_for_pending(SYNC))
        run_blocking(SYNC.store(fork(run.journal, run.run_id, check_run_id(new_id), before)))
        self.open(new_id, db=None, name=run.run.workflow)

    def resolve(self, name: str, answer: str, value: Any) -> None:
        """Resolve a step in doubt.

        Args:
            name: The step's id.
            answer: ``rerun``, ``value``, ``fail`` or ``earlier``.
            value: The step's result, for ``value``.

        Raises:
            StepNotFound: The run has no step of that name.
            StepError: The step is not in doubt, or no earlier result of it is kept.
        """
        run_blocking(resolve.resolve_step(self.caller(SYNC), name, answer, value))
        self._cells.pop(name, None)

    def deliver(self, run_id: str, name: str, value: Any) -> str:
        """Deliver a signal to a run of the workflow's database.

        Args:
            run_id: The run's id.
            name: The signal's name.
            value: The value.

        Returns:
            A message for the user that says whether it was delivered.

        Raises:
            SignalInvalid: The waiting call does not accept the value.
        """
        signal = delivery.make_signal(check_run_id(run_id), name, value, this_process())
        earlier = run_blocking(SYNC.store(delivery.deliver(self.workflow.journal, signal, value)))
        return delivery.describe_delivery(signal, earlier)

    def runs(self, db: StoreLike | None) -> Table:
        """Return a table of the runs of a database, by default the notebook's own.

        Raises:
            StoreUnavailable: The database does not exist or cannot be reached.
        """
        return run_blocking(SYNC.store(all_runs(self._journal(db))))

    def status(self, run_id: str | None, db: StoreLike | None) -> list[Table]:
        """Return tables with the status of a run and its steps, by default of the open run.

        Raises:
            NoOpenRun: No run is open, and no id was given.
            RunNotFound: The database has no run of that id.
        """
        if run_id is None:
            run = self.require_run()
            return run_blocking(SYNC.store(one_run(run.journal, run.run_id))).tables
        return run_blocking(SYNC.store(one_run(self._journal(db), run_id))).tables

    def _journal(self, db: StoreLike | None) -> Journal:
        return open_journal(self.workflow.place if db is None else db)

    def finished(self) -> list[Step]:
        """Return the finished steps of the open run, in the order in which they were recorded."""
        return [step for step in self.require_run().history.values() if step.status is StepStatus.DONE]


def _take_over_line(run_id: str, db: StoreLike | None, name: str | None, *, fresh: bool) -> str:
    """Return the magic that was typed, with ``--take-over``."""
    words = ["%durable_workflow", shlex.quote(run_id), "--take-over"]
    words += ["--fresh"] if fresh else []
    words += ["--name", shlex.quote(name)] if name is not None else []
    words += ["--db", shlex.quote(redacted_message(str(db)))] if db is not None else []
    return " ".join(words)

"""The magics: parse the typed line, call the session, and print or display the result."""

from __future__ import annotations

import functools
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from durable_nb import settings
from durable_nb.concurrency.timeouts import can_interrupt
from durable_nb.engine.status import format_duration
from durable_nb.errors import DurableError, InvalidOption, printable, spell_actions
from durable_nb.notebook import every_cell, magic_options
from durable_nb.notebook.cell import CellOptions, keep_interrupted, restore_all, run_cell
from durable_nb.notebook.configured import DurableNb
from durable_nb.notebook.display import badge, recorder
from durable_nb.notebook.magic_options import LineParser
from durable_nb.notebook.plan import GONE, MAY_RUN, Planned, plan, spell_plan
from durable_nb.notebook.prompts import shell_prompter
from durable_nb.notebook.session import Session
from durable_nb.notebook.shell import execute as body
from durable_nb.notebook.shell import frontend, tracebacks
from durable_nb.notebook.shell.durable_cells import DurableCells
from durable_nb.records import Action, RunStatus, scope_of
from durable_nb.signals import prompter, typed

if TYPE_CHECKING:
    from durable_nb.engine.run import RunHandle

__all__ = ["DurableMagics", "load"]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a ``DurableError`` into a ``UsageError``, which IPython shows in one line, without a traceback."""
    try:
        yield
    except DurableError as error:
        raise UsageError(f"{type(error).__name__}: {error}") from None


class DurableMagics:
    """The magics of one shell.

    Args:
        shell: The IPython shell.
    """

    def __init__(self, shell: Any) -> None:
        self.session = Session(shell)
        self.carrier = body.ContextVarCarrier()
        self.cells = DurableCells(shell, self.session.is_step)
        self.configured = DurableNb(parent=shell)
        self.session.max_result = self.configured.max_result
        self.session.max_database = self.configured.max_database
        if self.configured.db is not None:
            self.session.workflow.move_to(db=self.configured.db)
        if self.configured.cells == "all":
            self.session.open_first = self._open_own
        with one_line_errors():
            self.session.badge = badge.check_badge(os.environ.get("DURABLE_NB_BADGE", settings.BADGE))

    def durable_workflow(self, line: str) -> None:
        """Open or resume a run: ``%durable_workflow RUN_ID``. Without a run id, show the open run.

        --db URL      the database: a path or redis://…; default: durable.db beside the notebook
        --name NAME   the workflow's name; default: notebook
        --fresh       set an existing history of this run id aside, and start over
        --take-over   open the run although another running kernel owns it; that kernel can then write no more
        --done        mark the open run as done, and close it
        --badge full|plain|off   the status line of durable cells; plain is equal on every run
        --cells marked|all       which cells are durable: those with %%durable_step, or all; default: marked

        Binds ``wf``, the run's workflow: @wf.task, wf.signal(…), wf.sleep(…), wf.map(…).
        """
        options = magic_options.workflow_parser().parse_line(line)
        session = self.session
        session.badge = options.badge or session.badge
        with one_line_errors():
            if options.done:
                run_id = session.require_run().run_id
                if options.run_id not in (None, run_id):
                    raise InvalidOption(
                        f"--done ends the open run {run_id!r}, not {options.run_id!r}",
                        remedy="Type: %durable_workflow --done",
                    )
                session.leave(RunStatus.DONE)
                badge.show_run(session.badge, run=run_id, text="done")
                return
            if options.run_id is not None:
                session.open(
                    options.run_id,
                    db=options.db,
                    name=options.name,
                    fresh=options.fresh,
                    take_over=options.take_over,
                    cells=options.cells or every_cell.default_cells(self.configured.cells),
                )
                session.shell.user_ns["wf"] = session.workflow
            self._show_open_run(line)

    async def durable_step(self, line: str, cell: str) -> None:
        """Run a cell once and save a checkpoint; later executions replay it: ``%%durable_step NAME``.

        --retries N             further attempts if the cell fails; default: 0
        --backoff exponential:2:60|linear:2:3|constant:5   seconds to wait before each further attempt
        --timeout 30s|5m|2h     maximum time of an attempt
        --on-edit rerun|keep|ask|error    if the cell, or code that it depends on, was edited; default: rerun
        --on-drift keep|rerun|ask|error   if values or files that it reads changed; default: keep
        --once                  never start the body a second time without asking
        --exclude NAME[,NAME]   names that are not saved, such as those of secrets
        --live rerun|ask|keep   whether what makes a name that cannot be kept is executed again; default: keep

        To run it again: %durable_reset NAME
        """
        options = self._options(line, cell)
        with one_line_errors(), self.carrier.collecting():
            _check_timeout(options)
            await run_cell(self.session, options, cell)

    def _options(self, line: str, cell: str) -> CellOptions:
        unmarked = self.session.unmarked
        if line.strip() or unmarked is None:
            return magic_options.parse_step(line)
        step_id, again = self.session.claim_unmarked(unmarked, cell)
        return magic_options.unmarked_options(step_id, again=again)

    def durable_restore(self, line: str) -> None:
        """Restore the names of all finished durable cells, without running them: ``%durable_restore``."""
        LineParser("%durable_restore").parse_line(line)
        with one_line_errors():
            names, unsaved = restore_all(self.session)
            edited = self._edited()
        message = f"restored {_counted(len(names), 'name')} from the finished steps"
        _answer("\n".join([message, *(f"{name}: {why}" for name, why in unsaved.items()), *edited]))

    def durable_keep(self, line: str) -> None:
        """Keep what the durable cell that was just interrupted has made, as its result: ``%durable_keep``."""
        LineParser("%durable_keep").parse_line(line)
        with one_line_errors():
            keep_interrupted(self.session)

    def durable_reset(self, line: str) -> None:
        """Run a step again at its next call: ``%durable_reset STEP [--downstream]``.

        --downstream  also run the cells again that depend on its result, directly or through other cells
        """
        options = magic_options.reset_parser().parse_line(line)
        with one_line_errors():
            found = self.session.reset(options.step, with_downstream=options.downstream)
        inside = sum(each.startswith(f"{options.step}/") for each in found)
        after = [each for each in found if each != options.step and not scope_of(each)]
        more = f", with {_counted(inside, 'step')} inside it" if inside else ""
        more += f", and downstream: {', '.join(after)}" if after else ""
        _answer(f"step {options.step!r} will run again{more}")

    def durable_fork(self, line: str) -> None:
        """Copy the open run's history to a new run, and open that: ``%durable_fork NEW_RUN [--from STEP]``.

        --from STEP   copy only the steps before this one; default: all steps
        """
        options = magic_options.fork_parser().parse_line(line)
        with one_line_errors():
            self.session.fork(options.new_run, options.step)
            self._show_open_run()

    def durable_plan(self, line: str) -> None:
        """Show which cells would replay and which would run: ``%durable_plan [NOTEBOOK]``.

        NOTEBOOK  the path of a notebook; default: the one that this kernel runs, as last saved

        Nothing is executed.
        """
        options = magic_options.plan_parser().parse_line(line)
        with one_line_errors():
            run = self.session.require_run()
            file = Path(options.notebook) if options.notebook else frontend.require_notebook()
            planned = self._plan(run, file)
        _answer(spell_plan(planned))

    def _plan(self, run: RunHandle, file: Path) -> list[Planned]:
        return plan(
            run,
            file,
            parse=magic_options.parse_step,
            transform=functools.partial(body.source_as_run, self.session.shell),
            every_cell=self.session.unmarked is not None,
        )

    def _edited(self) -> list[str]:
        """Return which finished cells were edited since, as far as the notebook's file is known."""
        file, finished = frontend.notebook_file(), {step.step_id for step in self.session.finished()}
        planned = self._plan(self.session.require_run(), file) if file else []
        found = (each for each in planned if each.step in finished and each.action not in (GONE, MAY_RUN))
        edited = [each for each in found if each.action != Action.REPLAY.value]
        return [f"edited since, and restored as it was: {each.step} ({each.reason})" for each in edited]

    @no_var_expand
    def durable_resolve(self, line: str) -> None:
        """Resolve a step in doubt: ``%durable_resolve STEP rerun|value|fail|earlier [EXPRESSION]``.

        rerun              it had no effect: run it again at its next call
        value EXPRESSION   it had its effect: record the value of the expression as its result
        fail               give it up: its call raises StepFailed
        earlier            take back the last result that it had before it ran again
        """
        options = magic_options.parse_resolve(line)
        with one_line_errors():
            self.session.require_run()
            value = self.session.shell.ev(options.value) if options.value is not None else None
            self.session.resolve(options.step, options.answer, value)
        outcomes = {
            "rerun": "will run again",
            "value": f"is done, with the result {value!r}",
            "fail": "is marked as failed",
            "earlier": "has its earlier result again",
        }
        _answer(f"step {options.step!r} {outcomes[options.answer]}")

    @no_var_expand
    def durable_signal(self, line: str) -> None:
        """Deliver a signal: ``%durable_signal NAME VALUE [--run ID]``.

        VALUE     JSON; anything that is not valid JSON is a string
        --run ID  the run to deliver it to; default: the open run
        """
        options = magic_options.parse_signal(line)
        with one_line_errors():
            run_id = self.session.require_run().run_id if options.run is None else options.run
            message = self.session.deliver(run_id, options.name, typed.read_value(options.value))
        _answer(message)

    def durable_runs(self, line: str) -> None:
        """List the runs of a database, by default the notebook's: ``%durable_runs [--db URL]``."""
        options = magic_options.runs_parser().parse_line(line)
        with one_line_errors():
            badge.show_tables(self.session.badge, [self.session.runs(options.db)])

    def durable_status(self, line: str) -> None:
        """Show a run and its steps, by default the open run: ``%durable_status [RUN_ID] [--db URL]``."""
        options = magic_options.status_parser().parse_line(line)
        with one_line_errors():
            badge.show_tables(self.session.badge, self.session.status(options.run_id, options.db))

    def _open_own(self) -> None:
        """Open the notebook's own run, as the configuration of IPython says."""
        session, file = self.session, frontend.notebook_file()
        if file is None:
            session.open_first = None
            _answer(
                "durable_nb: no run is open, since this front end does not tell which notebook it runs. "
                "To open one: %durable_workflow RUN_ID --cells all"
            )
            return
        with one_line_errors():
            run_id = session.open_own(file)
        session.shell.user_ns["wf"] = session.workflow
        self._show_open_run(f"{shlex.quote(run_id)} --cells all")

    def _show_open_run(self, line: str = "") -> None:
        run, finished = self.session.require_run(), self.session.finished()
        state = f"resuming, {len(finished)} finished" if run.run.passes > 1 or finished else "new"
        if finished and line and self.session.unmarked is not None:
            age = time.time() - max(step.finished_at or 0 for step in finished)
            again = f"%durable_workflow {line.strip()} --fresh"
            state += f", the last {format_duration(age)} ago; to start over: {again}"
        other = self.session.other_notebook()
        again = (
            f"its cells were executed in another notebook, {other}. For a run of its own, give another id."
        )
        text = f"{run.journal.location} · {state}"
        badge.show_run(self.session.badge, run=run.run_id, text=text, warnings=[again] if other else [])


def load(shell: Any) -> None:
    """Register the magics with a shell; calling it again installs input transformers that were removed."""
    if (loaded := getattr(shell, "durable_nb", None)) is not None:
        loaded.cells.install()
        return
    magics = DurableMagics(shell)
    shell.durable_nb = magics
    recorder.Recorder.of(shell)
    spell_actions(magics.session.spelling)
    prompter.set_prompter(shell_prompter.ShellPrompter(shell, magics.session))
    line_magics: Sequence[Callable[..., Any]] = (
        magics.durable_workflow,
        magics.durable_fork,
        magics.durable_keep,
        magics.durable_plan,
        magics.durable_reset,
        magics.durable_restore,
        magics.durable_resolve,
        magics.durable_signal,
        magics.durable_runs,
        magics.durable_status,
    )
    for magic in line_magics:
        shell.register_magic_function(magic, "line")
    shell.register_magic_function(no_var_expand(_as_function(magics)), "cell", "durable_step")
    magics.cells.install()
    shell.events.register("pre_run_cell", magics.cells.before_cell)
    shell.events.register("pre_run_cell", magics.session.new_cell)
    shell.events.register("post_run_cell", magics.carrier.apply)
    shell.events.register("post_run_cell", magics.cells.after_cell)
    shell.events.register("post_run_cell", magics.session.tracker.record_ordinary_cell)
    tracebacks.hide_package_frames(shell)
    body.guard_cells(shell)


def _check_timeout(options: CellOptions) -> None:
    """Refuse a time limit outside the main thread, as in a subshell: nothing could end the cell there."""
    if options.policy.timeout is not None and not can_interrupt():
        raise InvalidOption(
            "invalid --timeout outside the main thread: Python cannot end code in a thread",
            step=options.name,
            remedy="Leave --timeout out, or run the cell in the kernel's main shell.",
        )


def _answer(text: str) -> None:
    print(printable(text))  # noqa: T201 - a magic's answer


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_function(magics: DurableMagics) -> Callable[..., Any]:
    # no_var_expand sets an attribute, which is impossible on a bound method.
    def durable_step(line: str, cell: str) -> Any:
        magics.cells.begin()
        return _to_its_end(magics, line, cell)

    durable_step.__doc__ = magics.durable_step.__doc__
    return durable_step


async def _to_its_end(magics: DurableMagics, line: str, cell: str) -> None:
    shell = magics.session.shell
    try:
        if not line and not frontend.is_kept(shell):  # a front end's own code, which no user sees
            await body.execute(shell, cell, marked=False)
            return
        await magics.durable_step(line, cell)
    except BaseExceptionGroup as group:  # IPython leaves groups to Python, which shows every frame
        raise tracebacks.strip(group)  # noqa: B904 - it is the caught group
    finally:
        magics.cells.end()

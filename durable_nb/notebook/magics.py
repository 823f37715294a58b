"""The magics: parse the typed line, call the session, and print or display the result."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from durable_nb import settings
from durable_nb.concurrency.timeouts import can_interrupt
from durable_nb.errors import DurableError, InvalidOption, spell_actions
from durable_nb.notebook import magic_options
from durable_nb.notebook.cell import CellOptions, restore_all, run_cell
from durable_nb.notebook.display import badge, recorder
from durable_nb.notebook.magic_options import LineParser
from durable_nb.notebook.plan import plan, spell_plan
from durable_nb.notebook.prompts import shell_prompter
from durable_nb.notebook.session import Session
from durable_nb.notebook.shell import execute as body
from durable_nb.notebook.shell import frontend, tracebacks
from durable_nb.records import RunStatus, scope_of
from durable_nb.signals import prompter, typed

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
                )
                session.shell.user_ns["wf"] = session.workflow
            self._show_open_run()

    async def durable_step(self, line: str, cell: str) -> None:
        """Run a cell once and save a checkpoint; later executions replay it: ``%%durable_step NAME``.

        --retries N             further attempts if the cell fails; default: 0
        --backoff exponential:2:60|linear:2:3|constant:5   seconds to wait before each further attempt
        --timeout 30s|5m|2h     maximum time of an attempt
        --on-edit rerun|keep|ask|error    if the cell, or code that it depends on, was edited; default: rerun
        --on-drift keep|rerun|ask|error   if unchanged code produced other inputs; default: keep
        --once                  never start the body a second time without asking

        To run it again: %durable_reset NAME
        """
        options = magic_options.parse_step(line)
        with one_line_errors(), self.carrier.collecting():
            _check_timeout(options)
            await run_cell(self.session, options, cell)

    def durable_restore(self, line: str) -> None:
        """Restore the names of all finished durable cells, without running them: ``%durable_restore``."""
        LineParser("%durable_restore").parse_line(line)
        with one_line_errors():
            names, unsaved = restore_all(self.session)
        message = f"restored {_counted(len(names), 'name')} from the finished steps"
        print("\n".join([message, *(f"{name}: {why}" for name, why in unsaved.items())]))  # noqa: T201 - a magic's answer

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
        print(f"step {options.step!r} will run again{more}")  # noqa: T201 - a magic's answer

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
            planned = plan(
                run, file, parse=magic_options.parse_step, transform=self.session.shell.transform_cell
            )
        print(spell_plan(planned))  # noqa: T201 - a magic's answer

    @no_var_expand
    def durable_resolve(self, line: str) -> None:
        """Resolve a step in doubt: ``%durable_resolve STEP rerun|value|fail [EXPRESSION]``.

        rerun              it had no effect: run it again at its next call
        value EXPRESSION   it had its effect: record the value of the expression as its result
        fail               give it up: its call raises StepFailed
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
        }
        print(f"step {options.step!r} {outcomes[options.answer]}")  # noqa: T201 - a magic's answer

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
        print(message)  # noqa: T201 - a magic's answer

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

    def _show_open_run(self) -> None:
        run = self.session.require_run()
        count = len(self.session.finished())
        state = f"resuming, {count} finished" if run.run.passes > 1 or count else "new"
        badge.show_run(self.session.badge, run=run.run_id, text=f"{run.journal.location} · {state}")


_CELL_MAGIC = re.compile(r"get_ipython\(\)\.run_cell_magic\('(?P<name>\w+)', (?P<rest>.*)\)$")


def must_come_first(lines: list[str]) -> list[str]:
    """Reject a cell with another cell magic above ``%%durable_step``: a post input transformer."""
    call = _CELL_MAGIC.match("".join(lines).strip())
    if call is None or call["name"] == "durable_step":
        return lines
    _, body = ast.literal_eval(f"({call['rest']})")
    if not body.lstrip().startswith("%%durable_step"):
        return lines
    message = f"%%durable_step must be the first line of its cell: move it above %%{call['name']}."
    return ["from IPython.core.error import UsageError\n", f"raise UsageError({message!r})\n"]


def load(shell: Any) -> None:
    """Register the magics with a shell; calling it again has no effect."""
    if getattr(shell, "durable_nb", None) is not None:
        return
    magics = DurableMagics(shell)
    shell.durable_nb = magics
    recorder.Recorder.of(shell)
    spell_actions(magics.session.spelling)
    prompter.set_prompter(shell_prompter.ShellPrompter(shell, magics.session))
    line_magics: Sequence[Callable[..., Any]] = (
        magics.durable_workflow,
        magics.durable_fork,
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
    shell.register_magic_function(no_var_expand(_as_function(magics.durable_step)), "cell", "durable_step")
    shell.input_transformers_post.append(body.awaited_magic("durable_step"))
    shell.input_transformers_post.append(must_come_first)
    shell.events.register("pre_run_cell", magics.session.new_cell)
    shell.events.register("post_run_cell", magics.carrier.apply)
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


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_function(method: Callable[..., Any]) -> Callable[..., Any]:
    # no_var_expand sets an attribute, which is impossible on a bound method.
    async def durable_step(line: str, cell: str) -> None:
        try:
            await method(line, cell)
        except BaseExceptionGroup as group:  # IPython leaves groups to Python, which shows every frame
            raise tracebacks.strip(group)  # noqa: B904 - it is the caught group

    durable_step.__doc__ = method.__doc__
    return durable_step

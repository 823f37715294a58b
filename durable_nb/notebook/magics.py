"""The magics: they parse what was typed, and hand it on."""

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
from durable_nb.errors import DurableError, spell_actions
from durable_nb.notebook import magic_options
from durable_nb.notebook.cell import restore_all, run_cell
from durable_nb.notebook.display import badge, recorder
from durable_nb.notebook.magic_options import LineParser
from durable_nb.notebook.plan import plan, spell_plan
from durable_nb.notebook.prompts import shell_prompter
from durable_nb.notebook.session import Session
from durable_nb.notebook.shell import execute as body
from durable_nb.notebook.shell import frontend, tracebacks
from durable_nb.notebook.shell.context_vars import ContextVarCarrier
from durable_nb.notebook.spelling import NOTEBOOK
from durable_nb.records import RunStatus, scope_of
from durable_nb.signals import prompter, typed

__all__ = ["DurableMagics", "load"]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Show our own errors in one line: no traceback of internals."""
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
        self.carrier = ContextVarCarrier()
        with one_line_errors():
            self.session.badge = badge.check_badge(os.environ.get("DURABLE_NB_BADGE", settings.BADGE))

    def durable_workflow(self, line: str) -> None:
        """Open a run, or resume it: ``%durable_workflow RUN_ID``; alone, say where the open one stands.

        --db URL      where it is kept: a path or redis://…; by default durable.db beside the notebook
        --name NAME   the workflow's name, by default notebook
        --fresh       set the old history of that id aside, and start over
        --take-over   open it although another living kernel has it, which then can write no more
        --done        say that the open run is finished, and close it
        --badge full|plain|off   what durable cells show; plain is the same text every time

        Binds ``wf``, the run's workflow: @wf.task, wf.signal(…), wf.sleep(…), wf.map(…).
        """
        options = magic_options.workflow_parser().parse_line(line)
        session = self.session
        session.badge = options.badge or session.badge
        with one_line_errors():
            if options.done:
                run_id = session.require_run().run_id
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
            self._say_where_it_stands()

    async def durable_step(self, line: str, cell: str) -> None:
        """Run a cell once and checkpoint what it did; replay that from then on: ``%%durable_step NAME``.

        --retries N             further attempts when it fails; none by default
        --backoff exponential:2:60|linear:2:3|constant:5   the wait before each, in seconds
        --timeout 30s|5m|2h     how long an attempt may take
        --on-edit rerun|keep|ask|error    when the cell, or what it reads, was edited; rerun by default
        --on-drift keep|rerun|ask|error   when the same code gave another value; keep by default
        --once                  never run the body a second time unasked

        %durable_reset NAME has it run again.
        """
        options = magic_options.parse_step(line)
        with one_line_errors(), self.carrier.taken():
            await run_cell(self.session, options, cell)

    def durable_restore(self, line: str) -> None:
        """Put back what all finished cells made, without running them: ``%durable_restore``."""
        LineParser("%durable_restore").parse_line(line)
        with one_line_errors():
            names, unsaved = restore_all(self.session)
        are = "1 name is" if len(names) == 1 else f"{len(names)} names are"
        message = f"{are} as the finished steps left them"
        print("\n".join([message, *(f"{name}: {why}" for name, why in unsaved.items())]))  # noqa: T201 - a magic's answer

    def durable_reset(self, line: str) -> None:
        """Have a step run again at its next call: ``%durable_reset STEP [--downstream]``."""
        options = magic_options.reset_parser().parse_line(line)
        with one_line_errors():
            found = self.session.reset(options.step, with_downstream=options.downstream)
        inside = sum(each.startswith(f"{options.step}/") for each in found)
        after = [each for each in found if each != options.step and not scope_of(each)]
        more = f", with {inside} inside it" if inside else ""
        more += f", and downstream of it: {', '.join(after)}" if after else ""
        print(f"step {options.step!r} will run again{more}")  # noqa: T201 - a magic's answer

    def durable_fork(self, line: str) -> None:
        """Go on from a step in another run, this one stays: ``%durable_fork NEW_RUN [--from STEP]``."""
        options = magic_options.fork_parser().parse_line(line)
        with one_line_errors():
            self.session.fork(options.new_run, options.step)
            self._say_where_it_stands()

    def durable_plan(self, line: str) -> None:
        """Say what would replay and what would run, running nothing: ``%durable_plan [NOTEBOOK]``."""
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
        """Say what became of a step in doubt: ``%durable_resolve STEP rerun|value|fail [EXPRESSION]``."""
        options = magic_options.parse_resolve(line)
        with one_line_errors():
            self.session.require_run()
            value = self.session.shell.ev(options.value) if options.value is not None else None
            self.session.resolve(options.step, options.answer, value)
        became = {"rerun": "will run again", "value": f"is done, and gave {value!r}", "fail": "is given up"}
        print(f"step {options.step!r} {became[options.answer]}")  # noqa: T201 - a magic's answer

    @no_var_expand
    def durable_signal(self, line: str) -> None:
        """Deliver a signal: ``%durable_signal NAME VALUE [--run ID]``; the value is JSON, or else text."""
        options = magic_options.parse_signal(line)
        with one_line_errors():
            run_id = self.session.require_run().run_id if options.run is None else options.run
            message = self.session.deliver(run_id, options.name, typed.read_value(options.value))
        print(message)  # noqa: T201 - a magic's answer

    def durable_runs(self, line: str) -> None:
        """List the runs of the notebook's database, or of another one: ``%durable_runs [--db URL]``."""
        options = magic_options.runs_parser().parse_line(line)
        with one_line_errors():
            badge.show_tables(self.session.badge, [self.session.runs(options.db)])

    def durable_status(self, line: str) -> None:
        """Show where a run stands, by default the open one: ``%durable_status [RUN_ID] [--db URL]``."""
        options = magic_options.status_parser().parse_line(line)
        with one_line_errors():
            badge.show_tables(self.session.badge, self.session.status(options.run_id, options.db))

    def _say_where_it_stands(self) -> None:
        run = self.session.require_run()
        count = len(self.session.finished())
        state = f"resuming, {count} finished" if run.run.passes > 1 or count else "new"
        badge.show_run(self.session.badge, run=run.run_id, text=f"{run.journal.location} · {state}")


_CELL_MAGIC = re.compile(r"get_ipython\(\)\.run_cell_magic\('(?P<name>\w+)', (?P<rest>.*)\)$")


def must_come_first(lines: list[str]) -> list[str]:
    """A post input transformer that refuses another cell magic above a durable step."""
    call = _CELL_MAGIC.match("".join(lines).strip())
    if call is None or call["name"] == "durable_step":
        return lines
    _, body = ast.literal_eval(f"({call['rest']})")
    if not body.lstrip().startswith("%%durable_step"):
        return lines
    message = f"%%durable_step must be the first line of its cell, and %%{call['name']} stands above it."
    return ["from IPython.core.error import UsageError\n", f"raise UsageError({message!r})\n"]


def load(shell: Any) -> None:
    """Register the magics with a shell; harmless when called again."""
    if getattr(shell, "durable_nb", None) is not None:
        return
    magics = DurableMagics(shell)
    shell.durable_nb = magics
    recorder.Recorder.of(shell)
    spell_actions(NOTEBOOK)
    prompter.attach(shell_prompter.ShellPrompter(shell, magics.session))
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
    shell.register_magic_function(no_var_expand(_plain(magics.durable_step)), "cell", "durable_step")
    shell.input_transformers_post.append(body.awaited_magic("durable_step"))
    shell.input_transformers_post.append(must_come_first)
    shell.events.register("pre_run_cell", magics.session.new_cell)
    shell.events.register("post_run_cell", magics.carrier.hand_over)
    shell.events.register("post_run_cell", magics.session.tracker.record_ordinary_cell)
    tracebacks.hide_our_frames(shell)
    body.guard_cells(shell)


def _plain(method: Callable[..., Any]) -> Callable[..., Any]:
    # no_var_expand sets an attribute, which a bound method does not take.
    async def durable_step(line: str, cell: str) -> None:
        try:
            await method(line, cell)
        except BaseExceptionGroup as group:  # IPython leaves groups to Python, which shows every frame
            raise tracebacks.strip(group)  # noqa: B904 - the same

    durable_step.__doc__ = method.__doc__
    return durable_step

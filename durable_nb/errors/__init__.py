"""The errors that durable_nb raises.

    DurableError
    ├── InvalidOption            an invalid argument or magic option (also a ValueError)
    ├── InvalidRunId             a run id that cannot name a run (also a ValueError)
    ├── NoOpenRun                a durable call outside a run (also a RuntimeError)
    ├── ForkedProcess            a call in a forked child, in its parent's run (also a RuntimeError)
    ├── RunError
    │   ├── RunNotFound          the database has no run of that id
    │   ├── RunNotDone           a run has no result, or none yet
    │   ├── RunChanged           a run was opened again with other arguments, or by another workflow
    │   ├── RunHeld              another living process or kernel owns the run
    │   └── CrashLoop            its process died several times in a row while a body ran
    ├── StepError
    │   ├── StepNotFound         the run has no step of that name
    │   ├── StepChanged          a recorded step was called with other arguments
    │   ├── StepInDoubt          a step with once=True was started and not recorded as finished
    │   ├── StepNested           a durable cell was run inside another one
    │   ├── StepNotSaved         the body succeeded, but its result could not be saved
    │   ├── StepNotRestored      a checkpoint could not be turned back into its value
    │   │   └── UntrustedCheckpoint  it would run code when loaded, and has no trusted signature
    │   ├── ExecutorLost         the worker that executed the body is gone
    │   ├── StepTimeout          an attempt took longer than its timeout (also a TimeoutError)
    │   │   └── SignalTimeout    a signal was not delivered in time
    │   ├── SignalInvalid        a value that the waiting call does not accept (also a ValueError)
    │   └── StepFailed           a recorded failure whose exception class cannot be rebuilt
    └── StoreError
        ├── StoreUnavailable     locked, read-only, full, unreachable
        ├── StoreUnreadable      damaged, or written by another application
        └── StoreTooNew          written by a newer durable_nb

    SignalPending                a run waits for a signal, and this session cannot prompt for it
                                 (a BaseException, which ``except Exception`` cannot swallow)

Each message says what happened, in which run and step, and what to type next.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self, TypeAlias

from durable_nb.errors.redaction import redacted_message
from durable_nb.errors.terminal import printable

__all__ = [
    "SCRIPT",
    "AcceptDatabase",
    "CheckDatabase",
    "CrashLoop",
    "DurableError",
    "DurableNotice",
    "ExecutorLost",
    "ForkedProcess",
    "InvalidOption",
    "InvalidRunId",
    "ListRuns",
    "NoOpenRun",
    "OpenRun",
    "Remedy",
    "RemedyAction",
    "RenameCell",
    "RenameStep",
    "ResetStep",
    "ResolveEarlier",
    "ResolveFail",
    "ResolveRerun",
    "ResolveValue",
    "RunChanged",
    "RunError",
    "RunHeld",
    "RunNotDone",
    "RunNotFound",
    "SignalInvalid",
    "SignalPending",
    "SignalTimeout",
    "Spelling",
    "StartOver",
    "StepChanged",
    "StepError",
    "StepFailed",
    "StepInDoubt",
    "StepNested",
    "StepNotFound",
    "StepNotRestored",
    "StepNotSaved",
    "StepTimeout",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
    "StoreUnreadable",
    "TakeOver",
    "TrustDatabase",
    "UntrustedCheckpoint",
    "error_context",
    "printable",
    "spell_actions",
    "spelled",
]


@dataclass(frozen=True, slots=True)
class RemedyAction:
    """Something the user can do about an error; notebook, script and command line spell it differently.

    Args:
        run_id: The run concerned; that of the error by default.
        step: The step concerned; that of the error by default.
        db: The database; shown as ``PATH`` by default.

    Example:
        >>> str(ResetStep("etl", "load"))
        "wf.sync.resolve('etl', 'load', 'rerun')"
    """

    run_id: str | None = None
    step: str | None = None
    db: str | None = None

    def __str__(self) -> str:
        template = _spelling_for(self).get(type(self)) or SCRIPT[type(self)]
        return template.format(
            run=_ShellWord(self.run_id or "RUN_ID"),
            step=_ShellWord(self.step or "STEP"),
            db=_ShellWord(self.db or "PATH"),
        )


class ResetStep(RemedyAction):
    """Reset a step, so that its next call executes it again."""


class ResolveRerun(RemedyAction):
    """Resolve a step in doubt: it had no effect, and is executed again."""


class ResolveValue(RemedyAction):
    """Resolve a step in doubt: it had its effect, and returned the given value."""


class ResolveFail(RemedyAction):
    """Resolve a step in doubt: record it as failed."""


class ResolveEarlier(RemedyAction):
    """Take back the last result that a step had before it ran again."""


class RenameStep(RemedyAction):
    """Give a call a name of its own, which makes it another step."""


class RenameCell(RemedyAction):
    """Give a durable cell another name, which makes it another step."""


class OpenRun(RemedyAction):
    """Open or resume a run."""


class StartOver(RemedyAction):
    """Rename a run, and start over under its id."""


class TakeOver(RemedyAction):
    """Take a run over from the process that owns it."""


class ListRuns(RemedyAction):
    """List the runs of a database."""


class TrustDatabase(RemedyAction):
    """Sign the checkpoints that another user has written."""


class CheckDatabase(RemedyAction):
    """Look for what is missing or damaged in a database."""


class AcceptDatabase(RemedyAction):
    """Go on with a database as it is, although it has lost something."""


SCRIPT: Final[Mapping[type[RemedyAction], str]] = {
    ResetStep: "wf.sync.resolve({run!r}, {step!r}, 'rerun')",
    ResolveRerun: "wf.sync.resolve({run!r}, {step!r}, 'rerun')",
    ResolveValue: "wf.sync.resolve({run!r}, {step!r}, 'value', VALUE)",
    ResolveFail: "wf.sync.resolve({run!r}, {step!r}, 'fail')",
    ResolveEarlier: "wf.sync.resolve({run!r}, {step!r}, 'earlier')",
    RenameStep: "step_id='…'",
    RenameCell: "another name on its first line",
    OpenRun: ".run({run!r}, …)",
    StartOver: ".run({run!r}, …, fresh=True)",
    TakeOver: ".run({run!r}, …, take_over=True)",
    ListRuns: "durable-nb runs --db {db}",
    TrustDatabase: "durable-nb trust {db}",
    CheckDatabase: "durable-nb check {db}",
    AcceptDatabase: "durable-nb check {db} --accept",
}
"""The spelling of each action in a script; ``{run}`` is quoted for a command line, ``{run!r}`` for Python."""

Spelling: TypeAlias = "Mapping[type[RemedyAction], str]"
"""A template for each action; those that are missing are spelled as in ``SCRIPT``."""


def _script_spelling(_action: RemedyAction) -> Spelling:
    return SCRIPT


_spelling_for: Callable[[RemedyAction], Spelling] = _script_spelling

Remedy: TypeAlias = "str | RemedyAction | tuple[str | RemedyAction, ...]"
"""The remedy of an error: a text, an action, or texts and actions in order."""


class _ShellWord(str):
    __slots__ = ()

    def __format__(self, _spec: str) -> str:
        return shlex.quote(self)


def spell_actions(spelling_for: Callable[[RemedyAction], Spelling]) -> None:
    """Set the spelling of actions in this process; the notebook and the command line call it when they start.

    Args:
        spelling_for: Returns the templates for an action. A notebook has runs that magics open and runs of
            workflow functions, which are spelled as in a script.
    """
    global _spelling_for  # a process has one face
    _spelling_for = spelling_for


def spelled(remedy: Remedy, *, run_id: str | None = None, step: str | None = None) -> str:
    """Return a remedy as text, with its actions in the spelling of this process.

    Args:
        remedy: The remedy.
        run_id: The run of actions without one.
        step: The step of actions without one.

    Example:
        >>> spelled(("To run it again: ", ResetStep()), run_id="etl", step="load")
        "To run it again: wf.sync.resolve('etl', 'load', 'rerun')"
    """
    parts = remedy if isinstance(remedy, tuple) else (remedy,)
    return "".join(str(_completed(part, run_id, step)) for part in parts)


def _completed(part: str | RemedyAction, run_id: str | None, step: str | None) -> str | RemedyAction:
    if isinstance(part, str):
        return redacted_message(part)
    return replace(part, run_id=part.run_id or run_id, step=part.step or step)


_LONGEST_ID: Final = 10_000
"""Characters of an id in a message; only a damaged row has a longer one."""


class _Message(BaseException):
    """A message in three parts: what happened, in which run and step, and what to do next.

    Args:
        what: The event, as a sentence without its full stop.
        run_id: The run, if any.
        step: The id of the step, if any.
        remedy: The next thing to do, as a sentence of its own; its actions are spelled when it is shown.
    """

    def __init__(
        self,
        what: str,
        *,
        run_id: str | None = None,
        step: str | None = None,
        remedy: Remedy | None = None,
    ) -> None:
        what = redacted_message(what)  # it may hold a text of the user's, such as a message or a URL
        run_id, step = run_id and run_id[:_LONGEST_ID], step and step[:_LONGEST_ID]
        super().__init__(what, run_id, step, remedy)
        self.what = what
        self.run_id = run_id
        self.step = step
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own __reduce__ would pass the keyword-only arguments by position.
        return _rebuild, (type(self), self.what, self.run_id, self.step, self.remedy)

    def at(self, *, run_id: str | None = None, step: str | None = None) -> Self:
        """Fill in run and step if the error has none, and return the error."""
        self.run_id = self.run_id or run_id
        self.step = self.step or step
        return self

    @property
    def remedy_text(self) -> str:
        """The remedy as text, with its actions in the spelling of this process; empty if there is none."""
        return spelled(self.remedy, run_id=self.run_id, step=self.step) if self.remedy else ""

    def __str__(self) -> str:
        places = []
        if self.run_id is not None:
            places.append(f"run {self.run_id!r}")
        if self.step is not None:
            places.append(f"step {self.step!r}")
        where = f"{', '.join(places)}: " if places else ""
        return printable(f"{where}{self.what.rstrip('.')}. {self.remedy_text}".rstrip())


class DurableError(_Message, Exception):
    """Base class of all errors of durable_nb.

    Example:
        >>> str(DurableError("it broke", run_id="r1", step="load", remedy="Try again."))
        "run 'r1', step 'load': it broke. Try again."
    """


class error_context:  # noqa: N801 - reads like a statement: with error_context(step=…)
    """Context manager that fills in run and step of each ``DurableError`` raised inside.

    Args:
        run_id: The run.
        step: The step's id.
    """

    __slots__ = ("_run_id", "_step")

    def __init__(self, *, run_id: str | None = None, step: str | None = None) -> None:
        self._run_id, self._step = run_id, step

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DurableError):
            error.at(run_id=self._run_id, step=self._step)


def _rebuild(
    kind: type[_Message],
    what: str,
    run_id: str | None,
    step: str | None,
    remedy: Remedy | None,
) -> _Message:
    return kind(what, run_id=run_id, step=step, remedy=remedy)


class DurableNotice(UserWarning):
    """A warning about something that the user should know, although the call succeeds; without secrets.

    Args:
        message: The message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted_message(message))

    def __str__(self) -> str:
        return printable(super().__str__())


class InvalidOption(DurableError, ValueError):
    """An argument or an option of a magic is invalid."""


class InvalidRunId(DurableError, ValueError):
    """A run id is invalid."""


class NoOpenRun(DurableError, RuntimeError):
    """A durable call was made outside a run."""


class ForkedProcess(DurableError, RuntimeError):
    """A durable call was made in a forked child, in a run or on a journal that its parent has open."""


class RunError(DurableError):
    """Base class of errors about a run."""


class RunNotFound(RunError, LookupError):
    """The database has no run of that id."""


class RunNotDone(RunError):
    """A run has no result: it has not ended, it was cancelled, or its result could not be saved."""


class RunChanged(RunError):
    """A run was opened again with other arguments, or by another workflow."""


class RunHeld(RunError):
    """Another living process owns the run; nothing was written.

    Raised when a process opens a run that another living process or kernel has open, and by each write of a
    former owner after its run was taken over. A run whose owner is dead is not held.
    """


class CrashLoop(RunError):
    """A run is stopped: its process died in ``settings.CRASHES`` passes in a row while a body ran.

    Nothing was committed in between. A process that ends in another way does not count, nor does one that
    ends while the run waits. ``reset`` of the step that is named has it executed again.
    """


class StepError(DurableError):
    """Base class of errors about a step."""


class StepNotFound(StepError, LookupError):
    """The run has no step of that name."""


class StepChanged(StepError):
    """A recorded step was called with other arguments."""


class StepInDoubt(StepError):
    """A step with ``once=True`` was started and not recorded as finished; it may have had its effect."""


class StepNested(StepError):
    """A durable cell was run inside another durable cell."""


class StepNotSaved(StepError):
    """The body of a step succeeded, but its result could not be saved."""


class StepNotRestored(StepError):
    """A checkpoint could not be turned back into its value."""


class UntrustedCheckpoint(StepNotRestored):
    """A checkpoint would run code when it is loaded, and has no trusted signature."""


class StepFailed(StepError):
    """A step has failed, and the class of its recorded exception cannot be rebuilt."""


class ExecutorLost(StepError):
    """The worker that executed a body is gone; how far it came is unknown, and the step may be retried."""


class StepTimeout(StepError, TimeoutError):
    """An attempt took longer than its timeout, and was stopped."""


class SignalTimeout(StepTimeout):
    """A signal was not delivered in time."""


class SignalInvalid(StepError, ValueError):
    """A delivered value is not accepted by the call that waits for it."""


class SignalPending(_Message):
    """A run waits for a signal, and this session cannot prompt for it; deliver the signal, and run again.

    A ``BaseException``, so that ``except Exception`` cannot swallow it and continue without an answer.
    """


class StoreError(DurableError):
    """Base class of errors about a store."""


class StoreUnavailable(StoreError):
    """The database is locked, read-only, full or unreachable."""


class StoreUnreadable(StoreError):
    """The database is damaged, or was written by another application."""


class StoreTooNew(StoreError):
    """The database was written by a newer durable_nb."""

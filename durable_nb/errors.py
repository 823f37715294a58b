"""Every error that durable_nb raises of its own.

    DurableError
    ├── InvalidOption            an argument or magic option that makes no sense (also a ValueError)
    ├── InvalidRunId             a run id that cannot name a run (also a ValueError)
    ├── NoOpenRun                a durable call that needs a run, and there is none (also a RuntimeError)
    ├── ForkedProcess            a durable call in a forked child (also a RuntimeError)
    ├── RunError
    │   ├── RunNotFound          no run of that id in the database
    │   ├── RunChanged           the same run id with other arguments, or of another workflow
    │   └── RunHeld              another living process or kernel owns the run
    ├── StepError
    │   ├── StepNotFound         no step of that name in the run
    │   ├── StepChanged          a recorded step was called with other arguments
    │   ├── StepInDoubt          a step marked once was started, and nobody knows whether it finished
    │   ├── StepNested           a durable cell inside another durable cell
    │   ├── StepNotSaved         the body succeeded, its result could not be saved
    │   ├── StepNotRestored      a checkpoint that cannot be turned back into its value
    │   │   └── UntrustedCheckpoint  it would run code, and nobody who is known here has signed it
    │   ├── ExecutorLost         whoever ran the body elsewhere is gone
    │   ├── StepTimeout          an attempt took longer than its timeout (also a TimeoutError)
    │   │   └── SignalTimeout    nobody answered in time
    │   ├── SignalInvalid        a value that the waiting call does not accept (also a ValueError)
    │   └── StepFailed           a recorded failure whose own class cannot be rebuilt
    └── StoreError
        ├── StoreUnavailable     locked, read-only, full, unreachable
        ├── StoreUnreadable      not a database of ours, or damaged
        └── StoreTooNew          written by a newer durable_nb

    SignalPending                nobody is there to answer: no Exception, so that none takes it for an answer

Each says what happened, to which run and step, and what to type next.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self, TypeAlias

__all__ = [
    "SCRIPT",
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
    "ResolveFail",
    "ResolveRerun",
    "ResolveValue",
    "RunChanged",
    "RunError",
    "RunHeld",
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
    "spell_actions",
    "spelled",
]


@dataclass(frozen=True, slots=True)
class RemedyAction:
    """Something the user can do about an error; notebook, script and command spell it differently.

    Args:
        run_id: The run it is done to; the error's own where it is not given.
        step: The step it is done to; the error's own where it is not given.
        db: The database; ``PATH`` is shown where it is not given.

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
            run=_Word(self.run_id or "RUN_ID"),
            step=_Word(self.step or "STEP"),
            db=_Word(self.db or "PATH"),
        )


class ResetStep(RemedyAction):
    """Execute a step again at its next call, although it has a result."""


class ResolveRerun(RemedyAction):
    """Say of a step in doubt that it had no effect: execute it again."""


class ResolveValue(RemedyAction):
    """Say of a step in doubt that it had its effect, and what it returned."""


class ResolveFail(RemedyAction):
    """Give a step in doubt up."""


class RenameStep(RemedyAction):
    """Give a call a name of its own, so that it is another step."""


class RenameCell(RemedyAction):
    """Give a durable cell another name, so that it is another step."""


class OpenRun(RemedyAction):
    """Open a run, or resume it."""


class StartOver(RemedyAction):
    """Set a run's history aside under another id, and start over."""


class TakeOver(RemedyAction):
    """Take a run from the process that owns it."""


class ListRuns(RemedyAction):
    """List the runs of a database."""


class TrustDatabase(RemedyAction):
    """Sign the checkpoints that another user has made."""


SCRIPT: Final[Mapping[type[RemedyAction], str]] = {
    ResetStep: "wf.sync.resolve({run!r}, {step!r}, 'rerun')",
    ResolveRerun: "wf.sync.resolve({run!r}, {step!r}, 'rerun')",
    ResolveValue: "wf.sync.resolve({run!r}, {step!r}, 'value', VALUE)",
    ResolveFail: "wf.sync.resolve({run!r}, {step!r}, 'fail')",
    RenameStep: "step_id='…'",
    RenameCell: "another name on its first line",
    OpenRun: ".run({run!r}, …)",
    StartOver: ".run({run!r}, …, fresh=True)",
    TakeOver: ".run({run!r}, …, take_over=True)",
    ListRuns: "durable-nb runs --db {db}",
    TrustDatabase: "durable-nb trust {db}",
}
"""How a script spells each action: ``{run}`` is quoted for a command line, ``{run!r}`` for Python."""

Spelling: TypeAlias = "Mapping[type[RemedyAction], str]"
"""A template for each action that a face spells otherwise than ``SCRIPT``."""


def _as_in_a_script(_action: RemedyAction) -> Spelling:
    return SCRIPT


_spelling_for: Callable[[RemedyAction], Spelling] = _as_in_a_script

Remedy: TypeAlias = "str | RemedyAction | tuple[str | RemedyAction, ...]"
"""What to do about an error: text, an action, or text with actions in it, in order."""


class _Word(str):
    __slots__ = ()

    def __format__(self, _spec: str) -> str:
        return shlex.quote(self)


def spell_actions(spelling_for: Callable[[RemedyAction], Spelling]) -> None:
    """Have this process spell actions as its face does: notebook and command line call this when they start.

    Args:
        spelling_for: Returns the templates for an action. A notebook has runs that magics open and runs of
            workflow functions, which are spelled as in a script.
    """
    global _spelling_for  # a process has one face
    _spelling_for = spelling_for


def spelled(remedy: Remedy, *, run_id: str | None = None, step: str | None = None) -> str:
    """Return a remedy as text, its actions as this process's face spells them.

    Args:
        remedy: The remedy.
        run_id: The run, for actions that name none.
        step: The step, for actions that name none.

    Example:
        >>> spelled(("To run it again: ", ResetStep()), run_id="etl", step="load")
        "To run it again: wf.sync.resolve('etl', 'load', 'rerun')"
    """
    parts = remedy if isinstance(remedy, tuple) else (remedy,)
    return "".join(str(_completed(part, run_id, step)) for part in parts)


def _completed(part: str | RemedyAction, run_id: str | None, step: str | None) -> str | RemedyAction:
    if isinstance(part, str):
        return part
    return replace(part, run_id=part.run_id or run_id, step=part.step or step)


class _Message(BaseException):
    """A message in three parts: what happened, where, and what to do next.

    Args:
        what: What happened, one sentence without its full stop.
        run_id: The run it happened to, if any.
        step: The id of the step it happened to, if any.
        remedy: What to do next, a sentence of its own; its actions are spelled when the message is read.
    """

    def __init__(
        self,
        what: str,
        *,
        run_id: str | None = None,
        step: str | None = None,
        remedy: Remedy | None = None,
    ) -> None:
        super().__init__(what, run_id, step, remedy)
        self.what = what
        self.run_id = run_id
        self.step = step
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own __reduce__ would pass the keyword-only arguments by position.
        return _rebuild, (type(self), self.what, self.run_id, self.step, self.remedy)

    def at(self, *, run_id: str | None = None, step: str | None = None) -> Self:
        """Fill in the run and step where the code that raised did not know them; return the error itself."""
        self.run_id = self.run_id or run_id
        self.step = self.step or step
        return self

    @property
    def remedy_text(self) -> str:
        """What to do next, with its actions as this process's face spells them; empty if there is nothing."""
        return spelled(self.remedy, run_id=self.run_id, step=self.step) if self.remedy else ""

    def __str__(self) -> str:
        places = []
        if self.run_id is not None:
            places.append(f"run {self.run_id!r}")
        if self.step is not None:
            places.append(f"step {self.step!r}")
        where = f"{', '.join(places)}: " if places else ""
        return f"{where}{self.what.rstrip('.')}. {self.remedy_text}".rstrip()


class DurableError(_Message, Exception):
    """The base of all our errors.

    Example:
        >>> str(DurableError("it broke", run_id="r1", step="load", remedy="Try again."))
        "run 'r1', step 'load': it broke. Try again."
    """


class error_context:  # noqa: N801 - read as a word of the language: with error_context(step=…)
    """Fill in run and step of our errors raised inside."""

    __slots__ = ("_run_id", "_step")

    def __init__(self, *, run_id: str | None = None, step: str | None = None) -> None:
        self._run_id, self._step = run_id, step

    def __enter__(self) -> None:
        """Nothing yet."""

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
    """What a person should know although nothing is refused: a warning, not an error."""


class InvalidOption(DurableError, ValueError):
    """An argument or a magic's option that makes no sense."""


class InvalidRunId(DurableError, ValueError):
    """A run id that cannot name a run."""


class NoOpenRun(DurableError, RuntimeError):
    """A durable call that needs a run, and there is none."""


class ForkedProcess(DurableError, RuntimeError):
    """A durable call in a forked child, which has neither our threads nor the run's lease."""


class RunError(DurableError):
    """Something about a whole run."""


class RunNotFound(RunError, LookupError):
    """No run of that id in the database."""


class RunChanged(RunError):
    """The same run id with other arguments, or of another workflow."""


class RunHeld(RunError):
    """Somebody else who lives owns the run; nothing was written.

    Raised by who opens a run that another living process or kernel has open, and by each further write of
    an owner from whom it was taken over meanwhile. A run whose owner is dead is not held.
    """


class StepError(DurableError):
    """Something about one step of a run."""


class StepNotFound(StepError, LookupError):
    """No step of that name in the run."""


class StepChanged(StepError):
    """A recorded step was called with other arguments."""


class StepInDoubt(StepError):
    """A step marked once was started, and nobody knows whether it finished."""


class StepNested(StepError):
    """A durable cell inside another durable cell."""


class StepNotSaved(StepError):
    """The body succeeded once, and its result could not be saved."""


class StepNotRestored(StepError):
    """A checkpoint that cannot be turned back into its value."""


class UntrustedCheckpoint(StepNotRestored):
    """A checkpoint that would run code when it is loaded, and that no key known here has signed."""


class StepFailed(StepError):
    """A recorded failure whose own class cannot be rebuilt."""


class ExecutorLost(StepError):
    """Whoever ran a body elsewhere is gone, and nobody knows how far it came; another attempt may follow."""


class StepTimeout(StepError, TimeoutError):
    """An attempt took longer than its timeout, and was ended."""


class SignalTimeout(StepTimeout):
    """Nobody answered in time."""


class SignalInvalid(StepError, ValueError):
    """A value that the call which waits for it does not accept."""


class SignalPending(_Message):
    """A run waits for a signal, and nobody is there to be asked: deliver it, and run this again.

    No ``Exception``: code that goes on after ``except Exception`` would take silence for an answer.
    """


class StoreError(DurableError):
    """Something about the place where runs are kept."""


class StoreUnavailable(StoreError):
    """The database is locked, read-only, full or out of reach."""


class StoreUnreadable(StoreError):
    """The file is no database of ours, or it is damaged."""


class StoreTooNew(StoreError):
    """The database was written by a newer durable_nb."""

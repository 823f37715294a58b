"""The result of a run that is done: given without entering its code, if nothing it rests on has changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from durable_nb import fingerprint
from durable_nb.engine.files import changes
from durable_nb.engine.history import History
from durable_nb.engine.opening import find_run
from durable_nb.errors import DurableNotice, error_context
from durable_nb.records import RunStatus, StepKind, called_name
from durable_nb.stores.payloads import fetch, is_at_hand

if TYPE_CHECKING:
    from durable_nb.concurrency.bridge import CallMode
    from durable_nb.engine.passes import Pass
    from durable_nb.records import Payload, Run, RunSnapshot

__all__ = ["recorded_result"]


async def recorded_result(
    current: Pass, mode: CallMode, codes: Mapping[str, str | None], *, take_over: bool = False
) -> Payload | None:
    """Return the result of a run that is done; None if its code has to be entered.

    It is entered if it was edited since, which a notice says, and if a task of it was, or a file that a step
    used has changed: its steps then decide by their own policies, and say so.

    Args:
        current: The pass: the journal, and the run as its caller sees it.
        mode: How the caller waits.
        codes: The fingerprints of the tasks that its code may call, by their names.
        take_over: Open the run even if another living process owns it.

    Raises:
        RunHeld: Another living process owns the run.
        RunChanged: The run is recorded with other arguments, or for another workflow.
        UntrustedCheckpoint: The result would run code when loaded, and no known key has signed it.
    """
    journal, run_id = current.journal, current.opening.run_id
    known = await find_run(current, mode, take_over=take_over)
    if known is None or known.status is not RunStatus.DONE or known.result is None or not journal.whole_runs:
        return None
    with error_context(run_id=run_id):
        found = await mode.store(journal.read_run(run_id))
        if found is None or _is_edited(known, current.opening) or _differs(found, codes):
            return None
        if is_at_hand(known.result):
            return known.result
        return await mode.store(fetch(journal, known.result, run_id, ""))


def _is_edited(known: Run, opening: Run) -> bool:
    if not fingerprint.differ(known.code, opening.code):
        return False
    message = f"run {known.run_id!r}: is done, but its workflow was edited since; it is entered again"
    warnings.warn(f"{message}, and its finished steps replay", DurableNotice, stacklevel=2)
    return True


def _differs(known: RunSnapshot, codes: Mapping[str, str | None]) -> bool:
    """Return whether a step has another code now, or a file that it used has changed."""
    history = History(known.steps)
    for step in history.values():
        if step.lineage and changes(step, lambda: history.writers):
            return True
        if step.kind is StepKind.TASK and fingerprint.differ(
            step.code, codes.get(called_name(step.step_id), step.code)
        ):
            return True
    return False

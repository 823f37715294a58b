"""The magics that a notebook shows for remedies."""

from __future__ import annotations

from typing import Final

from durable_nb import errors

__all__ = ["NOTEBOOK"]

NOTEBOOK: Final[errors.Spelling] = {
    errors.ResetStep: "%durable_reset {step}",
    errors.ResolveRerun: "%durable_resolve {step} rerun",
    errors.ResolveValue: "%durable_resolve {step} value EXPR",
    errors.ResolveFail: "%durable_resolve {step} fail",
    errors.ResolveEarlier: "%durable_resolve {step} earlier",
    errors.RenameCell: "%%durable_step OTHER_NAME",
    errors.OpenRun: "%durable_workflow {run}",
    errors.StartOver: "%durable_workflow {run} --fresh",
    errors.TakeOver: "%durable_workflow {run} --take-over",
    errors.ListRuns: "%durable_runs --db {db}",
}
"""A magic for each action; ``{run}`` and the others are quoted as a magic's line needs it."""

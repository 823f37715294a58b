"""The text of remedies in the output of commands: for a notebook, and for a script."""

from __future__ import annotations

from typing import Final

from durable_nb import errors

__all__ = ["COMMAND_LINE"]

COMMAND_LINE: Final[errors.Spelling] = {
    errors.ResetStep: (
        "%durable_reset {step} in the notebook, wf.sync.resolve({run!r}, {step!r}, 'rerun') in a script"
    ),
    errors.OpenRun: "%durable_workflow {run} in a notebook, .run({run!r}, …) in a script",
    errors.StartOver: (
        "%durable_workflow {run} --fresh in a notebook, .run({run!r}, …, fresh=True) in a script"
    ),
    errors.TakeOver: (
        "%durable_workflow {run} --take-over in a notebook, .run({run!r}, …, take_over=True) in a script"
    ),
}
"""Commands cannot execute the user's code: they name the magic and the call that can."""

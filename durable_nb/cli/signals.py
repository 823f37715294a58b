"""``durable-nb signals``: what runs wait for."""

from __future__ import annotations

import argparse
import json

from durable_nb.cli import runs
from durable_nb.cli.database import asked, existing
from durable_nb.engine.status import list_runs
from durable_nb.records import RunStatus, SignalRequest
from durable_nb.signals import delivery
from durable_nb.signals.typed import editable_arguments, hint
from durable_nb.stores.base import ENDED

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    runs.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """List the open requests of runs that are not over, the oldest first."""
    journal = existing(options.db)
    standing = {run.run_id: run.status for run in asked(list_runs(journal))}
    waiting = [
        request
        for request in asked(journal.open_signals())
        if standing.get(request.run_id, RunStatus.DONE) not in ENDED
    ]
    for request in waiting:
        print(_describe(request, standing[request.run_id], journal.address))  # noqa: T201 - a command's answer
    if not waiting:
        print("no run waits for a signal")  # noqa: T201
    return 0


def _describe(request: SignalRequest, status: RunStatus, address: str | None) -> str:
    since = delivery.format_time(request.asked_at)
    lines = [f"run {request.run_id!r} ({status}) waits for signal {request.name!r} since {since}"]
    lines += filter(None, (request.prompt, request.refused and f"set aside: {request.refused}"))
    lines += filter(None, (_accepts(request),))
    return "\n    ".join([*lines, delivery.answer_command(request, address)])


def _accepts(request: SignalRequest) -> str | None:
    if request.choices:
        return f"accepts: {hint(request)}"
    if (given := editable_arguments(request)) is not None:
        edited = json.dumps({"approved": True, "arguments": given})
        return f"accepts: true | false | TEXT, why not | {edited}, or other arguments"
    return request.schema and f"schema: {request.schema}"

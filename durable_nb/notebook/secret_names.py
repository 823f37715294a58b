"""What a durable cell says of secrets among its names: they are data, and kept unless excluded."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from durable_nb.codec.rules import process_objects
from durable_nb.errors.redaction import secret_in
from durable_nb.notebook.namespace.unnamed import unnamed

if TYPE_CHECKING:
    from durable_nb.notebook.session import Session
    from durable_nb.records import Step

__all__ = ["kept_before", "notices", "unbound"]


def notices(session: Session, step: Step, names: Iterable[str], unsaved: Collection[str]) -> list[str]:
    """Return a notice, once for each name, about names whose values look like secrets and are saved.

    Args:
        session: The shell's session.
        step: The cell's step.
        names: The names that the cell made or changed.
        unsaved: Those of them that are not saved.
    """
    values = {**session.shell.user_ns, **unnamed(session.shell.user_ns)}
    found, references = list[str](), process_objects()
    for name in names:
        if name in session.reported_secrets or name in unsaved or name not in values:
            continue
        if id(values[name]) in references:  # saved as such, without what it holds
            continue
        if (path := secret_in(name, values[name])) is not None:
            session.reported_secrets.add(name)
            found.append(_notice(session, step, name, path))
    return found


def _notice(session: Session, step: Step, name: str, path: str) -> str:
    line = f"%%durable_step {shlex.quote(step.step_id)} --exclude {shlex.quote(name)}"
    return (
        f"{path} looks like a secret, and is saved. To leave it out: {line}, or read it in an ordinary cell, "
        f"from os.environ; to take out what is saved: {_forget(session, step)}"
    )


def unbound(excluded: Iterable[str], names: Collection[str]) -> list[str]:
    """Return a notice about excluded names that the cell did not bind.

    Args:
        excluded: The names that the user leaves out.
        names: The names that the cell made or changed.
    """
    missing = [name for name in excluded if name not in names]
    return [f"--exclude {','.join(missing)}: the cell has bound no such name"] if missing else []


def kept_before(session: Session, step: Step, names: Collection[str]) -> list[str]:
    """Return a notice about excluded names that the checkpoint holds.

    Args:
        session: The shell's session.
        step: The cell's step.
        names: The excluded names that the replay has restored.
    """
    if not names:
        return []
    was = f"{', '.join(names)}: saved before `--exclude` was added"
    return [f"{was}. To take out what is saved: {_forget(session, step)}"]


def _forget(session: Session, step: Step) -> str:
    place = shlex.quote(session.require_run().journal.location)
    return f"durable-nb forget {place} --run {shlex.quote(step.run_id)} --step {shlex.quote(step.step_id)}"

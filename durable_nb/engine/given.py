"""The arguments of runs: kept when a run begins, so that it can be resumed without its caller."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from durable_nb import codec, settings
from durable_nb.codec.without_secrets import is_clean
from durable_nb.errors import DurableError, DurableNotice
from durable_nb.errors.redaction import secret_in
from durable_nb.records import GIVEN
from durable_nb.stores.payloads import fetch, keep

if TYPE_CHECKING:
    from durable_nb.records import Payload, Run
    from durable_nb.stores.base import Journal

__all__ = ["Given", "restored", "stored"]

_LOOKED_AT: Final = 100_000
"""Bytes of encoded arguments that are looked at for secrets, in 0.1 s at most: what is larger is data."""


_methods: set[str] = set()


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of a call of a workflow function, as its caller gave them.

    Attributes:
        args: The positional ones.
        kwargs: The keyword arguments.
        signature: The signature of the function.
        resume: The call that resumes the run, for people, such as ``process.run('a17', …)``.
        unbound: Whether the function is one that a module has, and not a method of an object.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    signature: inspect.Signature
    resume: str
    unbound: bool = True

    def encoded(self, journal: Journal, run: Run) -> Payload | None:
        """Return the encoded arguments; None, with a notice, if they must not or cannot be kept.

        Args:
            journal: The journal of the run.
            run: The run that begins. The caller of one that has a parent is its parent: it needs no notice.
        """
        payload, reason = self._encoded()
        if payload is not None and journal.blobs is None and len(payload.data) > settings.REDIS_LARGEST:
            payload, reason = None, "its arguments are larger than a value that its store keeps"
        if payload is None and run.parent is None and not self._was_said(run.workflow):
            message = f"run {run.run_id!r} is not resumable without its caller: {reason}"
            warnings.warn(f"{message}. After a crash: {self.resume}", DurableNotice, stacklevel=2)
        return payload

    def _was_said(self, workflow: str) -> bool:
        """Return whether it was said of a method that its runs are not resumable: once is enough."""
        if self.unbound:
            return False
        was_said = workflow in _methods
        _methods.add(workflow)
        return was_said

    def _encoded(self) -> tuple[Payload | None, str]:
        """Return the encoded arguments, or why they are not kept."""
        if not self.unbound:
            return None, "its function is a method, whose object is not kept"
        for name, value in self.signature.bind(*self.args, **self.kwargs).arguments.items():
            if (path := secret_in(name, value)) is not None:
                return None, f"its argument {path} looks like a secret, and is not kept"
        try:
            payload = codec.encode([self.args, dict(self.kwargs)])
        except DurableError as error:
            return None, f"its arguments cannot be kept: {error.what}"
        if not _is_clean(payload):
            return None, "an object among its arguments holds what looks like a secret, and is not kept"
        return payload, ""


def _is_clean(payload: Payload) -> bool:
    if len(payload.data) > _LOOKED_AT:
        return True
    if payload.format == "objects":
        return secret_in("", json.loads(payload.data)) is None
    return payload.format not in ("pickle", "buffers") or is_clean(payload.data)


async def stored(journal: Journal, run: Run, given: Payload | None) -> Run:
    """Return a run that is to be created with its encoded arguments; large ones are written to blobs first.

    Runs on the loop thread.
    """
    return run if given is None else run._replace(given=await keep(journal, given, run.run_id, GIVEN))


async def restored(journal: Journal, run: Run) -> Payload | None:
    """Return the encoded arguments of a recorded run, ready to be decoded; None if they are not kept.

    Raises:
        UntrustedCheckpoint: They would run code when they are loaded, and no known key has signed them.
        StepNotRestored: Their blob is missing or damaged.
    """
    return None if run.given is None else await fetch(journal, run.given, run.run_id, GIVEN)

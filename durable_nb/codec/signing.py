"""Whose checkpoints may run code here: the keys, and the signatures made with them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Final

from durable_nb import codec
from durable_nb.errors import DurableNotice, StoreUnavailable, TrustDatabase, UntrustedCheckpoint
from durable_nb.records import Payload, original_id

__all__ = ["VARIABLE", "check", "is_trusted", "key_file", "sign", "signed"]

VARIABLE: Final = "DURABLE_NB_SECRET"
"""The environment variable with a secret that a team shares."""

_KEY_LENGTH: Final = 32
_keys: dict[Path, bytes] = {}
_guard = threading.Lock()


def signed(payload: Payload, run_id: str, step: str) -> Payload:
    """A payload as it is stored, signed if it would run code when it is loaded.

    Where there can be no key it stays unsigned, with a notice: a checkpoint not made would be worse.

    Args:
        payload: The payload, its large parts in blobs.
        run_id: The run it belongs to.
        step: The step it is the result of; empty for the run's own.
    """
    if payload.format not in codec.RUNS_CODE:
        return payload
    try:
        return sign(payload, run_id, step)
    except StoreUnavailable as error:
        message = (
            f"run {run_id!r}, step {step!r}: saved without a signature, and so not to be loaded: {error}"
        )
        warnings.warn(message, DurableNotice, stacklevel=2)
        return payload


def sign(payload: Payload, run_id: str, step: str) -> Payload:
    """The same, whatever its format.

    Raises:
        StoreUnavailable: There is no key, and none can be made.
    """
    return payload._replace(signature=_signature(_known_keys()[0], payload, run_id, step))


def check(payload: Payload, run_id: str, step: str, location: str) -> None:
    """Refuse a payload that would run code when it is loaded, and that no known key has signed.

    Args:
        payload: The payload as it is stored.
        run_id: The run it belongs to.
        step: The step it is the result of.
        location: Where it is kept, for the message.

    Raises:
        UntrustedCheckpoint: It was made by somebody else, or changed since.
    """
    if payload.format in codec.RUNS_CODE and not is_trusted(payload, run_id, step):
        raise UntrustedCheckpoint(
            f"its checkpoint in {location!r} would run code, and none of your keys has signed it",
            run_id=run_id,
            step=step or None,
            remedy=("If you trust the user who made it: ", TrustDatabase(db=location)),
        )


def is_trusted(payload: Payload, run_id: str, step: str) -> bool:
    """Whether one of the known keys has signed a payload, for that very step.

    Raises:
        StoreUnavailable: There is a key file, and it cannot be read.
    """
    found = payload.signature
    if found is None:
        return False
    return any(hmac.compare_digest(found, _signature(key, payload, run_id, step)) for key in _known_keys())


def key_file() -> Path:
    """The file that holds the user's own key."""
    from jupyter_core.paths import jupyter_data_dir  # only now: it is slow to import

    return Path(jupyter_data_dir()) / "durable_nb" / "secret"


def _known_keys() -> list[bytes]:
    """The known keys, the one to sign with first: the team's, then the user's."""
    secret = os.environ.get(VARIABLE)
    if secret:
        team = hashlib.sha256(f"durable_nb {secret}".encode()).digest()
        return [team, *_key_of_user(create=False)]
    return _key_of_user(create=True)


def _key_of_user(*, create: bool) -> list[bytes]:
    with _guard:
        path = key_file()
        if path not in _keys:
            try:
                if create and not path.exists():
                    _create(path)
                key = path.read_bytes()
            except FileNotFoundError:
                return []
            except OSError as error:
                raise _no_key(path, error.strerror or str(error)) from error
            if len(key) != _KEY_LENGTH:
                raise _no_key(path, f"it has {len(key)} bytes, not {_KEY_LENGTH}")
            _keys[path] = key
        return [_keys[path]]


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # created with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_LENGTH))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # whole at once, and only if nobody else was faster
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()


def _signature(key: bytes, payload: Payload, run_id: str, step: str) -> bytes:
    # The digest of the bytes speaks for the parts too: the bytes name them by theirs.
    content = payload.blob or hashlib.sha256(payload.data).hexdigest()
    said = json.dumps([original_id(run_id), step, payload.format, content])
    return hmac.digest(key, said.encode(), "sha256")


def _no_key(path: Path, why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"there is no key to sign with: {str(path)!r} cannot be used ({why})",
        remedy=f"Make that folder writable, or set {VARIABLE}.",
    )

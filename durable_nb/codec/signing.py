"""Signatures of checkpoints that run code when they are loaded, and the keys that make them.

A checkpoint in one of the formats ``codec.RUNS_CODE`` is loaded only if one of the user's keys signed it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shlex
import stat
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
"""The environment variable that holds a secret shared by a team."""

_KEY_LENGTH: Final = 32
_keys: dict[Path, bytes] = {}
_guard = threading.Lock()


def signed(payload: Payload, run_id: str, step: str) -> Payload:
    """Return a payload with a signature if it would run code when it is loaded.

    If there is no key and none can be created, return it unsigned and issue a ``DurableNotice``, rather than
    lose the checkpoint.

    Args:
        payload: The payload, its large parts in blobs.
        run_id: The run that it belongs to.
        step: The step whose result it is; empty for the run's own result.
    """
    if payload.format not in codec.RUNS_CODE:
        return payload
    try:
        return sign(payload, run_id, step)
    except StoreUnavailable as error:
        message = (
            f"run {run_id!r}, step {step!r}: saved without a signature, so that it cannot be loaded: {error}"
        )
        warnings.warn(message, DurableNotice, stacklevel=2)
        return payload


def sign(payload: Payload, run_id: str, step: str) -> Payload:
    """Return a payload with a signature, whatever its format.

    Args:
        payload: The payload, its large parts in blobs.
        run_id: The run that it belongs to.
        step: The step whose result it is; empty for the run's own result.

    Raises:
        StoreUnavailable: There is no key, and none can be created.
    """
    return payload._replace(signature=_signature(_trusted_keys()[0], payload, run_id, step))


def check(payload: Payload, run_id: str, step: str, location: str) -> None:
    """Refuse a payload that would run code when it is loaded and that no trusted key has signed.

    Args:
        payload: The payload as it is stored.
        run_id: The run that it belongs to.
        step: The step whose result it is.
        location: The database, for the message.

    Raises:
        UntrustedCheckpoint: Another user made the payload, or it was changed after it was signed.
    """
    if payload.format in codec.RUNS_CODE and not is_trusted(payload, run_id, step):
        raise UntrustedCheckpoint(
            f"loading its checkpoint from {location!r} would run code, and none of your keys has signed it",
            run_id=run_id,
            step=step or None,
            remedy=("If you trust the user who made it: ", TrustDatabase(db=location)),
        )


def is_trusted(payload: Payload, run_id: str, step: str) -> bool:
    """Return whether a trusted key has signed a payload, for this run and step.

    Args:
        payload: The payload as it is stored.
        run_id: The run that it belongs to.
        step: The step whose result it is.

    Raises:
        StoreUnavailable: The key file exists, but cannot be read.
    """
    found = payload.signature
    if found is None:
        return False
    return any(hmac.compare_digest(found, _signature(key, payload, run_id, step)) for key in _trusted_keys())


def key_file() -> Path:
    """Return the path of the user's own key."""
    from jupyter_core.paths import jupyter_data_dir  # imported late: it is slow

    return Path(jupyter_data_dir()) / "durable_nb" / "secret"


def _trusted_keys() -> list[bytes]:
    """Return the trusted keys, the one to sign with first: the team's, then the user's."""
    secret = os.environ.get(VARIABLE)
    if secret:
        team = hashlib.sha256(f"durable_nb {secret}".encode()).digest()
        return [team, *_user_key(create=False)]
    return _user_key(create=True)


def _user_key(*, create: bool) -> list[bytes]:
    with _guard:
        path = key_file()
        if path not in _keys:
            try:
                if create and not path.exists():
                    _create(path)
                _keys[path] = _read_key(path)
            except FileNotFoundError:
                return []
            except OSError as error:
                raise _no_key(path, error.strerror or str(error)) from error
        return [_keys[path]]


def _read_key(path: Path) -> bytes:
    """Return the key in a file that only this user can read and write, as ssh expects of its keys."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != _KEY_LENGTH:
            raise _no_key(path, f"expected a regular file of {_KEY_LENGTH} bytes")
        if os.name == "posix" and status.st_uid not in (os.geteuid(), 0):
            raise _no_key(path, f"it belongs to the user {status.st_uid}, expected {os.geteuid()}")
        if os.name == "posix" and status.st_mode & 0o077:
            mode = f"its mode is {stat.S_IMODE(status.st_mode):04o}, so that other users can use it"
            raise _no_key(path, mode, f"Make it yours alone: chmod 600 {shlex.quote(str(path))}")
        return os.read(descriptor, _KEY_LENGTH)
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # created with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_LENGTH))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # atomic; fails if another process has created it meanwhile
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()


def _signature(key: bytes, payload: Payload, run_id: str, step: str) -> bytes:
    # The digest of the bytes covers the parts too: the bytes hold the digests of the parts.
    content = payload.blob or hashlib.sha256(payload.data).hexdigest()
    message = json.dumps([original_id(run_id), step, payload.format, content])
    return hmac.digest(key, message.encode(), "sha256")


def _no_key(path: Path, reason: str, remedy: str = "Make its folder writable") -> StoreUnavailable:
    return StoreUnavailable(
        f"no key to sign with: cannot use {str(path)!r} ({reason})",
        remedy=f"{remedy}, or set {VARIABLE}.",
    )

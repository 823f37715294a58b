"""Signatures of checkpoints that run code when they are loaded, and the keys that make them.

A checkpoint in one of the formats ``codec.RUNS_CODE`` is loaded only if one of the user's keys signed it.
"""

from __future__ import annotations

import contextlib
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

__all__ = ["VARIABLE", "check", "is_trusted", "key_file", "preload", "sign", "signed"]

VARIABLE: Final = "DURABLE_NB_SECRET"
"""The environment variable that holds a secret shared by a team."""

_KEY_LENGTH: Final = 32
_CAREFULLY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""No link is followed, and a named pipe is not waited for."""

_keys: dict[Path, bytes] = {}
_guard = threading.Lock()


def signed(payload: Payload, run_id: str, step: str, *, database: str = "") -> Payload:
    """Return a payload with a signature if it would run code when it is loaded.

    If there is no key and none can be created, return it unsigned and issue a ``DurableNotice``, rather than
    lose the checkpoint.

    Args:
        payload: The payload, its large parts in blobs.
        run_id: The run that it belongs to.
        step: The step whose result it is; empty for the run's own result.
        database: The id of the database that keeps it.
    """
    if payload.format not in codec.RUNS_CODE:
        return payload
    try:
        return sign(payload, run_id, step, database=database)
    except StoreUnavailable as error:
        message = (
            f"run {run_id!r}, step {step!r}: saved without a signature, so that it cannot be loaded: {error}"
        )
        warnings.warn(message, DurableNotice, stacklevel=2)
        return payload


def sign(payload: Payload, run_id: str, step: str, *, database: str = "") -> Payload:
    """Return a payload with a signature, whatever its format.

    Args:
        payload: The payload, its large parts in blobs.
        run_id: The run that it belongs to.
        step: The step whose result it is; empty for the run's own result.
        database: The id of the database that keeps it; empty if it has none.

    Raises:
        StoreUnavailable: There is no key, and none can be created.
    """
    return payload._replace(signature=_signature(_trusted_keys()[0], payload, run_id, step, database))


def check(payload: Payload, run_id: str, step: str, location: str, *, database: str = "") -> None:
    """Refuse a payload that would run code when it is loaded and that no trusted key has signed.

    Args:
        payload: The payload as it is stored.
        run_id: The run that it belongs to.
        step: The step whose result it is.
        location: The database, for the message.
        database: The id of the database.

    Raises:
        UntrustedCheckpoint: Another user made the payload, or it was changed after it was signed.
    """
    if payload.format in codec.RUNS_CODE and not is_trusted(payload, run_id, step, database=database):
        raise UntrustedCheckpoint(
            f"loading its checkpoint from {location!r} would run code, and none of your keys has signed it",
            run_id=run_id,
            step=step or None,
            remedy=("If you trust the user who made it: ", TrustDatabase(db=location)),
        )


def is_trusted(payload: Payload, run_id: str, step: str, *, database: str = "") -> bool:
    """Return whether a trusted key has signed a payload, for this run and step of this database.

    A signature from before it covered the database is valid too.

    Args:
        payload: The payload as it is stored.
        run_id: The run that it belongs to.
        step: The step whose result it is.
        database: The id of the database that keeps it.

    Raises:
        StoreUnavailable: The key file exists, but cannot be read.
    """
    found = payload.signature
    if found is None:
        return False
    valid = (
        _signature(key, payload, run_id, step, each) for key in _trusted_keys() for each in {database, ""}
    )
    return any(hmac.compare_digest(found, each) for each in valid)


def preload() -> None:
    """Read the user's key, if there is one: once descriptors have run out, it cannot be read."""
    with contextlib.suppress(StoreUnavailable):  # the first payload that needs a key says so
        _user_key(create=False)


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
    _check_folder(path)
    file = shlex.quote(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | _CAREFULLY)
    except OSError as error:
        if not path.is_symlink():
            raise
        new = shlex.quote(f"{path}.new")
        remedy = f"Put the file itself there: cp -pL {file} {new} && mv {new} {file}"
        raise _no_key(path, "it is a symbolic link, expected a regular file", remedy) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != _KEY_LENGTH:
            raise _no_key(
                path,
                f"expected a regular file of {_KEY_LENGTH} bytes",
                f"Restore it, or remove it: rm {file}",
            )
        _check_owner(path, status)
        if os.name == "posix" and status.st_mode & 0o077:
            mode = f"its mode is {stat.S_IMODE(status.st_mode):04o}, so that other users can use it"
            raise _no_key(path, mode, f"Make it yours alone: chmod 600 {file}")
        return os.read(descriptor, _KEY_LENGTH)
    finally:
        os.close(descriptor)


def _check_folder(path: Path) -> None:
    """Refuse a folder in which other users can replace the key."""
    folder = path.parent
    status = folder.stat()
    if status.st_uid != 0:  # root can replace it anyway
        _check_owner(path, status, f"its folder {str(folder)!r}")
    if os.name == "posix" and status.st_mode & 0o022:
        mode = f"the mode of its folder is {stat.S_IMODE(status.st_mode):04o}: other users can replace it"
        raise _no_key(path, mode, f"Make the folder yours alone: chmod go-w {shlex.quote(str(folder))}")


def _check_owner(path: Path, status: os.stat_result, what: str = "it") -> None:
    if os.name == "posix" and status.st_uid != os.geteuid():
        reason = f"{what} belongs to the user {status.st_uid}, expected {os.geteuid()}"
        raise _no_key(
            path, reason, f"Make it yours: sudo chown -R {os.geteuid()} {shlex.quote(str(path.parent))}"
        )


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


def _signature(key: bytes, payload: Payload, run_id: str, step: str, database: str) -> bytes:
    # The digest of the bytes covers the parts too: the bytes hold the digests of the parts.
    content = payload.blob or hashlib.sha256(payload.data).hexdigest()
    place = [database] if database else []
    message = json.dumps([*place, original_id(run_id), step, payload.format, content])
    return hmac.digest(key, message.encode(), "sha256")


def _no_key(path: Path, reason: str, remedy: str = "Make its folder writable") -> StoreUnavailable:
    return StoreUnavailable(
        f"no key to sign with: cannot use {str(path)!r} ({reason})",
        remedy=f"{remedy}, or set {VARIABLE}.",
    )

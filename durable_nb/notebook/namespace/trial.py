"""Load what was saved once more, in a helper process: what fails there is named when its step commits.

Only loading can tell whether an object comes back, and loading runs code of the user's: never in the user's
process. `Trial` asks a helper; it starts one when an object of a kind is saved that is not known to be safe.
The helper restores the names as a replay would, and ends with the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from durable_nb import settings
from durable_nb.codec.bundle import pack, unpack
from durable_nb.lookup import importable
from durable_nb.notebook.namespace.restore import restore_names
from durable_nb.notebook.namespace.saved import SavedNames

__all__ = ["NotTried", "Trial", "serve"]

_SAFE: Final = sys.stdlib_module_names | {
    *("numpy", "pandas", "matplotlib", "scipy", "sklearn", "torch"),
    *("pydantic", "pydantic_core", "durable_nb"),
}
"""Packages whose objects come back if they can be pickled: the tests of this package restore them."""

_HOOKS: Final = frozenset(
    {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__", "__hash__"}
    | {"__getnewargs__", "__getnewargs_ex__", "__getattr__", "__getattribute__", "__setattr__"}
)
"""Methods of a class that may run while an instance is loaded."""

_MADE_AT_RUN_TIME: Final = 1 << 9
"""The flag of classes that a class statement or a call made, rather than C: another may have their name."""

_START: Final = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({number})"
_LENGTH: Final = 8


class NotTried(Exception):
    """Raised where it is not known whether names can be restored: the message says why."""


class Trial:
    """Tries out whether saved names can be restored, in a helper process of its own."""

    def __init__(self) -> None:
        self._known = weakref.WeakSet[type]()
        self._helper: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def unknown(self, kinds: Iterable[type]) -> list[type]:
        """Return those of the kinds of objects that are not known to come back."""
        return [kind for kind in kinds if kind not in self._known and not _is_safe(kind)]

    def failures(self, kinds: Iterable[type], saved: SavedNames, around: SavedNames) -> dict[str, str]:
        """Return why names could not be restored.

        Args:
            kinds: The kinds of objects that are tried out.
            saved: The names.
            around: Other names that they need.

        Raises:
            NotTried: The names are too large, or the helper gave no answer in time. It is not asked again for
                kinds for which it gave none.
        """
        if saved.size + around.size > settings.TRIAL_LARGEST:
            raise NotTried(f"more than {settings.TRIAL_LARGEST >> 20} MiB")
        try:
            failed = self._asked(saved, around)
        except (OSError, ValueError) as error:  # it took too long, or it died
            self._close()
            self._known.update(kinds)
            slow = isinstance(error, TimeoutError)
            raise NotTried(
                f"no end after {settings.TRIAL_BUDGET:g} s" if slow else "loading it failed"
            ) from error
        except BaseException:
            self._close()
            raise
        if not failed:
            self._known.update(kinds)
        return failed

    def _asked(self, saved: SavedNames, around: SavedNames) -> dict[str, str]:
        until = time.monotonic() + settings.TRIAL_BUDGET
        connection = self._socket or self._started()
        head = {"around": around.header(), "saved": saved.header(), "path": sys.path, "cwd": _cwd()}
        pieces = pack(json.dumps(head).encode(), [*around.parts, *saved.parts])  # type: ignore[list-item]
        length = sum(memoryview(piece).nbytes for piece in pieces)
        for piece in (length.to_bytes(_LENGTH, "big"), *pieces):
            connection.settimeout(max(0.001, until - time.monotonic()))
            connection.sendall(piece)
        connection.settimeout(max(0.001, until - time.monotonic()))
        found: dict[str, str] = json.loads(_received(connection))
        return found

    def _started(self) -> socket.socket:
        own, other = socket.socketpair()
        path = [entry or _cwd() for entry in sys.path]
        start = _START.format(path=path, module=__name__, number=other.fileno())
        nowhere = subprocess.DEVNULL
        with other:
            self._helper = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-c", start],
                pass_fds=[other.fileno()],
                stdin=nowhere,
                stdout=nowhere,
                stderr=nowhere,
            )
        self._socket = own
        return own

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
        self._socket = self._helper = None


def _is_safe(kind: type) -> bool:
    """Return whether instances of a class come back if they can be pickled."""
    if str(kind.__module__).startswith("_cython_"):
        return True  # functions of Cython, which are pickled by their names
    if not all(_is_from_safe(each) or each.__module__ == "__main__" for each in (type(kind), *kind.__mro__)):
        return False
    return not any(_has_hook(base) for base in kind.__mro__ if not _is_from_safe(base))


def _is_from_safe(kind: type) -> bool:
    package = str(kind.__module__).partition(".")[0]
    return package in _SAFE and (not kind.__flags__ & _MADE_AT_RUN_TIME or importable(kind))


def _has_hook(kind: type) -> bool:
    """Return whether a class has a method of its own that may run while an instance is loaded."""
    found = [value for name, value in vars(kind).items() if name in _HOOKS and value is not None]
    return not all(str(getattr(each, "__module__", "")) in sys.stdlib_module_names for each in found)


def _cwd() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "/"


def _received(connection: socket.socket) -> bytes:
    length = int.from_bytes(_exactly(connection, _LENGTH), "big")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = connection.recv(min(1 << 20, length - len(data)))
        if not piece:
            raise ConnectionError("the other process has ended")
        data += piece
    return bytes(data)


# The helper.


def serve(number: int) -> None:
    """Answer what comes over a socket, until the other end is closed.

    Args:
        number: The socket's file descriptor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the kernel
    with socket.socket(fileno=number) as connection, contextlib.suppress(ConnectionError):
        while True:
            asked = _received(connection)
            signal.alarm(int(2 * settings.TRIAL_BUDGET))  # if it hangs, and the kernel is gone
            answer = json.dumps(_tried(asked)).encode()
            signal.alarm(0)
            connection.sendall(len(answer).to_bytes(_LENGTH, "big") + answer)


def _tried(asked: bytes) -> dict[str, str]:
    head, parts = unpack(asked)
    described = json.loads(bytes(head))
    sys.path[:] = described["path"]
    with contextlib.suppress(OSError):
        os.chdir(described["cwd"])
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    around = SavedNames.from_parts(described["around"], parts)  # type: ignore[arg-type]
    used = len(around.parts)
    saved = SavedNames.from_parts(described["saved"], parts[used:])  # type: ignore[arg-type]
    if restore_names(vars(main), around).failed:
        return {}  # nothing is known of names that need them
    return restore_names(vars(main), saved).failed

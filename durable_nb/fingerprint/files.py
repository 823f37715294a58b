"""The state of a file: its size, its time and, while small, a digest; which files are the user's own."""

from __future__ import annotations

import functools
import os
import re
import site
import stat
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from xxhash import xxh3_128_hexdigest

from durable_nb import settings
from durable_nb.errors.redaction import is_secret
from durable_nb.fingerprint import code

__all__ = [
    "FileState",
    "absolute",
    "describe",
    "digest_of",
    "is_noticed",
    "is_same",
    "is_users",
    "shown_path",
    "state_of",
    "unnoticed",
    "working_directory",
]

_SYSTEM: Final = (
    "/proc",
    "/dev",
    "/sys",
    "/etc",
    "/usr",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/sbin",
    "/run",
)
_FOLDERS: Final = re.compile(
    r"/(site-packages|dist-packages|__pycache__|\.git|\.ipynb_checkpoints|\.cache|\.[\w-]+_cache|joblib)/"
)
_INSTALLED: Final = ("lib", "lib64", "bin", "include", "share", "etc", "var", "pkgs")
_VARIABLES: Final = (
    *("XDG_CACHE_HOME", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"),
    *("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"),
)
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


_here = threading.local()


class FileState(NamedTuple):
    """A regular file as it was at one moment.

    Attributes:
        size: Its size in bytes.
        mtime: When it was last modified, in nanoseconds since the epoch.
        digest: A digest of its content, of a module's source without comments; None if it is too large.
    """

    size: int
    mtime: int
    digest: str | None = None


def working_directory() -> str:
    """Return the working directory; the root if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return os.sep


def absolute(path: str) -> str:
    """Return an absolute path; unlike that of ``os.path``, in a folder that was deleted too.

    Example:
        >>> absolute("/tmp/../data.csv")
        '/data.csv'
    """
    return os.path.normpath(os.path.join(working_directory(), path))


def shown_path(path: str) -> str:
    """Return a path for people: relative to the working directory if it is below that.

    Example:
        >>> shown_path("/no/such/file")
        '/no/such/file'
    """
    shown = path.removeprefix(os.path.join(working_directory(), ""))
    return shown.encode("utf-8", "backslashreplace").decode()  # a name need not be UTF-8


def state_of(path: str) -> FileState | None:
    """Return the size and the time of a regular file; None if there is none.

    Example:
        >>> state_of("/no/such/file") is None
        True
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileState(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def digest_of(path: str) -> str | None:
    """Return the digest of a file's content; None if it is large, cannot be read, or may hold secrets.

    Example:
        >>> digest_of("/no/such/file") is None
        True
    """
    try:
        if os.stat(path).st_size > settings.FILE_DIGEST or _is_secret(Path(path).name):
            return None
        with unnoticed():
            content = Path(path).read_bytes()
        return code.source(content.decode()) if path.endswith(".py") else xxh3_128_hexdigest(content)
    except UnicodeDecodeError:
        return xxh3_128_hexdigest(content)
    except OSError:
        return None


def _is_secret(name: str) -> bool:
    return name.startswith(".env") or is_secret(name.partition(".")[0])


@contextmanager
def unnoticed() -> Iterator[None]:
    """Let this package use files in the block as if no step did: see ``is_noticed``."""
    _here.unnoticed = True
    try:
        yield
    finally:
        _here.unnoticed = False


def is_noticed() -> bool:
    """Return whether files that this thread uses now are used by the user's code."""
    return not getattr(_here, "unnoticed", False)


def is_same(recorded: FileState | None, now: FileState | None, digest: Callable[[], str | None]) -> bool:
    """Return whether a file has the content that is on record.

    Args:
        recorded: The file as recorded; None if it did not exist.
        now: The file now.
        digest: Returns the digest of its content now; called only if its time differs.

    Example:
        >>> is_same(FileState(3, 1, "ab"), FileState(3, 2), lambda: "ab")
        True
    """
    if recorded is None or now is None:
        return recorded is now
    if recorded[:2] == now[:2]:
        return True
    return recorded.digest is not None and recorded.digest == digest()


def describe(name: str, recorded: FileState | None, now: FileState | None) -> str:
    """Return how a file differs from the one on record, for people.

    Example:
        >>> describe("data.csv", FileState(3, 1), None)
        'data.csv is gone'
    """
    if now is None:
        return f"{name} is gone"
    if recorded is None:
        return f"{name} is new"
    before, after = _size(recorded.size), _size(now.size)
    when, later = _moment(recorded.mtime), _moment(now.mtime)
    new = after if after != before else f"{after}, {later}" if later != when else "other content"
    return f"{name} has changed since ({before}, {when}; now {new})"


def is_users(path: str) -> bool:
    """Return whether a file is a user's own: not of Python, a library, a cache or the operating system.

    Args:
        path: An absolute path.

    Example:
        >>> is_users("/proc/cpuinfo")
        False
    """
    return not path.startswith(_excluded()) and _FOLDERS.search(path) is None


@functools.cache
def _excluded() -> tuple[str, ...]:
    """Return the prefixes of the paths of files that are not a user's own."""
    found = {place for folder in _folders() for place in (folder, os.path.realpath(folder))}
    folders = (os.path.join(folder, "") for folder in found if len(Path(folder).parts) > 1)
    temporary = tempfile.gettempdir()
    hidden = (os.path.expanduser("~/."), f"{temporary}/ipykernel_", f"{temporary}/matplotlib-")
    return (*folders, *(each for each in hidden if each.startswith("/")))


def _folders() -> Iterator[str]:
    yield from _SYSTEM
    # Not the prefix itself: an environment may have been made in the folder of a project.
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    yield from (os.path.join(prefix, folder) for prefix in prefixes for folder in _INSTALLED)
    yield from (sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from site.getsitepackages()
    yield str(Path(__file__).parents[1])
    yield from (os.path.abspath(value) for name in _VARIABLES if (value := os.environ.get(name)))


def _size(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if unit == 0 or size >= 100:
        return "1 byte" if (size, unit) == (1, 0) else f"{size:.0f} {_UNITS[unit]}"
    return f"{size:.1f} {_UNITS[unit]}"


def _moment(mtime: int) -> str:
    try:
        found = time.localtime(mtime / 1e9)
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"
    year = "" if found.tm_year == time.localtime().tm_year else f" {found.tm_year}"
    return f"{found.tm_mday} {time.strftime('%b', found)}{year} {time.strftime('%H:%M', found)}"

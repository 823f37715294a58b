"""The loggers of Python's logging, as ambient state: their levels and handlers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

__all__ = ["changed_handlers", "handlers", "levels", "put_handlers", "put_levels"]

_Handlers: TypeAlias = dict[str, tuple[Any, ...]]
_Level: TypeAlias = tuple[int, bool, bool]

_DEFAULT: Final[_Level] = (0, True, False)


def levels(logging: Any) -> dict[str, _Level]:
    """Return level, propagation and disabled flag of each logger where one of them is not the default."""
    found = {name: (logger.level, logger.propagate, logger.disabled) for name, logger in _loggers(logging)}
    return {name: level for name, level in found.items() if level != _DEFAULT}


def put_levels(logging: Any, change: tuple[dict[str, _Level], list[str]]) -> None:
    """Set the levels that were changed, and reset those that were set back to the default."""
    for name, (level, propagate, disabled) in {**change[0], **dict.fromkeys(change[1], _DEFAULT)}.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled


def handlers(logging: Any) -> _Handlers:
    """Return the handlers of each logger that has any, without the null handlers that libraries add."""
    found = {
        name: tuple(one for one in logger.handlers if type(one) is not logging.NullHandler)
        for name, logger in _loggers(logging)
    }
    return {name: those for name, those in found.items() if those}


def changed_handlers(before: _Handlers, after: _Handlers) -> dict[str, tuple[int, tuple[Any, ...]]]:
    """Return, for each logger whose handlers changed, how many were kept and which follow them."""
    changed = {}
    for name in {**before, **after}:
        had, has = before.get(name, ()), after.get(name, ())
        if had != has:
            stayed = len(had) if has[: len(had)] == had else 0
            changed[name] = stayed, has[stayed:]
    return changed


def put_handlers(logging: Any, change: dict[str, tuple[int, tuple[Any, ...]]]) -> None:
    """Restore the handlers of loggers, skipping those that could not be loaded."""
    there = handlers(logging)
    for name, (stayed, added) in change.items():
        those = (*there.get(name, ())[:stayed], *added)
        logging.getLogger(name).handlers[:] = [one for one in those if isinstance(one, logging.Handler)]


def _loggers(logging: Any) -> Iterator[tuple[str, Any]]:
    yield "root", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):  # otherwise a logging.PlaceHolder
            yield name, logger

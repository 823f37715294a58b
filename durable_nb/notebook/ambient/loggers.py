"""The loggers of Python's logging, as ambient state: their levels, and where they write to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

__all__ = ["changed_handlers", "handlers", "levels", "put_handlers", "put_levels"]

_Handlers: TypeAlias = dict[str, tuple[Any, ...]]
_Level: TypeAlias = tuple[int, bool, bool]

_UNTOUCHED: Final[_Level] = (0, True, False)


def levels(logging: Any) -> dict[str, _Level]:
    """Level, propagation and whether it is disabled, of each logger that somebody set one of."""
    found = {name: (logger.level, logger.propagate, logger.disabled) for name, logger in _loggers(logging)}
    return {name: level for name, level in found.items() if level != _UNTOUCHED}


def put_levels(logging: Any, change: tuple[dict[str, _Level], list[str]]) -> None:
    """Set those that were changed, and undo those that were taken back."""
    for name, (level, propagate, disabled) in {**change[0], **dict.fromkeys(change[1], _UNTOUCHED)}.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled


def handlers(logging: Any) -> _Handlers:
    """The handlers of each logger that has any; those that libraries put there to do nothing are none."""
    found = {
        name: tuple(one for one in logger.handlers if type(one) is not logging.NullHandler)
        for name, logger in _loggers(logging)
    }
    return {name: those for name, those in found.items() if those}


def changed_handlers(before: _Handlers, after: _Handlers) -> dict[str, tuple[int, tuple[Any, ...]]]:
    """Of each logger that has others now: how many stayed in front, and those that follow."""
    changed = {}
    for name in {**before, **after}:
        had, has = before.get(name, ()), after.get(name, ())
        if had != has:
            stayed = len(had) if has[: len(had)] == had else 0
            changed[name] = stayed, has[stayed:]
    return changed


def put_handlers(logging: Any, change: dict[str, tuple[int, tuple[Any, ...]]]) -> None:
    """Give loggers the handlers that they had; what could not be restored is no handler."""
    there = handlers(logging)
    for name, (stayed, added) in change.items():
        those = (*there.get(name, ())[:stayed], *added)
        logging.getLogger(name).handlers[:] = [one for one in those if isinstance(one, logging.Handler)]


def _loggers(logging: Any) -> Iterator[tuple[str, Any]]:
    yield "root", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):  # else a gap in the tree
            yield name, logger

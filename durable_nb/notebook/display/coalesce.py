"""Reduce the messages that a cell sends to those that determine what a front end finally shows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["DISPLAYS", "coalesced"]

DISPLAYS: Final = frozenset({"display_data", "update_display_data"})
"""The messages that may name a display for later updates."""

_FEW: Final = 16
"""Carriage returns in a line up to which it is kept as it was printed; a bar of progress has more."""

_COLOR_CODES: Final = re.compile(r"\x1b\[[\d;]*m")


def coalesced(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the fewest messages that result in equal output in a front end.

    Example:
        >>> chunks = [{"type": "stream", "content": {"name": "stdout", "text": text}} for text in "ab"]
        >>> coalesced(chunks)
        [{'type': 'stream', 'content': {'name': 'stdout', 'text': 'ab'}}]
    """
    screen = _Screen()
    for message in messages:
        screen.show(message)
    groups = [(name, list(group)) for name, group in itertools.groupby(screen.outputs, _stream_name)]
    joined = (group if name is None else [_joined(name, group)] for name, group in groups)
    return list(itertools.chain.from_iterable(joined))


class _Screen:
    """A cell's output area, as front ends keep it."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._clear_at_next = False

    def show(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "clear_output", "content": {"wait": True}}:
                self._clear_at_next = True
            case {"type": "clear_output"}:
                self._clear()
            case {"type": "update_display_data"}:
                self._update(message)
            case _:
                if self._clear_at_next:
                    self._clear()
                self.outputs.append(message)

    def _clear(self) -> None:
        # Updates stay: the display that they update is in another cell.
        self.outputs = [one for one in self.outputs if one["type"] == "update_display_data"]
        self._clear_at_next = False

    def _update(self, message: dict[str, Any]) -> None:
        new = message["content"]
        same = [i for i, one in enumerate(self.outputs) if _display_id(one) == _display_id(message)]
        for i in same:
            self.outputs[i] = {"type": self.outputs[i]["type"], "content": new}
        if not same:
            self.outputs.append(message)


def _display_id(message: dict[str, Any]) -> str | None:
    if message["type"] not in DISPLAYS:
        return None
    display_id: str | None = (message["content"].get("transient") or {}).get("display_id")
    return display_id


def _stream_name(message: dict[str, Any]) -> str | None:
    return message["content"]["name"] if message["type"] == "stream" else None


def _joined(name: str, chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    text = "".join(chunk["content"]["text"] for chunk in chunks)
    lines = [_visible(line) if line.count("\r") > _FEW else line for line in text.split("\n")]
    return {"type": "stream", "content": {"name": name, "text": "\n".join(lines)}}


def _visible(line: str) -> str:
    """Return a line without the parts that later text, after a carriage return, overwrites completely."""
    plain = _COLOR_CODES.sub("", line)
    if "\x1b" in plain or "\b" in plain:  # the cursor moves: only the front end knows what is overwritten
        return line
    text = line.rstrip("\r")
    kept: list[str] = []
    covered = -1
    for part in reversed(text.split("\r")):
        width = len(_COLOR_CODES.sub("", part))
        if width > covered:
            kept.append(part)
            covered = width
    return "\r".join(reversed(kept)) + line[len(text) :]

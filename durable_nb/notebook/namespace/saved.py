"""The names of a durable cell as they are stored: groups of names that share objects, and copies beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from durable_nb.errors import DurableError

__all__ = ["EXCLUDED", "Group", "SavedNames"]

EXCLUDED: Final = "`--exclude` leaves it out"
"""Why a name is not saved."""


@dataclass(frozen=True, slots=True)
class Group:
    """Names that share objects, pickled in one stream.

    Attributes:
        names: The names, including `RESULT` if it is in this group.
        data: The pickle stream.
        buffers: Its out-of-band buffers: after saving, views of the live arrays; after loading, an error in
            place of a buffer that is lost.
        refers: Names outside the group to whose objects it refers.
        first: How many of the names are bound before all others: functions, classes, modules, plain data.
    """

    names: tuple[str, ...]
    data: bytes | memoryview | DurableError
    buffers: tuple[bytes | memoryview | DurableError, ...] = ()
    refers: tuple[str, ...] = ()
    first: int = 0

    @property
    def parts(self) -> tuple[bytes | memoryview | DurableError, ...]:
        """The stream and the buffers."""
        return self.data, *self.buffers

    @property
    def size(self) -> int:
        """The bytes of its parts; parts that are lost have none."""
        return sum(memoryview(part).nbytes for part in self.parts if not isinstance(part, DurableError))

    def header(self) -> dict[str, Any]:
        """Return a description that can be written as JSON."""
        found = {"names": list(self.names), "buffers": len(self.buffers)}
        further = {"refers": list(self.refers), "first": self.first}
        return {**found, **{key: value for key, value in further.items() if value}}

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Iterator[bytes | memoryview | DurableError]) -> Self:
        """Rebuild a group from its header, and from an iterator whose next items are its parts."""
        data = next(parts)
        buffers = tuple(next(parts) for _ in range(header["buffers"]))
        refers, first = tuple(header.get("refers", ())), header.get("first", 0)
        return cls(tuple(header["names"]), data, buffers, refers, first)


@dataclass(frozen=True, slots=True)
class SavedNames:
    """The saved changes of a cell: a JSON header and the binary parts it describes.

    Attributes:
        groups: The names that are saved.
        deleted: The names that the cell deleted.
        unsaved: Why other names are not saved.
        beside: Copies of the names that the groups refer to; used only where one of these is missing or has
            another value. None if there are none.
        marks: Fingerprints of the names in `beside`.
        sources: The source of the cells whose functions are in the groups, by the name of the code's file.
        untried: Which names were not loaded for a trial, and why; empty after loading.
    """

    groups: tuple[Group, ...]
    deleted: tuple[str, ...] = ()
    unsaved: dict[str, str] = field(default_factory=dict)
    beside: Group | None = None
    marks: dict[str, str | None] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    untried: str = ""

    def header(self) -> dict[str, Any]:
        """Return a description of the parts that can be written as JSON."""
        groups = [group.header() for group in self.groups]
        found = {"groups": groups, "deleted": list(self.deleted), "unsaved": dict(self.unsaved)}
        if self.beside is not None:
            found |= {"beside": self.beside.header(), "marks": self.marks}
        return {**found, "sources": self.sources} if self.sources else found

    @property
    def parts(self) -> list[bytes | memoryview | DurableError]:
        """The binary parts, in the header's order; store them before the user's code continues."""
        groups = (*self.groups, *([self.beside] if self.beside else []))
        return [part for group in groups for part in group.parts]

    @property
    def size(self) -> int:
        """The bytes of its groups."""
        return sum(group.size for group in self.groups)

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Sequence[bytes | memoryview | DurableError]) -> Self:
        """Rebuild saved names from their header and parts.

        Args:
            header: The header that `header` returned.
            parts: The parts; arrays use writable ones in place, read-only ones are copied.
        """
        left = iter(parts)
        groups = tuple([Group.from_parts(described, left) for described in header["groups"]])
        beside = Group.from_parts(header["beside"], left) if "beside" in header else None
        deleted, unsaved = tuple(header["deleted"]), dict(header["unsaved"])
        return cls(groups, deleted, unsaved, beside, header.get("marks", {}), header.get("sources", {}))

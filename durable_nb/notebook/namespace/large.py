"""Large values of containers and atoms: looking at one again costs time, so it is done only where need be."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from durable_nb.notebook.namespace.reach import ids_within
from durable_nb.notebook.namespace.sharing import containers

__all__ = ["LARGE", "Large", "untouched"]

LARGE: Final = 1 << 18
"""Bytes of a pickle from which on a value is large: writing them takes some milliseconds."""

_FEW: Final = 1000
"""How many ids are looked up one by one."""


class Large:
    """A large value of containers and atoms, as it was when it was looked at.

    It does not keep the value alive.

    Args:
        value: The value.
        digest: Its fingerprint.
        namespace: The namespace, which is never visited.
        flat: Whether all that it holds are atoms.
    """

    def __init__(self, value: Any, digest: bytes, namespace: object, *, flat: bool) -> None:
        self.digest, self.flat = digest, flat
        self._known = id(value), type(value)
        self._namespace = namespace
        self._ids: array[int] | None = None

    def is_still(self, value: Any) -> bool:
        """Return whether a name is bound to the value still, as far as that can be told without a look."""
        return id(value) == self._known[0] and type(value) is self._known[1]

    def holds(self, value: Any, wanted: Collection[int]) -> set[int]:
        """Return those of the ids that are ids of the value or of containers in it.

        Args:
            value: The value itself.
            wanted: The ids of objects that are alive.
        """
        if self._ids is None:
            found = [id(value)] if self.flat else sorted(containers(value, self._namespace))
            self._ids = array("Q", found)
        ids = self._ids
        if len(wanted) > _FEW:
            return set(wanted).intersection(ids)
        places = ((key, bisect_left(ids, key)) for key in wanted)
        return {key for key, place in places if place < len(ids) and ids[place] == key}


def untouched(
    known: Mapping[str, Large], user_ns: Mapping[str, Any], named: Iterable[str] | None, *, only_reads: bool
) -> dict[str, Large]:
    """Return the large values that a cell cannot have changed, by name.

    Args:
        known: The large values before the cell, by name.
        user_ns: The namespace after the cell.
        named: The names in the cell's code; None if it may have changed any.
        only_reads: Whether the code does nothing but read plain data.
    """
    same = {name: one for name, one in known.items() if one.is_still(user_ns.get(name))}
    if only_reads or named is None:
        return same if only_reads else {}
    named = {*named}
    if named.issuperset(same):
        return {}
    found = ids_within(user_ns, named)
    left = same.keys() - named if found is not None else ()
    return {name: same[name] for name in left if not same[name].holds(user_ns[name], found or set())}

"""The origin of each name in a notebook: the statements that bound or changed it, or durable steps.

`Origins` follows the cells in execution order. `Lineage` is the record, stored with a durable cell's
checkpoint, of the names that the cell read and wrote; `difference` describes in one line how the origins have
changed since. Nothing here runs the user's code.
"""

from __future__ import annotations

import builtins
import functools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from xxhash import xxh3_128_hexdigest

from durable_nb.errors.redaction import redacted
from durable_nb.notebook.lineage.statements import STAR, Statement

__all__ = ["UNSAVED", "Chain", "Lineage", "Origins", "Source", "difference", "step_source"]

UNSAVED: Final = "unsaved:"
"""How the version of a name begins that its step could not save."""

_BUILTINS: Final = frozenset(dir(builtins))
_Key = tuple[str, str, int]


_KINDS: Final = {"as": str, "names": dict, "own": list, "values": dict, "gave": dict, "deleted": list}


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A statement that bound or changed a name, or the durable step that wrote it.

    Attributes:
        code: Fingerprint of the statement, or version of the step's result.
        text: Its description in messages.
        step: The id under which the step was first recorded; empty for a statement.
        reads: Origins of the names that it read.
        reads_later: Names that functions defined in it read when they are called.
        steps: Ids of all the steps that it depends on.
        key: Identifies the statement within its cell, so that executing it again replaces it.
        imports: Whether it is an import.
        digest: Fingerprint of it and of everything that it reads.
    """

    code: str
    text: str
    step: str = ""
    reads: Mapping[str, Chain] = field(default_factory=dict)
    reads_later: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    key: _Key | None = None
    imports: bool = False
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        parts = [
            self.code,
            self.step,
            *(f"{name}={_digest(self.reads[name])}" for name in sorted(self.reads)),
        ]
        object.__setattr__(self, "digest", xxh3_128_hexdigest(" ".join(parts).encode()))


Chain = tuple[Source, ...]


def step_source(step: str, known_as: str, version: str, **found: Any) -> Source:
    """Return the source of a name that a durable step wrote.

    Args:
        step: The step's id.
        known_as: The id under which it was first recorded.
        version: Identifies the value that the step wrote.
        found: Further attributes of the source.
    """
    return Source(version, f"step `{step}`", known_as, **found)


class Origins:
    """The origin of each name, after the cells executed so far."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def execute(
        self, cell: str, statements: Iterable[Statement], changes: Callable[[Statement], bool]
    ) -> None:
        """Record the statements of an ordinary cell that was executed.

        Args:
            cell: Identifies the cell.
            statements: The statements that were executed.
            changes: Returns whether a method call mutates its receiver.
        """
        times = Counter[str]()
        for statement in statements:
            key = (cell, statement.code, times[statement.code])
            times[statement.code] += 1
            self._execute(statement, key, changes)

    def _execute(self, statement: Statement, key: _Key, changes: Callable[[Statement], bool]) -> None:
        changed = statement.changes.union(
            name for name in statement.mutated_receivers if not self._imported(name)
        )
        called = statement.receiver
        if called is not None and (statement.may_change or not self._imported(called)) and changes(statement):
            changed |= {called}
        source = self._source(statement, key, changed)
        for name in statement.deletes:
            self._chains.pop(name, None)
        self._chains |= dict.fromkeys(statement.binds, (source,))
        for name in changed:
            self._chains[name] = _extended(self._chains.get(name, ()), source)

    def _source(self, statement: Statement, key: _Key, changed: Collection[str]) -> Source:
        reads = {
            name: _before(name, chain, key)
            for name, chain in self.of(statement.reads_now).items()
            if name not in changed
        }
        return Source(
            statement.code,
            statement.text,
            reads=reads,
            reads_later=statement.reads_later,
            steps=_steps(reads.values()),
            key=key,
            imports=statement.imports,
        )

    def _imported(self, name: str) -> bool:
        return any(source.imports for source in self._chains.get(name, ()))

    def unsaved(self) -> set[str]:
        """Return the names that the durable steps that wrote them could not save."""
        return {name for name, chain in self._chains.items() if chain and chain[-1].code.startswith(UNSAVED)}

    def of(self, names: Iterable[str]) -> dict[str, Chain]:
        """Return the origins of names, including the names that functions among them read."""
        left, found = list(names), dict[str, Chain]()
        while left:
            name = left.pop()
            chain = self._chain(name)
            if chain and name not in found:
                found[name] = chain
                left += [later for source in chain for later in source.reads_later]
        return found

    def write(self, sources: Mapping[str, Source], deleted: Iterable[str] = ()) -> None:
        """Record the names that a durable step wrote and deleted."""
        for name in deleted:
            self._chains.pop(name, None)
        self._chains |= {name: (source,) for name, source in sources.items()}

    def _chain(self, name: str) -> Chain:
        return self._chains.get(name) or (() if name in _BUILTINS else self._chains.get(STAR, ()))


def _extended(chain: Chain, source: Source) -> Chain:
    if any(one.key == source.key for one in chain):
        return tuple(source if one.key == source.key else one for one in chain)
    return *chain, source


def _before(name: str, chain: Chain, key: _Key) -> Chain:
    """Return the origin that a name had when the statement that rebinds it was first executed."""
    return next((one.reads.get(name, ()) for one in chain if one.key == key), chain)


def _steps(chains: Iterable[Chain]) -> frozenset[str]:
    return frozenset(step for chain in chains for source in chain for step in source.steps)


def _digest(chain: Chain) -> str:
    return ",".join(source.digest for source in chain)


@dataclass(frozen=True, slots=True)
class Lineage:
    """The names that a durable cell read and wrote, as stored with its checkpoint.

    Attributes:
        known_as: The id under which the step was first recorded.
        names: Origins of the names that it read.
        own: Names that it read after having changed them itself, in a kernel where it ran before.
        values: Fingerprints of the small values that it read.
        versions: Versions of the values that it wrote, by name.
        holds: Names of the classes and functions that these values hold, by their names.
        deleted: Names that it deleted.
        cell: The id of its cell in the notebook, if the front end sent one.
        unmarked: Whether its cell has no magic that names the step.
        notebook: The path of the notebook; empty if the kernel was not told.
    """

    known_as: str
    names: Mapping[str, Chain] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, Collection[str]] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    cell: str | None = None
    unmarked: bool = False
    notebook: str = ""

    def to_json(self) -> str:
        """Serialize; a source that several names share is written once."""
        nodes: list[list[Any]] = []
        places: dict[str, int] = {}

        def place(source: Source) -> int:
            if source.digest not in places:
                reads = {name: [place(one) for one in chain] for name, chain in source.reads.items()}
                places[source.digest] = len(nodes)
                nodes.append([source.code, source.text, source.step, reads])
            return places[source.digest]

        names = {name: [place(one) for one in chain] for name, chain in self.names.items()}
        written = {
            "as": self.known_as,
            "names": names,
            "own": self.own,
            "values": self.values,
            "gave": self.versions,
            "deleted": self.deleted,
            "cell": self.cell,
            "nodes": nodes,
            **({"holds": self.holds} if self.holds else {}),
            **({"unmarked": True} if self.unmarked else {}),
            **({"notebook": self.notebook} if self.notebook else {}),
        }
        return json.dumps(written, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read the output of `to_json`; None if the text is the record of a task, which names files alone."""
        written = json.loads(text)
        nodes: list[Source] = []
        if not written.keys() - {"files"}:
            return None
        if any(not isinstance(written[key], kind) for key, kind in _KINDS.items()):
            raise TypeError("not a lineage")

        def chains(reads: dict[str, list[int]]) -> dict[str, Chain]:
            return {name: tuple(nodes[place] for place in places) for name, places in reads.items()}

        for code, shown, step, reads in written["nodes"]:
            nodes.append(Source(code, _without_secrets(shown), step, chains(reads)))
        return cls(
            written["as"],
            chains(written["names"]),
            tuple(written["own"]),
            written["values"],
            written["gave"],
            {name: tuple(held) for name, held in written.get("holds", {}).items()},
            tuple(written["deleted"]),
            written["cell"],
            written.get("unmarked", False),
            str(written.get("notebook", "")),
        )

    def sources(self) -> Collection[Source]:
        """Return all sources of the names that were read."""
        left, found = [one for chain in self.names.values() for one in chain], dict[str, Source]()
        while left:
            source = left.pop()
            if source.digest not in found:
                found[source.digest] = source
                left += [one for chain in source.reads.values() for one in chain]
        return found.values()


_without_secrets: Final = functools.lru_cache(maxsize=4096)(redacted)
"""For texts of a database that was written before they were stored without."""


def difference(recorded: Lineage, now: Mapping[str, Chain], step: str) -> str:
    """Describe in one line how the origins of a cell's names differ from the recorded ones; "" if none do.

    Names that the step itself wrote are ignored: in a running kernel it has already changed them. So are
    names without an origin now: running the cell would raise a NameError.

    Args:
        recorded: The recorded lineage.
        now: The origins of the names now.
        step: The step's id.
    """
    for name, after in now.items():
        before = recorded.names.get(name, ())
        own = name in recorded.own or any(step in source.steps for source in after)
        if not own and _digest(before) != _digest(after):
            return _explain(name, before, after)
    return ""


def _explain(name: str, before: Chain, after: Chain, reader: str = "") -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a.digest != b.digest),
        min(len(before), len(after)),
    )
    old, new = before[place : place + 1], after[place : place + 1]
    if not old or _moved(old, after[place + 1 :]):
        return f"{_quoted(new[0])} was added"
    if not new or _moved(new, before[place + 1 :]):
        return f"{_quoted(old[0])} was removed"
    return _explain_changed(name, old[0], new[0], reader)


def _moved(one: Chain, among: Chain) -> bool:
    return one[0].code in {source.code for source in among}


def _explain_changed(name: str, old: Source, new: Source, reader: str) -> str:
    if old.step and old.step == new.step:
        return f"`{name}` comes from {new.text}, whose result changed"
    if old.step or new.step:
        return f"`{name}` now comes from {_quoted(new)} (was {_quoted(old)})"
    if old.code == new.code:
        read = next(
            read
            for read in (*new.reads, *(read for read in old.reads if read not in new.reads))
            if _digest(old.reads.get(read, ())) != _digest(new.reads.get(read, ()))
        )
        return _explain(read, old.reads.get(read, ()), new.reads.get(read, ()), new.text)
    reading = f"`{reader}`" if reader else "it"
    was = f" (was `{old.text}`)" if old.text != new.text else ", which was edited"
    return f"{reading} now reads `{new.text}`{was}"


def _quoted(source: Source) -> str:
    return source.text if source.step else f"`{source.text}`"

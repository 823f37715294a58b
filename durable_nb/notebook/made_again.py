"""Values that a replay could not restore, made again where an unfinished cell reads them.

Only the top-level statements that bind such a name are executed again, and only that name is bound.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from durable_nb import fingerprint, settings
from durable_nb.engine.status import format_duration
from durable_nb.notebook.display import badge
from durable_nb.notebook.lineage.compare import lineage_of
from durable_nb.notebook.lineage.names import parse, read_now, stored
from durable_nb.notebook.lineage.origins import Origins, difference
from durable_nb.notebook.lineage.statements import shown_text, statements
from durable_nb.notebook.namespace.placeholder import placeholder, reason_of, step_of
from durable_nb.notebook.namespace.scan import reachable_names
from durable_nb.notebook.shell import execute as body
from durable_nb.signals import waiting
from durable_nb.signals.accepted import Accepted
from durable_nb.signals.prompter import current_prompter

if TYPE_CHECKING:
    from durable_nb.engine.caller import Caller
    from durable_nb.records import Step

__all__ = ["LIVE", "Made", "Remaker", "Written"]

LIVE: Final = ("rerun", "ask", "keep")
"""What happens to a name that could not be kept: made again, asked about, or kept as a placeholder."""

_AGAIN, _LEAVE = "execute it again", "leave it"
_SIMPLE: Final = (
    *(ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.Pass, ast.Raise),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
)
"""Statements that do nothing but bind their names."""


@dataclass(frozen=True, slots=True)
class Made:
    """A cell of this pass that is a step.

    Attributes:
        source: Its Python.
        live: What happens to the names that it could not keep: see ``LIVE``.
    """

    source: str
    live: str

    def again(self, missing: Collection[str]) -> dict[str, str]:
        """Return for each name that could not be kept, and is made again, the statements that do it."""
        if self.live == "keep" or not missing:
            return {}
        found = {name: Written.of(name, self.source, missing) for name in missing}
        return {name: written.text for name, written in found.items() if written.binding}


@dataclass(frozen=True, slots=True)
class Written:
    """The statements of a cell that bind a name.

    Attributes:
        name: The name.
        binding: The top-level statements that bind it.
        alone: Whether the statements that bind it do nothing else.
        reads: Names that they read.
        rebound: Those of them that the cell binds again afterwards.
    """

    name: str
    binding: Sequence[ast.stmt]
    alone: bool
    reads: frozenset[str]
    rebound: frozenset[str]

    @classmethod
    def of(cls, name: str, source: str, missing: Iterable[str]) -> Written:
        """Find the statements of a cell that bind a name.

        Args:
            name: The name.
            source: The cell's Python.
            missing: All names that the cell could not keep.
        """
        tree = parse(source)
        binding = [node for node in tree if name in stored(node, ast.Store)]
        last = tree.index(binding[-1]) if binding else 0
        reads = frozenset(each for node in binding for each in read_now(node)) - {name}
        later = {each for node in tree[last + 1 :] for each in stored(node, ast.Store)}
        alone = all(_only_binds(node, set(missing)) for node in binding)
        return cls(name, binding, alone, reads, reads & later)

    @property
    def text(self) -> str:
        """The statements for people."""
        return "; ".join(shown_text(node) for node in self.binding)


def _changing(name: str, source: str) -> Iterator[str]:
    """Yield the texts of the statements of a cell that change the value of a name and do not bind it."""
    found = (one for one in statements(parse(source)) if name in _changed(one) and name not in one.binds)
    return (one.text for one in found)


def _changed(statement: Any) -> set[str]:
    receiver = {statement.receiver} if statement.receiver else set[str]()
    return {*statement.changes, *statement.mutated_receivers} | receiver


def _only_binds(node: ast.stmt, names: set[str]) -> bool:
    """Return whether a statement does nothing but bind some of these names, in whichever branch."""
    match node:
        case ast.If(body=inner, orelse=other):
            return all(_only_binds(each, names) for each in (*inner, *other))
        case ast.Try(body=inner, handlers=handlers, orelse=other, finalbody=last):
            handled = [each for handler in handlers for each in handler.body]
            return all(_only_binds(each, names) for each in (*inner, *handled, *other, *last))
    return isinstance(node, _SIMPLE) and names.issuperset(stored(node, ast.Store))


class Remaker:
    """Makes the missing names again that a cell is about to read.

    Args:
        shell: The IPython shell.
        style: The style of the status lines.
        made: The cells of this pass that are steps, by their steps' ids.
        caller: The caller of the run.
        origins: The origins of names.
    """

    def __init__(
        self, shell: Any, style: str, made: Mapping[str, Made], caller: Caller, origins: Origins
    ) -> None:
        self._shell, self._style, self._made = shell, style, made
        self._caller, self._origins = caller, origins
        self._seen = set[str]()

    async def make(self, names: Iterable[str]) -> None:
        """Make those of the names again for which a placeholder stands.

        Args:
            names: The names that a cell reads.
        """
        for name in sorted(self.missing(names) - self._seen):
            self._seen.add(name)
            await self._make(name)

    def missing(self, names: Iterable[str]) -> set[str]:
        """Return those of the names for which a placeholder stands."""
        user_ns = self._shell.user_ns
        return {name for name in names if reason_of(user_ns.get(name)) is not None}

    async def _make(self, name: str) -> None:
        unsaved_by = step_of(self._shell.user_ns[name])
        steps = self._bound_and_changed(name, unsaved_by)
        if not steps or not all(map(self._may_make, {steps[0], unsaved_by})):
            return
        made, step = self._made[steps[0]], self._caller.run.history[steps[0]]
        written = Written.of(name, made.source, self.missing(self._shell.user_ns))
        moved = self._moved(written, step)
        if moved:
            self._refuse(written, step, f"it cannot be made again by `{written.text}`: {moved}")
        elif await self._may_execute(written, made, step):
            # A generator or a task reads what its function names only once it goes on.
            await self.make(reachable_names(self._shell.user_ns, written.reads))
            others = [text for each in steps for text in _changing(name, self._made[each].source)]
            await self._execute(written, step, others)

    def _bound_and_changed(self, name: str, step_id: str) -> list[str]:
        """Return the last step up to this one whose cell binds a name, and the later steps of this pass."""
        steps = list(self._made)
        before = steps[: steps.index(step_id) + 1] if step_id in self._made else []
        binds = (n for n, each in enumerate(before) if Written.of(name, self._made[each].source, ()).binding)
        return steps[max(binds, default=len(steps)) :]

    def _may_make(self, step_id: str) -> bool:
        step = self._caller.run.history.get(step_id)
        return step is not None and not step.once and self._made[step_id].live != "keep"

    def _moved(self, written: Written, step: Step) -> str:
        """Return how what the statements read differs from what they read first; empty if it does not."""
        if written.rebound:
            return f"the cell binds `{min(written.rebound)}` again after that"
        now = self._origins.of(written.reads)
        return difference(lineage_of(step), now, step.step_id)

    def _refuse(self, written: Written, step: Step, why: str) -> None:
        reason = f"{reason_of(self._shell.user_ns[written.name])}; {why}"
        self._shell.user_ns[written.name] = placeholder(written.name, step.step_id, reason)

    async def _may_execute(self, written: Written, made: Made, step: Step) -> bool:
        dear = step.seconds > settings.LIVE_SECONDS or bool(self._caller.run.history.inside(step.step_id))
        if made.live != "ask" and (written.alone or not dear):
            return True
        took = f"its cell took {format_duration(step.seconds)}"
        prompter = current_prompter()
        if prompter is None or not prompter.can_prompt():
            self._refuse(written, step, f"{took}. To have it made again, split off `{written.text}`")
            return False
        about = fingerprint.value((written.text, self._caller.run.run.epoch)) or ""
        question = waiting.Question(
            f"make {written.name} {about[:8]}",
            f"step {step.step_id!r} could not keep `{written.name}`; {took}. Execute `{written.text}` again?",
            Accepted(choices=(_AGAIN, _LEAVE)),
        )
        return bool((await waiting.wait_for_answer(self._caller, question)).value == _AGAIN)

    async def _execute(self, written: Written, step: Step, others: Sequence[str]) -> None:
        """Execute the statements, and leave no other name changed.

        Args:
            written: The statements.
            step: Their step.
            others: The other statements of this pass that change the value.
        """
        user_ns, failure = self._shell.user_ns, ""
        before = dict(user_ns)
        try:
            with body.interruptible():
                await body.execute(self._shell, "\n".join(map(ast.unparse, written.binding)), marked=False)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        kept = {} if failure else {written.name: user_ns[written.name]}
        _put_back(user_ns, before | kept)
        badge.show_made_again(
            self._style,
            run=step.run_id,
            step=step.step_id,
            name=written.name,
            text=written.text,
            failure=failure,
            others=others,
        )


def _put_back(user_ns: dict[str, Any], before: dict[str, Any]) -> None:
    """Bind the names that differ as they were bound before."""
    for name in [name for name in user_ns if name not in before]:
        del user_ns[name]
    user_ns.update({name: value for name, value in before.items() if user_ns.get(name) is not value})

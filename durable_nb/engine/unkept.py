"""What is on record about the arguments of a step beside the changes that are kept with its result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from durable_nb.records import Step

__all__ = ["Unkept", "unkept_of", "with_unkept"]

_SECTION: Final = "arguments"


class Unkept(NamedTuple):
    """Arguments of which a replay makes no changes again, by their names, and those that the result is.

    Attributes:
        lost: Those that the body changed, and why the changes could not be saved.
        shared: Those that it changed while another step that had them was running.
        unchecked: Those of which changes could not be found, and why.
        returned: Objects of the arguments that the result is or, as a tuple, holds: the place in it, or None,
            and the path from the arguments.
    """

    lost: dict[str, str] = {}  # noqa: RUF012 - of a named tuple, and never changed
    shared: list[str] = []  # noqa: RUF012
    unchecked: dict[str, str] = {}  # noqa: RUF012
    returned: list[tuple[int | None, Any]] = []  # noqa: RUF012


def with_unkept(step: Step, unkept: Unkept) -> Step:
    """Return a step whose lineage names these arguments, instead of those that it named before."""
    if not any(unkept) and not _is_named(step):
        return step
    written: dict[str, Any] = json.loads(step.lineage) if step.lineage else {}
    written.pop(_SECTION, None)
    if any(unkept):
        written[_SECTION] = {name: value for name, value in unkept._asdict().items() if value}
    return step._replace(lineage=json.dumps(written) if written else None)


def unkept_of(step: Step) -> Unkept:
    """Return the arguments that the lineage of a step names."""
    return Unkept(**json.loads(step.lineage or "{}")[_SECTION]) if _is_named(step) else Unkept()


def _is_named(step: Step) -> bool:
    return step.lineage is not None and f'"{_SECTION}": {{' in step.lineage

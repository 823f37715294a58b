"""Values that a JSON schema describes: checked in bounded time, and without anything outside of the schema.

A schema may come from a database that another user wrote. A part of it can make a check endless: a pattern
may backtrack, and references may multiply. A schema with such a part is checked in a process of its own, with
a limit of processor time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from durable_nb import settings

__all__ = ["Problem", "load", "problems", "serve"]

_UNBOUNDED: Final = frozenset(
    {"pattern", "patternProperties", "unevaluatedItems", "unevaluatedProperties"}
    | {"$ref", "$dynamicRef", "$recursiveRef", "$schema"}
)
"""Keywords whose check takes a time that the size of schema and value does not bound."""

_START: Final = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve()"


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why a value is not accepted.

    Attributes:
        path: The keys and positions that lead to the wrong part; empty for the whole value.
        text: What is wrong with that part.
        remedy: What to do about it.
    """

    path: list[str | int]
    text: str
    remedy: str = "Deliver another value."


def problems(schema: Mapping[str, Any], value: Any) -> list[Problem]:
    """Return all reasons why a schema does not describe a value; a missing field has its own path.

    Args:
        schema: The schema; one that cannot be checked describes no value.
        value: The value, plain JSON data.
    """
    return _in_helper(schema, value) if _UNBOUNDED & set(_keys(schema)) else _in_process(schema, value)


def load() -> None:
    """Import the validators, so that the first check is fast."""
    import jsonschema  # noqa: F401 - it takes 0.1 s, and 2 s with the grammar of a format


def serve() -> None:
    """Check one value, read from the standard input, with a limit of processor time."""
    import resource

    given = json.load(sys.stdin)
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # a format that is not checked here: 2 s
    load()
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    limit = round(used) + settings.SCHEMA_BUDGET
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    json.dump([[one.path, one.text, one.remedy] for one in _in_process(*given)], sys.stdout)


def _keys(schema: Any) -> Iterator[str]:
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield from part
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _in_helper(schema: Mapping[str, Any], value: Any) -> list[Problem]:
    start = _START.format(path=[entry or os.curdir for entry in sys.path], module=__name__)
    command = [sys.executable, "-c", start]
    try:
        helper = subprocess.run(  # noqa: S603 - this interpreter
            command,
            input=json.dumps([schema, value]),
            capture_output=True,
            text=True,
            timeout=settings.SCHEMA_PATIENCE,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        return [_unchecked(_last_line(error) or f"it takes longer than {settings.SCHEMA_BUDGET} s")]
    return [Problem(*each) for each in json.loads(helper.stdout)]


def _last_line(error: Exception) -> str:
    """Return why the helper failed; empty if it was ended."""
    said = getattr(error, "stderr", str(error))
    return str(said).splitlines()[-1] if said else ""


def _in_process(schema: Mapping[str, Any], value: Any) -> list[Problem]:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import NoSuchAnchor, PointerToNowhere, Unresolvable

    validator = Draft202012Validator(schema, registry=Registry())  # an empty one: it fetches nothing
    try:
        return [_problem(error) for error in _innermost(validator.iter_errors(value))]
    except re.error:  # a pattern of another language, which the waiting call may understand
        return []
    except Unresolvable as error:
        if isinstance(error.__cause__, PointerToNowhere | NoSuchAnchor):  # left to the waiting call too
            return []
        return [_unchecked(f"it refers to {error.ref!r}, outside of itself")]
    except Exception as error:  # whatever the validator does with a schema that is none
        return [_unchecked(f"{type(error).__name__}: {error}")]


def _unchecked(reason: str) -> Problem:
    remedy = "Change the schema= of the call that waits, and run it again."
    return Problem([], f"its JSON schema cannot be checked: {reason:.200}", remedy)


def _innermost(errors: Iterable[Any]) -> Iterator[Any]:
    """Yield the errors, each with its own path; of a union those of the branch that has the value's type."""
    for error in errors:
        branches = defaultdict(list)
        for inner in error.context:
            branches[inner.schema_path[0]].append(inner)
        meant = [branch for branch in branches.values() if not any(map(_is_of_another_type, branch))]
        yield from _innermost(meant[0]) if len(meant) == 1 else (error,)


def _is_of_another_type(error: Any) -> bool:
    return error.validator in ("type", "const", "enum") and not error.path


def _problem(error: Any) -> Problem:
    path = list(error.absolute_path)
    if error.validator == "required":  # one error for each missing name, which is only in its message
        for name in error.validator_value:
            if error.message.startswith(repr(name)):
                return Problem([*path, name], "this field is required")
    return Problem(path, error.message)

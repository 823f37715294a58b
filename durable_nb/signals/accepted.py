"""Which values a signal accepts: any, those of a type or a schema, or those of a list."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from durable_nb.errors import InvalidOption, SignalInvalid

if TYPE_CHECKING:
    from durable_nb.records import SignalRequest

__all__ = ["APPROVAL", "Accepted", "Problem", "check", "choose", "invalid", "problems"]

APPROVAL: Final = "approval"
"""The format of a schema that asks for a yes or a no; its ``arguments`` are what a yes may change."""

_PLAIN: Final[dict[Any, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    None: "null",
}
"""The types that need no pydantic, each with its name in a JSON schema."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a waiting call accepts.

    Attributes:
        type: A type as pydantic understands them, or a plain one; anything if not given.
        choices: The only values, plain JSON; any if not given.
        schema: A JSON schema in place of a type; nothing is converted then.

    Raises:
        InvalidOption: There is no such type, or the choices are no list of plain values.

    Example:
        >>> Accepted(int).validated(3)
        3
    """

    type: Any = None
    choices: Sequence[Any] | None = None
    schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.choices is not None and (isinstance(self.choices, str) or not self.choices):
            raise InvalidOption(f"choices={self.choices!r} makes no sense", remedy="Give a list of values.")
        try:
            self.choices_json()
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"choices= are not plain ({error})", remedy=_PLAIN_JSON) from None
        if self.type is not None:
            self.schema_json()

    def choices_json(self) -> str | None:
        """The choices as JSON."""
        return None if self.choices is None else json.dumps(list(self.choices), allow_nan=False)

    def schema_json(self) -> str | None:
        """The type as a JSON schema, as JSON."""
        if self.schema is not None:
            return json.dumps(self.schema)
        if self.type is None:
            return None
        if self.type is Any:
            return "{}"
        if _is_plain(self.type):
            return json.dumps({"type": _PLAIN[self.type]})
        adapter = self._adapter()
        with self._sense():
            return json.dumps(adapter.json_schema())

    def validated(self, value: Any) -> Any:
        """The value as the call gets it, converted to the type.

        Raises:
            SignalInvalid: It is none of those that are accepted.
        """
        if self.choices is not None and not any(_same(value, choice) for choice in self.choices):
            raise invalid(value, choose(list(self.choices)))
        if self.schema is not None:
            found = _problems(self.schema, value)
            _refuse(value, [Problem([], "it is no plain JSON")] if _as_json(value) is _OTHER else found)
        if self.type is None or self.type is Any:
            return value
        if _is_plain(self.type):
            return _plainly(self.type, value)
        from pydantic import ValidationError

        try:
            return self._adapter().validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise invalid(value, f"{place}: {first['msg']}" if place else first["msg"]) from None

    def _adapter(self) -> Any:
        with self._sense():
            from pydantic import TypeAdapter

            return TypeAdapter(self.type)

    @contextmanager
    def _sense(self) -> Iterator[None]:
        """Say in one line what pydantic says of a type that it cannot take."""
        try:
            yield
        except ImportError:
            raise InvalidOption(
                f"schema={self.type!r} needs pydantic", remedy="pip install pydantic, or give a plain type."
            ) from None
        except Exception as error:
            said = str(error).splitlines()[0]
            raise InvalidOption(
                f"schema={self.type!r} makes no sense ({said})", remedy="Give a type: bool, a model, …"
            ) from None


_PLAIN_JSON = "Give plain values: strings, numbers, True, False, None, lists and dicts of them."


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value will not do.

    Attributes:
        path: The keys and positions that lead to the place; none for the whole value.
        text: What is wrong there.
    """

    path: list[str | int]
    text: str


def check(request: SignalRequest, value: Any) -> None:
    """Refuse a value at once where the request says that it will not do; who waits has the last word.

    Args:
        request: What is waited for.
        value: What somebody wants to deliver; only plain JSON data is looked at.

    Raises:
        SignalInvalid: It is none of those that are accepted.
    """
    _refuse(value, problems(request, value))


def problems(request: SignalRequest, value: Any) -> list[Problem]:
    """All that is wrong with a value, as far as the request tells; a missing field at its own place.

    Args:
        request: What is waited for.
        value: What somebody wants to deliver; only plain JSON data is looked at.
    """
    found = []
    if request.choices:
        plain, choices = _as_json(value), json.loads(request.choices)
        if plain is not _OTHER and not any(_same(plain, choice) for choice in choices):
            found.append(Problem([], choose(choices)))
    if request.schema:
        found += _problems(json.loads(request.schema), value)
    return found


_OTHER: Final = object()
"""Stands for a value that is no plain JSON data."""


def _as_json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return _OTHER


def _problems(schema: Mapping[str, Any], value: Any) -> list[Problem]:
    plain = _as_json(value)
    if plain is _OTHER:
        return []
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable

    try:
        return [_problem(error) for error in _innermost(Draft202012Validator(schema).iter_errors(plain))]
    except (Unresolvable, re.error):  # not to be understood here, such as another language's patterns
        return []


def _innermost(errors: Iterable[Any]) -> Iterator[Any]:
    """The errors, each at its own place: those of a union in the one branch of the value's own type."""
    for error in errors:
        branches = defaultdict(list)
        for inner in error.context:
            branches[inner.schema_path[0]].append(inner)
        meant = [branch for branch in branches.values() if not any(map(_is_of_another_type, branch))]
        yield from _innermost(meant[0]) if len(meant) == 1 else (error,)


def _is_of_another_type(error: Any) -> bool:
    return error.validator in ("type", "const", "enum") and not error.path


def _refuse(value: Any, found: Sequence[Problem]) -> None:
    for problem in found:
        place = ".".join(map(str, problem.path))
        raise invalid(value, f"{place}: {problem.text}" if place else problem.text)


def _problem(error: Any) -> Problem:
    path = list(error.absolute_path)
    if error.validator == "required":  # one error for each name, which only its message tells
        for name in error.validator_value:
            if error.message.startswith(repr(name)):
                return Problem([*path, name], "this is needed")
    return Problem(path, error.message)


def _is_plain(kind: Any) -> bool:
    return isinstance(kind, type | None) and kind in _PLAIN


def _plainly(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not (type(None) if kind is None else kind):
        raise invalid(value, f"it is no {_PLAIN[kind]}")
    return value


def _same(value: Any, choice: Any) -> bool:
    return type(value) is type(choice) and bool(value == choice)  # True is not the choice 1


def choose(choices: list[Any]) -> str:
    """What is to be said of a value that is none of the choices."""
    return f"choose one of {', '.join(map(json.dumps, choices))}"


def invalid(value: Any, why: str) -> SignalInvalid:
    """The error that says why a value will not do."""
    return SignalInvalid(f"{value!r:.200} is not accepted: {why}", remedy="Deliver another value.")

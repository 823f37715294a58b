"""Which values a signal accepts: any, those of a type or a schema, or those of a list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from durable_nb.errors import InvalidOption, SignalInvalid
from durable_nb.signals import schema
from durable_nb.signals.schema import Problem

if TYPE_CHECKING:
    from durable_nb.records import SignalRequest

__all__ = ["APPROVAL", "Accepted", "check_value", "invalid", "not_a_choice", "problems"]

APPROVAL: Final = "approval"
"""The format of a schema that asks for approval; its ``arguments`` are those which the answer may change."""

_PLAIN_TYPES: Final[dict[Any, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    None: "null",
}
"""The types that are checked without pydantic, each with its name in a JSON schema."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The values that a waiting call accepts.

    Attributes:
        type: A plain type, or any type that pydantic can validate; None accepts every type.
        choices: The only values that are accepted, plain JSON; None accepts every value.
        schema: A JSON schema in place of a type; values are not converted then.

    Raises:
        InvalidOption: The type cannot be validated, or the choices are not a list of plain values.

    Example:
        >>> Accepted(int).validated(3)
        3
    """

    type: Any = None
    choices: Sequence[Any] | None = None
    schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.choices is not None and (isinstance(self.choices, str) or not self.choices):
            raise InvalidOption(
                f"invalid choices={self.choices!r}: expected a list of at least one value",
                remedy="For example: choices=['yes', 'no'].",
            )
        try:
            self.choices_json()
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"invalid choices=: not plain JSON ({error})", remedy=_PLAIN_VALUES) from None
        if self.type is not None:
            self.schema_json()

    def choices_json(self) -> str | None:
        """Return the choices as JSON, or None."""
        return None if self.choices is None else json.dumps(list(self.choices), allow_nan=False)

    def schema_json(self) -> str | None:
        """Return the JSON schema of the type, as JSON, or None."""
        if self.schema is not None:
            return json.dumps(self.schema)
        if self.type is None:
            return None
        if self.type is Any:
            return "{}"
        if _is_plain_type(self.type):
            return json.dumps({"type": _PLAIN_TYPES[self.type]})
        adapter = self._adapter()
        with self._type_errors():
            return json.dumps(adapter.json_schema())

    def validated(self, value: Any) -> Any:
        """Return the value as the call gets it, converted to the type.

        Raises:
            SignalInvalid: The value is not accepted.
        """
        if self.choices is not None and not any(_equal(value, choice) for choice in self.choices):
            raise invalid(value, not_a_choice(list(self.choices)))
        if self.schema is not None:
            found = _schema_problems(self.schema, value)
            _raise_first(value, [Problem([], "not plain JSON")] if _as_json(value) is _NOT_JSON else found)
        if self.type is None or self.type is Any:
            return value
        if _is_plain_type(self.type):
            return _validated_plain(self.type, value)
        from pydantic import ValidationError

        try:
            return self._adapter().validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise invalid(value, f"{place}: {first['msg']}" if place else first["msg"]) from None

    def _adapter(self) -> Any:
        with self._type_errors():
            from pydantic import TypeAdapter

            return TypeAdapter(self.type)

    @contextmanager
    def _type_errors(self) -> Iterator[None]:
        """Turn pydantic's error about an unusable type into an ``InvalidOption`` of one line."""
        try:
            yield
        except ImportError:
            raise InvalidOption(
                f"schema={self.type!r} needs pydantic", remedy="pip install pydantic, or use a plain type."
            ) from None
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InvalidOption(
                f"invalid schema={self.type!r}: expected a type ({reason})",
                remedy="For example: schema=bool, or schema=YourModel.",
            ) from None


_PLAIN_VALUES = "Use plain values: strings, numbers, True, False, None, lists and dicts of them."


def check_value(request: SignalRequest, value: Any) -> None:
    """Raise if a request does not accept a value; the waiting call checks it once more.

    Args:
        request: The request.
        value: The value to deliver; only plain JSON data is checked.

    Raises:
        SignalInvalid: The value is not accepted.
    """
    _raise_first(value, problems(request, value))


def problems(request: SignalRequest, value: Any) -> list[Problem]:
    """Return all reasons why a request does not accept a value; a missing field has its own path.

    Args:
        request: The request.
        value: The value to deliver; only plain JSON data is checked.
    """
    found = []
    if request.choices:
        plain, choices = _as_json(value), json.loads(request.choices)
        if plain is not _NOT_JSON and not any(_equal(plain, choice) for choice in choices):
            found.append(Problem([], not_a_choice(choices)))
    if request.schema:
        found += _schema_problems(json.loads(request.schema), value)
    return found


_NOT_JSON: Final = object()
"""Stands for a value that is not plain JSON data."""


def _as_json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return _NOT_JSON


def _schema_problems(wanted: Mapping[str, Any], value: Any) -> list[Problem]:
    plain = _as_json(value)
    return [] if plain is _NOT_JSON else schema.problems(wanted, plain)


def _raise_first(value: Any, found: Sequence[Problem]) -> None:
    for problem in found:
        place = ".".join(map(str, problem.path))
        raise invalid(value, f"{place}: {problem.text}" if place else problem.text, problem.remedy)


def _is_plain_type(kind: Any) -> bool:
    return isinstance(kind, type | None) and kind in _PLAIN_TYPES


def _validated_plain(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not (type(None) if kind is None else kind):
        raise invalid(value, f"expected {_with_article(_PLAIN_TYPES[kind])}")
    return value


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else name if name == "null" else f"a {name}"


def _equal(value: Any, choice: Any) -> bool:
    return type(value) is type(choice) and bool(value == choice)  # True is not the choice 1


def not_a_choice(choices: list[Any]) -> str:
    """Return the reason why a value that is none of the choices is not accepted."""
    return f"expected one of {', '.join(map(json.dumps, choices))}"


def invalid(value: Any, why: str, remedy: str = "Deliver another value.") -> SignalInvalid:
    """Return the error for a value that is not accepted.

    Args:
        value: The value.
        why: The reason.
        remedy: What to do about it.
    """
    return SignalInvalid(f"{value!r:.200} is not accepted: {why}", remedy=remedy)

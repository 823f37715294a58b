"""Which values a signal accepts: any, those of a type, or one of a list; and how a person types them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from durable_nb.errors import InvalidOption, SignalInvalid

if TYPE_CHECKING:
    from durable_nb.records import SignalRequest

__all__ = ["Accepted", "Problem", "check", "hint", "problems", "read_answer", "read_value"]

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

    Raises:
        InvalidOption: There is no such type, or the choices are no list of plain values.

    Example:
        >>> Accepted(int).validated(3)
        3
    """

    type: Any = None
    choices: Sequence[Any] | None = None

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
            raise _invalid(value, _choose(list(self.choices)))
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
            raise _invalid(value, f"{place}: {first['msg']}" if place else first["msg"]) from None

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
    for problem in problems(request, value):
        place = ".".join(map(str, problem.path))
        raise _invalid(value, f"{place}: {problem.text}" if place else problem.text)


def problems(request: SignalRequest, value: Any) -> list[Problem]:
    """All that is wrong with a value, as far as the request tells; a missing field at its own place.

    Args:
        request: What is waited for.
        value: What somebody wants to deliver; only plain JSON data is looked at.
    """
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return []
    found = []
    if request.choices:
        choices = json.loads(request.choices)
        if not any(_same(plain, choice) for choice in choices):
            found.append(Problem([], _choose(choices)))
    if request.schema:
        from jsonschema import Draft202012Validator

        errors = Draft202012Validator(json.loads(request.schema)).iter_errors(plain)
        found += [_problem(error) for error in errors]
    return found


def _problem(error: Any) -> Problem:
    path = list(error.absolute_path)
    if error.validator == "required":  # one error for each name, which only its message tells
        for name in error.validator_value:
            if error.message.startswith(repr(name)):
                return Problem([*path, name], "this is needed")
    return Problem(path, error.message)


def read_value(text: str) -> Any:
    """A value as it is typed: JSON, or else the text itself.

    Example:
        >>> read_value('{"approved": true}'), read_value("yes")
        ({'approved': True}, 'yes')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def hint(request: SignalRequest) -> str:
    """What a person can type, for a prompt."""
    if request.choices:
        return " | ".join(map(_spelled, json.loads(request.choices)))
    if request.schema is None:
        return "y | n, and a comment"
    kind = json.loads(request.schema).get("type")
    return "y | n" if kind == "boolean" else str(kind or "JSON")


def read_answer(request: SignalRequest, text: str) -> Any:
    """What a person has typed at a prompt for a request.

    Without a schema or choices the answer is ``{"approved": bool, "comment": str}``.

    Raises:
        SignalInvalid: It is no answer to that.
    """
    text = text.strip()
    if request.choices:
        choices = json.loads(request.choices)
        for choice in choices:
            if text == _spelled(choice):
                return choice
        raise _invalid(text, _choose(choices))
    kind = "" if request.schema is None else json.loads(request.schema).get("type")
    if kind in ("", "boolean"):
        word, _, comment = text.partition(" ")
        approved = _WORDS.get(word.lower())
        if approved is None:
            raise _invalid(text, "type y or n")
        return approved if kind else {"approved": approved, "comment": comment.strip()}
    return text if kind == "string" else read_value(text)


_WORDS = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


def _spelled(choice: Any) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)


def _is_plain(kind: Any) -> bool:
    return isinstance(kind, type | None) and kind in _PLAIN


def _plainly(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not (type(None) if kind is None else kind):
        raise _invalid(value, f"it is no {_PLAIN[kind]}")
    return value


def _same(value: Any, choice: Any) -> bool:
    return type(value) is type(choice) and bool(value == choice)  # True is not the choice 1


def _choose(choices: list[Any]) -> str:
    return f"choose one of {', '.join(map(json.dumps, choices))}"


def _invalid(value: Any, why: str) -> SignalInvalid:
    return SignalInvalid(f"{value!r:.200} is not accepted: {why}", remedy="Deliver another value.")

"""Signal values as users type them: parsing, and hints at what can be typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from durable_nb.signals import accepted

if TYPE_CHECKING:
    from durable_nb.records import SignalRequest

__all__ = ["editable_arguments", "hint", "read_answer", "read_value", "yes_or_no"]


def read_value(text: str) -> Any:
    """Return the value of typed text: parsed as JSON, or else the text itself.

    Example:
        >>> read_value('{"approved": true}'), read_value("yes")
        ({'approved': True}, 'yes')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def editable_arguments(request: SignalRequest) -> Any:
    """Return the arguments of the call that waits for approval, which the answer may change; None without."""
    schema = _schema_of(request)
    if schema.get("format") != accepted.APPROVAL:
        return None
    try:
        return schema["properties"]["arguments"]["default"]
    except (LookupError, TypeError):
        return None


def hint(request: SignalRequest) -> str:
    """Return what the user can type, for a prompt."""
    if request.choices:
        return " | ".join(map(_as_typed, json.loads(request.choices)))
    schema = _schema_of(request)
    if schema.get("format") == accepted.APPROVAL:
        return "y | n, and a comment" + (
            "" if editable_arguments(request) is None else " | y {other arguments}"
        )
    kind = schema.get("type")
    return "y | n" if kind == "boolean" else str(kind or "JSON")


def read_answer(request: SignalRequest, text: str) -> Any:
    """Return the answer that the user has typed at the prompt of a request.

    Without a schema or choices it is ``{"approved": bool, "comment": str}``.

    Raises:
        SignalInvalid: The text is no answer to the request.
    """
    text = text.strip()
    if request.choices:
        choices = json.loads(request.choices)
        for choice in choices:
            if text == _as_typed(choice):
                return choice
        raise accepted.invalid(text, accepted.not_a_choice(choices))
    schema = _schema_of(request)
    if schema.get("format") == accepted.APPROVAL:
        return _approval(text, editable=editable_arguments(request) is not None)
    if schema.get("type") == "boolean":
        return _is_approved(text.partition(" ")[0], text)
    return text if schema.get("type") == "string" else read_value(text)


def yes_or_no(text: str) -> bool | None:
    """Return True for a yes, False for a no, None for any other word.

    Example:
        >>> yes_or_no("Yes"), yes_or_no("n"), yes_or_no("too dear")
        (True, False, None)
    """
    return _WORDS.get(text.strip().lower())


_WORDS = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


def _schema_of(request: SignalRequest) -> dict[str, Any]:
    if request.schema is None:
        return {"format": accepted.APPROVAL}
    schema: dict[str, Any] = json.loads(request.schema)
    return schema


def _approval(text: str, *, editable: bool) -> dict[str, Any]:
    word, _, rest = text.partition(" ")
    approved, rest = _is_approved(word, text), rest.strip()
    if editable and approved and rest.startswith("{"):
        return {"approved": True, "arguments": read_value(rest)}
    return {"approved": approved, "comment": rest}


def _is_approved(word: str, text: str) -> bool:
    said = yes_or_no(word)
    if said is None:
        raise accepted.invalid(text, "expected y or n")
    return said


def _as_typed(choice: Any) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)

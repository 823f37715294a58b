"""How a person types a signal's value, and what to tell them that they can type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from durable_nb.signals import accepted

if TYPE_CHECKING:
    from durable_nb.records import SignalRequest

__all__ = ["arguments", "hint", "read_answer", "read_value", "yes_or_no"]


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


def arguments(request: SignalRequest) -> Any:
    """The arguments of the call that a yes lets through, which it may change; None where there is none."""
    schema = _schema(request)
    if schema.get("format") != accepted.APPROVAL:
        return None
    return schema.get("properties", {}).get("arguments", {}).get("default")


def hint(request: SignalRequest) -> str:
    """What a person can type, for a prompt."""
    if request.choices:
        return " | ".join(map(_spelled, json.loads(request.choices)))
    schema = _schema(request)
    if schema.get("format") == accepted.APPROVAL:
        return "y | n, and a comment" + ("" if arguments(request) is None else " | y {other arguments}")
    kind = schema.get("type")
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
        raise accepted.invalid(text, accepted.choose(choices))
    schema = _schema(request)
    if schema.get("format") == accepted.APPROVAL:
        return _approval(text, editable=arguments(request) is not None)
    if schema.get("type") == "boolean":
        return _said(text.partition(" ")[0], text)
    return text if schema.get("type") == "string" else read_value(text)


def yes_or_no(text: str) -> bool | None:
    """What a word says; None where it is neither a yes nor a no.

    Example:
        >>> yes_or_no("Yes"), yes_or_no("n"), yes_or_no("too dear")
        (True, False, None)
    """
    return _WORDS.get(text.strip().lower())


_WORDS = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


def _schema(request: SignalRequest) -> dict[str, Any]:
    if request.schema is None:
        return {"format": accepted.APPROVAL}
    schema: dict[str, Any] = json.loads(request.schema)
    return schema


def _approval(text: str, *, editable: bool) -> dict[str, Any]:
    word, _, rest = text.partition(" ")
    approved, rest = _said(word, text), rest.strip()
    if editable and approved and rest.startswith("{"):
        return {"approved": True, "arguments": read_value(rest)}
    return {"approved": approved, "comment": rest}


def _said(word: str, text: str) -> bool:
    said = yes_or_no(word)
    if said is None:
        raise accepted.invalid(text, "type y or n")
    return said


def _spelled(choice: Any) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)

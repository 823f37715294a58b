"""Take the secrets out of a text: what has a known shape, follows the name of a secret, or is random."""

from __future__ import annotations

import re
from typing import Final

from durable_nb.errors.redaction.names import is_secret
from durable_nb.errors.redaction.shapes import HIDDEN, SHAPES, is_opaque, is_random

__all__ = ["redacted", "redacted_message"]

_USER: Final = re.compile(
    r"(://)[A-Za-z0-9_-]{16,200}(?=@)"
    r"|(://[^\s/:@'\"<>]{0,200}:)(?!\d{1,5}(?:[/?#\s]|$))[^\s'\"<>]{1,300}(?=@[\w.\[-])"
)
"""A token in place of a URL's user, and a URL's password."""

_PART: Final = re.compile(
    r"(?i)\b((?:AccountKey|SharedAccessKey|SharedAccessSignature|SharedSecretValue)=)[^;\s'\"]+"
    r"|([?&](?:sig|signature|x-amz-(?:signature|credential|security-token)|x-goog-signature)=)[^&\s'\"]+"
    r"|([?&](?:api)?key=)[^&\s'\"]{8,}"
    r"|(hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/-]+"
    r"|(discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d+/)[\w-]+"
    r"|(webhook\.office(?:365)?\.com/)[^\s'\"]+"
    r"|(\bapi\.telegram\.org/bot)[\w:-]+"
)
"""Secrets in connection strings and in URLs, after what is not secret."""

_HEADER: Final = re.compile(
    r"(?i)(\bauthorization['\"]?\s*[:=,]\s*(?:b?['\"])?"
    r"(?:(?:bearer|basic|token|digest|negotiate|apikey|key)\s+)?)([^\s'\",;<>]{4,})"
)
_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic|token|apikey)(\s+)([\w+/.~-]{8,}=*)")
_COLOR: Final = r"(?:\x1b\[[\d;]*m)*"
"""Of a terminal, which a traceback has between all words."""

_TEXT: Final = (
    r"[bBrRuUfF]{0,2}(?P<quote>'''|\"\"\"|['\"])"
    r"(?P<text>(?:\\.|(?!(?P=quote))[^\\]){0,2000})(?P=quote)"
)
_PAIR: Final = re.compile(
    rf"(?P<name>[A-Za-z_][\w.-]{{1,80}}+)"
    rf"(?P<sep>{_COLOR}['\"]?{_COLOR}\]?{_COLOR}\)?{_COLOR}\s*(?P<sign>:?=(?!=)>?|:|,){_COLOR}\s*{_COLOR})"
    rf"(?:{_TEXT}|(?P<bare>[^\s,;&|(){{}}\[\]'\"<>]+)(?P<next>[(\[]?))"
)
_SWITCH: Final = re.compile(r"(?P<name>--[a-z][\w-]+)(?P<sep>\s+)(?P<bare>[^\s-]\S*)")
_RANDOM: Final = re.compile(r"(?<![A-Za-z0-9_+/-])[A-Za-z0-9_+/-]{20,200}={0,2}(?![A-Za-z0-9_+/-])")
_NO_VALUE: Final = re.compile(rf"None|True|False|null|true|false|\*+|\.+|…|\{{.*|{HIDDEN}\s*")
_READ: Final = re.compile(r"(self|os|settings|config|cfg|args|env)\.")
"""The beginning of code that reads a value."""


def redacted(text: str) -> str:
    """Return a text without its secrets; the rest stays.

    Args:
        text: A text of the user's, such as the message of an exception.

    Example:
        >>> redacted("cannot reach postgresql://ann:pa55@db/shop")
        'cannot reach postgresql://ann:\u2039hidden\u203a@db/shop'
    """
    return _RANDOM.sub(lambda found: HIDDEN if is_random(found[0]) else found[0], redacted_message(text))


def redacted_message(text: str) -> str:
    """Return a text without its secrets, in which ids of runs and steps stay, whatever they look like.

    Args:
        text: A message of this package, with texts of the user's in it.

    Example:
        >>> redacted_message("run 'q7Zr2mXw9TnB4kLs8VdE': api_key='hush'")
        "run 'q7Zr2mXw9TnB4kLs8VdE': api_key='\u2039hidden\u203a'"
    """
    if len(text) < 6:
        return text
    text = SHAPES.sub(lambda found: _hidden(found[0]), text)
    if "://" in text:
        text = _USER.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}", text)
    text = _PART.sub(lambda found: next(filter(None, found.groups())) + HIDDEN, text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _SCHEME.sub(_without_opaque, text)
    text = _without_values(_SWITCH, text) if "--" in text else text
    return _without_values(_PAIR, text)


def _hidden(secret: str) -> str:
    return HIDDEN + "\n" * secret.count("\n")


def _without_opaque(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{HIDDEN}" if is_opaque(found[3]) or found[3].endswith("=") else found[0]


def _without_values(pairs: re.Pattern[str], text: str) -> str:
    """Return a text without the values that follow names of secrets."""
    done, start, end = list[str](), 0, 0
    while found := pairs.search(text, end):
        end = found.end("sep")
        if secret := _secret_of(found):
            done += [text[start : found.start(secret)], _hidden(found[secret])]
            start = end = found.end(secret)
    return "".join([*done, text[start:]])


def _secret_of(found: re.Match[str]) -> str:
    """Return which group of a name with its value is a secret; empty if none is."""
    parts = found.groupdict()
    name, bare = parts["name"].rpartition(".")[2].lstrip("-"), parts["bare"]
    value = parts["text"] if bare is None else bare
    if not value or _NO_VALUE.fullmatch(value) or not is_secret(name, _number_or(value)):
        return ""
    if bare is None:
        return "" if _is_apart(parts) else "text"
    return "" if _is_code(name, parts) else "bare"


def _is_apart(parts: dict[str, str]) -> bool:
    """Return whether a comma stands between a name without quotes and a text."""
    return parts["sign"] == "," and not parts["sep"].startswith(("'", '"'))


def _is_code(name: str, parts: dict[str, str]) -> bool:
    """Return whether a value without quotes is a name, a call or a word rather than the secret itself."""
    bare, sign = parts["bare"], parts.get("sign")
    if sign == "," or parts.get("next") or _READ.match(bare):
        return True
    same = bare == name or bare.endswith(f"_{name}") or name.endswith(f"_{bare}")
    return same or (sign == ":" and not is_opaque(bare))


def _number_or(text: str) -> str | int:
    return int(text) if text.isdecimal() and len(text) < 20 else text

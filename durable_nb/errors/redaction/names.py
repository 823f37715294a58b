"""Names of secrets: a rule over the words of a name, in snake, camel, kebab or upper case."""

from __future__ import annotations

import functools
import re
from typing import Final

from durable_nb.errors.redaction.shapes import is_opaque

__all__ = ["is_credential", "is_secret"]

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Each pattern is searched in the words of a name in lower case, each between underscores: `_db_password_`.
_CREDENTIAL: Final = re.compile(
    r"pass_?(word|wd|phrase|code|key)|secret(?!ar|iv|ion)|credential|bearer|api_?key|(?<!_)token_"
    r"|_(pw|pwd|pwds|psw|pswd|creds?|cookies?|jwts?|otp|totp|auth|authorization|mnemonic|tokens?)_"
    r"|_(seed_phrase|recovery_codes?|backup_codes?)_"
    r"|_(access|secret|private|signing|encryption|session|auth|ssh|account|master|service)_?keys?_"
)
_QUALIFIED: Final = re.compile(r"_(?P<of>[a-z]{2,})(_\d+)?_(key|pat)_(\d+_)?$")
"""`openai_key`, `GITHUB_PAT`: a key of something that is no data structure, see `_KEYS_OF_DATA`."""

_LOCATION: Final = re.compile(
    r"_(dsn|conn_?str|connection_?str|conn_?string|connection_?string|web_?hook)_|_https?_proxy_"
    r"|_(database|db|redis|postgres|postgresql|pg|mysql|mariadb|mongo|mongodb|amqp|broker|rabbitmq|celery|kafka"
    r"|sqlalchemy|sentry|web_?hook|slack|discord|smtp|ftp|sftp|proxy|mssql|oracle|snowflake|neo_4_j)_(url|uri)_"
)
_WEAK: Final = re.compile(r"_(key|pat)_$|^_(pat|key)_|_tokens_$")
"""Names that are as often those of other things: the value decides."""

_KEYS_OF_DATA: Final = re.compile(
    r"all|any|arg|attr|attribute|blob|bucket|cache|category|cell|child|class|col|column|composite|"
    r"config|copy|count|current|data|date|default|dict|dst|edge|entry|enum|env|event|feature|field|"
    r"file|first|flag|foreign|group|hash|header|hot|id|idempotency|image|index|item|join|json|label|"
    r"last|left|lookup|map|match|max|merge|message|meta|metadata|metric|min|model|modifier|my|name|"
    r"natural|new|next|node|object|old|order|other|param|parent|partition|path|pivot|prev|previous|"
    r"primary|prop|public|range|record|ref|result|right|routing|row|run|schema|search|shard|shortcut|"
    r"shift|signal|sort|source|src|start|state|step|store|sub|surrogate|tab|tag|target|temp|test|this|"
    r"time|tmp|top|translation|tree|type|unique|user|value|var|yaml"
)
_COUNTS: Final = re.compile(
    r"_(max|min|num|n|nr|new|total|input|output|prompt|completion|cached?|special|pad|eos|bos|unk|mask|stop|cls"
    r"|sep|next|prev|first|last|word|per|generated|context|used|left|remaining|reasoning|thinking|start|end"
    r"|cancellation|saved|sub)_tokens?_"
    r"|_tokens?_(ids?|counts?|limits?|budgets?|lens?|lengths?|types?|index|indices|level|class|embeddings?"
    r"|(log)?probs?|usage|per|rate|size|stream|list|freqs?|frequency|map|dict|set|bucket|used|saved|left)_"
)
"""Numbers of tokens, and tokens of a language."""

_ABOUT: Final = re.compile(
    r"_(names?|lengths?|len|counts?|types?|files?|paths?|dir|folder|env|var|variable|fields?|prefix|policy"
    r"|expir(y|es|ed|ation)|expires_(in|at)|ttl|url|uri|endpoint|required|enabled|valid|managers?|providers?"
    r"|class|factory|errors?|patterns?|regex|size|mode|method|scheme|server|backend|domain|users?|usernames?"
    r"|hints?|labels?|column|is_secret|rotation|age)_$"
)
"""Ends of names of what says something about a secret: `password_length`, `token_url`."""

_WORKING_DIRECTORY: Final = frozenset({"PWD", "OLDPWD"})
_REGULAR_EXPRESSION: Final = re.compile(r"[\\^$*+?()\[\]|{}\s]")


def is_secret(name: object, value: object = None) -> bool:
    """Return whether a name is that of a secret, which is neither shown nor stored.

    Args:
        name: The name: of a variable, a parameter, a key, an environment variable, a header.
        value: Its value, if it is known: ``max_tokens`` is a number, and ``key`` is a secret
            only if its value is like one.

    Example:
        >>> is_secret("OPENAI_KEY"), is_secret("max_tokens", 500), is_secret("sort_key")
        (True, False, False)
    """
    if type(name) is not str or isinstance(value, bool) or name in _WORKING_DIRECTORY:
        return False
    kind = _kind(name)
    if kind == "location":
        return not _is_open_address(name, value)
    if kind == "weak":
        return isinstance(value, str | bytes) and _is_unlike_words(value)
    number_of_tokens = type(value) in (int, float) and _words(name).endswith("_tokens_")
    return kind == "credential" and not number_of_tokens


def is_credential(name: object, value: object = None) -> bool:
    """Return whether a name is that of a key, a password or a token, rather than of an address that has one.

    Another credential computes the same results; another address does not.

    Example:
        >>> is_credential("OPENAI_KEY"), is_credential("DATABASE_URL")
        (True, False)
    """
    return is_secret(name, value) and _kind(str(name)) != "location"


@functools.lru_cache(maxsize=4096)
def _kind(name: str) -> str:
    """Return ``credential``, ``location``, ``weak`` (the value decides), or nothing."""
    words = _words(name)
    if _LOCATION.search(words):
        return "location"
    if _ABOUT.search(words) or _COUNTS.search(words):
        return ""
    if _WEAK.fullmatch(words):
        return "weak"
    qualified = _QUALIFIED.search(words)
    if _CREDENTIAL.search(words) or (qualified and not _KEYS_OF_DATA.fullmatch(qualified["of"])):
        return "credential"
    return ""


def _words(name: str) -> str:
    return f"_{'_'.join(_WORDS.findall(name[-200:])).lower()}_"


def _is_open_address(name: str, value: object) -> bool:
    """Return whether an address is one without a user, a password or a token."""
    return (
        type(value) is str
        and "hook" not in name.lower()
        and re.fullmatch(r"[\w+.-]+://[^@?]*", value) is not None
    )


def _is_unlike_words(value: str | bytes) -> bool:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return len(text) >= 6 and not _REGULAR_EXPRESSION.search(text) and is_opaque(text)

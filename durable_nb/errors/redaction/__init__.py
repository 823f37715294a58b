"""Secrets, which must not be shown or stored in clear: found by their names and by what they look like.

`redacted` takes the secrets out of a text, `redacted_source` out of source code, `is_secret` and
`is_credential` judge a name, and `secret_in` a value. Nothing here knows of runs, steps or stores.
"""

from __future__ import annotations

from durable_nb.errors.redaction.names import is_credential, is_secret
from durable_nb.errors.redaction.shapes import HIDDEN
from durable_nb.errors.redaction.source import redacted_source
from durable_nb.errors.redaction.text import redacted, redacted_message
from durable_nb.errors.redaction.values import HIDES, SENSITIVE, hides_value, secret_in

__all__ = [
    "HIDDEN",
    "HIDES",
    "SENSITIVE",
    "hides_value",
    "is_credential",
    "is_secret",
    "redacted",
    "redacted_message",
    "redacted_source",
    "secret_in",
]

"""What a call's arguments and a function's code are, as short strings that are equal in every process.

Nothing here depends on the hash seed, on addresses, or on the order of sets and dicts. What cannot be
fingerprinted honestly is None. ``shown`` and ``difference`` are the same for people to read.
"""

from __future__ import annotations

from durable_nb.fingerprint.arguments import arguments, differ, explain, show, unknown
from durable_nb.fingerprint.code import function, source, syntax
from durable_nb.fingerprint.display import difference, is_secret, shown
from durable_nb.fingerprint.values import value

__all__ = [
    "arguments",
    "differ",
    "difference",
    "explain",
    "function",
    "is_secret",
    "show",
    "shown",
    "source",
    "syntax",
    "unknown",
    "value",
]

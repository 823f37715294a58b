"""Fingerprints of arguments, values and code: short strings that are equal in every process.

A fingerprint depends neither on the hash seed, nor on addresses, nor on the order of sets and dicts. It is
None for a value that has no stable fingerprint. ``shown`` and ``difference`` are for messages.
"""

from __future__ import annotations

from durable_nb.fingerprint.arguments import arguments, differ, explain, show, unknown
from durable_nb.fingerprint.code import function, plain_function, source, syntax
from durable_nb.fingerprint.display import difference, shown
from durable_nb.fingerprint.values import value

__all__ = [
    "arguments",
    "differ",
    "difference",
    "explain",
    "function",
    "plain_function",
    "show",
    "shown",
    "source",
    "syntax",
    "unknown",
    "value",
]

"""What every process has one of its own: it is saved as where to find it, never as a copy.

A copy of the environment would hold every secret, and nothing done to a copy of a stream or of a hidden
random generator would be seen by anybody else.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from durable_nb import _stored

__all__ = ["own_objects"]

_PLACES: Final = (
    ("os", "environ"),
    ("os", "environb"),
    ("random", "_inst"),  # `from random import choice` binds a method of it
    ("numpy.random.mtrand", "_rand"),
    ("matplotlib", "rcParams"),
    ("IPython.core.interactiveshell", "InteractiveShell._instance"),
)


def own_objects() -> dict[int, tuple[Any, tuple[str, ...]]]:
    """How to pickle each of them that is there now, by its id."""
    found: dict[int, tuple[Any, tuple[str, ...]]] = {
        id(stream): (_stored.stream, (name,)) for name, stream in _stored.STREAMS.items()
    }
    for module, path in _PLACES:
        if module in sys.modules:
            try:
                found[id(_stored.process_object(module, path))] = _stored.process_object, (module, path)
            except AttributeError:  # not there before the module is imported to its end
                continue
    found.pop(id(None), None)
    return found

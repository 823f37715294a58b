"""What tests share: plugins of pytest, servers, kernels, and programs that run in processes of their own.

Tests import it as ``helpers``, since pytest has `TESTS` on its path; a process of theirs needs `pythonpath`.
"""

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
AT_ONCE = 5.0
"""Seconds in which a busy machine does what it does at once; what must not be waited for takes longer."""


def pythonpath(*folders):
    """The environment in which a process of a test finds this package, and what is in folders."""
    paths = [*map(str, folders), str(TESTS), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

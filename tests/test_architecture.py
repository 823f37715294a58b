"""The house holds: every module stands on its floor, imports downward only, and stays small."""

import ast
from pathlib import Path

import pytest

PACKAGE = "durable_nb"
ROOT = Path(__file__).parents[1] / PACKAGE

# A module may import lower floors, and on its own floor what is named before it; a face not even that.
FLOORS = (
    ("errors", "records", "backoff", "settings", "_stored"),
    ("fingerprint", "concurrency", "codec", "stores", "answers", "typed"),
    ("engine", "signals", "watching", "waiting"),
    (
        *("asking", "doubts", "context", "attempts", "tasks", "travelling", "executors"),
        *("passes", "entry", "waits", "mapping", "workflow"),
    ),
    ("notebook", "pydantic_ai"),
    ("supervisor", "cli"),
    ("",),  # durable_nb itself: the public names
)
FACES = 4
PLACES = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}

MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 500, 400, 60


def modules(root):
    """Every module of a package as (dotted name inside the package, whether it is a package, path)."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if package else parts), package, path


def imported(tree, name, package, known):
    """What a module imports of its own package, wherever the import stands, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, name, package)
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            top, _, inside = target.partition(".")
            if top == PACKAGE:
                first = inside.partition(".")[0]
                yield (first if first in known else ""), node.lineno


def absolute(node, name, package):
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *filter(None, name.split("."))]
    parts = parts[: len(parts) - node.level + package]
    return ".".join([*parts, *filter(None, [node.module])])


def violations(root, places):
    """Each import that goes up or sideways, and each module without a floor."""
    found = []
    everything = list(modules(root))
    known = {name.partition(".")[0] for name, _, _ in everything}
    for name, package, path in everything:
        unit = name.partition(".")[0]
        if unit not in places:
            found.append(f"{name} has no floor: enter it in FLOORS")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for other, line in imported(tree, name, package, known):
            if other != unit and not may_import(places, unit, other):
                found.append(f"{path.relative_to(root)}:{line} imports {other or PACKAGE}")
    return found


def may_import(places, unit, other):
    if other not in places:
        return True  # reported once, as a module without a floor
    if places[unit][0] == places[other][0] == FACES:
        return False
    return places[other] < places[unit]


def spans(tree, *kinds):
    return {
        node.name: node.end_lineno - node.lineno + 1 for node in ast.walk(tree) if isinstance(node, kinds)
    }


def test_imports_go_down_only():
    assert violations(ROOT, PLACES) == []


@pytest.mark.parametrize("path", [pytest.param(path, id=name or PACKAGE) for name, _, path in modules(ROOT)])
def test_modules_classes_and_functions_stay_small(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= MODULE_LINES
    functions = spans(tree, ast.FunctionDef, ast.AsyncFunctionDef)
    assert {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES} == {}
    classes = spans(tree, ast.ClassDef)
    assert {name: lines for name, lines in classes.items() if lines > CLASS_LINES} == {}


# The test itself is tested on a small house in which each rule is broken once.
BAD_HOUSE = {
    "__init__.py": "from durable_nb.workflow import Workflow",
    "errors.py": "from durable_nb import records",
    "records.py": "import durable_nb.errors",
    "settings.py": "from durable_nb import records as r, __version__",
    "codec/__init__.py": "from . import exact; from .exact import encode; from .. import stores",
    "codec/exact.py": "from ..errors import X; from ..engine import Y",
    "stores/__init__.py": "from durable_nb.codec import exact",
    "engine.py": "def late():\n    from durable_nb.asking import Scope",
    "asking.py": "from . import settings, tasks",
    "tasks.py": "",
    "workflow.py": "if TYPE_CHECKING:\n    import durable_nb.notebook.magics",
    "notebook/__init__.py": "from durable_nb import pydantic_ai",
    "notebook/magics.py": "from durable_nb.workflow import Workflow; import json, durable_notes",
    "pydantic_ai.py": "from durable_nb import workflow",
    "attic.py": "",
}


def test_the_rule_finds_each_way_to_break_it(tmp_path):
    for name, source in BAD_HOUSE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert violations(tmp_path, PLACES) == [
        "asking.py:1 imports tasks",
        "attic has no floor: enter it in FLOORS",
        "codec/__init__.py:1 imports stores",
        "codec/exact.py:1 imports engine",
        "engine.py:2 imports asking",
        "errors.py:1 imports records",
        "notebook/__init__.py:1 imports pydantic_ai",
        "settings.py:1 imports durable_nb",
        "workflow.py:2 imports notebook",
    ]

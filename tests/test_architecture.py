"""The structure holds: ten floors, imports that go down only, no circles, small modules."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "durable_nb"
ROOT = Path(__file__).parents[1] / PACKAGE

# From the lowest to the highest. A module may import its own room, lower floors, and on its own floor rooms
# that are named before it; those of FACES do not know of each other.
FLOORS = (
    ("errors", "settings", "lookup"),
    ("records", "rows"),
    ("_stored", "fingerprint", "concurrency"),
    ("codec",),
    ("stores",),
    ("engine",),
    ("signals",),
    ("workflow",),
    ("notebook", "pydantic_ai"),
    ("cli", ""),  # "" is durable_nb itself: the public names
)
FACES = 8
PLACES = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}
# MOVING
ENTRIES, ARROWS = 17, 80
MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 500, 400, 60


def modules(root):
    """Every module of a package as (dotted name inside the package, whether it is a package, path)."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if package else parts), package, path


def imported(tree, name, package):
    """The dotted names inside the package that a module imports, wherever it does, with the line."""
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
                yield inside, node.lineno


def absolute(node, name, package):
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *filter(None, name.split("."))]
    parts = parts[: len(parts) - node.level + package]
    return ".".join([*parts, *filter(None, [node.module])])


def room_of(name, places):
    """The room of a dotted name inside the package; one in no room is a public name of the package."""
    first = name.partition(".")[0]
    return first if first in places else ""


def violations(root, places):
    """Each import that goes up or sideways, and each module without a floor."""
    found = []
    known = {name.partition(".")[0] for name, _, _ in modules(root)}
    for name, package, path in modules(root):
        room = name.partition(".")[0]
        if room not in places:
            found.append(f"{name} has no floor: enter it in FLOORS")
            continue
        for target, line in imported(ast.parse(path.read_text(encoding="utf-8")), name, package):
            other = target.partition(".")[0] if target.partition(".")[0] in known else ""
            if other != room and not may_import(places, room, other):
                found.append(f"{path.relative_to(root)}:{line} imports {other or PACKAGE}")
    return found


def may_import(places, room, other):
    if other not in places:
        return True  # reported once, as a module without a floor
    if places[room][0] == places[other][0] == FACES:
        return False
    return places[other] < places[room]


def arrows(root, places):
    """Which rooms each room imports."""
    found = defaultdict(set)
    for name, package, path in modules(root):
        room = room_of(name, places)
        for target, _ in imported(ast.parse(path.read_text(encoding="utf-8")), name, package):
            if (other := room_of(target, places)) != room:
                found[room].add(other)
    return found


def module_graph(root):
    """Which modules each module imports, for types alone too, but not inside its functions."""
    known = {name for name, _, _ in modules(root)}
    graph = {}
    for name, package, path in modules(root):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = []
        targets = {target for target, _ in imported(tree, name, package)}
        graph[name] = {home for target in targets if (home := home_of(target, known)) not in (name, "")}
    return graph


def home_of(target, known):
    """The module that a dotted name is, or is defined in."""
    return target if target in known else target.rpartition(".")[0]


def spans(tree, *kinds):
    return {
        node.name: node.end_lineno - node.lineno + 1 for node in ast.walk(tree) if isinstance(node, kinds)
    }


def test_imports_go_down_only():
    assert violations(ROOT, PLACES) == []


def test_the_import_graph(capsys):
    graph = arrows(ROOT, PLACES)
    count = sum(map(len, graph.values()))
    entries = {
        path.name for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    with capsys.disabled():
        print(f"\n{len(entries)} entries, {len(FLOORS)} floors, {count} arrows between rooms")
        for floor in reversed(FLOORS):
            for room in floor:
                print(
                    f"  {room or PACKAGE:12} -> {', '.join(sorted(each or PACKAGE for each in graph[room]))}"
                )
    assert len(entries) <= ENTRIES
    assert len(FLOORS) <= 10
    assert count <= ARROWS


def test_no_module_imports_in_a_circle():
    try:
        tuple(TopologicalSorter(module_graph(ROOT)).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", [pytest.param(path, id=name or PACKAGE) for name, _, path in modules(ROOT)])
def test_modules_classes_and_functions_stay_small(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= MODULE_LINES
    functions = spans(tree, ast.FunctionDef, ast.AsyncFunctionDef)
    assert {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES} == {}
    classes = spans(tree, ast.ClassDef)
    assert {name: lines for name, lines in classes.items() if lines > CLASS_LINES} == {}


# The test itself is tested on a small package in which each rule is broken once.
BAD_HOUSE = {
    "__init__.py": "from durable_nb.workflow import Workflow",
    "errors.py": "from durable_nb import records",
    "records.py": "import durable_nb.errors",
    "settings.py": "from durable_nb import records as r, __version__",
    "codec/__init__.py": "from . import exact; from .exact import encode; from .. import stores",
    "codec/exact.py": "from ..errors import X; from ..engine import Y",
    "stores/__init__.py": "from durable_nb.codec import exact",
    "engine/run.py": "def late():\n    from durable_nb.signals import waiting",
    "signals/__init__.py": "from .. import settings, workflow",
    "workflow/task.py": "if TYPE_CHECKING:\n    import durable_nb.notebook.magics",
    "notebook/__init__.py": "from durable_nb import pydantic_ai",
    "notebook/magics.py": "from durable_nb.workflow import Workflow; import json, durable_notes",
    "pydantic_ai.py": "from durable_nb import workflow",
    "attic.py": "",
}


@pytest.fixture
def bad_house(tmp_path):
    for name, source in BAD_HOUSE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return tmp_path


def test_the_rule_finds_each_way_to_break_it(bad_house):
    assert violations(bad_house, PLACES) == [
        "attic has no floor: enter it in FLOORS",
        "codec/__init__.py:1 imports stores",
        "codec/exact.py:1 imports engine",
        "engine/run.py:2 imports signals",
        "errors.py:1 imports records",
        "notebook/__init__.py:1 imports pydantic_ai",
        "settings.py:1 imports records",
        "settings.py:1 imports durable_nb",
        "signals/__init__.py:1 imports workflow",
        "workflow/task.py:2 imports notebook",
    ]


def test_the_rule_finds_a_circle(bad_house):
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(module_graph(bad_house)).static_order())

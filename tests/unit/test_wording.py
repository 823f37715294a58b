"""Docstrings, messages and names keep to plain technical English."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "durable_nb"

# What readers stumble over, and what stands in its place.
BANNED = {
    r"\b(nobody|somebody|whoever|anybody|everybody)\b": "the process, the caller, the user",
    r"makes? no sense": "invalid x=..., expected ...",
    r"\bthere (is|are) no such\b": "name what was looked for: no run 'r' in 'runs.db'",
    r"\bby what everybody\b": "by convention",
    r"\bdid not take it\b": "rejected the write",
    r"; gives?\b": "Returns ...",
    r"\bbe it\b": "whether ... or",
    r"\bcolours?\b": "call mode",
    r"\bhearts?\b": "heartbeat",
    r"\bcolou?r of\b": "call mode",
}
DOCSTRING_STARTS = {
    r"The same\b": "say what the caller gets",
    r"(What|Whether|Which|How|Who|Where|Why)\b[^.?]*\.$": "subject first, verb: Return ..., Check ...",
}


def texts(tree):
    """Every string constant of a module: its line, its text, whether it documents a function or class."""
    docs = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                docs[id(body[0].value)] = not isinstance(node, ast.Module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, docs.get(id(node), False)


def faults(source):
    """The lines whose wording readers stumble over, each with what to write instead."""
    for line, text, is_docstring in texts(ast.parse(source)):
        for pattern, better in BANNED.items():
            if found := re.search(pattern, text, re.IGNORECASE):
                yield f"{line}: {found[0]!r}: {better}"
        for pattern, better in DOCSTRING_STARTS.items() if is_docstring else ():
            if found := re.match(pattern, text.partition("\n")[0]):
                yield f"{line}: {found[0]!r}: {better}"


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in sorted(PACKAGE.rglob("*.py"))]
)
def test_the_wording_is_plain(path):
    assert list(faults(path.read_text(encoding="utf-8"))) == []


def test_the_rule_finds_what_it_bans():
    source = '''
def waits():
    """Whether somebody waits."""
    raise ValueError("on_edit='x' makes no sense")
'''
    assert [fault.partition(":")[0] for fault in faults(source)] == ["3", "3", "4"]


def test_no_magic_is_named_below_the_faces():
    """A script's user never reads a notebook's magics: errors carry actions, which each face spells."""
    faces = {"notebook", "cli"}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        for line, text, _ in texts(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                room not in faces
                and path != PACKAGE / "__init__.py"
                and re.search(r"%%?durable_\w+ ?[A-Z-]*$|%durable_", text)
            ):
                found.append(f"{path.relative_to(ROOT)}:{line}: {text[:60]!r}")
    assert found == []

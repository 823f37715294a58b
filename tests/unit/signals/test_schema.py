"""A stored schema describes values and does nothing else: no request, no file, no endless check."""

import http.server
import json
import shutil
import subprocess
import threading
from importlib.resources import files

import pytest

from durable_nb.errors import SignalInvalid
from durable_nb.records import SignalRequest
from durable_nb.signals import accepted, schema, typed

ENDLESS = "^(a+)+$"
TEXT = "a" * 40 + "!"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def reasons(wanted, value):
    return [problem.text for problem in schema.problems(wanted, value)]


def doubled(times, innermost):
    """A schema of a few lines that is checked 2 ** times."""
    links = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(times)}
    return {"$defs": {**links, f"s{times}": innermost}, "$ref": "#/$defs/s0"}


def nested(depth):
    wanted = {}
    for _ in range(depth):
        wanted = {"allOf": [wanted]}
    return wanted


@pytest.mark.parametrize(
    ("wanted", "good", "bad", "reason"),
    [
        ({"type": "integer"}, 3, "x", "'x' is not of type 'integer'"),
        ({"pattern": "^[a-z]+$"}, "abc", "ABC", "'ABC' does not match '^[a-z]+$'"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 3, "x", "'x' is not of type 'integer'"),
        ({"required": ["a"]}, {"a": 1}, {}, "this field is required"),
        ({"$schema": DRAFT_7, "maximum": 3}, 3, 4, "4 is greater than the maximum of 3"),
        ({"patternProperties": {"^x": {"type": "null"}}}, {"x": None}, {"x": 1}, "1 is not of type 'null'"),
        ({"multipleOf": 1e-300}, 1, 1e-301, "1e-301 is not a multiple of 1e-300"),
        ({"maxLength": 10**400}, "x", None, None),
        (nested(300), "x", None, None),
        (doubled(4, {"type": "integer"}), 3, "x", "'x' is not of type 'integer'"),
    ],
)
def test_a_schema_describes_values(wanted, good, bad, reason):
    assert reasons(wanted, good) == []
    assert reason is None or reason in reasons(wanted, bad)


@pytest.fixture
def server():
    """A server that notes what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "wanted",
    [
        {"$ref": "URL/x"},
        {"$dynamicRef": "URL/x#y"},
        {"$id": "URL/x", "$ref": "y"},
        {"$schema": "URL/x", "$ref": "URL/x"},
        {"allOf": [{"$schema": DRAFT_7, "$ref": "URL/x"}]},
        {"unevaluatedProperties": False, "$ref": "URL/x"},
        {"anyOf": [{"$ref": "URL/x"}, {"type": "null"}]},
        {"$ref": "FILE"},
    ],
)
def test_no_reference_leaves_the_schema(server, tmp_path, wanted):
    url, asked = server
    (tmp_path / "s.json").write_text("{}")
    text = json.dumps(wanted).replace("URL", url).replace("FILE", (tmp_path / "s.json").as_uri())
    (reason,) = reasons(json.loads(text), {"a": 1})
    assert reason.startswith("its JSON schema cannot be checked: it refers to ")
    assert reason.endswith(", outside of itself")
    assert asked == []


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ({"pattern": ENDLESS}, TEXT),
        ({"patternProperties": {ENDLESS: {}}}, {TEXT: 1}),
        ({"patternProperties": {ENDLESS: {}}, "additionalProperties": False}, {TEXT: 1}),
        ({"unevaluatedProperties": False, "patternProperties": {ENDLESS: {}}}, {TEXT: 1}),
        ({"propertyNames": {"pattern": ENDLESS}}, {TEXT: 1}),
        ({"items": {"$schema": DRAFT_7, "pattern": ENDLESS}}, [TEXT]),
        (doubled(40, {"type": "integer"}), 3),
    ],
)
def test_a_check_ends(wanted, value):
    (problem,) = schema.problems(wanted, value)
    assert problem.text == "its JSON schema cannot be checked: it takes longer than 2 s"
    assert problem.remedy == "Change the schema= of the call that waits, and run it again."


@pytest.mark.parametrize(
    "wanted",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}},
        {"$id": 5, "$ref": "#"},
        {"type": 5},
        {"properties": 3},
        {"properties": {"a": {"multipleOf": 0}}},
        {"allOf": [[]]},
    ],
)
def test_a_schema_that_cannot_be_checked_accepts_nothing(wanted):
    request = SignalRequest("r", "s", schema=json.dumps(wanted))
    with pytest.raises(SignalInvalid, match=r"its JSON schema cannot be checked: .* Change the schema= "):
        accepted.check_value(request, {"a": 1})


@pytest.mark.parametrize(
    "wanted",
    [{"properties": 3}, {"properties": {"arguments": 3}}, {"properties": {"arguments": []}}, {"type": [3]}],
)
def test_what_to_type_needs_no_valid_schema(wanted):
    request = SignalRequest("r", "s", schema=json.dumps({"format": "approval", **wanted}))
    assert typed.hint(request).startswith("y | n")
    assert typed.editable_arguments(request) is None


@pytest.mark.parametrize("wanted", [{"pattern": r"^\p{L}+$"}, {"$ref": "#/nowhere"}])
def test_what_is_not_understood_is_left_to_the_waiting_call(wanted):
    assert reasons(wanted, "x") == []


PAGE = """
const none = () => {}
const methods = { append: none, setAttribute: none, addEventListener: none, replaceChildren: none }
const made = () => ({ ...methods, classList: { add: none } })
globalThis.document = { createElement: made }
const ask = ASK
const { field } = (FIELDS)(ask)
const count = top => 1 + (top.inner?.() ?? []).reduce((sum, one) => sum + count(one), 0)
console.log(count(field(ask.schema, undefined, true)))
"""
LINKS = {
    f"s{n}": {
        "type": "object",
        "required": ["a", "b"],
        "properties": {name: {"$ref": f"#/$defs/s{n + 1}"} for name in "ab"},
    }
    for n in range(40)
}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js: install node")
@pytest.mark.parametrize(
    "wanted",
    [
        {"$ref": "#"},
        {"$defs": LINKS, "$ref": "#/$defs/s0"},
        {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}},
        {"allOf": [{"$ref": "#"}]},
    ],
)
def test_a_form_has_an_end(wanted):
    fields = (files("durable_nb.notebook.prompts") / "fields.js").read_text(encoding="utf-8")
    page = PAGE.replace("ASK", json.dumps({"id": "x", "schema": wanted})).replace("FIELDS", fields)
    ran = subprocess.run(["node", "-e", page], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stderr == ""
    assert 1 <= int(ran.stdout) <= 2000

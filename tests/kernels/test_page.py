"""The prompt in a notebook's page, spoken to as its script does: over the kernel's control channel."""

import json
import re
import time

import pytest

from durable_nb import Workflow

OPEN = "%load_ext durable_nb\n%durable_workflow shop --db runs.db"
MODEL = """\
from pydantic import BaseModel, Field

class Address(BaseModel):
    street: str

class Order(BaseModel):
    amount: int = Field(3, le=10)
    address: Address

order = await wf.signal("order", schema=Order)
print(order)"""
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def kernel(kernel_factory):
    """A kernel as a Jupyter server starts it."""
    kernel = kernel_factory(JPY_SESSION_NAME="notebook.ipynb")
    kernel.run(OPEN)
    return kernel


def asked(kernel, cell):
    """Start a cell that asks; gives its request, the page's HTML and what its script was given."""
    request = kernel.start(cell, allow_stdin=True)
    deadline = time.monotonic() + 30
    while True:
        kernel._receive(deadline)
        for message in kernel._messages.get(request, ()):
            html = message["content"].get("data", {}).get("text/html", "")
            if found := re.search(r"\)\((\{\"id\".*\})\)</script>$", html, re.DOTALL):
                return request, html, json.loads(found[1])


def said(kernel, **content):
    """What the kernel replies to the page's script."""
    message = kernel.client.session.msg("durable_signal_request", content)
    kernel.client.control_channel.send(message)
    while True:
        reply = kernel.client.control_channel.get_msg(timeout=30)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            return reply["content"]


@pytest.mark.parametrize("call", ["await wf.signal('go')", "wf.sync.signal('go')"])
def test_an_answer_arrives_while_the_cell_awaits_or_blocks(kernel, call):
    request, html, ask = asked(kernel, f"print({call})")
    assert "durable-nb signal shop go VALUE --db" in html
    assert said(kernel, token=ask["token"]) == {"status": "open"}
    reply = said(kernel, token=ask["token"], value={"approved": True, "comment": ""})
    assert reply["status"] == "over"
    assert reply["text"].startswith("answered by process ")
    assert reply["text"].count(", in the notebook at ") == 1
    assert kernel.wait(request).text == "{'approved': True, 'comment': ''}\n"


def test_what_is_wrong_is_said_with_its_place(kernel):
    request, _, ask = asked(kernel, MODEL)
    reply = said(kernel, token=ask["token"], value={"amount": 11, "address": {}})
    assert reply["status"] == "invalid"
    assert sorted((one["path"], one["text"]) for one in reply["problems"]) == [
        (["address", "street"], "this field is required"),
        (["amount"], "11 is greater than the maximum of 10"),
    ]
    said(kernel, token=ask["token"], value={"amount": 1, "address": {"street": "Main"}})
    assert kernel.wait(request).text == "amount=1 address=Address(street='Main')\n"


def test_a_forged_answer_a_late_one_and_one_for_an_earlier_kernel_are_refused(kernel):
    request, _, ask = asked(kernel, "print(await wf.signal('go', choices=['yes', 'no']))")
    assert said(kernel, token="guessed", value="yes") == {"status": "unknown"}
    assert said(kernel, token=ask["token"], value="perhaps")["status"] == "invalid"
    said(kernel, token=ask["token"], value="no")
    assert kernel.wait(request).text == "no\n"
    late = said(kernel, token=ask["token"], value="yes")
    assert (late["status"], "answered by" in late["text"]) == ("over", True)
    kernel.sigkill()
    kernel.restart()
    assert kernel.run(f"{OPEN}\nprint(await wf.signal('go', choices=['yes', 'no']))").text == "no\n"
    assert said(kernel, token=ask["token"], value="yes") == {"status": "unknown"}


def test_answered_elsewhere_the_page_is_told_by_whom(kernel):
    request, _, ask = asked(kernel, "print(await wf.signal('go'))")
    with Workflow("outside", db=kernel.cwd / "runs.db") as wf:
        assert wf.sync.complete("shop", "go", 5)
    cell = kernel.wait(request)
    assert cell.text == "5\n"
    assert said(kernel, token=ask["token"])["status"] == "over"
    assert not any("dnb-form" in json.dumps(one) for one in cell.outputs), "the form is gone for good"


def test_what_users_wrote_cannot_leave_its_place(kernel):
    _, html, ask = asked(kernel, f"await wf.signal('go', prompt={HOSTILE!r}, choices=[{HOSTILE!r}])")
    assert (ask["title"], ask["choices"]) == (HOSTILE, [HOSTILE])
    assert "<img" not in html
    assert html.count("</script>") == 1
    kernel.interrupt()

"""Without the extra: what to install is said, and nothing else is affected."""

import subprocess
import sys

BLOCKED = """
import sys
sys.modules["pydantic_ai"] = None
import durable_nb
from durable_nb import Workflow
try:
    durable_nb.DurableAgent
except ImportError as error:
    print(error)
wf = Workflow("w", db="runs.db")
@wf.workflow(id="r")
def main():
    return 1
print(main())
"""


def test_the_import_error_says_what_to_install(tmp_path):
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    told = "durable agents need pydantic-ai 2.61 or newer: pip install 'durable_nb[pydantic-ai]'"
    assert done.stdout.splitlines() == [told, "1"]

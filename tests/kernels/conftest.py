"""Kernels for tests, shut down with them."""

import pytest

from helpers import pythonpath
from helpers.kernel import Kernel


@pytest.fixture
def kernel_factory(tmp_path):
    """Starts kernels: ``kernel_factory(cwd=..., NAME="value")``; by default in ``tmp_path/work``."""
    started = []

    def start(cwd=None, **env):
        if cwd is None:
            cwd = tmp_path / "work"
            cwd.mkdir(exist_ok=True)
        started.append(Kernel(cwd, tmp_path / f"home-{len(started)}", **env))
        return started[-1]

    yield start
    for kernel in started:
        kernel.shutdown()


@pytest.fixture
def kernel(kernel_factory):
    """One kernel in a directory of its own."""
    return kernel_factory()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    home = tmp_path_factory.mktemp("lasting")
    kernel = Kernel(home, home / "home")
    yield kernel
    kernel.shutdown()


@pytest.fixture
def shared(lasting, tmp_path):
    """A kernel for tests that kill none: one for all of a module, in a new directory and without a name."""
    lasting.move(tmp_path)
    return lasting


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A kernel with the magics of probe.py, one for all tests of a module."""
    home = tmp_path_factory.mktemp("probed")
    kernel = Kernel(home, home / "home", **pythonpath())
    kernel.run("%load_ext helpers.probe")
    yield kernel
    kernel.shutdown()

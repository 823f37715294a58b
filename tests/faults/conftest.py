"""Places where storing goes wrong, for real."""

import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path, missing):
    """A real file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        missing(f"mounting is not permitted here ({mounted.stderr.decode().strip()})", "run as root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)

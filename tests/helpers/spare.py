"""Interpreters that wait to become kernels: with what every kernel imports, before a test asks for one.

Each is a process of its own, with its own hash seed; nothing of this package nor of a user's libraries is
imported in it. It takes environment, directory and arguments as late as it can, and then runs what
``python -m ipykernel_launcher`` runs.
"""

import atexit
import json
import subprocess
import sys

WAIT = """
import contextlib, importlib, json, os, runpy, sys
for name in {modules}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
order = json.loads(sys.stdin.readline() or sys.exit())
os.environ.clear()
os.environ.update(order["env"])
os.chdir(order["cwd"])
sys.argv[1:] = order["arguments"]
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
"""
MODULES = (
    "ipykernel.kernelapp", "ipykernel.debugger", "IPython.core.debugger", "IPython.core.completerlib",
    "IPython.extensions.storemagic", "tornado.platform.asyncio",
)  # fmt: skip
AT_START = ("HOME", "LANG", "LC_", "LD_", "OMP_", "OPENBLAS_", "PYDEVD_", "PYTHON", "TZ")
"""How variables begin that are read before there is a kernel: with others a new interpreter is started."""

_waiting = {}


def _kind(python, env):
    return str(python), frozenset((name, value) for name, value in env.items() if name.startswith(AT_START))


def _interpreter(python, env):
    return subprocess.Popen(
        [python, "-c", WAIT.format(modules=MODULES)], cwd="/", env=env, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def prepare(env, python=sys.executable):
    """Have an interpreter wait, one at a time."""
    kind = _kind(python, env)
    if kind not in _waiting:
        dismiss()
        _waiting[kind] = _interpreter(python, env)


def launch(*arguments, cwd, env, python=sys.executable):
    """Start a kernel, in the interpreter that waits if there is one; gives the process."""
    process = _waiting.pop(_kind(python, env), None) or _interpreter(python, env)
    process.stdin.write(json.dumps({"env": env, "cwd": str(cwd), "arguments": arguments}) + "\n")
    process.stdin.close()
    return process


@atexit.register
def dismiss():
    """End what waits. Where this process is killed, it ends by itself: its input is closed."""
    for process in _waiting.values():
        process.kill()
        process.communicate()
    _waiting.clear()

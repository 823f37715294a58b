"""The user's code never notices us: durable cells do what the same cells do without the extension."""

import re

import pytest

from helpers import pythonpath
from helpers.kernel import Kernel

CASES = {
    "main": "import sys\n(__name__, sys.modules['__main__'].__dict__ is globals(), type(globals()), __doc__)",
    "pickle": """
        import pickle
        class Box:
            def __init__(self, x): self.x = x
        box = Box([1])
        ‖
        data = pickle.dumps(box); data
        ‖
        again = pickle.loads(data); (type(again) is Box, again.x, pickle.dumps(again) == data, Box.__module__)
        ‖
        pickle.dumps(Box), pickle.dumps(len)
        """,
    "random streams": """
        import random; random.seed(5); [random.random() for _ in range(3)]
        ‖
        import numpy as np; np.random.seed(5); np.random.rand(3)
        ‖
        rng = np.random.default_rng(5); [random.random(), np.random.rand(), rng.random()]
        ‖
        [random.random(), np.random.rand(), rng.random()]
        """,
    "unseeded streams": """
        import random, numpy as np; large = np.ones(9999)
        state, legacy = random.getstate(), np.random.get_state()[1].tolist()
        ‖
        large[0] = 2; (random.getstate() == state, np.random.get_state()[1].tolist() == legacy)
        """,
    "pyplot": """
        import matplotlib.pyplot as plt
        plt.plot([1, 2]); print(plt.get_fignums())
        ‖
        print(plt.get_fignums()); figure = plt.figure(); print(plt.get_fignums()); plt.gcf() is figure
        ‖
        print(plt.get_fignums()); plt.ioff(); kept, axes = plt.subplots(); plt.isinteractive()
        ‖
        plt.title('t'); print(plt.get_fignums(), len(kept.axes))
        """,
    "history": """
        40 + 1
        ‖
        _ + 1
        ‖
        (_, __, Out[max(Out)], len(In) - len(_ih), _oh is Out)
        ‖
        x = 5; None
        ‖
        _
        """,
    "warnings": """
        import warnings
        def careless(): warnings.warn('careful', stacklevel=1)
        careless(); careless()
        ‖
        careless()
        for _unused in range(2): warnings.warn('twice')
        ‖
        warnings.simplefilter('error')
        try: careless()
        except UserWarning as warning: print(repr(warning))
        ‖
        warnings.resetwarnings(); 'ab' is 'ab'
        """,
    "a traceback": """
        def inner(x):
            return 1 / x

        def outer(x):
            return inner(x)
        ‖
        before = 1
        outer(0)
        ‖
        (before, __import__('sys').last_type.__name__)
        ‖
        try: outer(0)
        except ZeroDivisionError: raise LookupError('gone') from None
        ‖
        await __import__('asyncio').sleep(0); {}['key']
        """,
    "source": """
        import inspect
        def documented():
            'words'
            return 1
        ‖
        print(inspect.getsource(documented)); documented?
        """,
    "memory": """
        import gc, weakref
        class Node: pass
        node = Node(); watched = weakref.ref(node)
        ‖
        del node; watched() is None
        ‖
        import sys; lone = [object()]; sys.getrefcount(lone), sys.getrefcount(lone[0])
        ‖
        sys.getrefcount(lone), sys.getrefcount(lone[0])
        """,
    "the loop": """
        import asyncio; loop = asyncio.get_running_loop(); type(asyncio.current_task()).__name__
        ‖
        async def late(): await asyncio.sleep(0); return asyncio.get_running_loop() is loop
        task = asyncio.create_task(late()); print(type(task).__name__, type(task).__module__)
        ‖
        await task, asyncio.get_running_loop() is loop
        """,
    "stdin is refused": "try: input('who?')\nexcept Exception as error: print(type(error).__name__)",
    "names": """
        before = set(globals())
        ‖
        sorted(set(globals()) - before - {'before'} - {n for n in globals() if n.startswith('_')})
        """,
}


def comparable(cell):
    """What a cell showed, without the numbers of this process and the magic's own line."""
    text = re.sub(r"\\x1b\[[\d;]*m|0x[0-9a-f]+", "", repr((cell.visible, cell.error)))
    text = re.sub(r"ipykernel_\d+/\d+", "ipykernel", text)
    return re.sub(r"1 # durable_step [\w-]+", "1 ", text)  # in a traceback the magic's line is empty


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """One kernel without the extension, one with; both have executed as many cells."""
    started = {}
    for name in ("plain", "durable"):
        home = tmp_path_factory.mktemp(name)
        started[name] = Kernel(home, home / "home", **pythonpath())
    started["plain"].run("%matplotlib inline")
    started["durable"].run(
        "%load_ext durable_nb\n%durable_workflow unnoticed --db runs.db\n%matplotlib inline"
    )
    yield started
    for kernel in started.values():
        kernel.shutdown()


@pytest.mark.parametrize("case", CASES)
def test_the_same_as_without_us(kernels, case):
    for number, indented in enumerate(CASES[case].split("‖")):
        name = f"{case.replace(' ', '-')}-{number}"
        body = "\n".join(line.removeprefix(" " * 8) for line in indented.strip().splitlines())
        plain = kernels["plain"].run(f"# durable_step {name}\n{body}")
        durable = kernels["durable"].run(f"%%durable_step {name}\n{body}")
        assert comparable(durable) == comparable(plain)
        assert durable.execution_count == plain.execution_count

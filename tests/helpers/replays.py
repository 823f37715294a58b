"""Durable cells in a kernel, and in the next one after that was killed."""

from dataclasses import dataclass

from . import pythonpath
from .kernel import Kernel


@dataclass(frozen=True)
class Pass:
    """A pass through the cells of a case.

    Attributes:
        actions: What was done with each cell.
        warned: The names that cannot be saved or restored.
        errors: The errors of the cells.
        holds: The value of the expression, as text.
    """

    actions: list
    warned: set
    errors: list
    holds: str


ORDINARY = "# ordinary\n"
"""The beginning of a cell that is no durable one."""


def _cell(number, body):
    return body if body.startswith(ORDINARY) else f"%%durable_step cell{number}\n{body}"


def play(kernel, name, cells, check):
    run_id = name.replace(" ", "-").replace(",", "")
    kernel.run(f"%reset -f\n%load_ext durable_nb\n%durable_workflow {run_id} --db {kernel.cwd / 'runs.db'}")
    done = [kernel.run(_cell(n, body)) for n, body in enumerate(cells)]
    lines = [line for cell in done for line in cell.told.splitlines()]
    warned = {line.split()[1] for line in lines if " is not saved" in line or " is not restored" in line}
    looked = kernel.run(f"print(bool({check}))")
    errors = [cell.error for cell in done]
    durable = [cell for cell, body in zip(done, cells, strict=True) if not body.startswith(ORDINARY)]
    actions = [None if cell.error else cell.facts["action"] for cell in durable]
    return Pass(actions, warned, errors, looked.text.strip() or looked.error)


def played_twice(home, cases):
    """Play each case in a kernel, and in the next one after that was killed.

    Args:
        home: A folder.
        cases: Its cells, the names that cannot be saved, and an expression that is true after them, by name.
    """
    kernel = Kernel(home, home / "home", **pythonpath())
    try:
        first = {name: play(kernel, name, cells, check) for name, (cells, _, check) in cases.items()}
        kernel.sigkill()
        kernel.restart()
        return {name: (first[name], play(kernel, name, cases[name][0], cases[name][2])) for name in cases}
    finally:
        kernel.shutdown()


def check_replayed(passes, case):
    """Check the two passes of a case: nothing ran twice, what is not saved is named, the expression holds."""
    cells, named, _ = case
    for one, action in zip(passes, ("executed", "replayed"), strict=True):
        assert one.errors == [None] * len(cells)
        assert set(one.actions) == {action}
        assert one.warned == named
        assert one.holds == "True"

"""Run a cell's body as IPython would run it, had it been the whole cell."""

from __future__ import annotations

import ast
import functools
import inspect
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, TracebackType
from typing import Any, Protocol

from durable_nb.concurrency import interrupts

__all__ = ["Shell", "awaited_magic", "execute", "guard_cells", "interruptible", "source_as_run"]


class Shell(Protocol):
    """What is used of IPython's ``InteractiveShell``."""

    ast_node_interactivity: str
    builtin_trap: Any
    compile: Any
    display_trap: Any
    displayhook: Any
    execution_count: int
    user_global_ns: dict[str, Any]
    user_ns: dict[str, Any]
    InteractiveTB: Any

    def transform_cell(self, raw_cell: str) -> str:
        """The Python that IPython makes of a cell."""

    def transform_ast(self, node: ast.Module) -> ast.Module:
        """The tree after the user's transformers."""


def awaited_magic(name: str) -> Callable[[list[str]], list[str]]:
    """A post input transformer that awaits the cell magic of a name, which is then a coroutine function.

    A body that does not compile is handed back alone, so that its error looks like any other cell's.

    Args:
        name: The cell magic's name, without ``%%``.

    Returns:
        What to append to ``shell.input_transformers_post``; harmless when appended twice.
    """
    call = f"get_ipython().run_cell_magic({name!r},"

    def transform(lines: list[str]) -> list[str]:
        first = next((i for i, line in enumerate(lines) if not _is_blank_or_comment(line)), None)
        if first is None or not lines[first].startswith(call):
            return lines
        body = _body_of(lines[first])
        if body is not None and not _compiles(source := _numbered(_ipython(), body)):
            return source.splitlines(keepends=True)
        return [*lines[:first], f"await {lines[first]}", *lines[first + 1 :]]

    return transform


def source_as_run(shell: Shell, body: str) -> str:
    """The Python that a body is executed as: magics and ``!commands`` turned into calls."""
    return shell.transform_cell(body)


async def execute(shell: Shell, body: str) -> None:
    """Run a cell's body in the user's namespace, statement by statement, and show its last expression.

    Args:
        shell: The IPython shell.
        body: What stands below the magic's line.

    Raises:
        BaseException: Whatever the body raised; IPython will show the user's frames alone.
    """
    source = _numbered(shell, body)
    number, raw_cell = _current_cell(shell, body)
    # Named after the whole cell, as the front end's debugger names it: breakpoints work.
    name = shell.compile.cache(source, number, raw_code=raw_cell)
    try:
        tree = shell.transform_ast(shell.compile.ast_parse(source, filename=name))
        with shell.builtin_trap, shell.display_trap:
            for node, mode in _modes(tree.body, _interactivity(shell, source)):
                await _run(shell, _compile(shell, node, name, mode))
    except BaseException as error:
        _show_users_frames_only(error)
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT end a cell's body at once; IPython will show the user's frames alone."""
    try:
        with interrupts.guarded():
            yield
    except KeyboardInterrupt as interrupt:
        _show_users_frames_only(interrupt)
        raise


def guard_cells(shell: Any) -> None:
    """Have an interrupt end an ordinary cell that awaits at once: ipykernel waits until its loop wakes."""
    shell.events.register("pre_run_cell", _guard_cell)
    shell.events.register("post_run_cell", _unguard_cell)


def _guard_cell(*_: object) -> None:
    task = interrupts.running_task()
    previous = signal.getsignal(signal.SIGINT)
    # ipykernel sets a handler of its own for a cell that awaits, and runs that one as a task.
    if task is not None and inspect.isroutine(previous) and previous is not signal.default_int_handler:
        guard = _CellGuard(task, previous)
        guard.enter()
        signal.signal(signal.SIGINT, guard.interrupt)


def _unguard_cell(*_: object) -> None:
    guard = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if isinstance(guard, _CellGuard):
        guard.active = False
        signal.signal(signal.SIGINT, guard.previous)


class _CellGuard(interrupts.Guard):
    """The guard of a whole ordinary cell; a durable cell has one of its own."""

    replaceable = True

    def _may_raise(self, frame: Any) -> bool:
        return _in_users_code(frame)


def _in_users_code(frame: Any) -> bool:
    # Only there IPython catches a KeyboardInterrupt, which would end the loop.
    while frame is not None and frame.f_code.co_name != "run_code":
        frame = frame.f_back
    return frame is not None


def _ipython() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _is_blank_or_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _body_of(call: str) -> str | None:
    try:
        match ast.parse(call).body:
            case [ast.Expr(ast.Call(args=[_, _, ast.Constant(str(body))]))]:
                return body
    except SyntaxError:
        pass
    return None


def _numbered(shell: Shell, body: str) -> str:
    # IPython strips blank lines at the top; the magic's line stands above the body. Both count.
    lines = body.splitlines()
    blank = next((i for i, line in enumerate(lines) if line.strip()), 0)
    return "\n" * (1 + blank) + source_as_run(shell, body)


def _compiles(source: str) -> bool:
    flags = _ipython().compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the body is compiled to be run
        try:
            compile(source, "<cell>", "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            return False
    return True


def _current_cell(shell: Shell, body: str) -> tuple[int, str]:
    cell = shell.displayhook.exec_result
    if cell is None:  # code that calls back into run_cell leaves none
        return shell.execution_count - 1, body
    return cell.execution_count, cell.info.raw_cell


def _interactivity(shell: Shell, source: str) -> str:
    # IPython's own check for a last `;` looks at the whole cell, which is a call of the magic.
    cell = shell.displayhook.exec_result
    silent = cell is not None and cell.info.silent
    if silent or shell.displayhook.semicolon_at_end_of_expression(source):
        return "none"
    return shell.ast_node_interactivity


def _modes(nodes: list[ast.stmt], interactivity: str) -> Iterator[tuple[ast.stmt, str]]:
    if interactivity == "last_expr_or_assign":
        nodes = [*nodes, *_assigned_name(nodes)]
    last = len(nodes) - 1
    for i, node in enumerate(nodes):
        shown = interactivity == "all" or (
            i == last and (interactivity == "last" or isinstance(node, ast.Expr)) and interactivity != "none"
        )
        yield node, "single" if shown else "exec"


def _assigned_name(nodes: list[ast.stmt]) -> list[ast.Expr]:
    match nodes[-1:]:
        case [
            ast.Assign(targets=[ast.Name(name) as target])
            | ast.AugAssign(target=ast.Name(name) as target)
            | ast.AnnAssign(target=ast.Name(name) as target)
        ]:
            return [
                ast.fix_missing_locations(ast.copy_location(ast.Expr(ast.Name(name, ast.Load())), target))
            ]
    return []


def _compile(shell: Shell, node: ast.stmt, name: str, mode: str) -> CodeType:
    tree = ast.Interactive([node]) if mode == "single" else ast.Module([node], [])
    with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
        code: CodeType = shell.compile(tree, name, mode)
    return code


async def _run(shell: Shell, code: CodeType) -> None:
    __tracebackhide__ = "__ipython_bottom__"  # %debug starts below us
    outcome = eval(code, shell.user_global_ns, shell.user_ns)  # noqa: S307 - the user's own code
    if code.co_flags & inspect.CO_COROUTINE:
        await outcome


def _show_users_frames_only(error: BaseException) -> None:
    # Past a __setattr__ of the user's; picklable, for an error that is saved or sent elsewhere.
    if not hasattr(error, "_render_traceback_"):
        error.__dict__["_render_traceback_"] = functools.partial(_render, error)


def _render(error: BaseException) -> list[str]:
    frames = _users_frames(error.__traceback__)
    shown: list[str] = _ipython().InteractiveTB.structured_traceback(type(error), error, frames, tb_offset=0)
    return shown


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    first = entry = frames
    while entry is not None:
        if entry.tb_frame.f_code is _run.__code__:
            first = entry.tb_next or first
        if entry.tb_next is not None and entry.tb_next.tb_frame.f_code is interrupts.Guard.interrupt.__code__:
            entry.tb_next = None
        entry = entry.tb_next
    return first

"""Run the body of a durable cell as IPython would run it if it were the whole cell."""

from __future__ import annotations

import ast
import functools
import inspect
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from types import CodeType, TracebackType
from typing import Any, Protocol

from durable_nb.concurrency import interrupts
from durable_nb.engine import scopes
from durable_nb.errors.redaction import redacted_message

__all__ = [
    "ContextVarCarrier",
    "Shell",
    "awaited_magic",
    "execute",
    "guard_cells",
    "interruptible",
    "is_marked_now",
    "source_as_run",
]


_as_typed: ContextVar[bool] = ContextVar("durable_nb_as_typed", default=False)
_NO_AWAIT = "%%{} needs top-level await, which is off in this shell. To turn it on: %autoawait asyncio"


class Shell(Protocol):
    """The attributes of IPython's ``InteractiveShell`` that are used here."""

    ast_node_interactivity: str
    autoawait: bool
    builtin_trap: Any
    compile: Any
    display_trap: Any
    displayhook: Any
    execution_count: int
    input_transformers_cleanup: list[Any]
    input_transformers_post: list[Any]
    user_global_ns: dict[str, Any]
    user_ns: dict[str, Any]
    InteractiveTB: Any

    def __hash__(self) -> int:
        """Return a number of the shell itself: there is one in a process."""

    def transform_cell(self, raw_cell: str) -> str:
        """Return the Python that IPython makes of a cell."""

    def transform_ast(self, node: ast.Module) -> ast.Module:
        """Return the tree after the user's transformers."""


def awaited_magic(name: str) -> Callable[[list[str]], list[str]]:
    """Return a post input transformer that awaits a cell magic whose function is a coroutine function.

    If the body does not compile, the cell is replaced by its body: the error is shown as for any other cell.

    Args:
        name: The cell magic's name, without ``%%``.

    Returns:
        A transformer to append to ``shell.input_transformers_post``; appending it twice is harmless.
    """
    call = f"get_ipython().run_cell_magic({name!r},"

    def transform(lines: list[str]) -> list[str]:
        first = next((i for i, line in enumerate(lines) if line.startswith(call)), None)
        if first is None:
            return lines
        found, shell = _call_of(lines[first]), _ipython()
        if found is not None and not _compiles(shell, source := _numbered(shell, *found)):
            return source.splitlines(keepends=True)
        if not shell.autoawait:
            refusal = _NO_AWAIT.format(name)
            return ["from IPython.core.error import UsageError\n", f"raise UsageError({refusal!r})\n"]
        return [*lines[:first], f"await {lines[first]}", *lines[first + 1 :]]

    return transform


def source_as_run(shell: Shell, body: str) -> str:
    """Return the Python that a body is executed as: magics and ``!commands`` become calls."""
    transformers = *shell.input_transformers_cleanup, *shell.input_transformers_post
    return _transformed(shell, body, *map(id, transformers))


@functools.lru_cache(maxsize=2)  # the same cell is asked for some seven times
def _transformed(shell: Shell, body: str, *_transformers: int) -> str:
    token = _as_typed.set(True)
    try:
        return shell.transform_cell(body)
    finally:
        _as_typed.reset(token)


def is_marked_now() -> bool:
    """Return whether unmarked cells become durable where a cell is transformed now: not those of a body."""
    return not _as_typed.get() and scopes.current_scope() is None


async def execute(shell: Shell, body: str, *, marked: bool = True) -> None:
    """Run a cell's body in the user's namespace, statement by statement, and show its last expression.

    Args:
        shell: The IPython shell.
        body: The text of the cell, below the magic's line if it has one.
        marked: Whether it has one.

    Raises:
        BaseException: Any exception of the body; IPython will show only the user's frames.
    """
    source = _numbered(shell, body, marked=marked)
    number, raw_cell = _current_cell(shell, body)
    # Named after the whole cell, as in the front end's debugger, so that breakpoints work.
    name = shell.compile.cache(source, number, raw_code=raw_cell)
    try:
        tree = shell.transform_ast(shell.compile.ast_parse(source, filename=name))
        with shell.builtin_trap, shell.display_trap:
            for node, mode in _modes(tree.body, _interactivity(shell, source)):
                await _run(shell, _compile(shell, node, name, mode))
    except BaseException as error:
        _hide_package_frames(error)
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt a cell's body at once; IPython will show only the user's frames."""
    try:
        with interrupts.guarded():
            yield
    except KeyboardInterrupt as interrupt:
        _hide_package_frames(interrupt)
        raise


class ContextVarCarrier:
    """Copies context variables that a durable cell sets from the cell's task to the shell's context.

    numpy's print options and the first decimal context are context variables, and a cell that is awaited has
    a context of its own. An ordinary cell that is not awaited sets them for all later cells.

    Example:
        >>> carrier = ContextVarCarrier()
        >>> with carrier.collecting():  # in the task of a cell
        ...     numpy.set_printoptions(precision=3)
        >>> carrier.apply()  # outside of it
    """

    def __init__(self) -> None:
        self._changed: dict[ContextVar[Any], Any] = {}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect the context variables that the block sets, whether it succeeds or fails."""
        before = dict(copy_context().items())
        try:
            yield
        finally:
            after = copy_context().items()
            self._changed = {
                var: value for var, value in after if var not in before or before[var] is not value
            }

    def apply(self, *_: object) -> None:
        """Set the collected variables in the current context, once: a ``post_run_cell`` callback."""
        for var, value in self._changed.items():
            var.set(value)
        self._changed = {}


def guard_cells(shell: Any) -> None:
    """Let SIGINT interrupt an ordinary cell that awaits at once; ipykernel waits until its loop wakes."""
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
    """The interrupt guard of an ordinary cell; a durable cell has its own."""

    replaceable = True

    def _may_raise(self, frame: Any) -> bool:
        return _in_users_code(frame)


def _in_users_code(frame: Any) -> bool:
    # IPython catches a KeyboardInterrupt only there; elsewhere it would end the loop.
    while frame is not None and frame.f_code.co_name != "run_code":
        frame = frame.f_back
    return frame is not None


def _ipython() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _call_of(call: str) -> tuple[str, bool] | None:
    """Return the body that a call of the magic is given, and whether the magic's line names a step."""
    try:
        match ast.parse(call).body:
            case [ast.Expr(ast.Call(args=[_, ast.Constant(str(line)), ast.Constant(str(body))]))]:
                return body, bool(line)
    except SyntaxError:
        pass
    return None


def _numbered(shell: Shell, body: str, marked: bool) -> str:
    # For line numbers, count the blank lines that IPython strips at the top, and the magic's line.
    lines = body.splitlines()
    blank = next((i for i, line in enumerate(lines) if line.strip()), 0)
    return "\n" * (marked + blank) + source_as_run(shell, body)


def _compiles(shell: Shell, source: str) -> bool:
    """Return whether a body compiles as IPython would compile it: each statement by itself."""
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown when the body is compiled to be run
        try:
            for node in shell.compile.ast_parse(source).body:
                compile(ast.Module([node], []), "<cell>", "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            return False
    return True


def _current_cell(shell: Shell, body: str) -> tuple[int, str]:
    cell = shell.displayhook.exec_result
    if cell is None:  # code that calls run_cell resets it
        return shell.execution_count - 1, body
    return cell.execution_count, cell.info.raw_cell


def _interactivity(shell: Shell, source: str) -> str:
    # IPython checks the whole cell for a final `;`, which here is a call of the magic.
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


def _hide_package_frames(error: BaseException) -> None:
    # Through __dict__ to bypass a user-defined __setattr__; picklable, since errors are saved or sent.
    if not hasattr(error, "_render_traceback_"):
        error.__dict__["_render_traceback_"] = functools.partial(_render, error)


def _render(error: BaseException) -> list[str]:
    frames = _users_frames(error.__traceback__)
    shown: list[str] = _ipython().InteractiveTB.structured_traceback(type(error), error, frames, tb_offset=0)
    return list(map(redacted_message, shown))


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    first = entry = frames
    while entry is not None:
        if entry.tb_frame.f_code is _run.__code__:
            first = entry.tb_next or first
        if entry.tb_next is not None and entry.tb_next.tb_frame.f_code is interrupts.Guard.interrupt.__code__:
            entry.tb_next = None
        entry = entry.tb_next
    return first

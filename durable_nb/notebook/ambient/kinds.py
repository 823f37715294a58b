"""The kinds of ambient state: how each is read, compared, saved and restored."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from IPython.core.getipython import get_ipython

from durable_nb.errors.redaction import SENSITIVE, secret_in
from durable_nb.notebook.ambient import loggers, patches, shell_state

__all__ = ["KINDS", "PATCHES", "NotKeptError", "secrets"]

PATCHES: Final = "what was set in modules"
"""A kind that is found by the attributes a cell assigns to: modules hold too much to be compared."""

_WITHOUT_WINDOWS: Final = ("agg", "cairo", "pdf", "pgf", "ps", "svg")
"""matplotlib's backends that work in every front end."""

_INLINE: Final = "matplotlib_inline.backend_inline"
"""The module that shows figures in a notebook."""


class NotKeptError(Exception):
    """The reason why a kind of state is not saved, or not restored."""


class Kind(NamedTuple):
    """One kind of ambient state.

    Attributes:
        name: Its name in messages and in checkpoints: never rename it.
        module: The module that holds it. The state is read if that is loaded; restoring it imports it.
        read: Returns a copy of the state that can be compared, given the module.
        put: Restores the state from the output of `change`, given the module.
        change: Returns the data to save, given the state before and after.
        fresh: Returns the initial state of a module that the cell itself imported; None if unknown.
        before_names: Whether imports depend on it, so that it is restored before the names.
    """

    name: str
    module: str
    read: Callable[[Any], Any]
    put: Callable[[Any, Any], object]
    change: Callable[[Any, Any], Any] = lambda _, after: after
    fresh: Callable[[Any], Any] = lambda _: None
    before_names: bool = False


# The environment, and other state that imports depend on.


def _entries(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    known = before or {}
    changed = {key: value for key, value in after.items() if key not in known or known[key] != value}
    return changed, [key for key in known if key not in after]


def _variables(before: dict[str, str], after: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    changed, deleted = _entries(before, after)
    return {name: text for name, text in changed.items() if not secret_in(name, text)}, deleted


def secrets(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Return why environment variables that changed are not saved: their names mark them as secrets."""
    changed, _ = _entries(before.get("environment"), after.get("environment", {}))
    return {f"os.environ[{name!r}]": SENSITIVE for name, text in changed.items() if secret_in(name, text)}


def _put_variables(module: Any, change: tuple[dict[str, str], list[str]]) -> None:
    module.environ.update(change[0])
    for name in change[1]:
        module.environ.pop(name, None)


def _put_path(module: Any, change: tuple[list[str], list[str]]) -> None:
    """Set the saved path; if the path differs from the one before the cell, repeat the cell's changes."""
    before, after = change
    now = list(module.path)
    if now not in (before, after):
        new = [entry for entry in after if entry not in before]
        first = next((i for i, entry in enumerate(after) if entry in before), len(after))
        removed = {entry for entry in before if entry not in after}
        kept = [entry for entry in now if entry not in removed and entry not in new]
        after = [*after[:first], *kept, *(entry for entry in after[first:] if entry in new)]
    module.path[:] = after


# Python's own modules.


def _put_filters(module: Any, filters: list[Any]) -> None:
    module.filters[:] = filters
    with module.catch_warnings():
        pass  # leaving the block makes Python read the filters again


def _put_decimal(module: Any, arguments: tuple[Any, ...]) -> None:
    # In place, as `getcontext().prec = 50` does: a context set for this task alone ends with the cell.
    saved, context = module.Context(*arguments), module.getcontext()
    for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
        setattr(context, name, getattr(saved, name))
    context.flags.update(saved.flags)
    context.traps.update(saved.traps)


# Libraries.


def _read_numpy(module: Any) -> Any:
    state = module.get_state(legacy=False)
    plain = {
        key: value.tolist() if hasattr(value, "tolist") else value for key, value in state["state"].items()
    }
    return {**state, "state": plain}


def _put_torch(module: Any, state: bytes) -> None:
    torch = sys.modules["torch"]
    module.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _options(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}  # read raw: pandas warns when a deprecated option is read
    for key, value in nested.items():
        flat |= _options(value, f"{prefix}{key}.") if type(value) is dict else {prefix + key: value}
    return flat


def _put_options(module: Any, change: tuple[dict[str, Any], list[str]]) -> None:
    for key, value in change[0].items():
        module.set_option(key, value)


def _params(params: Any) -> dict[str, Any]:
    # Read raw: reading the backend makes matplotlib select one, which is left to the front end.
    return {key: value for key, value in dict.items(params) if key not in ("backend", "backend_fallback")}


def _read_backend(module: Any) -> str | None:
    backend = dict.get(module.rcParams, "backend")
    if not isinstance(backend, str):
        return None
    return "inline" if backend == f"module://{_INLINE}" else backend.lower()


def _put_backend(module: Any, backend: str | None) -> None:
    if backend is None or backend == _read_backend(module):
        return
    if backend not in _WITHOUT_WINDOWS:
        raise NotKeptError(f"the backend was {backend}; select it with %matplotlib")
    module.use(backend)


def _is_inline_loaded(_module: Any) -> bool:
    return _INLINE in sys.modules


def _load_inline(_module: Any, is_loaded: bool) -> None:
    """Load the inline backend, if a cell did: it reads its options then, and not again when these change."""
    if is_loaded:
        importlib.import_module(_INLINE)


def _inline_options(module: Any, options: Any = None) -> dict[str, Any]:
    kind = module.InlineBackend
    options = options or (kind.instance() if kind.initialized() else kind(parent=get_ipython()))
    return {name: copy.copy(getattr(options, name)) for name in options.trait_names(config=True)}


def _put_inline_options(module: Any, change: tuple[dict[str, Any], list[str]]) -> None:
    shell = get_ipython()
    options = module.InlineBackend.instance(parent=shell)  # used by the backend if it is loaded later
    options.shell = shell
    for name, value in sorted(change[0].items()):  # `figure_format` would set `figure_formats`
        setattr(options, name, value)


_SHELL: Final = "IPython.core.interactiveshell"

KINDS: Final = (
    Kind(
        "environment",
        "os",
        lambda module: dict(module.environ),
        _put_variables,
        _variables,
        before_names=True,
    ),
    Kind(
        "working directory",
        "os",
        lambda module: module.getcwd(),
        lambda module, path: module.chdir(path),
        before_names=True,
    ),
    Kind(
        "sys.path",
        "sys",
        lambda module: list(module.path),
        _put_path,
        lambda before, after: (before, after),
        before_names=True,
    ),
    Kind(
        "random's generator",
        "random",
        lambda module: module.getstate(),
        lambda module, state: module.setstate(state),
    ),
    Kind(
        "numpy's global generator",
        "numpy.random",
        _read_numpy,
        lambda module, state: module.set_state(state),
    ),
    Kind(
        "torch's generator",
        "torch.random",
        lambda module: module.get_rng_state().numpy().tobytes(),
        _put_torch,
    ),
    Kind("warnings' filters", "warnings", lambda module: list(module.filters), _put_filters),
    Kind(
        "recursion limit",
        "sys",
        lambda module: module.getrecursionlimit(),
        lambda module, limit: module.setrecursionlimit(limit),
    ),
    Kind("loggers' levels", "logging", loggers.levels, loggers.put_levels, _entries),
    Kind(
        "what loggers write to", "logging", loggers.handlers, loggers.put_handlers, loggers.changed_handlers
    ),
    Kind(
        "decimal's context",
        "decimal",
        lambda module: module.getcontext().__reduce__()[1],
        _put_decimal,
    ),
    Kind(
        "locale",
        "locale",
        lambda module: module.setlocale(module.LC_ALL),
        lambda module, name: module.setlocale(module.LC_ALL, name),
    ),
    # It sets an option of numpy as well, which the cell may have set to another value.
    Kind("precision of floats", _SHELL, shell_state.precision, shell_state.put_precision),
    Kind(
        "numpy's print options",
        "numpy",
        lambda module: module.get_printoptions(),
        lambda module, options: module.set_printoptions(**options),
    ),
    Kind(
        "numpy's error state",
        "numpy",
        lambda module: module.geterr(),
        lambda module, state: module.seterr(**state),
    ),
    Kind(
        "pandas' options",
        "pandas._config.config",
        lambda module: _options(module._global_config),  # noqa: SLF001 - pandas names no other
        _put_options,
        _entries,
        lambda module: {key: option.defval for key, option in module._registered_options.items()},  # noqa: SLF001
    ),
    Kind(
        "matplotlib's rcParams",
        "matplotlib",
        lambda module: _params(module.rcParams),
        lambda module, change: module.rcParams.update(change[0]),
        _entries,
        lambda module: _params(module.rcParamsOrig),
    ),
    Kind(
        "scikit-learn's options",
        "sklearn._config",
        lambda module: module.get_config(),
        lambda module, change: module.set_config(**change[0]),
        _entries,
        lambda module: dict(module._global_config),  # noqa: SLF001 - scikit-learn names no other
    ),
    Kind(
        "which expressions are shown",
        "IPython.core.interactiveshell",
        lambda _: getattr(get_ipython(), "ast_node_interactivity", None),
        lambda _, which: setattr(get_ipython(), "ast_node_interactivity", which),
    ),
    Kind(
        "__future__ features of cells",
        _SHELL,
        shell_state.compiler_flags,
        shell_state.put_compiler_flags,
    ),
    Kind("configuration", _SHELL, shell_state.configuration, shell_state.put_configuration, _entries),
    Kind("mode of tracebacks", _SHELL, shell_state.error_mode, shell_state.put_error_mode),
    Kind("formatters", _SHELL, shell_state.formatters, shell_state.put_formatters, _entries),
    Kind("aliases", _SHELL, shell_state.aliases, shell_state.put_aliases, _entries),
    Kind(
        "extensions",
        _SHELL,
        shell_state.extensions,
        shell_state.put_extensions,
        lambda before, after: [name for name in after if name not in (before or ())],
        before_names=True,
    ),
    Kind("magics", _SHELL, shell_state.magics, shell_state.put_magics, _entries),
    Kind(PATCHES, "sys", lambda _: None, patches.put),
    Kind("matplotlib's backend", "matplotlib", _read_backend, _put_backend, before_names=True),
    Kind(
        "the inline backend",
        "matplotlib",
        _is_inline_loaded,
        _load_inline,
        fresh=lambda _: False,
        before_names=True,
    ),
    Kind(
        "inline figures' options",
        "matplotlib_inline.config",
        _inline_options,
        _put_inline_options,
        _entries,
        lambda module: _inline_options(module, module.InlineBackend()),
    ),
    Kind(
        "formats of figures",
        "matplotlib.figure",
        shell_state.figure_formats,
        shell_state.put_figure_formats,
        fresh=lambda _: {},
    ),
)
"""All kinds, in the order in which they are restored."""

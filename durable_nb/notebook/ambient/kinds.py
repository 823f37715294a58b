"""The kinds of ambient state: where each lives, how to look at it, what to save, how to put it back."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from IPython.core.getipython import get_ipython

from durable_nb import fingerprint
from durable_nb.notebook.ambient import loggers, patches

__all__ = ["KINDS", "PATCHES", "NotKeptError", "secrets"]

PATCHES: Final = "what was set in modules"
"""A kind that is looked at by what a cell stores into: modules hold too much to be compared."""

_WITHOUT_WINDOWS: Final = ("agg", "cairo", "pdf", "pgf", "ps", "svg")
"""matplotlib's backends that work in every front end."""


class NotKeptError(Exception):
    """Says of a kind of state why it is not saved, or not put back."""


class Kind(NamedTuple):
    """One kind of ambient state.

    Attributes:
        name: What people read.
        module: Where it lives: looked at where that is loaded, imported to put it back.
        look: Gives a copy of it that can be compared, by the module.
        put: Puts back what `change` gave, by the module.
        change: What to save, by how it was and how it is.
        fresh: How it was for a module that the cell itself imported; None if nobody can say.
        before_names: Whether importing depends on it.
    """

    name: str
    module: str
    look: Callable[[Any], Any]
    put: Callable[[Any, Any], object]
    change: Callable[[Any, Any], Any] = lambda _, after: after
    fresh: Callable[[Any], Any] = lambda _: None
    before_names: bool = False


# The environment, and what importing depends on.


def _entries(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    known = before or {}
    changed = {key: value for key, value in after.items() if key not in known or known[key] != value}
    return changed, [key for key in known if key not in after]


def _variables(before: dict[str, str], after: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    changed, deleted = _entries(before, after)
    return {name: text for name, text in changed.items() if not fingerprint.is_secret(name)}, deleted


def secrets(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Say of environment variables that changed, and are secrets by their names, that they are not saved."""
    changed, _ = _entries(before.get("environment"), after.get("environment", {}))
    why = "by its name it is a secret"
    return {f"os.environ[{name!r}]": why for name in changed if fingerprint.is_secret(name)}


def _put_variables(module: Any, change: tuple[dict[str, str], list[str]]) -> None:
    module.environ.update(change[0])
    for name in change[1]:
        module.environ.pop(name, None)


def _put_path(module: Any, change: tuple[list[str], list[str]]) -> None:
    """The very path where it is as it was; elsewhere add to both its ends and remove, as the cell did."""
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
        pass  # leaving it has the filters read anew


def _put_decimal(module: Any, arguments: tuple[Any, ...]) -> None:
    # In place, as `getcontext().prec = 50` does: what is set for this task alone is gone with the cell.
    saved, context = module.Context(*arguments), module.getcontext()
    for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
        setattr(context, name, getattr(saved, name))
    context.flags.update(saved.flags)
    context.traps.update(saved.traps)


# Libraries.


def _look_at_numpy(module: Any) -> Any:
    state = module.get_state(legacy=False)
    plain = {
        key: value.tolist() if hasattr(value, "tolist") else value for key, value in state["state"].items()
    }
    return {**state, "state": plain}


def _put_torch(module: Any, state: bytes) -> None:
    torch = sys.modules["torch"]
    module.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _options(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}  # read raw: pandas warns of a deprecated option that is asked for
    for key, value in nested.items():
        flat |= _options(value, f"{prefix}{key}.") if type(value) is dict else {prefix + key: value}
    return flat


def _put_options(module: Any, change: tuple[dict[str, Any], list[str]]) -> None:
    for key, value in change[0].items():
        module.set_option(key, value)


def _params(params: Any) -> dict[str, Any]:
    # Read raw: matplotlib chooses a backend when it is asked for. Which one is the front end's affair.
    return {key: value for key, value in dict.items(params) if key not in ("backend", "backend_fallback")}


def _look_at_backend(module: Any) -> str | None:
    backend = dict.get(module.rcParams, "backend")
    if not isinstance(backend, str):
        return None
    return "inline" if backend == "module://matplotlib_inline.backend_inline" else backend.lower()


def _put_backend(module: Any, backend: str | None) -> None:
    if backend is None or backend == _look_at_backend(module):
        return
    if backend not in _WITHOUT_WINDOWS:
        raise NotKeptError(f"it was {backend}; %matplotlib chooses it")
    module.use(backend)


def _inline_options(module: Any, options: Any = None) -> dict[str, Any]:
    kind = module.InlineBackend
    options = options or (kind.instance() if kind.initialized() else kind())
    return {name: copy.copy(getattr(options, name)) for name in options.trait_names(config=True)}


def _put_inline_options(module: Any, change: tuple[dict[str, Any], list[str]]) -> None:
    shell = get_ipython()
    options = module.InlineBackend.instance(parent=shell)  # which the backend will take, if it comes later
    options.shell = shell
    for name, value in sorted(change[0].items()):  # `figure_format` would set `figure_formats`
        setattr(options, name, value)


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
        _look_at_numpy,
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
    Kind(PATCHES, "sys", lambda _: None, patches.put),
    Kind("matplotlib's backend", "matplotlib", _look_at_backend, _put_backend, before_names=True),
    Kind(
        "inline figures' options",
        "matplotlib_inline.config",
        _inline_options,
        _put_inline_options,
        _entries,
        lambda module: _inline_options(module, module.InlineBackend()),
    ),
)
"""In the order in which they are put back."""

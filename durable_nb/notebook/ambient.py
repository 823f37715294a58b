"""State outside the namespace that a cell changed: random streams, the environment, options of libraries.

`take` notes how it is before a cell, `Snapshot.changes` pickles what the cell changed, and `restore` puts it
back: what importing depends on before the names, the rest after them. Only modules that are loaded are
looked at. What cannot be saved or put back is named, and takes nothing else along.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from durable_nb import fingerprint
from durable_nb.notebook.pickling import Saver, load, reason

__all__ = ["Saved", "Snapshot", "restore", "take"]


class NotKeptError(Exception):
    """Says of a kind of state why it is not saved, or not put back."""


class _Kind(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Saved:
    """What a cell changed, as bytes.

    Attributes:
        pickled: By the name of its kind.
        unsaved: Why other state that the cell changed is not saved.
    """

    pickled: dict[str, bytes]
    unsaved: dict[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """Describe the parts in what JSON can hold."""
        return {"kinds": list(self.pickled), "unsaved": self.unsaved}

    @property
    def parts(self) -> list[bytes]:
        """The bytes, in the order the header gives."""
        return list(self.pickled.values())

    @classmethod
    def from_parts(cls, header: dict[str, Any], parts: Sequence[bytes | memoryview]) -> Self:
        """Put together what `header` and `parts` took apart; its parts are the last ones."""
        kinds = header["kinds"]
        mine = map(bytes, parts[len(parts) - len(kinds) :])
        return cls(dict(zip(kinds, mine, strict=True)), dict(header["unsaved"]))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the state was before a cell, by the name of its kind."""

    _before: dict[str, Any] = field(repr=False)

    def changes(self, user_ns: dict[str, Any]) -> Saved:
        """Pickle what is not as it was; what cannot be is named.

        Args:
            user_ns: The namespace, which functions among the state refer to.
        """
        after, unsaved = _look()
        pickled = {}
        for kind in _KINDS:
            if kind.name not in after:
                continue
            before = self._before.get(kind.name)
            before = kind.fresh(sys.modules[kind.module]) if before is None else before
            if before != after[kind.name]:
                saver = Saver(user_ns, {})
                try:
                    pickled[kind.name], _ = saver.save(kind.change(before, after[kind.name]))
                except Exception as error:
                    unsaved[kind.name] = _why(saver.culprit, error)
        return Saved(pickled, unsaved | _secrets(self._before, after))


def take() -> Snapshot:
    """Note how the state is before a cell; draws from no random stream."""
    return Snapshot(_look()[0])


def restore(user_ns: dict[str, Any], saved: Saved, *, before_names: bool) -> dict[str, str]:
    """Put saved state back; gives why some of it could not be, by kind.

    Args:
        user_ns: The live namespace.
        saved: What `Snapshot.changes` gave.
        before_names: Whether to put back what importing depends on, or the rest.
    """
    failed = {}
    for kind in _KINDS:
        if kind.name in saved.pickled and kind.before_names == before_names:
            try:
                kind.put(importlib.import_module(kind.module), load(saved.pickled[kind.name], (), user_ns))
            except Exception as error:
                failed[kind.name] = _why(None, error)
    return failed


def _look() -> tuple[dict[str, Any], dict[str, str]]:
    found, failed = {}, {}
    for kind in _KINDS:
        if kind.module in sys.modules:
            try:
                found[kind.name] = kind.look(sys.modules[kind.module])
            except Exception as error:
                failed[kind.name] = _why(None, error)
    return found, failed


def _why(culprit: object, error: Exception) -> str:
    if isinstance(error, NotKeptError) or culprit is None:
        return str(error) if isinstance(error, NotKeptError) else f"{type(error).__name__}: {error}"
    return reason(None, culprit, error)


# The environment, and what importing depends on.


def _entries(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    known = before or {}
    changed = {key: value for key, value in after.items() if key not in known or known[key] != value}
    return changed, [key for key in known if key not in after]


def _variables(before: dict[str, str], after: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    changed, deleted = _entries(before, after)
    return {name: text for name, text in changed.items() if not fingerprint.is_secret(name)}, deleted


def _secrets(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    changed, _ = _entries(before.get("environment"), after.get("environment", {}))
    why = "by its name it is a secret"
    return {f"os.environ[{name!r}]": why for name in changed if fingerprint.is_secret(name)}


def _put_variables(module: Any, change: tuple[dict[str, str], list[str]]) -> None:
    module.environ.update(change[0])
    for name in change[1]:
        module.environ.pop(name, None)


def _put_path(module: Any, change: tuple[list[str], list[str]]) -> None:
    """Where the path is as it was, the very same; elsewhere add to both its ends, and remove, as the cell did."""
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


def _refuse_handlers(_before: Any, _after: Any) -> Any:
    raise NotKeptError("handlers hold open streams")


# Libraries.


def _look_at_numpy(module: Any) -> Any:
    state = module.get_state(legacy=False)
    plain = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in state["state"].items()}
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
    return backend.lower() if isinstance(backend, str) else None


def _check_backend(module: Any, backend: str | None) -> None:
    now = _look_at_backend(module)
    if now is not None and now != backend:
        raise NotKeptError(f"it was {backend}; %matplotlib chooses it")


_KINDS: Final = (
    _Kind(
        "environment",
        "os",
        lambda module: dict(module.environ),
        _put_variables,
        _variables,
        before_names=True,
    ),
    _Kind(
        "working directory",
        "os",
        lambda module: module.getcwd(),
        lambda module, path: module.chdir(path),
        before_names=True,
    ),
    _Kind(
        "sys.path",
        "sys",
        lambda module: list(module.path),
        _put_path,
        lambda before, after: (before, after),
        before_names=True,
    ),
    _Kind(
        "random's generator",
        "random",
        lambda module: module.getstate(),
        lambda module, state: module.setstate(state),
    ),
    _Kind(
        "numpy's global generator",
        "numpy.random",
        _look_at_numpy,
        lambda module, state: module.set_state(state),
    ),
    _Kind(
        "torch's generator",
        "torch.random",
        lambda module: module.get_rng_state().numpy().tobytes(),
        _put_torch,
    ),
    _Kind("warnings' filters", "warnings", lambda module: list(module.filters), _put_filters),
    _Kind(
        "root logger's level",
        "logging",
        lambda module: module.getLogger().level,
        lambda module, level: module.getLogger().setLevel(level),
    ),
    _Kind(
        "root logger's handlers",
        "logging",
        lambda module: list(module.getLogger().handlers),
        lambda *_: None,
        _refuse_handlers,
        lambda _: [],
    ),
    _Kind(
        "decimal's context",
        "decimal",
        lambda module: module.getcontext().__reduce__()[1],
        _put_decimal,
    ),
    _Kind(
        "locale",
        "locale",
        lambda module: module.setlocale(module.LC_ALL),
        lambda module, name: module.setlocale(module.LC_ALL, name),
    ),
    _Kind(
        "numpy's print options",
        "numpy",
        lambda module: module.get_printoptions(),
        lambda module, options: module.set_printoptions(**options),
    ),
    _Kind(
        "numpy's error state",
        "numpy",
        lambda module: module.geterr(),
        lambda module, state: module.seterr(**state),
    ),
    _Kind(
        "pandas' options",
        "pandas._config.config",
        lambda module: _options(module._global_config),  # noqa: SLF001 - pandas names no other
        _put_options,
        _entries,
        lambda module: {key: option.defval for key, option in module._registered_options.items()},  # noqa: SLF001
    ),
    _Kind(
        "matplotlib's rcParams",
        "matplotlib",
        lambda module: _params(module.rcParams),
        lambda module, change: module.rcParams.update(change[0]),
        _entries,
        lambda module: _params(module.rcParamsOrig),
    ),
    _Kind("matplotlib's backend", "matplotlib", _look_at_backend, _check_backend),
)
"""In the order in which they are put back."""

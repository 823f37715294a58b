"""Every function that a checkpoint on disk names.

A pickle names the functions that rebuild its objects by module and name, and databases outlive releases.
Therefore this module is append-only: no function is renamed or moved, no argument changes; ``STORED`` lists
the functions. From this package an unpickler accepts these functions, the errors in
:mod:`durable_nb.errors` and the public names of the packages in ``PUBLIC``; :func:`check_name` refuses the
rest.

The unpickler of durable cells, which knows the notebook's namespace, replaces ``live``, ``namespace``,
``part`` and ``update``, and gives the namespace to ``function``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import operator
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from durable_nb import errors
from durable_nb.lookup import importable, in_main

__all__ = [
    "STORED",
    "STREAMS",
    "check_name",
    "publish",
    "refuse_internal",
]

STORED: Final = frozenset(
    {
        # Of the notebook's namespace.
        *("live", "namespace", "function"),
        *("part", "update"),
        # Functions, classes and what they are made of.
        *("code", "cell", "fill_cell", "cached", "make_class", "live_or_made", "settle_unless_live"),
        # State of objects.
        *("set_attributes", "set_state", "dead_ref"),
        # Exceptions.
        *("made_exception", "settle_exception"),
        # Objects of the process.
        *("stream", "process_object"),
        # Arrays, frames and tensors.
        *("array", "array_view", "memory_map", "set_array_state", "new"),
        *("torch_storage", "torch_tensor", "set_grad"),
        # Exceptions that cannot be made again by their own rules.
        "stand_in",
        # Instances that their class would not make again, and aliases of types.
        *("built", "fill", "share_dict", "type_alias"),
    }
)
"""The functions of this module that may stand in a checkpoint. Append only."""

STREAMS: Final = {
    name: getattr(sys, name) for name in ("__stdout__", "__stderr__", "stdin", "stdout", "stderr")
}
"""The process's own streams, as they were when this module was imported."""

_PACKAGE: Final = __name__.partition(".")[0]

PUBLIC: Final = (_PACKAGE, f"{_PACKAGE}.stores", f"{_PACKAGE}.pydantic_ai")
"""The packages whose public names may stand in a checkpoint: a user's cell may have imported them."""


def check_name(module: str, name: str) -> None:
    """Refuse a name of this package that is not part of the stored format.

    Args:
        module: The module that a pickle names.
        name: The name in it.

    Raises:
        StepNotRestored: The checkpoint was written by a development version, or it is forged.

    Example:
        >>> check_name("durable_nb._stored", "array")
        >>> check_name("decimal", "Decimal")
    """
    if module.partition(".")[0] != _PACKAGE or _is_stored(module, name):
        return
    raise errors.StepNotRestored(
        f"the checkpoint names {module}.{name}, which is not part of the stored format: it was written by "
        "a development version of durable_nb from before 0.1.0, whose checkpoints are not readable",
        remedy=("Run the step again: ", errors.ResetStep(), ", or start a new database."),
    )


def refuse_internal(value: Any) -> None:
    """Refuse to write a class or function of this package to a checkpoint if it may be moved or renamed.

    Raises:
        PicklingError: The value is internal to this package.
    """
    module = str(getattr(value, "__module__", ""))
    if module.partition(".")[0] == _PACKAGE and not _is_stored(module, value.__qualname__):
        raise pickle.PicklingError(f"{module}.{value.__qualname__} is internal to durable_nb")


def publish(package: str, names: Mapping[str, object]) -> None:
    """Set ``__module__`` of classes and functions to the package that users import them from.

    Checkpoints name them by it, and so do tracebacks and ``help()``.

    Args:
        package: One of ``PUBLIC``.
        names: Its public names.
    """
    for value in names.values():
        home = getattr(value, "__module__", None)
        if isinstance(value, type | types.FunctionType) and home not in (*PUBLIC, errors.__name__):
            value.__module__ = package


def _is_stored(module: str, name: str) -> bool:
    if module == __name__:
        return name in STORED
    if module == errors.__name__:
        return name in errors.__all__ or name == "_rebuild"
    return module in PUBLIC and name in importlib.import_module(module).__all__


# The notebook's namespace. The unpickler of durable cells replaces all but `function`.


def live(name: object) -> Any:
    """Return the value of a name in the namespace."""
    raise pickle.UnpicklingError(f"{name} can only be loaded into a namespace")


def namespace() -> Any:
    """Return the namespace itself."""
    raise pickle.UnpicklingError("globals() can only be loaded into a namespace")


def function(
    home: str, code: types.CodeType, name: str, closure: Any, *, into: dict[str, Any] | None = None
) -> types.FunctionType:
    """Return a function without its attributes; its globals are those of a module, or the namespace.

    Args:
        home: The module; empty for the namespace.
        code: Its code.
        name: Its name.
        closure: Its cells.
        into: The namespace, which the unpickler of durable cells adds.
    """
    if not home and into is None:
        raise pickle.UnpicklingError(f"the function {name} can only be loaded into a namespace")
    home_globals = vars(importlib.import_module(home)) if home else into
    return types.FunctionType(code, home_globals, name, None, closure)  # type: ignore[arg-type]


def part(*_: object) -> Any:
    """Return an object inside the value of a name."""
    raise pickle.UnpicklingError("a part of a value can only be loaded into a namespace")


def update(*_: object) -> Any:
    """Change a class or function of the namespace in place."""
    raise pickle.UnpicklingError("a class can only be updated in a namespace")


# Functions, classes and what they are made of.


def code(version: tuple[int, int], *arguments: Any) -> types.CodeType:
    """Return a code object, which only the minor version of Python that compiled it can execute.

    Raises:
        StepNotRestored: Another minor version compiled it.
    """
    if version != sys.version_info[:2]:  # another version would accept it, and execute something else
        raise errors.StepNotRestored(
            "it holds bytecode of Python {}.{}, which Python {}.{} does not execute".format(
                *version, *sys.version_info
            ),
            remedy=(
                "Continue with Python {}.{}, or run the step again: ".format(*version),
                errors.ResetStep(),
            ),
        )
    return types.CodeType(*arguments)


def cell() -> types.CellType:
    """Return an empty closure cell."""
    return types.CellType()


def fill_cell(cell: types.CellType, contents: tuple[Any]) -> None:
    """Fill a closure cell that :func:`cell` made."""
    (cell.cell_contents,) = contents


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return a function with an empty ``functools.lru_cache`` around it."""
    return functools.lru_cache(maxsize, typed)(function)


def make_class(
    kind: type, name: str, bases: tuple[Any, ...], attributes: dict[str, Any], tracker: str, extra: object
) -> type:
    """Create a class without its attributes, as cloudpickle does, but without the user's metaclass and hooks.

    Those ran when the class was defined; their effects, such as entries in a registry, are saved as values.

    Args:
        kind: Its metaclass.
        name: Its name.
        bases: Its bases.
        attributes: Attributes that must exist when the class is created, such as ``__slots__``.
        tracker: cloudpickle's id of the class; a class that this process has already is used again.
        extra: Reserved by cloudpickle for its later versions.
    """
    from cloudpickle import cloudpickle as internals

    resolved = types.resolve_bases(bases)
    users = {cls for base in resolved for cls in base.__mro__ if "__init_subclass__" in vars(cls)}
    hooks = {cls: vars(cls)["__init_subclass__"] for cls in users if not importable(cls)}
    library = next(meta for meta in kind.__mro__ if importable(meta))
    try:
        for cls in hooks:
            type.__setattr__(cls, "__init_subclass__", classmethod(_do_nothing))
        if library is kind:
            return cast("type", internals._make_skeleton_class(kind, name, bases, attributes, tracker, extra))  # noqa: SLF001
        original = {} if resolved is bases else {"__orig_bases__": bases}
        made: type = library.__new__(kind, name, resolved, {**attributes, **original})
        return cast("type", internals._lookup_class_or_track(tracker, made))  # noqa: SLF001
    finally:
        for cls, hook in hooks.items():
            type.__setattr__(cls, "__init_subclass__", hook)


def _do_nothing(*_: object, **__: object) -> None:
    return None


def live_or_made(qualname: str, is_class: bool, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Return the class or function of that name in ``__main__``; make it if there is none."""
    found = in_main(qualname, is_class)
    return make(*args) if found is None else found


def settle_unless_live(made: Any, state: tuple[str, bool, Callable[[Any, Any], Any], Any]) -> None:
    """Set the state of an object that :func:`live_or_made` made, and leave one that it found unchanged."""
    qualname, is_class, settle, own = state
    if in_main(qualname, is_class) is not made:
        settle(made, own)


# State of objects.


def set_attributes(obj: Any, state: dict[str, Any]) -> None:
    """Set attributes one by one: the state setter of objects without one of their own."""
    for name, value in state.items():
        setattr(obj, name, value)


def set_state(obj: Any, state: Any) -> None:
    """Set attributes and slots without a ``__setstate__`` of the object."""
    attributes, slots = state if type(state) is tuple else (state, {})
    if attributes:
        vars(obj).update(attributes)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)


class _Gone:
    """An object for a weak reference that is dead at once."""


def dead_ref() -> weakref.ref[Any]:
    """Return a weak reference whose object no longer exists."""
    return weakref.ref(_Gone())


def built(base: type, kind: type, *arguments: Any) -> Any:
    """Return an object that a built-in base of its class made, without the class's own ``__new__``."""
    return base.__new__(kind, *arguments)


def fill(obj: Any, content: tuple[type, tuple[Any, ...], list[Any], Any]) -> None:
    """Fill a container by a built-in base of its class, and set its state, without methods of the class.

    Args:
        obj: The container.
        content: The base, arguments for its ``__init__``, the items, and the state or None.
    """
    base, arguments, items, state = content
    base.__init__(obj, *arguments)  # type: ignore[misc]
    own: Any = base
    if issubclass(base, dict):
        for key, value in items:
            own.__setitem__(obj, key, value)
    elif issubclass(base, set):
        own.update(obj, items)
    else:
        own.extend(obj, items)
    if state is obj:  # a dict whose items are its attributes
        obj.__dict__ = obj
    elif state is not None:
        set_state(obj, state)


def share_dict(obj: Any, attributes: dict[str, Any]) -> None:
    """Make a dict the ``__dict__`` of an object: other objects hold the same dict."""
    obj.__dict__ = attributes


def type_alias(module: str, name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    """Return an alias of a type, as ``type name = value`` in a module makes it."""
    names = {"__name__": module, "make": sys.modules["typing"].TypeAliasType}
    exec("def made(*of, **also): return make(*of, **also)", names)  # noqa: S102 - its module is the maker's
    return cast("Any", names["made"])(name, value, type_params=parameters)


# Exceptions.


def made_exception(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return an exception that was made without a ``__new__`` or ``__init__`` of the user."""
    exc: BaseException = _built_in(kind, "__new__")(kind, *args)
    with contextlib.suppress(TypeError):  # its args may have been replaced since it was created
        _built_in(kind, "__init__")(exc, *args)  # sets SystemExit.code, UnicodeError.object …
    return exc


def _built_in(kind: type, name: str) -> Any:
    found = (vars(base)[name] for base in kind.__mro__ if name in vars(base))
    return next(hook for hook in found if not isinstance(hook, types.FunctionType | staticmethod))


def settle_exception(exc: BaseException, state: tuple[Any, Any, tuple[Any, bool] | None]) -> None:
    """Set an exception's args, attributes and cause."""
    args, attributes, links = state
    exc.args = args
    if attributes is not None:
        exc.__setstate__(attributes)
    if links is not None:
        exc.__cause__, exc.__suppress_context__ = links


def stand_in(
    kind: type[BaseException],
    message: str,
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    lost: tuple[str, ...],
) -> BaseException:
    """Return an exception of a class, or of a subclass of it, made without code of the user.

    Args:
        kind: The class.
        message: What ``str()`` returns.
        args: Its args.
        attributes: Its attributes.
        lost: The names of attributes that are not on record, and raise an AttributeError.
    """
    exc = _with_state(kind, args, attributes)
    with contextlib.suppress(Exception):  # its __str__ may read what is lost
        if not lost and str(exc) == message:
            return exc
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    made_of = {"_made_of": (kind, message, lost), **{name: _Lost(name, kind) for name in lost}}
    return _with_state(type(kind.__name__, (_StandIn, kind), {**names, **made_of}), args, attributes)


def _with_state(kind: Any, args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    exc = made_exception(kind, args)
    exc.args = args
    set_state(exc, attributes)
    return exc


class _StandIn:
    """The first base of a class that stands in for a class of exceptions, a subclass of that class."""

    __slots__ = ()
    _made_of: tuple[type[BaseException], str, tuple[str, ...]]

    def __init_subclass__(cls, **_: object) -> None:
        """Do nothing: the hook of the user's class is for the user's subclasses."""

    def __str__(self) -> str:
        return self._made_of[1]

    def __repr__(self) -> str:
        return BaseException.__repr__(cast("BaseException", self))

    def __reduce__(self) -> tuple[object, ...]:
        kind, message, lost = self._made_of
        return stand_in, (kind, message, cast("BaseException", self).args, vars(self), lost)


class _Lost:
    """An attribute that is not on record, until the user sets it."""

    def __init__(self, name: str, kind: type) -> None:
        self._name, self._kind = name, kind

    def __get__(self, exc: object, owner: object) -> Any:
        if exc is None:
            return self
        raise AttributeError(
            f"attribute {self._name!r} of the recorded {self._kind.__qualname__} was not saved, since it "
            "cannot be pickled: read it in the task that raises the exception, and raise what is plain data"
        )


# Objects of the process.


def stream(name: str) -> Any:
    """Return one of the process's own streams."""
    return STREAMS[name]


def process_object(module: str, path: str) -> Any:
    """Return an object that exists once per process, such as ``os.environ``."""
    return operator.attrgetter(path)(importlib.import_module(module))


# Arrays, frames and tensors.


def array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    """Return an array over a buffer; the array is writable if the buffer is."""
    import numpy as np

    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def array_view(
    base: Any, kind: type, dtype: Any, shape: Any, offset: int, strides: Any, writeable: bool
) -> Any:
    """Return a view of the memory of another array; offset and strides are in bytes."""
    numpy = sys.modules["numpy"]
    flat = base.reshape(-1, order="A")
    if dtype.hasobject:  # NumPy refuses an array of objects over a buffer
        start = flat[offset // dtype.itemsize :]
        view = numpy.lib.stride_tricks.as_strided(start, shape, strides)
    else:
        view = numpy.ndarray(shape, dtype, flat, offset, strides)
    if not writeable:
        view.flags.writeable = False
    return view.view(kind) if kind is not numpy.ndarray else view


def memory_map(filename: str, dtype: Any, mode: str, offset: int, shape: Any, order: str) -> Any:
    """Return a memory-mapped array of an existing file."""
    import numpy as np

    return np.memmap(filename, dtype, mode, offset, shape, order)  # type: ignore[call-overload]


def set_array_state(array: Any, state: dict[str, Any]) -> None:
    """Set the attributes of an array's subclass: ``ndarray.__setstate__`` would expect its bytes."""
    vars(array).update(state)


def new(cls: type, *arguments: Any) -> Any:
    """Return an object that was made without its ``__init__``."""
    return cls.__new__(cls, *arguments)


def torch_storage(buffer: Any) -> Any:
    """Return a storage of torch over a buffer, copied where the buffer is read-only."""
    torch: Any = importlib.import_module("torch")

    view = memoryview(buffer)
    if not view.nbytes:
        return torch.UntypedStorage(0)
    memory = bytearray(view) if view.readonly else view  # a small buffer may be part of the stream
    return torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()


def torch_tensor(
    storage: Any, dtype: Any, offset: int, size: Any, stride: Any, requires_grad: bool, is_parameter: bool
) -> Any:
    """Return a tensor of torch over a storage; offset and stride are in elements."""
    torch: Any = importlib.import_module("torch")

    tensor = torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)


def set_grad(tensor: Any, grad: Any) -> None:
    """Set a tensor's gradient."""
    tensor.grad = grad

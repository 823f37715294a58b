"""Describes a namespace so that two processes can compare theirs: values, types, and what is the same object.

`describe` walks everything a name reaches. Mutable objects get a number when first seen, and that number
again where they are met once more: two namespaces with equal descriptions have the same aliases too.
"""

import asyncio
import collections
import functools
import hashlib
import io
import json
import sys
import types

ATOMS = (int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented), range, slice)
PLAIN = (
    asyncio.AbstractEventLoop,
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.MethodDescriptorType,
    types.ModuleType,
    types.WrapperDescriptorType,
)
HIDDEN = {"In", "Out", "exit", "quit", "get_ipython", "open", "wf"}
CLASS_NOISE = {
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__slotnames__",  # pickle notes it there when it first meets an instance
    "__static_attributes__",
    "__weakref__",
}


def digest(data):
    """A short name of some bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


class Description:
    """Describes values, one after another, with one numbering of objects."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.numbers = {}
        self.kept = []
        self.arrays = []
        self._libraries = (
            ("numpy", "ndarray", self._array),
            ("numpy", "generic", repr),
            ("numpy", "dtype", repr),
            ("numpy.random", "Generator", lambda stream: repr(stream.bit_generator.state)),
            ("matplotlib.figure", "Figure", _picture),
            ("matplotlib.artist", "Artist", lambda artist: self.of(artist.figure)),
        )

    def of(self, value):
        """The description of a value: JSON but for its tuples."""
        kind = type(value)
        if kind in ATOMS:
            return [kind.__name__, repr(value)]
        if value is self.namespace:
            return "the namespace"
        if kind in (tuple, frozenset):
            return [kind.__name__, self._items(value)]
        if id(value) in self.numbers:
            return f"#{self.numbers[id(value)]}"
        if not _is_frozen(value):
            self.numbers[id(value)] = len(self.numbers)
            self.kept.append(value)
        return [_name(kind), self._content(value, kind)]

    def _items(self, values):
        described = [self.of(value) for value in values]
        unordered = isinstance(values, (set, frozenset))
        return sorted(described, key=json.dumps) if unordered else described

    def _content(self, value, kind):
        for module, name, describe in self._libraries:
            if _is_a(value, module, name):
                return describe(value)
        if kind.__module__.split(".")[0] == "pandas":
            return self._pandas(value)
        if kind is types.FunctionType:
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, PLAIN):
            return getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        return self._object(value)

    def _array(self, array):
        if array.dtype.hasobject:
            return [str(array.dtype), array.shape, self._items(array.ravel().tolist())]
        shares = sys.modules["numpy"].may_share_memory
        shared = [number for number, earlier in self.arrays if shares(array, earlier)][:1]
        self.arrays.append((self.numbers[id(array)], array))
        return [array.dtype.str, array.shape, array.flags.writeable, shared, digest(array.tobytes())]

    def _pandas(self, value):
        if _is_a(value, "pandas", "DataFrame"):
            columns = [[self.of(name), self._series(value[name])] for name in value.columns]
            return [columns, self._index(value.index), self._index(value.columns)]
        if _is_a(value, "pandas", "Series"):
            return [self._series(value), self._index(value.index), self.of(value.name)]
        return self._index(value) if _is_a(value, "pandas", "Index") else repr(value)

    def _series(self, series):
        return [str(series.dtype), self._items(series.astype(object).where(series.notna(), None).tolist())]

    def _index(self, index):
        return [type(index).__name__, [self.of(name) for name in index.names], self._items(index.tolist())]

    def _function(self, function):
        code = function.__code__
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        home = "the namespace" if function.__globals__ is self.namespace else function.__globals__["__name__"]
        if home != "the namespace":
            return [home, function.__qualname__]
        details = (function.__defaults__, function.__kwdefaults__, function.__dict__, *cells)
        return [function.__qualname__, digest(code.co_code), code.co_names, *map(self.of, details)]

    def _class(self, cls):
        if cls.__module__ != "__main__":
            return f"{cls.__module__}.{cls.__qualname__}"
        names = sorted(vars(cls).keys() - CLASS_NOISE)
        bases = [_name(base) for base in cls.__mro__]
        return [cls.__qualname__, bases, [[name, self._member(vars(cls)[name])] for name in names]]

    def _member(self, member):
        inner = getattr(member, "__func__", None) or getattr(member, "fget", None)
        is_slot = isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType))
        return type(member).__name__ if is_slot else self.of(member if inner is None else inner)

    def _object(self, value):
        if isinstance(value, (list, set, collections.deque)):
            return self._items(value), self._state(value)
        if isinstance(value, (dict, types.MappingProxyType)):
            return [[self.of(key), self.of(one)] for key, one in value.items()], self._state(value)
        if isinstance(value, functools.partial):
            return [self.of(part) for part in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return [value.__func__.__qualname__, self.of(value.__self__)]
        return self._state(value) or self._reduced(value)

    def _state(self, value):
        slots = [slot for cls in type(value).__mro__ for slot in getattr(cls, "__slots__", ())]
        found = {
            slot: getattr(value, slot) for slot in slots if isinstance(slot, str) and hasattr(value, slot)
        }
        found |= getattr(value, "__dict__", {})
        if type(value).__module__.startswith("asyncio."):
            found.pop("_loop", None)  # another process has another one
        return [[name, self.of(found[name])] for name in sorted(found) if name != "__weakref__"]

    def _reduced(self, value):
        reduced = value.__reduce_ex__(4)
        return (
            reduced
            if isinstance(reduced, str)
            else [
                self.of(list(part) if isinstance(part, collections.abc.Iterator) else part)
                for part in reduced
            ]
        )


def describe(namespace):
    """Describe every name of a notebook that is the user's."""
    description = Description(namespace)
    names = sorted(name for name in namespace if name not in HIDDEN and not name.startswith("_"))
    return {name: description.of(namespace[name]) for name in names}


def described():
    """The same of the kernel's own notebook, as text for another process."""
    return json.dumps(describe(sys.modules["__main__"].__dict__))


def _cell(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return "an empty cell"


def _name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_a(value, module, name):
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _is_frozen(value):
    """What may be one object or several, and nobody can tell: sharing it means nothing."""
    kinds = ("numpy", "generic"), ("numpy", "dtype"), ("pandas", "Index")
    return any(_is_a(value, *kind) for kind in kinds)


def _picture(figure):
    file = io.BytesIO()
    figure.savefig(file, format="raw")
    return digest(file.getvalue())

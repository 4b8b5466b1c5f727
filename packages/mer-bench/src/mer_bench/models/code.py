"""What a function or an object is, as a digest: for models whose code no package's version stands for.

Code of installed packages counts by its name, all other by what it compiles to, along with the values and the
code that it refers to. Comments and line numbers do not count; another minor version of Python does.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import pickle
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from mer_bench.errors import UsageError

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
#: Of a class; they say nothing of what it does.
_ABOUT = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__"}
_ABOUT |= {"__static_attributes__", "__qualname__", "__abstractmethods__", "_abc_impl"}
_ABOUT |= {"__slots__", "__match_args__", "__dataclass_fields__", "__dataclass_params__"}


def code_digest(thing: object) -> str:
    """Return the SHA-256, in hex, of a function, class or object and all that it refers to.

    Raises:
        UsageError: It refers to an object that cannot be told from another, such as an open file.

    >>> def one(x): return x + 1
    >>> def same(x): return x + 1  # a comment
    >>> def other(x): return x + 2
    >>> code_digest(one) == code_digest(same), code_digest(one) == code_digest(other)
    (True, False)
    """
    digest = hashlib.sha256()
    for part in _Walk().parts(thing):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def is_own(module_name: str) -> bool:
    """Return whether a module is of no installed package: a notebook, a script, a file beside it."""
    if module_name == "__main__" or module_name not in sys.modules:
        return True
    file = getattr(sys.modules[module_name], "__file__", None)
    if file is None:
        return False
    path = Path(file)
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not path.is_relative_to(sysconfig.get_path("stdlib"))


class _Walk:
    """Goes through all that a thing refers to, each once."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, object]] = {}  # the objects too, so that no id is used again

    def parts(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, _PLAIN):
            yield f"{type(thing).__name__} {thing!r}"
            return
        if id(thing) in self.seen:
            yield f"seen {self.seen[id(thing)][0]}"
            return
        self.seen[id(thing)] = len(self.seen), thing
        yield type(thing).__qualname__
        for kind, inner in _KINDS.items():
            if isinstance(thing, kind):
                yield from self._all(inner(thing))
                return
        yield from self._all(_of_object(thing))

    def _all(self, things: Iterator[Any]) -> Iterator[str]:
        for thing in things:
            yield from self.parts(thing)


def _of_sequence(thing: Any) -> Iterator[Any]:
    yield len(thing)
    yield from thing


def _of_set(thing: Any) -> Iterator[Any]:
    yield from sorted(map(repr, thing))


def _of_mapping(thing: Mapping[Any, Any]) -> Iterator[Any]:
    for key in thing:
        yield key
        yield thing[key]


def _of_code(thing: CodeType) -> Iterator[Any]:
    yield from (thing.co_code, thing.co_names, thing.co_freevars, thing.co_flags)
    yield from thing.co_consts


def _of_function(thing: FunctionType) -> Iterator[Any]:
    if not is_own(thing.__module__):
        yield f"{thing.__module__}.{thing.__qualname__}"
        return
    yield from (thing.__code__, thing.__defaults__, thing.__kwdefaults__)
    for cell in thing.__closure__ or ():
        yield cell.cell_contents
    for name in sorted(_globals_of(thing.__code__)):
        if name in thing.__globals__:
            yield name
            yield thing.__globals__[name]


def _globals_of(code: CodeType) -> set[str]:
    names = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_of(const) for const in code.co_consts if isinstance(const, CodeType)))


def _of_class(thing: type) -> Iterator[Any]:
    if not is_own(thing.__module__):
        yield f"{thing.__module__}.{thing.__qualname__}"
        return
    yield thing.__bases__
    for name, value in sorted(vars(thing).items()):
        if name not in _ABOUT and not isinstance(value, MemberDescriptorType):
            yield name
            yield value


def _of_module(thing: ModuleType) -> Iterator[Any]:
    yield thing.__name__
    if is_own(thing.__name__) and thing.__name__ != "__main__":
        yield Path(str(thing.__file__)).read_bytes()


def _of_object(thing: Any) -> Iterator[Any]:
    yield type(thing)
    array = np.asarray(thing) if hasattr(thing, "__array__") and not isinstance(thing, type) else None
    if hasattr(thing, "get_params"):
        yield thing.get_params(deep=False)
    elif hasattr(thing, "__wrapped__"):  # as of functools.cache
        yield thing.__wrapped__
    elif array is not None and array.dtype != object:
        yield from (str(array.dtype), array.shape, array.tobytes())
    elif is_own(type(thing).__module__) and hasattr(thing, "__dict__"):
        yield vars(thing)
    else:
        try:
            yield pickle.dumps(thing)
        except Exception as error:  # pickle raises whatever a foreign object raises
            raise UsageError(
                f"the model refers to a {type(thing).__qualname__} ({error}), so that nothing tells its code "
                "from another; make that inside the function, or give it as a plain value"
            ) from error


_KINDS: dict[Any, Callable[[Any], Iterator[Any]]] = {
    (tuple, list): _of_sequence,
    (set, frozenset): _of_set,
    Mapping: _of_mapping,
    CodeType: _of_code,
    FunctionType: _of_function,
    type: _of_class,
    ModuleType: _of_module,
    (staticmethod, classmethod): lambda thing: iter((thing.__func__,)),
    MethodType: lambda thing: iter((thing.__func__, thing.__self__)),
    property: lambda thing: iter((thing.fget, thing.fset)),
    functools.partial: lambda thing: iter((thing.func, thing.args, thing.keywords)),
}

"""Compile kernels with Numba, cached under a hash of every source they are made from.

Numba's own cache goes by the date of the one file a function stands in; the code that is inlined into it or called by it from
other files can change unseen, and so can a file that keeps its date. Here the key is the contents of all those files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile

Function = Callable[..., Any]


@overload
def compiled(function: Function, /) -> Function: ...
@overload
def compiled(**options: Any) -> Callable[[Function], Function]: ...
def compiled(function: Function | None = None, /, **options: Any) -> Any:
    """Compile a function without the interpreter's lock, as ``@compiled`` or ``@compiled(**options of numba.njit)``."""
    if function is None:
        return lambda given: _compiled(given, options)
    return _compiled(function, options)


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    dispatcher: Any = numba.njit(**{"nogil": True, **options})(function)
    if dispatcher is function:  # NUMBA_DISABLE_JIT
        return function
    dispatcher.kernel_sources = kernel_sources(function)
    dispatcher._cache = _SourcesCache(function, dispatcher.kernel_sources)
    return dispatcher


class _SourcesCache(FunctionCache):
    """Numba's cache on disk, stamped with the contents of files and the values of constants in place of one file's date."""

    def __init__(self, function: Function, sources: frozenset[Path]) -> None:
        super().__init__(function)
        stamp = blake2b(repr(_constants(function)).encode(), digest_size=16)
        for source in sorted(sources):
            stamp.update(_digest(source))
        self._cache_file = _Index(self._cache_path, self._impl.filename_base, stamp.hexdigest())


class _Index(IndexDataCacheFile):
    """Numba's index, empty where it names types of arguments that the sources no longer have: it is read before its stamp."""

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except (AttributeError, ImportError):
            return {}


def kernel_sources(function: Function) -> frozenset[Path]:
    """List the files whose code a compiled ``function`` can hold.

    Those are its own file, the files of the compiled functions, classes and modules of its package that its module has
    imported, and the files that those compiled functions hold in turn.
    """
    root = function.__module__.partition(".")[0]
    found = {Path(function.__code__.co_filename)}
    for value in function.__globals__.values():
        found |= getattr(value, "kernel_sources", frozenset())
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name.partition(".")[0] == root and name in sys.modules:
            file = getattr(sys.modules[name], "__file__", None)
            found |= {Path(file)} if file else set()
    return frozenset(found)


def _constants(function: Function) -> list[tuple[str, Any]]:
    """List the numbers and texts that the function's module had defined or imported, which Numba freezes into the code."""
    plain = (bool, int, float, str, tuple, np.generic)
    return sorted((n, repr(v)) for n, v in function.__globals__.items() if isinstance(v, plain) and n[:2] != "__")


@cache
def _digest(source: Path) -> bytes:
    return blake2b(source.read_bytes(), digest_size=16).digest()

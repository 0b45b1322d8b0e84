"""Compile kernels with Numba, cached under a hash of every source they are made from.

Numba's own cache goes by the date of the one file a function stands in; the code that is inlined into it or called by it from
other files can change unseen, and so can a file that keeps its date. Here the key is the contents of all those files.

Where neither the package's folder nor the user's own can be written to, the cache is in a private folder among temporary files,
or there is none; a cache that cannot be read or written is as good as none. Of several processes that need the same kernel one
compiles it, and the others wait for it.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import numba
import numpy as np
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    NullCache,
    UserWideCacheLocator,
)

from cpikan.turn import Turn

Function = Callable[..., Any]
_PATIENCE_S = 120.0  # the slowest kernel takes some ten seconds, more on a machine that is starved of time
_to_tell: ContextVar[Callable[[], None] | None] = ContextVar("to_tell", default=None)


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
    dispatcher.kernel_sources, dispatcher.kernel_constants = kernel_sources(function), _constants(function)
    try:
        cache = _SourcesCache(function, dispatcher.kernel_sources, dispatcher.kernel_constants)
    except (RuntimeError, OSError):  # there is no place for a cache, or there are no sources
        dispatcher._cache = _NoCache()
        return dispatcher
    dispatcher._cache, compiling = cache, dispatcher.compile

    def compile_in_turn(signature: Any) -> Any:
        try:
            return compiling(signature)
        finally:
            cache.end_turn()  # also where compiling fails: nobody waits for what will not come

    dispatcher.compile = compile_in_turn
    return dispatcher


@contextmanager
def compilation_told(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` in this block before a first kernel is compiled; kernels that are loaded from the cache are not told."""
    token = _to_tell.set(tell)
    try:
        yield
    finally:
        _to_tell.reset(token)


def _tell_once() -> None:
    tell = _to_tell.get()
    if tell is not None:
        _to_tell.set(None)
        tell()


def cache_folder() -> Path | None:
    """Find the folder that keeps compiled kernels, made where it is not there; None where no place can be written to."""
    try:
        locator = _CacheImpl(_tell_once).locator
        locator.ensure_cache_path()
        return Path(locator.get_cache_path())
    except (RuntimeError, OSError):
        return None


class _PrivateLocator(UserWideCacheLocator):
    """A folder of this user alone among temporary files: code is loaded from it, so nobody else may write there."""

    def __init__(self, py_func: Function, py_file: str) -> None:
        super().__init__(py_func, py_file)
        place = Path(tempfile.gettempdir(), f"cpikan-kernels-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
        self._cache_path = str(place / self.get_suitable_cache_subpath(py_file))

    def ensure_cache_path(self) -> None:
        place = Path(self._cache_path).parent
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        if hasattr(os, "getuid") and (
            not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077
        ):
            raise PermissionError(f"{place} is not private")
        super().ensure_cache_path()


class _CacheImpl(CompileResultCacheImpl):
    """Numba's own places for a cache, then the private one."""

    _locator_classes = [*CompileResultCacheImpl._locator_classes, _PrivateLocator]  # noqa: RUF012 - as Numba has it


class _NoCache(NullCache):
    """No cache: everything is compiled in every process."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        _tell_once()


class _SourcesCache(FunctionCache):
    """Numba's cache on disk, stamped with the contents of files and the values of constants in place of one file's date."""

    _impl_class = _CacheImpl

    def __init__(
        self, function: Function, sources: frozenset[Path], constants: frozenset[tuple[str, str, str]]
    ) -> None:
        super().__init__(function)
        stamp = blake2b(repr(sorted(constants)).encode(), digest_size=8)
        for source in sorted(sources):
            stamp.update(_digest(source))
        self._cache_file = _Entries(self._cache_path, self._impl.filename_base, stamp.hexdigest())
        self._turn = Turn(Path(self._cache_path, f"{self._impl.filename_base}.lock"), _PATIENCE_S)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load what was compiled before, or is compiled by another process just now; what is damaged counts as not there."""
        found = self._loaded(sig, target_context)
        if found is None:
            with suppress(OSError):
                self._impl.locator.ensure_cache_path()
            if self._turn.begin():
                found = self._loaded(sig, target_context)
                if found is not None:
                    self._turn.end()
        if found is None:
            _tell_once()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, where there is room and the right to; whoever waits for it may load it."""
        with suppress(OSError):
            super().save_overload(sig, data)
        self._turn.end()

    def end_turn(self) -> None:
        """Let others compile, whether this process has or not."""
        self._turn.end()

    def _loaded(self, sig: Any, target_context: Any) -> Any:
        with suppress(Exception):  # a pickle cut short or changed raises anything
            return super().load_overload(sig, target_context)
        return None


class _Entries(IndexDataCacheFile):
    """A file for every signature, named by what it is made from.

    Numba numbers its files in an index. Processes that compile at once give one number twice, and the code of one signature
    is then found under another.
    """

    def __init__(self, cache_path: str, filename_base: str, source_stamp: str) -> None:
        super().__init__(cache_path, filename_base, source_stamp)
        self._family = f"{filename_base}.{source_stamp}"

    def save(self, key: Any, data: Any) -> None:
        """Keep an entry, and delete those of other sources."""
        for path in Path(self._cache_path).glob(f"{self._index_name.removesuffix('.nbi')}.*nb[ic]"):
            if not path.name.startswith(self._family):
                path.unlink(missing_ok=True)
        self._save_data(self._name(key), (key, data))

    def load(self, key: Any) -> Any:
        """Load an entry; None where there is none."""
        try:
            found, data = self._load_data(self._name(key))
        except FileNotFoundError:
            return None
        return data if found == key else None

    def flush(self) -> None:
        """Delete all entries."""
        for path in Path(self._cache_path).glob(f"{self._family}.*.nbc"):
            path.unlink(missing_ok=True)

    def _name(self, key: Any) -> str:
        digest = blake2b(f"{numba.__version__} {key}".encode(), digest_size=12).hexdigest()
        return f"{self._family}.{digest}.nbc"


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


def _constants(function: Function) -> frozenset[tuple[str, str, str]]:
    """List module, name and value of the numbers and texts that Numba freezes into the code of ``function``.

    Those are what its module has defined or imported, and what the modules of the compiled functions it can call have.
    """
    plain = (bool, int, float, str, tuple, np.generic)
    own = function.__globals__
    found = {(function.__module__, n, repr(v)) for n, v in own.items() if isinstance(v, plain) and n[:2] != "__"}
    return frozenset(found).union(*(getattr(value, "kernel_constants", ()) for value in own.values()))


@cache
def _digest(source: Path) -> bytes:
    return blake2b(source.read_bytes(), digest_size=16).digest()

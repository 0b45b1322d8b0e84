"""Compiled kernels: never older than any source they are made from."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import pytest
from numba.core.caching import FunctionCache

from cpikan.compiled import _CacheImpl, _Entries, _PrivateLocator, _SourcesCache, compiled, kernel_sources
from cpikan.psi.kernels import cpu_blocks, cpu_phasors
from cpikan.psi.model import flags
from cpikan.turn import Turn
from forked import exit_code_of_fork

OUTER = """
from kernels import inner
from kernels.inner import SCALE, inlined, called
from cpikan.compiled import compiled

@compiled
def outer(x):
    return inlined(x) + called(x) + SCALE

print(outer(1.0), sum(outer.stats.cache_hits.values()))
"""
INNER = """
from cpikan.compiled import compiled
from kernels.numbers import FACTOR
SCALE = 100.0

@compiled(inline="always")
def inlined(x):
    return x * 2.0

@compiled
def called(x):
    return x * FACTOR
"""
NUMBERS = "FACTOR = 10.0\n"
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="each run is a fork")


NAMED = """
from typing import NamedTuple
from cpikan.compiled import compiled

class First(NamedTuple):
    x: float

@compiled
def outer(pair):
    return pair.x * 2.0

print(outer(First(1.0)), sum(outer.stats.cache_hits.values()))
"""


def _package(place: Path) -> Path:
    folder = place / "kernels"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text(INNER)
    (folder / "numbers.py").write_text(NUMBERS)
    (folder / "outer.py").write_text(OUTER)
    return folder


def _outer(folder: Path, code: str = "") -> list[float]:
    """What ``outer`` returns in a process of its own, and how often it came from the cache."""

    def run() -> None:
        sys.path.insert(0, str(folder.parent))
        sys.dont_write_bytecode = True
        if code:
            exec(code, {})
        else:
            runpy.run_module("kernels.outer", run_name="__main__")

    told = folder.parent / "told"
    assert exit_code_of_fork(run, told) == 0, told.read_text()
    return [float(word) for word in told.read_text().split()]


@FORK
def test_a_change_in_another_file_is_seen_whatever_its_date(tmp_path):
    """What is inlined, what is called, a constant, a constant of a constant's user: changed one after the other."""
    folder = _package(tmp_path)
    assert _outer(folder) == [112.0, 0]
    assert _outer(folder) == [112.0, 1]
    for file, old, new, value in (
        ("inner", "x * 2.0", "x * 3.0", 113.0),
        ("inner", "x * FACTOR", "2.0 * x * FACTOR", 123.0),
        ("inner", "SCALE = 100.0", "SCALE = 200.0", 223.0),
        ("numbers", "FACTOR = 10.0", "FACTOR = 20.0", 243.0),
    ):
        changed = folder / f"{file}.py"
        dates = changed.stat()
        changed.write_text(changed.read_text().replace(old, new))
        os.utime(changed, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        assert _outer(folder) == [value, 0]


def test_sources_of_a_kernel_are_followed_through_its_calls():
    found = kernel_sources(cpu_blocks.height_rows.py_func)
    assert {Path(module.__file__) for module in (cpu_blocks, cpu_phasors, flags)} <= found


def test_every_kernel_of_the_package_is_cached_that_way():
    for path in Path(cpu_blocks.__file__).parents[2].rglob("*.py"):
        if path.name != "compiled.py":
            text = path.read_text(encoding="utf-8")
            assert "njit" not in text, f"{path} compiles on its own: use cpikan.compiled"
            assert "guvectorize" not in text, f"{path} compiles on its own: use cpikan.compiled"


@FORK
def test_a_named_tuple_that_is_gone_does_not_stop_its_successor(tmp_path):
    folder = _package(tmp_path)
    outer = folder / "outer.py"
    outer.write_text(NAMED)
    outer_as_module = "import kernels.outer"
    for text, expected in ((NAMED, [2.0, 0]), (NAMED, [2.0, 1]), (NAMED.replace("First", "Second"), [2.0, 0])):
        outer.write_text(text)
        assert _outer(folder, outer_as_module) == expected


ALONE = """
from cpikan.compiled import compilation_told, compiled

@compiled
def twice(x):
    return 2.0 * x

told = []
with compilation_told(lambda: told.append(1)):
    value = twice(1.5), twice(3)
print(*value, len(told))
"""


def _alone(place: Path, temporary: Path) -> str:
    """What a kernel's process tells where neither the package nor the home can be written to."""

    def run() -> None:
        tempfile.tempdir = str(temporary)
        _CacheImpl._locator_classes = [_PrivateLocator]
        runpy.run_path(str(place / "alone.py"))

    (place / "alone.py").write_text(ALONE)
    told = place / "told"
    assert exit_code_of_fork(run, told) == 0, told.read_text()
    return told.read_text().strip()


@FORK
def test_a_private_cache_where_nothing_else_can_be_written(tmp_path):
    """A container: the first process says that it compiles, once; the second loads; damage is compiled anew."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    assert _alone(tmp_path, temporary) == "3.0 6.0 1"
    (place,) = temporary.iterdir()
    assert place.stat().st_mode & 0o077 == 0
    assert _alone(tmp_path, temporary) == "3.0 6.0 0"
    assert list(place.rglob("*.nbc"))
    for file in place.rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:-40])
    assert _alone(tmp_path, temporary) == "3.0 6.0 1"
    assert _alone(tmp_path, temporary) == "3.0 6.0 0"


@FORK
def test_a_cache_that_others_may_write_to_is_not_used(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    _alone(tmp_path, temporary)
    (place,) = temporary.iterdir()
    place.chmod(0o777)
    assert _alone(tmp_path, temporary) == "3.0 6.0 1"


def test_processes_that_compile_at_once_do_not_share_a_file(tmp_path):
    """Both have looked into the same empty cache; each keeps its own, whoever writes last."""
    one, other = (_Entries(str(tmp_path), "kernel-1.py3", "a" * 16) for _ in range(2))
    assert one.load(("float32",)) is None
    assert other.load(("float64",)) is None
    one.save(("float32",), "code of float32")
    other.save(("float64",), "code of float64")
    assert _Entries(str(tmp_path), "kernel-1.py3", "a" * 16).load(("float32",)) == "code of float32"
    assert one.load(("float64",)) == "code of float64"


def test_an_entry_of_other_sources_is_deleted_and_none_is_given_for_another_signature(tmp_path):
    old = _Entries(str(tmp_path), "kernel-1.py3", "a" * 16)
    old.save(("float32",), "old code")
    new = _Entries(str(tmp_path), "kernel-1.py3", "b" * 16)
    assert new.load(("float32",)) is None
    new.save(("float32",), "new code")
    assert old.load(("float32",)) is None
    (found,) = tmp_path.iterdir()
    found.rename(tmp_path / new._name(("float64",)))
    assert new.load(("float64",)) is None
    new.flush()
    assert list(tmp_path.iterdir()) == []


def _anything(x):
    return x


def test_of_two_that_need_a_kernel_one_compiles_it_and_the_other_waits_for_it(tmp_path, monkeypatch):
    """Two caches of one function, as two processes have them, over a store that both see."""
    store = {}
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(FunctionCache, "load_overload", lambda self, sig, context: store.get(sig))
    monkeypatch.setattr(FunctionCache, "save_overload", lambda self, sig, data: store.update({sig: data}))
    one, other = (_SourcesCache(_anything, frozenset(), frozenset()) for _ in range(2))
    assert one.load_overload("sig", None) is None
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(other.load_overload, "sig", None)
        time.sleep(0.3)
        assert not waits.done()
        one.save_overload("sig", "code")
        assert waits.result(30) == "code"
    free = Turn(one._turn._path, 0.0)
    assert free.begin()  # both gave it back
    free.end()


def test_a_kernel_that_cannot_be_compiled_gives_its_turn_back():
    """The error comes at once, in this process and in any that would have waited for it."""
    for _ in range(2):
        with pytest.raises(numba.TypingError):
            _adds_text(1.0)
        free = Turn(_adds_text._cache._turn._path, 0.0)
        assert free.begin()
        free.end()


@compiled
def _adds_text(x):
    return x + "text"


def test_a_turn_that_is_not_given_back_is_not_waited_for_beyond_patience(tmp_path):
    held, late = Turn(tmp_path / "lock", 30.0), Turn(tmp_path / "lock", 0.1)
    assert held.begin()
    assert not held.begin()
    assert not late.begin()
    held.end()
    assert late.begin()
    late.end()
    assert not Turn(tmp_path / "nowhere" / "lock", 30.0).begin()

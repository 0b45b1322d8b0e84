"""Scratch arrays: written by rows, read as maps, there again after a kill, gone when the run is over."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import ResumeError
from cpikan.storage.atomic import StorageFull
from cpikan.storage.protocols import MapWriter
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.preallocated import PreallocatedFile

KINDS = {"phase_rad": np.dtype("f4"), "flags": np.dtype("u1"), "order": np.dtype("i4")}
SHAPE = (9, 5)


def _rows(start: int, stop: int) -> dict[str, np.ndarray]:
    base = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)[start:stop]
    return {"phase_rad": base.astype("f4") / 7, "flags": base.astype("u1"), "order": -base.astype("i4")}


def test_is_a_writer(tmp_path):
    scratch = ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=False)
    assert isinstance(scratch, MapWriter)
    assert scratch.quantities == tuple(KINDS)
    scratch.remove()
    assert not (tmp_path / "s").exists()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.integers(0, 8))
def test_rows_come_back_also_after_a_reopen(tmp_path_factory, counts, reopened):
    folder = tmp_path_factory.mktemp("scratch") / "s"
    scratch = ScratchArrays(folder, SHAPE, KINDS, resume=False)
    start = 0
    for i, count in enumerate([*counts, *[1] * SHAPE[0]]):
        stop = min(start + count, SHAPE[0])
        if start == stop:
            break
        if i == reopened:
            scratch.close()
            scratch = ScratchArrays(folder, SHAPE, KINDS, resume=True)
        scratch.write_rows(start, _rows(start, stop))
        start = stop
    scratch.finish()
    for name, expected in _rows(0, SHAPE[0]).items():
        found = scratch.array(name)
        assert found.dtype == KINDS[name]
        np.testing.assert_array_equal(found, expected)
    scratch.remove()


def test_a_part_of_the_arrays_may_be_written_and_types_are_kept(tmp_path):
    scratch = ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=False)
    scratch.write_rows(2, {"phase_rad": np.ones((3, 5))})  # float64 in, float32 kept
    np.testing.assert_array_equal(scratch.array("phase_rad")[2:5], np.ones((3, 5), "f4"))
    assert (scratch.array("flags") == 0).all()
    scratch.close()


def test_maps_are_read_only_unless_asked(tmp_path):
    scratch = ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=False)
    with pytest.raises(ValueError, match="read-only"):
        scratch.array("order")[0, 0] = 1
    scratch.array("order", writable=True)[3, 4] = 7
    scratch.sync()
    assert scratch.array("order")[3, 4] == 7
    scratch.close()


def test_create_forgets_what_was_there(tmp_path):
    folder = tmp_path / "s"
    scratch = ScratchArrays(folder, SHAPE, KINDS, resume=False)
    scratch.write_rows(0, _rows(0, 9))
    scratch.close()
    (folder / "stray").write_text("x")
    fresh = ScratchArrays(folder, SHAPE, KINDS, resume=False)
    assert (fresh.array("order") == 0).all()
    assert sorted(path.name for path in folder.iterdir()) == ["flags.raw", "order.raw", "phase_rad.raw"]
    fresh.close()


def test_a_resume_without_its_files_is_refused(tmp_path):
    with pytest.raises(ResumeError, match="missing"):
        ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=True)
    scratch = ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=False)
    scratch.close()
    with pytest.raises(ResumeError, match="bytes where"):
        ScratchArrays(tmp_path / "s", (9, 6), KINDS, resume=True)
    (tmp_path / "s" / "order.raw").unlink()
    with pytest.raises(ResumeError, match="missing"):
        ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=True)


def test_required_bytes(tmp_path):
    assert ScratchArrays.required_bytes(SHAPE, KINDS) == 45 * 9
    scratch = ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=False)
    assert sum(path.stat().st_size for path in (tmp_path / "s").iterdir()) == 45 * 9
    scratch.close()


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    scratch = ScratchArrays(tmp_path / "s", SHAPE, KINDS, resume=False)

    def full(self, offset, array):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PreallocatedFile, "write", full)
    with pytest.raises(StorageFull, match="--resume"):
        scratch.write_rows(0, _rows(0, 1))
    scratch.close()

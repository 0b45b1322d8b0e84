"""The table of formats: one made up in this file has every door, and one that lacks a door is refused by its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from test_readers import TestContract as ReaderContract
from test_readers import flat, frames_of
from test_writers import PreallocatedContract

from cpikan.errors import InputError, ResumeError
from cpikan.pipeline.maps.evaluate import evaluate
from cpikan.pipeline.maps.height_map import open_height_map
from cpikan.pipeline.maps.surface import compare_maps
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.stacks.stack import open_stack
from cpikan.storage import formats
from cpikan.storage.atomic import full_disk_named, sync_path
from cpikan.storage.formats import Format
from cpikan.storage.headers import check_raw_size, decoding
from cpikan.storage.maps import StoredMap, open_map, read_document
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.array import ArrayReader
from cpikan.storage.readers.base import fingerprint_files
from cpikan.storage.readers.open import open_frames
from cpikan.storage.writers.layout import QUANTITIES, MapLayout, open_writer, output_paths
from cpikan.storage.writers.preallocated import PreallocatedFile
from independent_frames import make_scene
from small_stacks import STEPS_DEG, WAVES_NM, folder_of

_HEAD = 4096
_CASES = ("uint8", "uint16", "float32", "float64")


def _head(arrays: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> bytes:
    told = {name: [list(shape), dtype.str] for name, (shape, dtype) in arrays.items()}
    return json.dumps(told).encode().ljust(_HEAD)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, one after the other behind a header that says their names, shapes and types."""
    with decoding(str(path)):
        with open(path, "rb") as file:
            told = json.loads(file.read(_HEAD))
        found, start = {}, _HEAD
        for name, (shape, kind) in told.items():
            dtype = np.dtype(kind)
            found[name] = (start, tuple(shape), dtype)
            start += int(np.prod(shape)) * dtype.itemsize
        check_raw_size(str(path), start, path.stat().st_size)
        return {name: np.memmap(path, dtype, "r", at, shape) for name, (at, shape, dtype) in found.items()}


class RawReader(ArrayReader):
    def __init__(self, path: Path) -> None:
        super().__init__(_arrays(path)["frames"], str(path), path.name)
        self._path = path

    def fingerprint(self) -> str:
        return fingerprint_files([self._path])


def raw_heights(path: Path) -> StoredMap:
    return StoredMap(path, _arrays(path), read_document(path))


class RawWriter:
    row_align = 1

    def __init__(self, layout: MapLayout, *, resume: bool) -> None:
        self._layout = layout
        types = {name: (layout.shape, QUANTITIES[name].dtype) for name in layout.quantities}
        head, size = _head(types), _HEAD + layout.raw_bytes
        with full_disk_named(layout.path, layout.raw_bytes):
            if resume:
                self._file = PreallocatedFile.reopen(layout.partial, size)
                if layout.partial.read_bytes()[:_HEAD] != head:
                    raise ResumeError(f"{layout.partial} holds another shape")
            else:
                self._file = PreallocatedFile.create(layout.partial, size, head)

    @property
    def quantities(self) -> tuple[str, ...]:
        return self._layout.quantities

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        with full_disk_named(self._layout.path, self._layout.remaining_bytes(start)):
            offset = _HEAD
            for name, array in self._layout.checked_rows(start, rows, 1).items():
                self._file.write(offset + start * array.shape[1] * array.itemsize, array)
                offset += self._layout.shape[0] * self._layout.shape[1] * QUANTITIES[name].dtype.itemsize

    def sync(self) -> None:
        self._file.sync()

    def finish(self) -> None:
        self.sync()
        self.close()
        os.replace(self._layout.partial, self._layout.path)
        sync_path(self._layout.path.parent)

    def close(self) -> None:
        self._file.close()


RAW = Format(
    "raw file",
    (".raw32",),
    frames=RawReader,
    heights=raw_heights,
    writer=RawWriter,
    bytes_for=lambda shape, itemsize: _HEAD + shape[0] * shape[1] * itemsize,
)
SHUT = Format("closed file", (".shut",))


def install() -> None:
    """For processes that tests start."""
    formats.FORMATS = (*formats.FORMATS, RAW)


@pytest.fixture(autouse=True)
def _one_more_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, RAW, SHUT))


def as_raw(path: Path, frames: np.ndarray) -> Path:
    path.write_bytes(_head({"frames": (frames.shape, frames.dtype)}) + frames.tobytes())
    return path


class TestRawReader(ReaderContract):
    @pytest.fixture(params=_CASES)
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FrameReader, np.ndarray]]:
        frames = frames_of(request.param)
        reader = open_frames(as_raw(tmp_path / "x.raw32", frames)).reader
        yield "npy", reader, flat(frames)
        reader.close()


class TestRawWriter(PreallocatedContract):
    suffix = ".raw32"
    prelude = "import test_formats; test_formats.install()"
    kills = (5,)  # the files are those of .npy

    def read(self, path: Path) -> dict[str, np.ndarray]:
        return _arrays(path)


def test_frames_in_a_map_out_compared_and_evaluated(tmp_path: Path) -> None:
    """The same bits as the formats of the table."""
    scene = make_scene(5, (70, 80), WAVES_NM, STEPS_DEG)
    folder = folder_of(tmp_path / "frames", np.asarray(scene.frames))
    raw = as_raw(folder / "x.raw32", np.asarray(scene.frames))
    (folder / "frames.npy").rename(tmp_path / "frames.npy")
    (tmp_path / "acquisition.toml").write_bytes((folder / "acquisition.toml").read_bytes())
    with open_stack(raw) as stack:
        assert stack.form == "raw file"
        found = reconstruct(stack, tmp_path / "out.raw32", progress=False)
        assert set(found.arrays) == {"height_nm", "sigma_nm", "modulation", "flags"}
        assert reconstruct(stack, tmp_path / "out.raw32", progress=False, resume=True).summary["already_finished"]
    with open_stack(tmp_path / "frames.npy") as stack:
        expected = reconstruct(stack, tmp_path / "plain.tif", progress=False)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], np.asarray(array))
    assert compare_maps(found.path, expected.path).summary()["difference"]["pv_nm"] == 0
    np.save(tmp_path / "truth.npy", scene.height_nm)
    assert evaluate(found.path, tmp_path / "truth.npy", progress=False)["wrong_order_fraction"] == 0


def test_a_format_without_a_door_is_refused_by_its_name(tmp_path: Path) -> None:
    shut, nms, h5 = tmp_path / "x.shut", tmp_path / "x.nms", tmp_path / "x.h5"
    zygo = tmp_path / "x.dat"
    shut.write_bytes(b"x")
    nms.write_bytes(b"x")
    for open_it, path, words in (
        (open_frames, shut, "is a closed file, which holds no frames that are read: allowed are .npy"),
        (open_frames, nms, "is a NanoFocus file, which holds no frames"),
        (open_map, shut, r"is a closed file, which holds no heights .* \.dat, .*\.raw32$"),
        (open_map, h5, "is a HDF5 dataset, which holds no heights"),
        (output_paths, shut, "is a closed file, which is only read: allowed are .npy, .tif, .tiff, .zarr, .raw32"),
        (output_paths, zygo, "is a Zygo MetroPro file, which takes heights alone: .* then cpikan convert: allowed are"),
        (output_paths, tmp_path / "x.bmp", "is a single image, which is only read"),
        (output_paths, tmp_path / "x.abc", r"has no known suffix: allowed are .npy, .tif, .tiff, .zarr, .raw32$"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            open_it(path)
        assert path.name in str(caught.value)


def test_one_suffix_means_one_format() -> None:
    suffixes = [suffix for known in formats.FORMATS for suffix in known.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    assert all(known.bytes_for is not None and known.heights is not None for known in formats.FORMATS if known.writer)
    assert all(known.bytes_for is not None and known.writer is None for known in formats.FORMATS if known.exporter)


def test_a_suffix_in_capitals_is_the_same(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "A.RAW32", (3, 4), {"height_nm": np.dtype("<f4")}, attributes={}, resume=False)
    writer.write_rows(0, {"height_nm": np.ones((3, 4), np.float32)})
    writer.finish()
    assert float(open_height_map(tmp_path / "A.RAW32").height_nm[2, 3]) == 1


def test_the_table_loads_no_decoder() -> None:
    code = (
        "import sys; from cpikan.storage.formats import suffixes_of; suffixes_of('frames', 'writer'); "
        "print([name for name in ('numpy', 'zarr', 'h5py', 'tifffile', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

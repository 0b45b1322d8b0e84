"""Outputs read back: indexing as NumPy does it, and every kind of damage raises."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from cpikan.errors import InputError
from cpikan.storage.atomic import write_json
from cpikan.storage.maps import StoredMap, open_map
from cpikan.storage.writers.layout import QUANTITIES, document_path, open_writer

SHAPE = (1100, 600)
SUFFIXES = (".npy", ".tif", ".zarr")


def truth(shape: tuple[int, int] = SHAPE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "height_nm": np.where(rng.random(shape) < 0.1, np.nan, rng.normal(size=shape)).astype(np.float32),
        "flags": rng.integers(0, 64, shape).astype(np.uint8),
    }


def write(path: Path, data: dict[str, np.ndarray]) -> Path:
    types = {name: QUANTITIES[name].dtype for name in data}
    writer = open_writer(path, data["height_nm"].shape, types, attributes={}, resume=False)
    writer.write_rows(0, data)
    writer.finish()
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredMap]:
    folder = tmp_path_factory.mktemp("maps")
    return {suffix: open_map(write(folder / f"out{suffix}", truth())) for suffix in SUFFIXES}


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(index=basic_indices(SHAPE, allow_ellipsis=True), name=st.sampled_from(["height_nm", "flags"]))
def test_any_basic_index_gives_what_numpy_gives(
    stored: dict[str, StoredMap], suffix: str, index: object, name: str
) -> None:
    expected = truth_once[name][index]
    found = stored[suffix].arrays[name][index]
    assert np.shape(found) == np.shape(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


truth_once = truth()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_whole_map(stored: dict[str, StoredMap], suffix: str) -> None:
    found = stored[suffix]
    assert found.shape == SHAPE
    assert set(found.arrays) == {"height_nm", "flags"}
    for name, array in found.arrays.items():
        assert array.shape == SHAPE
        assert array.ndim == 2
        assert len(array) == SHAPE[0]
        assert array.size == SHAPE[0] * SHAPE[1]
        np.testing.assert_array_equal(np.asarray(array), truth_once[name])
        assert np.asarray(array, dtype=np.float64).dtype == np.float64
    assert found.document == {}


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_bad_indices(stored: dict[str, StoredMap], suffix: str) -> None:
    array = stored[suffix].arrays["height_nm"]
    for bad in ((0, 0, 0), 1100, (0, -601), ([1, 2],), 1.5, (True,), None):
        with pytest.raises(IndexError):
            array[bad]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_document_beside_it(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"out{suffix}", truth((4, 5)))
    write_json(document_path(path), {"summary": {"rms_nm": 1.5}})
    assert open_map(path).document == {"summary": {"rms_nm": 1.5}}
    for bad in ("{", "[1]", "\udcff".encode("utf-8", "surrogateescape").decode("latin1"), "[" * 100000):
        document_path(path).write_text(bad, encoding="latin1")
        with pytest.raises(InputError, match=r"out\.json"):
            open_map(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_absent_or_unfinished_output_says_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with pytest.raises(InputError, match="does not exist: check the name"):
        open_map(path)
    types = {"height_nm": np.dtype("f4")}
    open_writer(path, (4, 5), types, attributes={}, resume=False).close()
    with pytest.raises(InputError, match="unfinished: run again with --resume"):
        open_map(path)
    with pytest.raises(InputError, match="is a single image, which holds no heights that are read: allowed are"):
        open_map(tmp_path / "out.bmp")


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
@pytest.mark.parametrize("keep", [0, 5, 100, 300, -1])
def test_a_truncated_file_raises(tmp_path: Path, suffix: str, keep: int) -> None:
    path = write(tmp_path / f"out{suffix}", truth((40, 50)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"out\."):
        open_map(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_garbage_raises(tmp_path: Path, suffix: str) -> None:
    for number, junk in enumerate(
        [b"", b"\x93NUMPY\x01\x00\xff\xff{", b"II+\x00junk" * 9, b"hello" * 1000, bytes(4096)]
    ):
        path = tmp_path / f"out{number}{suffix}"
        path.write_bytes(junk)
        with pytest.raises(InputError):
            open_map(path)


def test_a_tiff_cut_while_open_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "out.tif", truth((600, 50)))
    flags = open_map(path).arrays["flags"]
    path.write_bytes(path.read_bytes()[: -480 * 512])  # the last tile keeps 32 of its 88 rows
    np.testing.assert_array_equal(flags[:540], truth((600, 50))["flags"][:540])
    with pytest.raises(InputError, match=r"truncated: tile \(1, 0\) of flags"):
        flags[599]


@pytest.mark.parametrize("name", ["height_nm", "flags"])
def test_a_deleted_zarr_chunk_raises(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "out.zarr", truth())
    (path / name / "0" / "c" / "1" / "0").unlink()
    # zarr itself reads the hole as the fill value: this is what is guarded against
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")[f"{name}/0"][512:514, 0], QUANTITIES[name].fill)
    array = open_map(path).arrays[name]
    np.testing.assert_array_equal(array[:512], truth_once[name][:512])
    with pytest.raises(InputError, match=r"0/c/1/0 is missing: rows from 512"):
        array[511:513]
    with pytest.raises(InputError, match="missing"):
        np.asarray(array)


def test_any_flipped_byte_of_a_zarr_chunk_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "out.zarr", truth((30, 40)))
    chunk = path / "height_nm" / "0" / "c" / "0" / "0"
    whole = chunk.read_bytes()
    array = open_map(path).arrays["height_nm"]
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        chunk.write_bytes(damaged)
        with pytest.raises(InputError, match=r"height_nm/0.* is damaged"):
            array[:]
    for bad in (b"", whole[:10], whole[:-1], whole[1:]):
        chunk.write_bytes(bad)
        with pytest.raises(InputError, match="damaged"):
            array[:]


def test_a_hole_inside_a_zarr_shard_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "out.zarr", truth((30, 600)))
    careless = zarr.open_array(path / "height_nm" / "0", mode="r+")  # drops chunks equal to the fill value
    careless[:, 512:] = np.nan
    with pytest.raises(InputError, match="a part of it is missing"):
        np.asarray(open_map(path).arrays["height_nm"])


def test_zarr_chunks_without_pixels_raise(tmp_path: Path) -> None:
    path = write(tmp_path / "out.zarr", truth((30, 40)))
    told = path / "height_nm" / "0" / "zarr.json"
    text = told.read_text()
    changed = re.sub(r'("chunk_shape":\s*\[\s*)\d+', r"\g<1>0", text)
    assert changed != text
    told.write_text(changed)
    with pytest.raises(InputError):
        np.asarray(open_map(path).arrays["height_nm"][:])


def test_damaged_zarr_metadata_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "out.zarr", truth((30, 40)))
    for file in (path / "height_nm" / "0" / "zarr.json",):
        whole = file.read_text()
        for bad in ("", "{", "[]", "{}", whole.replace("float32", "float99"), whole.replace("40", '"x"', 1)):
            file.write_text(bad)
            with pytest.raises(InputError):
                open_map(path)
        file.unlink()
        with pytest.raises(InputError):
            open_map(path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="no group height_nm"):
        open_map(tmp_path / "empty.zarr")


def npy_header(descr: object, shape: tuple[int, ...], order: bool = False) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": order, "shape": shape})
    return head.getvalue()


@pytest.mark.parametrize(
    ("descr", "shape"),
    [("<f4", (10**6, 10**6)), ("<f4", (2**40, 2**40)), ("|O", (2, 2)), ("<f4", (4,)), ("<f4", (0, 4)), ("<c8", (1, 1))],
)
def test_hostile_npy_headers_raise_before_anything_is_allocated(tmp_path: Path, descr: str, shape: tuple) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(npy_header(descr, shape) + bytes(64))
    with pytest.raises(InputError, match=r"out\.npy"):
        open_map(path)


def test_a_foreign_npy_is_read(tmp_path: Path) -> None:
    truth_nm = np.asfortranarray(np.random.default_rng(0).normal(size=(7, 9)))
    np.save(tmp_path / "truth.npy", truth_nm)
    array = open_map(tmp_path / "truth.npy").arrays["height_nm"]
    np.testing.assert_array_equal(array, truth_nm)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_maps_of_different_shapes_do_not_belong_together(tmp_path: Path) -> None:
    path = write(tmp_path / "out.npy", truth((4, 5)))
    np.save(tmp_path / "out.sigma.npy", np.zeros((4, 6), np.float32))
    with pytest.raises(InputError, match="differ in shape"):
        open_map(path)


def test_a_foreign_tiff_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "photo.tif", np.zeros((5, 6), np.uint8), metadata=None)
    with pytest.raises(InputError, match="not a map this program wrote"):
        open_map(tmp_path / "photo.tif")

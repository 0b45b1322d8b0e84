"""Header bombs: a claim of 10^6 x 10^6 pixels is refused at once, before anything is allocated."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from cpikan.errors import InputError
from cpikan.storage.headers import (
    check_compressed_size,
    check_frame_size,
    check_pixel_type,
    check_raw_size,
    decoding,
)
from cpikan.storage.readers.open import open_frames

HUGE = 10**6


def npy_bomb(folder: Path, shape: tuple[int, ...] = (4, HUGE, HUGE)) -> Path:
    path = folder / "bomb.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(b"\0" * 100)
    return path


def tiff_bomb(folder: Path, side: int = HUGE, compression: int = 1) -> Path:
    """A TIFF of one strip whose tags claim side x side bytes."""
    tags = [
        (256, side),
        (257, side),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, side),
        (279, 64),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path = folder / "bomb.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 72) + b"\0" * 64 + directory + struct.pack("<I", 0))
    return path


def zarr_bomb(folder: Path, chunk: int = 1000) -> Path:
    path = folder / "bomb.zarr"
    array = zarr.create_array(str(path), shape=(4, 8, 8), chunks=(1, 8, 8), dtype="uint8")
    array[:] = 1
    text = (path / "zarr.json").read_text()
    document = json.loads(text)
    document["shape"] = [4, HUGE, HUGE]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [1, chunk, chunk]
    (path / "zarr.json").write_text(json.dumps(document))
    return path


def hdf5_bomb(folder: Path) -> str:
    path = folder / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", shape=(4, HUGE, HUGE), dtype="uint8", chunks=(1, 64, 64))
    return f"{path}::/frames"


def png_bomb(folder: Path, side: int = HUGE) -> Path:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    for name in ("a.png", "b.png", "c.png"):
        data = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + header + data)
    return folder


BOMBS: dict[str, Callable[[Path], Path | str]] = {
    "npy": npy_bomb,
    "npy of many frames": lambda folder: npy_bomb(folder, (10**12, 1, 1)),
    "npy just below the pixel limit": lambda folder: npy_bomb(folder, (4, 60_000, 60_000)),
    "tiff": tiff_bomb,
    "tiff just below the pixel limit": lambda folder: tiff_bomb(folder, 60_000),
    "deflated tiff": lambda folder: tiff_bomb(folder, 60_000, compression=8),
    "zarr": zarr_bomb,
    "zarr of one chunk": lambda folder: zarr_bomb(folder, HUGE),
    "hdf5": hdf5_bomb,
    "png": png_bomb,
    "png just below the pixel limit": lambda folder: png_bomb(folder, 60_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_header_bomb_is_refused_at_once_and_without_memory(name: str, tmp_path: Path) -> None:
    source = BOMBS[name](tmp_path)
    with pytest.raises(InputError):  # once to import what the format needs
        open_frames(source)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(InputError) as caught:
            open_frames(source)
        seconds = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 0.1  # processor time: others may keep the machine busy
    assert peak < 50 * 2**20
    assert "\n" not in str(caught.value)


def test_raw_size_names_both_numbers() -> None:
    check_raw_size("x", 100, 100)
    with pytest.raises(InputError, match=r"x claims 100 bytes .* holds 99: it is truncated"):
        check_raw_size("x", 100, 99)
    with pytest.raises(InputError, match=r"claims 100 bytes .* holds 101"):
        check_raw_size("x", 100, 101)


def test_compressed_size_allows_ten_thousand_times() -> None:
    check_compressed_size("x", 10_000, 1)
    with pytest.raises(InputError, match="10000 times"):
        check_compressed_size("x", 10_001, 1)
    with pytest.raises(InputError):
        check_compressed_size("x", 1, 0)


@pytest.mark.parametrize(("height", "width"), [(2**16, 2**16 + 1), (0, 5), (5, 0), (2**33, 1)])
def test_frame_size_limits(height: int, width: int) -> None:
    check_frame_size("x", 2**16, 2**16)
    with pytest.raises(InputError, match=f"{height} x {width}"):
        check_frame_size("x", height, width)


def test_frame_count_limit() -> None:
    check_frame_size("x", 1, 1, frames=2**16)
    with pytest.raises(InputError, match="65537 frames"):
        check_frame_size("x", 1, 1, frames=2**16 + 1)


@pytest.mark.parametrize("name", ["u1", "<u2", ">u2", "<f4", ">f4", "<f8", ">f8"])
def test_allowed_pixel_types_come_back_native(name: str) -> None:
    native = check_pixel_type("x", np.dtype(name))
    assert native.isnative
    assert native.kind == np.dtype(name).kind
    assert native.itemsize == np.dtype(name).itemsize


@pytest.mark.parametrize("name", ["i1", "<i2", ">i2", "<i4", ">i4", "<u4"])
def test_other_integers_are_read_as_floats_that_hold_them_exactly(name: str) -> None:
    limits = np.iinfo(name)
    read = check_pixel_type("x", np.dtype(name))
    ends = np.array([limits.min, limits.min + 1, -1 if limits.min else 1, limits.max - 1, limits.max]).astype(name)
    assert read.kind == "f"
    assert read.isnative
    np.testing.assert_array_equal(ends.astype(read).astype(name), ends)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("<i8", r"astype\('float64'\)"),
        (">u8", r"astype\('float64'\)"),
        ("<f2", "half"),
        ("O", "Python objects"),
        ("<c8", "complex"),
    ],
)
def test_other_pixel_types_are_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        check_pixel_type("x", np.dtype(name))


@pytest.mark.parametrize(
    "error", [struct.error("s"), IndexError(), MemoryError("m"), OSError("o"), ZeroDivisionError()]
)
def test_whatever_a_decoder_raises_becomes_one_line_that_names_the_file(error: Exception) -> None:
    with pytest.raises(InputError, match=r"^file\.x is damaged") as caught, decoding("file.x"):
        raise error
    assert caught.value.__cause__ is error


def test_words_of_a_damaged_file_do_not_act_on_the_terminal() -> None:
    with pytest.raises(InputError) as caught, decoding("file.x"):
        raise TypeError("unexpected keyword 'chunk_\x7fhape'\x1b[2J")
    assert str(caught.value).isprintable()


def test_decoding_keeps_input_errors_and_interrupts() -> None:
    with pytest.raises(InputError, match=r"^as it was$"), decoding("file.x"):
        raise InputError("as it was")
    with pytest.raises(KeyboardInterrupt), decoding("file.x"):
        raise KeyboardInterrupt

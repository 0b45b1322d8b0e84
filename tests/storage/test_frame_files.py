"""Frames of bare pixels, in folders of files, in sub-folders, with names that say what they are, and with axes in any order."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from test_readers import TestContract as ReaderContract
from test_readers import flat, frames_of

from cpikan.errors import InputError
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.name_pattern import NamePattern, in_order
from cpikan.storage.readers.open import open_frames
from cpikan.storage.readers.raw_layout import PIXELS, RawLayout, parse_raw
from cpikan.storage.readers.read_as import ReadAs

DEPTH = {"Mono8": 8, "Mono10": 10, "Mono12": 12, "Mono14": 14, "Mono16": 16}


def packed(pixels: np.ndarray, pixel: str) -> bytes:
    """Pack pixels (N,) bit by bit, as the tables of PFNC and GigE Vision draw them: slow and plain."""
    out, values = bytearray(), [int(value) for value in pixels]
    if pixel in ("Mono10p", "Mono12p"):
        bits = int(pixel[4:6])
        stream = sum(value << bits * i for i, value in enumerate(values))
        return stream.to_bytes(-(-bits * len(values) // 8), "little")
    low = int(pixel[4:6]) - 8
    for a, b in itertools.zip_longest(values[::2], values[1::2]):
        out.append(a >> low)
        out.append((a & (2**low - 1)) | (0 if b is None else (b & (2**low - 1)) << 4))
        if b is not None:
            out.append(b >> low)
    return bytes(out)


def as_raw(path: Path, frames: np.ndarray, layout: RawLayout) -> Path:
    """Write frames (N, H, W) of bare pixels."""
    spare = 16 - layout.format.bits if layout.justified == "left" else 0
    parts = [b"H" * layout.header]
    for frame in frames:
        if layout.format.packed and not layout.row_padding:
            parts.append(packed(frame.ravel(), layout.pixel))
        else:
            for row in frame:
                kind = "u1" if layout.format.bytes == 1 else ">u2" if layout.endian == "big" else "<u2"
                line = packed(row, layout.pixel) if layout.format.packed else (row << spare).astype(kind).tobytes()
                parts.append(line + b"R" * layout.row_padding)
        parts.append(b"F" * layout.frame_padding)
    path.write_bytes(b"".join(parts))
    return path


def raw_frames(pixel: str, shape: tuple[int, ...] = (6, 37, 29)) -> np.ndarray:
    bits = PIXELS[pixel].bits
    kind = "uint8" if bits == 8 else "uint16"
    return np.random.default_rng(3).integers(0, 2**bits, shape, dtype=kind)


LAYOUTS = [
    RawLayout("Mono8", 29, 37),
    RawLayout("Mono16", 29, 37, header=13, endian="big"),
    RawLayout("Mono12", 29, 37, header=5, frame_padding=3, row_padding=2, justified="left"),
    RawLayout("Mono10", 29, 37),
    RawLayout("Mono14", 29, 37, justified="left", endian="big"),
    *(RawLayout(name, 29, 37, header=7, frame_padding=5) for name in PIXELS if PIXELS[name].packed),
]


class TestRawReader(ReaderContract):
    @pytest.fixture(params=LAYOUTS, ids=lambda layout: f"{layout.pixel}-{layout.justified}")
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FrameReader, np.ndarray]]:
        frames = raw_frames(request.param.pixel)
        reader = open_frames(as_raw(tmp_path / "x.raw", frames, request.param), ReadAs(raw=request.param)).reader
        assert reader.bits == request.param.format.bits
        yield "raw", reader, frames
        reader.close()


def as_npy_folder(folder: Path, frames: np.ndarray) -> ReadAs:
    for k, frame in enumerate(flat(frames)):
        np.save(folder / f"f{k + 8}.npy", frame)
    np.save(folder / "truth.npy", np.zeros(frames.shape[2:]))
    np.save(folder / "map.sigma.npy", np.zeros(frames.shape[2:]))
    (folder / "map.json").write_text("{}")
    return ReadAs()


def as_hdf5_folder(folder: Path, frames: np.ndarray) -> ReadAs:
    for k, frame in enumerate(flat(frames)):
        with h5py.File(folder / f"f{k + 8}.h5", "w") as file:
            file.create_dataset("a/b", data=frame, chunks=(8, 8) if k else None)
    return ReadAs()


def as_npy_per_wavelength(folder: Path, frames: np.ndarray) -> ReadAs:
    for k, one in enumerate(frames):
        np.save(folder / f"w{k}.npy", one)
    return ReadAs()


def as_sub_folders(folder: Path, frames: np.ndarray) -> ReadAs:
    """Named after wavelengths, of which the longer is the first of the acquisition."""
    for name, one in zip(("633 nm", "532nm"), frames, strict=True):
        (folder / name).mkdir()
        for k, frame in enumerate(one):
            tifffile.imwrite(folder / name / f"s{k}.tif", frame)
    return ReadAs(wavelengths_nm=(632.8, 532.0))


def as_patterned(folder: Path, frames: np.ndarray) -> ReadAs:
    for (i, k), frame in zip(np.ndindex(frames.shape[:2]), flat(frames), strict=True):
        tifffile.imwrite(folder / f"s{k + 9}_w{i}.tif", frame)
        tifffile.imwrite(folder / f"dark{k}_{i}.tif", frame)
    return ReadAs(pattern=NamePattern("s{step}_w{wavelength}.tif"))


def as_raw_per_frame(folder: Path, frames: np.ndarray) -> ReadAs:
    layout = RawLayout("Mono16", 29, 37)
    for k, frame in enumerate(flat(frames)):
        as_raw(folder / f"f{k + 8}.dump", frame[None], layout)
    return ReadAs(raw=layout)


def with_axes(axes: str, suffix: str = "npy") -> Callable[[Path, np.ndarray], ReadAs]:
    def write(folder: Path, frames: np.ndarray) -> ReadAs:
        turned = frames.transpose(["wsyx".index(letter) for letter in axes])
        if suffix == "npy":
            np.save(folder / "x.npy", turned)
        else:
            with h5py.File(folder / "x.h5", "w") as file:
                file.create_dataset("d", data=turned, chunks=suffix == "chunks" or None)
        return ReadAs(axes=axes, dataset="" if suffix == "npy" else "/d")

    return write


FORMS: dict[str, tuple[Callable[[Path, np.ndarray], ReadAs], bool]] = {
    "folder of npy": (as_npy_folder, False),
    "folder of hdf5": (as_hdf5_folder, False),
    "npy per wavelength": (as_npy_per_wavelength, False),
    "folder per wavelength": (as_sub_folders, True),
    "pattern": (as_patterned, True),
    "raw per frame": (as_raw_per_frame, False),
    "axes swyx": (with_axes("swyx"), True),
    "axes yxws": (with_axes("yxws"), True),
    "axes swxy": (with_axes("swxy"), True),
    "axes yxws, hdf5": (with_axes("yxws", "hdf5"), True),
    "axes xysw, hdf5": (with_axes("xysw", "hdf5"), True),
    "axes wysx, hdf5 chunks": (with_axes("wysx", "chunks"), True),
}


def opened_form(name: str, folder: Path, frames: np.ndarray) -> FrameReader:
    how = FORMS[name][0](folder, frames)
    if how.axes is None:
        return open_frames(folder, how).reader
    return open_frames(folder / "x.npy" if not how.dataset else f"{folder / 'x.h5'}::/d", how).reader


class TestFolders(ReaderContract):
    @pytest.fixture(params=FORMS)
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FrameReader, np.ndarray]]:
        frames = frames_of("uint16")
        reader = opened_form(request.param, tmp_path, frames)
        yield "npy" if FORMS[request.param][1] else "flat", reader, flat(frames)
        reader.close()


@pytest.mark.parametrize("form", FORMS)
def test_copies_open_the_same_files_again_and_refuse_others(form: str, tmp_path: Path) -> None:
    frames = frames_of("uint16")
    with closing(opened_form(form, tmp_path, frames)) as reader:
        data = pickle.dumps(reader)
        with closing(pickle.loads(data)) as copy:
            np.testing.assert_array_equal(copy.read_rows(4, 9), flat(frames)[:, 4:9])
        assert reader.files()
        assert all(path.is_file() for path in reader.files())
        os.utime(reader.files()[-1], ns=(1, 1))
    with pytest.raises(InputError, match="has changed since"):
        pickle.loads(data)


class TestFaults:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ({"pixel": "Mono9", "width": 4, "height": 4}, "unknown raw pixel format 'Mono9'"),
            ({"pixel": "Mono8", "width": 4}, "raw lacks height"),
            ({"pixel": "Mono8", "width": 0, "height": 4}, "raw width 0 is no whole number from 1"),
            ({"pixel": "Mono8", "width": 4, "height": 4, "justified": "up"}, "raw justified"),
            ({"pixel": "Mono8", "width": 4, "height": 4, "size": 1}, "unknown key of raw 'size'"),
            ({"pixel": "Mono12p", "width": 5, "height": 4, "row_padding": 1}, "rows that end within a byte"),
            ({"pixel": "Mono8", "width": 2**40, "height": 2**40}, r"at most 2\*\*32"),
            ("Mono8", "no table|KEY=VALUE"),
            ("pixel=Mono8,width=x,height=4", "raw width 'x'"),
            (7, "is no table"),
        ],
    )
    def test_what_is_said_of_raw_pixels(self, value: object, words: str) -> None:
        with pytest.raises(InputError, match=words):
            parse_raw(value)

    def test_raw_as_text_is_raw_as_a_table(self) -> None:
        text = "pixel=Mono12Packed, width=9344,height=7000,header=16"
        assert parse_raw(text) == RawLayout("Mono12Packed", 9344, 7000, header=16)

    def test_raw_that_nobody_described(self, tmp_path: Path) -> None:
        (tmp_path / "x.raw").write_bytes(b"abc")
        with pytest.raises(InputError, match=r"holds pixels without a header: .* raw = \{pixel"):
            open_frames(tmp_path / "x.raw")

    def test_raw_of_another_size(self, tmp_path: Path) -> None:
        path = as_raw(tmp_path / "x.bin", raw_frames("Mono8"), RawLayout("Mono8", 29, 37))
        for layout in (
            RawLayout("Mono8", 28, 37),
            RawLayout("Mono12", 29, 100),
            RawLayout("Mono8", 29, 37, header=10**6),
        ):
            with pytest.raises(InputError, match=r"frames of .* it was cut, or raw says another"):
                open_frames(path, ReadAs(raw=layout))

    def test_bits_where_there_should_be_none(self, tmp_path: Path) -> None:
        frames = raw_frames("Mono16")
        path = as_raw(tmp_path / "x.bin", frames, RawLayout("Mono16", 29, 37))
        for side, words in (("right", r'more than 12 bits: say justified = "left"'), ("left", "not justified left")):
            reader = open_frames(path, ReadAs(raw=RawLayout("Mono12", 29, 37, justified=side))).reader
            with pytest.raises(InputError, match=words):
                reader.read_rows(0, 37)

    @pytest.mark.parametrize(
        ("text", "words"),
        [("a.png", "needs {wavelength} or {step}"), ("{step}{step}.png", "each once"), ("{other}.png", "each once")],
    )
    def test_patterns(self, text: str, words: str) -> None:
        with pytest.raises(InputError, match=words):
            NamePattern(text)

    def test_a_frame_that_the_pattern_lacks(self, tmp_path: Path) -> None:
        for name in ("w0_s0", "w0_s1", "w1_s0"):
            Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
        with pytest.raises(InputError, match=r"lacks w1_s1\.png, which other wavelengths have"):
            open_frames(tmp_path, ReadAs(pattern=NamePattern("w{wavelength}_s{step}.png")))
        with pytest.raises(InputError, match="the same frame by the pattern"):
            open_frames(tmp_path, ReadAs(pattern=NamePattern("w*_s{step}.png")))
        with pytest.raises(InputError, match="holds no file of the pattern"):
            open_frames(tmp_path, ReadAs(pattern=NamePattern("x{step}.png")))

    def test_names_that_contradict_the_acquisition(self) -> None:
        assert in_order(["532nm", "633 nm"], (632.8, 532.0)) == ["633 nm", "532nm"]
        assert in_order(["w10", "w9"], (632.8, 532.0)) == ["w9", "w10"]
        with pytest.raises(InputError, match=r"say 532nm, 650nm but the acquisition 632\.8 nm, 532 nm"):
            in_order(["532nm", "650nm"], (632.8, 532.0))

    def test_a_path_that_no_file_system_holds(self) -> None:
        with pytest.raises(InputError, match="does not exist"):
            open_frames("x" * 5000)

    def test_files_that_differ(self, tmp_path: Path) -> None:
        for k, width in enumerate((5, 5, 6)):
            np.save(tmp_path / f"f{k}.npy", np.zeros((4, width), np.uint8))
        with pytest.raises(InputError, match=r"f2\.npy holds 1 frame of 4 x 6 uint8 but 2 of 3"):
            open_frames(tmp_path)

    def test_what_a_format_does_not_take(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack")
        np.save(tmp_path / "x.npy", np.zeros((3, 4, 5), np.uint8))
        for path, how, words in (
            ("x.tif", ReadAs(axes="yxs"), "leave axes out"),
            ("x.npy", ReadAs(axes="wsyx"), r"shape \(3, 4, 5\) but axes 'wsyx' are 4"),
            ("x.npy", ReadAs(dataset="d"), "without a name"),
            ("x.npy", ReadAs(pattern=NamePattern("{step}")), "is one file, but a pattern"),
        ):
            with pytest.raises(InputError, match=words):
                open_frames(tmp_path / path, how)

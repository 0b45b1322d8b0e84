"""Every form of a stack holds the same frames: one contract for all readers, then what is special to each."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cpikan.errors import InputError
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.array import ArrayReader
from cpikan.storage.readers.blocks import ChunkedRows
from cpikan.storage.readers.images import image_files
from cpikan.storage.readers.name_pattern import natural_key
from cpikan.storage.readers.open import open_frames
from cpikan.storage.readers.scratch import ScratchFrames

SHAPE = (2, 3, 37, 29)
DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))


def frames_of(dtype: str) -> np.ndarray:
    """Random frames (L, K, H, W) over the whole range of the type; floats with dead pixels."""
    rng = np.random.default_rng(7)
    if dtype.startswith("uint"):
        return rng.integers(0, np.iinfo(dtype).max, SHAPE, dtype=dtype, endpoint=True)
    frames = rng.normal(size=SHAPE).astype(dtype)
    frames[:, :, 3, 5] = np.nan
    return frames


def flat(frames: np.ndarray) -> np.ndarray:
    return frames.reshape(-1, *frames.shape[2:])


def as_npy(folder: Path, frames: np.ndarray) -> str:
    np.save(folder / "x.npy", frames)
    return str(folder / "x.npy")


def as_fortran_npy(folder: Path, frames: np.ndarray) -> str:
    return as_npy(folder, np.asfortranarray(frames))


def as_big_endian_npy(folder: Path, frames: np.ndarray) -> str:
    return as_npy(folder, frames.astype(frames.dtype.newbyteorder(">")))


def as_flat_npy(folder: Path, frames: np.ndarray) -> str:
    return as_npy(folder, flat(frames))


def as_simulated_folder(folder: Path, frames: np.ndarray) -> str:
    np.save(folder / "frames.npy", frames)
    np.save(folder / "truth.npy", np.zeros(frames.shape[2:]))
    Image.new("L", (5, 5)).save(folder / "preview.png")
    return str(folder)


def tiff_writer(**options: object) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        tifffile.imwrite(folder / "x.tif", frames, photometric="minisblack", **options)
        return str(folder / "x.tif")

    return write


def as_imagej_tiff(folder: Path, frames: np.ndarray) -> str:
    tifffile.imwrite(folder / "x.tif", flat(frames), imagej=True)
    return str(folder / "x.tif")


def as_truncated_tiff(folder: Path, frames: np.ndarray) -> str:
    """One page and all pixels behind it, as tifffile writes with ``truncate``."""
    tifffile.imwrite(folder / "x.tif", flat(frames), truncate=True, photometric="minisblack")
    return str(folder / "x.tif")


def as_tiff_folder(folder: Path, frames: np.ndarray) -> str:
    for k, frame in enumerate(flat(frames)):
        tifffile.imwrite(folder / f"frame{k + 8}.tif", frame, compression="zlib" if k == 2 else None)
    return str(folder)


def as_png_folder(folder: Path, frames: np.ndarray) -> str:
    for k, frame in enumerate(flat(frames)):
        (folder / f"frame{k + 8}.png").write_bytes(imagecodecs.png_encode(frame))
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"not an image")
    return str(folder)


def as_rgb_png_folder(folder: Path, frames: np.ndarray) -> str:
    for k, frame in enumerate(flat(frames)):
        pixels = np.repeat(frame[..., None], 3, axis=2)
        (folder / f"frame{k + 8}.png").write_bytes(imagecodecs.png_encode(pixels))
    return str(folder)


def as_bmp_folder(folder: Path, frames: np.ndarray) -> str:
    for k, frame in enumerate(flat(frames)):
        Image.fromarray(frame).save(folder / f"frame{k + 8}.BMP")
    return str(folder)


def as_palette_folder(folder: Path, frames: np.ndarray) -> str:
    for k, frame in enumerate(flat(frames)):
        image = Image.fromarray(frame)
        image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
        image.save(folder / f"frame{k + 8}.png")
    return str(folder)


def zarr_writer(**options: object) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        array = zarr.create_array(
            str(folder / "x.zarr"),
            shape=frames.shape,
            dtype=frames.dtype,
            config={"write_empty_chunks": True},
            **options,
        )
        array[:] = frames
        return str(folder / "x.zarr")

    return write


def hdf5_writer(**options: object) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        with h5py.File(folder / "x.h5", "w") as file:
            file.create_dataset("run/frames", data=frames, **options)
        return f"{folder / 'x.h5'}::/run/frames"

    return write


ANY = ("uint8", "uint16", "float32", "float64")
FORMS: dict[str, tuple[Callable[[Path, np.ndarray], str], tuple[str, ...]]] = {
    "npy": (as_npy, ANY),
    "npy in Fortran order": (as_fortran_npy, ("uint16",)),
    "npy, big endian": (as_big_endian_npy, ("uint16", "float32")),
    "npy of three axes": (as_flat_npy, ("uint8",)),
    "folder with frames.npy": (as_simulated_folder, ("uint16",)),
    "tiff": (tiff_writer(), ANY),
    "tiff, big endian": (tiff_writer(byteorder=">"), ("uint16", "float32")),
    "tiff, deflated tiles": (tiff_writer(compression="zlib", predictor=True, tile=(16, 16)), ("uint8", "uint16")),
    "tiff, deflated, big endian": (tiff_writer(compression="zlib", byteorder=">"), ("uint16",)),
    "tiff, strips": (tiff_writer(rowsperstrip=5), ("uint16",)),
    "BigTIFF": (tiff_writer(bigtiff=True), ("uint16",)),
    "ImageJ": (as_imagej_tiff, ("uint16",)),
    "tiff of one page header": (as_truncated_tiff, ("uint16",)),
    "folder of tiff": (as_tiff_folder, ("uint8", "uint16", "float32")),
    "folder of png": (as_png_folder, ("uint8", "uint16")),
    "folder of grey rgb png": (as_rgb_png_folder, ("uint8", "uint16")),
    "folder of bmp": (as_bmp_folder, ("uint8",)),
    "folder of grey palettes": (as_palette_folder, ("uint8",)),
    "zarr": (zarr_writer(chunks=(1, 2, 8, 8)), ANY),
    "zarr 2": (zarr_writer(chunks=(1, 1, 10, 29), zarr_format=2), ("uint16",)),
    "zarr, sharded": (zarr_writer(chunks=(1, 1, 8, 8), shards=(2, 2, 16, 16)), ("uint16", "float32")),
    "zarr, big endian": (
        zarr_writer(chunks=(1, 1, 8, 8), serializer=zarr.codecs.BytesCodec(endian="big")),
        ("uint16",),
    ),
    "hdf5": (hdf5_writer(), ANY),
    "hdf5, chunks": (hdf5_writer(chunks=(1, 2, 8, 8), compression="gzip", shuffle=True), ("uint16", "float32")),
}
CASES = [(form, dtype) for form, (_, dtypes) in FORMS.items() for dtype in dtypes]
FOUR_AXES = {name for name in FORMS if "folder of" not in name} - {
    "npy of three axes",
    "ImageJ",
    "tiff of one page header",
}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FrameReader, np.ndarray]]:
    form, dtype = request.param
    frames = frames_of(dtype)
    reader = open_frames(FORMS[form][0](tmp_path, frames)).reader
    yield form, reader, flat(frames)
    reader.close()


class TestContract:
    """What every reader promises, whatever the file."""

    def test_describes_the_frames(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        form, reader, truth = opened
        assert isinstance(reader, FrameReader)
        assert reader.shape == truth.shape
        assert reader.dtype == truth.dtype
        assert reader.dtype.isnative
        assert len(reader.labels) == len(set(reader.labels)) == len(truth)
        assert reader.groups == (2 if form in FOUR_AXES else None)

    def test_rows_are_the_frames(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        _, reader, truth = opened
        for start, stop in [(0, 10), (10, 20), (20, 37), (0, 37), (36, 37), (5, 18), (4, 4)]:
            band = reader.read_rows(start, stop)
            assert band.dtype == truth.dtype
            np.testing.assert_array_equal(band, truth[:, start:stop])

    def test_out_is_filled_and_returned(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        _, reader, truth = opened
        out = np.zeros((len(truth), 9, truth.shape[2]), truth.dtype)
        assert reader.read_rows(7, 16, out) is out
        np.testing.assert_array_equal(out, truth[:, 7:16])

    def test_an_earlier_band_survives_later_reads(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        _, reader, truth = opened
        first = reader.read_rows(0, 8)
        reader.read_rows(20, 37)
        np.testing.assert_array_equal(first, truth[:, :8])

    def test_rows_outside_are_an_error(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        _, reader, _ = opened
        for start, stop in [(-1, 3), (0, 38), (5, 4)]:
            with pytest.raises(IndexError):
                reader.read_rows(start, stop)

    def test_fingerprint_is_stable(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        _, reader, _ = opened
        before = reader.fingerprint()
        reader.read_rows(0, 37)
        assert reader.fingerprint() == before

    def test_closing_twice_is_closing_once(self, opened: tuple[str, FrameReader, np.ndarray]) -> None:
        _, reader, _ = opened
        reader.close()
        reader.close()


@pytest.mark.parametrize("form", FORMS)
def test_fingerprint_changes_with_the_input(form: str, tmp_path: Path) -> None:
    writer, dtypes = FORMS[form]
    source = writer(tmp_path, frames_of(dtypes[0]))
    reader = open_frames(source).reader
    before = reader.fingerprint()
    reader.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".txt"]
    for path in files:
        os.utime(path, ns=(1, 1))
    reader = open_frames(source).reader
    assert reader.fingerprint() != before
    reader.close()


def test_npy_bands_are_views_of_the_file(tmp_path: Path) -> None:
    reader = open_frames(as_npy(tmp_path, frames_of("uint16"))).reader
    band, whole = reader.read_rows(3, 9), reader.read_rows(0, 37)
    assert np.shares_memory(band, whole)
    assert not band.flags.writeable


def test_array_fingerprint_depends_on_values() -> None:
    frames = frames_of("uint16")
    other = frames.copy()
    other[1, 2, 3, 4] += 1
    assert (
        ArrayReader(frames).fingerprint()
        == ArrayReader(frames.copy()).fingerprint()
        != ArrayReader(other).fingerprint()
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 40))
def test_chunked_rows_equal_the_array_in_any_order(data: st.DataObject, chunk: int, height: int) -> None:
    truth = np.arange(3 * height * 2, dtype=np.uint16).reshape(3, height, 2)
    reads: list[slice] = []

    def read(frames: slice, rows: slice) -> np.ndarray:
        reads.append(rows)
        return truth[frames, rows].copy()

    source = ChunkedRows(truth.shape, truth.dtype, chunk, read)
    for _ in range(4):
        start = data.draw(st.integers(0, height - 1))
        stop = data.draw(st.integers(start, height))
        np.testing.assert_array_equal(source.rows(start, stop), truth[:, start:stop])
    reads.clear()
    for start in range(0, height, 4):  # bands in order: every row of chunks is decoded once
        source.rows(start, min(height, start + 4))
    assert len(reads) <= -(-height // chunk)


def test_chunks_too_tall_for_memory_go_through_a_scratch_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cpikan.storage.readers.blocks._MAX_BLOCK_BYTES", 1000)
    truth = frames_of("uint16")
    for writer in (zarr_writer(chunks=(1, 2, 20, 8)), hdf5_writer(chunks=(1, 2, 20, 8))):
        reader = open_frames(writer(tmp_path, truth)).reader
        np.testing.assert_array_equal(reader.read_rows(5, 30), flat(truth)[:, 5:30])
        reader.close()


class TestScratch:
    """The temporary file behind formats that cannot be read by rows."""

    @staticmethod
    def make(calls: list[int], frames: int = 5) -> ScratchFrames:
        def decoder(k: int) -> Callable[[], np.ndarray]:
            def decode() -> np.ndarray:
                calls.append(k)
                return np.full((4, 3), k, np.uint8)

            return decode

        return ScratchFrames((frames, 4, 3), np.dtype("uint8"), [decoder(k) for k in range(frames)], 12)

    def test_each_frame_is_decoded_once_and_the_file_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        calls: list[int] = []
        scratch = self.make(calls)
        assert not list(tmp_path.iterdir())
        scratch.fill(1)
        for start in range(4):
            assert scratch.rows(start, start + 1)[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
        assert sorted(calls) == [0, 1, 2, 3, 4]
        assert len(list(tmp_path.iterdir())) == 1
        scratch.close()
        assert not list(tmp_path.iterdir())

    def test_a_forgotten_scratch_file_is_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        scratch = self.make([])
        scratch.rows(0, 1)
        del scratch
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_is_an_input_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scratch = self.make([])

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("builtins.open", full)
        with pytest.raises(InputError, match=r"No space left.*TMPDIR"):
            scratch.fill(1)
        monkeypatch.undo()
        scratch.close()

    def test_a_frame_that_is_not_what_its_header_said(self) -> None:
        scratch = ScratchFrames((1, 4, 3), np.dtype("uint8"), [lambda: np.zeros((4, 4), np.uint8)], 12)
        with pytest.raises(InputError, match="damaged"):
            scratch.rows(0, 1)


class TestNpyFaults:
    def test_truncated_file_names_claimed_and_real_bytes(self, tmp_path: Path) -> None:
        path = as_npy(tmp_path, frames_of("uint16"))
        os.truncate(path, os.path.getsize(path) - 1000)
        claimed = 2 * int(np.prod(SHAPE))
        with pytest.raises(InputError, match=f"claims {claimed} bytes of pixels but holds {claimed - 1000}"):
            open_frames(path)

    def test_appended_bytes(self, tmp_path: Path) -> None:
        path = as_npy(tmp_path, frames_of("uint8"))
        with open(path, "ab") as file:
            file.write(b"more")
        with pytest.raises(InputError, match="header does not belong"):
            open_frames(path)

    def test_objects_are_refused_without_unpickling(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[[object]]]), allow_pickle=True)
        with pytest.raises(InputError, match="Python objects"):
            open_frames(tmp_path / "x.npy")

    @pytest.mark.parametrize("shape", [(5,), (5, 5), (1, 1, 1, 5, 5), (0, 5, 5), (3, 0, 5)])
    def test_other_shapes(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
        with pytest.raises(InputError, match="shape"):
            open_frames(tmp_path / "x.npy")

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(position=st.integers(0, 140), value=st.integers(0, 255), length=st.integers(0, 400))
    def test_damaged_bytes_are_input_errors(self, tmp_path: Path, position: int, value: int, length: int) -> None:
        np.save(tmp_path / "seed.npy", np.zeros((3, 8, 8), np.uint8))
        content = bytearray((tmp_path / "seed.npy").read_bytes()[: length or None])
        if position < len(content):
            content[position] = value
        (tmp_path / "x.npy").write_bytes(content)
        with suppress(InputError):
            open_frames(tmp_path / "x.npy").reader.read_rows(0, 1)


class TestTiffFaults:
    def test_pages_of_two_sizes(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            file.write(np.zeros((5, 5), np.uint8))
            file.write(np.zeros((5, 6), np.uint8))
        with pytest.raises(InputError, match=r"x.tif\[1\] is 5 x 6"):
            open_frames(tmp_path / "x.tif")

    def test_truncated(self, tmp_path: Path) -> None:
        for compression in (None, "zlib"):
            path = tiff_writer(compression=compression, metadata=None)(tmp_path, frames_of("uint16")[0])
            with tifffile.TiffFile(path) as file:
                end = max(page.dataoffsets[-1] + page.databytecounts[-1] for page in file.pages)
            os.truncate(path, end - 10)
            with pytest.raises(InputError, match=r"x\.tif"):
                open_frames(path)

    def test_pages_in_a_circle(self, tmp_path: Path) -> None:
        path = Path(tiff_writer(metadata=None)(tmp_path, frames_of("uint16")[0]))
        content = bytearray(path.read_bytes())
        first = struct.unpack_from("<I", content, 4)[0]
        entries = struct.unpack_from("<H", content, first)[0]
        struct.pack_into("<I", content, first + 2 + 12 * entries, first)
        path.write_bytes(content)
        with pytest.raises(InputError, match="loses its pages after 1"):
            open_frames(path)

    def test_nothing_is_logged_to_stderr(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            for _ in range(3):
                file.write(np.ones((5, 5), np.uint8), metadata=None)
        content = (tmp_path / "x.tif").read_bytes()
        (tmp_path / "x.tif").write_bytes(content.replace(struct.pack("<HH", 273, 4), struct.pack("<HH", 273, 99)))
        code = (
            f"import sys; from cpikan.storage.readers.open import open_frames; open_frames({str(tmp_path / 'x.tif')!r})"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert result.stderr.strip().splitlines()[0].startswith("Traceback")

    def test_colour(self, tmp_path: Path) -> None:
        pixels = np.zeros((3, 8, 9, 3), np.uint8)
        pixels[..., 0] = 50
        tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb")
        with pytest.raises(InputError, match="colour"):
            open_frames(tmp_path / "x.tif")

    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_rgb_that_is_grey(self, tmp_path: Path, planar: str) -> None:
        grey = flat(frames_of("uint16"))
        pixels = np.stack([grey] * 3, axis=-1 if planar == "contig" else 1)
        tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", planarconfig=planar, metadata=None)
        reader = open_frames(tmp_path / "x.tif").reader
        np.testing.assert_array_equal(reader.read_rows(0, 37), grey)
        reader.close()

    @pytest.mark.parametrize("dtype", ["int64", "float16", "complex64"])
    def test_other_pixel_types(self, tmp_path: Path, dtype: str) -> None:
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, 5, 5), dtype), photometric="minisblack")
        with pytest.raises(InputError, match=dtype):
            open_frames(tmp_path / "x.tif")

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(position=st.integers(0, 700), value=st.integers(0, 255), compressed=st.booleans())
    def test_damaged_bytes_are_input_errors(self, tmp_path: Path, position: int, value: int, compressed: bool) -> None:
        frames = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
        seed = tmp_path / "seed.tif"
        tifffile.imwrite(seed, frames, photometric="minisblack", compression="zlib" if compressed else None)
        content = bytearray(seed.read_bytes())
        content[position % len(content)] = value
        (tmp_path / "x.tif").write_bytes(content)
        with suppress(InputError):
            reader = open_frames(tmp_path / "x.tif").reader
            reader.read_rows(0, reader.shape[1])
            reader.close()


class TestImageFaults:
    def test_natural_order(self) -> None:
        names = ["Image10.jpg", "Image9.jpg", "image5.jpg", "a2b10", "a2b9", "007", "7", "x"]
        assert sorted(names, key=natural_key) == [
            "007",
            "7",
            "a2b9",
            "a2b10",
            "image5.jpg",
            "Image9.jpg",
            "Image10.jpg",
            "x",
        ]

    @given(st.lists(st.text(max_size=8)))
    def test_any_names_can_be_ordered(self, names: list[str]) -> None:
        ordered = sorted(names, key=natural_key)
        assert sorted(names) == sorted(ordered)

    def test_labels_follow_the_natural_order(self, tmp_path: Path) -> None:
        reader = open_frames(as_png_folder(tmp_path, frames_of("uint8"))).reader
        assert reader.labels == tuple(f"frame{k}.png" for k in range(8, 14))

    def test_the_odd_file_is_named(self, tmp_path: Path) -> None:
        as_png_folder(tmp_path, frames_of("uint8"))
        Image.new("L", (30, 37)).save(tmp_path / "frame10.png")
        with pytest.raises(InputError, match=r"frame10\.png is 30 x 37 uint8 PNG but 5 of the 6 .* 29 x 37"):
            open_frames(tmp_path)
        (tmp_path / "frame10.png").write_bytes(imagecodecs.png_encode(np.zeros((37, 29), np.uint16)))
        with pytest.raises(InputError, match=r"frame10\.png is 29 x 37 uint16 PNG"):
            open_frames(tmp_path)
        (tmp_path / "frame10.png").unlink()
        Image.new("L", (29, 37)).save(tmp_path / "frame10.bmp")
        with pytest.raises(InputError, match=r"frame10\.bmp is 29 x 37 uint8 BMP"):
            open_frames(tmp_path)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
    def test_colour_is_refused_when_opened(self, tmp_path: Path, suffix: str) -> None:
        for k in range(3):
            Image.new("RGB", (9, 8), (10, 40, 10)).save(tmp_path / f"{k}.{suffix}")
        with pytest.raises(InputError, match=rf"0\.{suffix} is a colour image"):
            open_frames(tmp_path)

    def test_colour_in_a_later_frame_is_refused_when_read(self, tmp_path: Path) -> None:
        for k, colour in enumerate([(10, 10, 10), (10, 10, 10), (10, 10, 11)]):
            Image.new("RGB", (9, 8), colour).save(tmp_path / f"{k}.png")
        reader = open_frames(tmp_path).reader
        with pytest.raises(InputError, match=r"2\.png is a colour image"):
            reader.read_rows(0, 1)
        reader.close()

    def test_transparency(self, tmp_path: Path) -> None:
        for k in range(3):
            Image.new("LA", (9, 8), (40, 255)).save(tmp_path / f"{k}.png")
        with open_closing(tmp_path) as reader:
            assert int(reader.read_rows(0, 8).min()) == 40
        Image.new("LA", (9, 8), (40, 254)).save(tmp_path / "0.png")
        with pytest.raises(InputError, match="transparent"):
            open_frames(tmp_path)

    @pytest.mark.parametrize("mode", ["1", "CMYK"])
    def test_other_modes(self, tmp_path: Path, mode: str) -> None:
        for k in range(3):
            Image.new(mode, (9, 8)).save(tmp_path / f"{k}.{'png' if mode == '1' else 'jpg'}")
        with pytest.raises(InputError, match=mode):
            open_frames(tmp_path)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
    def test_damaged_files_are_named(self, tmp_path: Path, suffix: str) -> None:
        rng = np.random.default_rng(1)
        for k in range(3):
            Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / f"{k}.{suffix}")
        content = (tmp_path / f"1.{suffix}").read_bytes()
        (tmp_path / f"1.{suffix}").write_bytes(content[: len(content) // 2])
        reader = open_frames(tmp_path).reader
        with pytest.raises(InputError, match=rf"1\.{suffix} is damaged"):
            reader.read_rows(0, 1)
        reader.close()
        for rest in (b"", b"hello", content[:12]):
            (tmp_path / f"1.{suffix}").write_bytes(rest)
            with pytest.raises(InputError, match=rf"1\.{suffix}"):
                open_frames(tmp_path)

    def test_pages_in_a_folder(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, 5, 6), np.uint8), photometric="minisblack")
        with pytest.raises(InputError, match="3 pages"):
            open_frames(tmp_path)

    def test_a_name_does_not_decide_the_format(self, tmp_path: Path) -> None:
        frames = flat(frames_of("uint8"))
        for k, frame in enumerate(frames):
            (tmp_path / f"{k}.bmp").write_bytes(imagecodecs.png_encode(frame))
        with open_closing(tmp_path) as reader:
            np.testing.assert_array_equal(reader.read_rows(0, 37), frames)

    def test_no_images(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("x")
        assert image_files(tmp_path) == []
        with pytest.raises(InputError, match=r"neither images .* nor frames\.npy"):
            open_frames(tmp_path)


class TestZarrFaults:
    def test_chunks_without_pixels_are_refused(self, tmp_path: Path) -> None:
        path = Path(zarr_writer(chunks=(1, 1, 8, 8))(tmp_path, frames_of("uint16")))
        told = path / "zarr.json"
        text = told.read_text()
        changed = re.sub(r'("chunk_shape":\s*\[\s*)1', r"\g<1>0", text)
        assert changed != text
        told.write_text(changed)
        with pytest.raises(InputError, match="chunks without pixels"):
            open_frames(path)

    @pytest.mark.parametrize("options", [{"chunks": (1, 1, 8, 8)}, {"chunks": (1, 1, 8, 8), "zarr_format": 2}])
    def test_a_missing_chunk_is_refused_when_opened(self, tmp_path: Path, options: dict[str, object]) -> None:
        path = Path(zarr_writer(**options)(tmp_path, frames_of("uint16")))
        victim = next(item for item in path.rglob("*") if item.is_file() and not item.name.startswith((".", "zarr")))
        victim.unlink()
        with pytest.raises(InputError, match="lacks the chunk"):
            open_frames(path)

    def test_a_chunk_that_vanishes_later_is_refused_when_read(self, tmp_path: Path) -> None:
        path = Path(zarr_writer(chunks=(1, 1, 8, 29))(tmp_path, frames_of("uint16")))
        reader = open_frames(path).reader
        (path / "c/1/2/3/0").unlink()
        reader.read_rows(0, 24)
        with pytest.raises(InputError, match="lacks the chunk c/1/2/3/0"):
            reader.read_rows(20, 25)

    def test_a_part_missing_in_a_shard_is_refused(self, tmp_path: Path) -> None:
        frames = frames_of("uint16")
        frames[0, 1, 8:16, 8:16] = 0
        array = zarr.create_array(
            str(tmp_path / "x.zarr"), shape=SHAPE, chunks=(1, 1, 8, 8), shards=(1, 3, 16, 16), dtype="uint16"
        )
        array[:] = frames
        with pytest.raises(InputError, match="lacks 1 parts of the shard c/0/0/0/0"):
            open_frames(tmp_path / "x.zarr")

    def test_a_damaged_chunk_names_the_array(self, tmp_path: Path) -> None:
        path = Path(zarr_writer(chunks=(1, 1, 8, 8))(tmp_path, frames_of("uint16")))
        (path / "c/0/0/0/0").write_bytes(b"not zstd")
        reader = open_frames(path).reader
        with pytest.raises(InputError, match=r"x\.zarr, rows 0 to 8 is damaged"):
            reader.read_rows(0, 4)

    def test_a_group_names_its_arrays(self, tmp_path: Path) -> None:
        group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
        with pytest.raises(InputError, match="holds no array"):
            open_frames(tmp_path / "x.zarr")
        group.create_array("frames", shape=(3, 8, 8), chunks=(1, 8, 8), dtype="uint8")[:] = 1
        with pytest.raises(InputError, match=r"x\.zarr/frames"):
            open_frames(tmp_path / "x.zarr")
        assert open_frames(tmp_path / "x.zarr" / "frames").reader.shape == (3, 8, 8)

    def test_damaged_metadata(self, tmp_path: Path) -> None:
        (tmp_path / "zarr.json").write_text("{")
        with pytest.raises(InputError, match="damaged"):
            open_frames(tmp_path)


class TestHdf5Faults:
    def test_chunks_never_written(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = file.create_dataset("frames", shape=(3, 16, 16), chunks=(1, 8, 8), dtype="uint8")
            data[:, :8] = 1
        with pytest.raises(InputError, match="6 of its 12 chunks"):
            open_frames(f"{tmp_path / 'x.h5'}::frames")

    def test_contiguous_never_written(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("frames", shape=(3, 16, 16), dtype="uint8")
        with pytest.raises(InputError, match="768 bytes of pixels but holds 0"):
            open_frames(f"{tmp_path / 'x.h5'}::frames")

    def test_virtual(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            layout = h5py.VirtualLayout(shape=(3, 16, 16), dtype="uint8")
            layout[:] = h5py.VirtualSource("absent.h5", "frames", shape=(3, 16, 16))
            file.create_virtual_dataset("frames", layout)
        with pytest.raises(InputError, match="only points"):
            open_frames(f"{tmp_path / 'x.h5'}::frames")

    def test_names(self, tmp_path: Path) -> None:
        path = hdf5_writer()(tmp_path, frames_of("uint8")).partition("::")[0]
        for source, message in [
            (path, r"name the dataset, such as .*::/run/frames"),
            (f"{path}::/run/frmes", r"did you mean '/run/frames'"),
            (f"{path}::/run", r"allowed are /run/frames"),
        ]:
            with pytest.raises(InputError, match=message):
                open_frames(source)

    def test_not_hdf5(self, tmp_path: Path) -> None:
        (tmp_path / "x.h5").write_bytes(b"hello" * 100)
        with pytest.raises(InputError, match=r"x\.h5 is damaged"):
            open_frames(f"{tmp_path / 'x.h5'}::frames")

    @pytest.mark.parametrize("stored", [{}, {"chunks": (1, 1, 16, 16)}])
    def test_names_of_axes_that_would_stop_the_library_are_refused(self, tmp_path: Path, stored: dict) -> None:
        """The mark of a heap among the numbers is none; a heap whose free space never ends is one."""
        path = tmp_path / "x.h5"
        shots = np.zeros((3, 2, 16, 16), np.uint8)
        shots[0, 0, 0, :8] = np.frombuffer(b"GCOL\1\0\0\0", np.uint8)
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("d", data=shots, **stored)
            for axis, name in zip(dataset.dims, ("step", "wavelength", "y", "x"), strict=True):
                axis.label = name
        if not stored:
            with closing(open_frames(f"{path}::d").reader) as reader:
                assert reader.groups == 2
        data = bytearray(path.read_bytes())
        at = data.index(b"step\0") - 16
        data[at : at + 16] = struct.pack("<HHIQ", 0, 0, 0, 0)
        path.write_bytes(data)
        with pytest.raises(InputError, match="among its texts"):
            open_frames(f"{path}::d")


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere.h5::/a", "nowhere.npy", "bad\0name"])
def test_missing_paths(source: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_frames(source)


def test_unknown_forms(tmp_path: Path) -> None:
    (tmp_path / "x.abc").write_bytes(b"x")
    with pytest.raises(InputError, match="supported forms"):
        open_frames(tmp_path / "x.abc")
    Image.new("L", (5, 5)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="single image: a stack has two frames or more"):
        open_frames(tmp_path / "x.png")


def open_closing(path: Path) -> closing[FrameReader]:
    return closing(open_frames(path).reader)


@pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set CPIKAN_DATA")
def test_measured_jpeg_frames_equal_pillow() -> None:
    folder = DATA / "nzhagen_fpp"
    truth = np.stack([np.asarray(Image.open(path)) for path in image_files(folder)])
    with open_closing(folder) as reader:
        assert reader.labels[1] == "lens_orig_090.jpg"
        np.testing.assert_array_equal(reader.read_rows(0, 862), truth)


@pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set CPIKAN_DATA")
def test_measured_grey_in_rgb_equals_the_luma() -> None:
    folder = DATA / "mlpeck_zernike"
    with open_closing(folder) as reader:
        assert reader.labels[0] == "Image5.jpg"
        assert reader.shape == (12, 600, 800)
        band = reader.read_rows(0, 600).astype(int)
    truth = np.stack([np.asarray(Image.open(path).convert("L")) for path in image_files(folder)])
    assert np.abs(band - truth).max() <= 1  # Pillow rounds the weights to 16 bits

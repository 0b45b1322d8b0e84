"""Frames in FITS, MATLAB, .npz, PGM, Zygo files and videos: the contract of readers, what each says, and its damaged files."""

from __future__ import annotations

import pickle
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image
from test_readers import TestContract as ReaderContract
from test_readers import flat, frames_of

from cpikan.errors import InputError
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.open import open_frames
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.turned import ORIENTATIONS

fits = pytest.importorskip("astropy.io.fits")
av = pytest.importorskip("av")


def npz(compressed: bool, fortran: bool = False) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        save = np.savez_compressed if compressed else np.savez
        save(folder / "x.npz", note=np.arange(3), frames=np.asfortranarray(frames) if fortran else frames)
        return str(folder / "x.npz")

    return write


def matlab(compressed: bool, axes: str = "yxsw") -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        turned = frames.transpose(["wsyx".index(letter) for letter in axes])
        scipy.io.savemat(folder / "x.mat", {"name": "run 3", "fr": turned, "k": 4.0}, do_compression=compressed)
        return f"{folder / 'x.mat'}::fr"

    return write


def matlab_73(**options: object) -> Callable[[Path, np.ndarray], str]:
    """As MATLAB writes: sizes backwards, behind a block of its own of 512 bytes."""

    def write(folder: Path, frames: np.ndarray) -> str:
        with h5py.File(folder / "x.mat", "w", userblock_size=512) as file:
            file.create_dataset("fr", data=frames.transpose(0, 1, 3, 2), **options)
            file.create_dataset("#refs#/a", data=frames[0])
        with open(folder / "x.mat", "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
        return str(folder / "x.mat")

    return write


def fits_cube(**keys: object) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        fits.PrimaryHDU(frames, fits.Header(keys)).writeto(folder / "x.fits")
        return str(folder / "x.fits")

    return write


def fits_extensions(kind: Callable[..., object]) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        units = [kind(frame, name=f"F{k}") for k, frame in enumerate(flat(frames))]
        fits.HDUList([fits.PrimaryHDU(), *units]).writeto(folder / "x.fits")
        return str(folder / "x.fits")

    return write


def fits_folder(folder: Path, frames: np.ndarray) -> str:
    for k, frame in enumerate(flat(frames)):
        fits.PrimaryHDU(frame).writeto(folder / f"f{k + 8}.fit")
    return str(folder)


def compressed(data: np.ndarray, name: str) -> object:
    return fits.CompImageHDU(data, name=name, compression_type="RICE_1" if data.dtype.kind != "f" else "GZIP_1")


def pgm(plain: bool) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        for k, frame in enumerate(flat(frames)):
            height, width = frame.shape
            top = 65535 if frame.dtype == np.uint16 else 255
            head = f"P{2 if plain else 5}\n# by hand\n{width} {height}\n{top}\n".encode()
            big = frame.astype(frame.dtype.newbyteorder(">"))
            pixels = " ".join(map(str, frame.ravel())).encode() if plain else big.tobytes()
            (folder / f"f{k + 8}.pgm").write_bytes(head + pixels)
        return str(folder)

    return write


def video(suffix: str, codec: str, kind: str) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, frames: np.ndarray) -> str:
        path = folder / f"x{suffix}"
        with av.open(str(path), "w") as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = frames.shape[3], frames.shape[2], kind
            for frame in flat(frames):
                shot = av.VideoFrame.from_ndarray(frame, format="gray16le" if frame.dtype == np.uint16 else "gray")
                for packet in stream.encode(shot if kind.startswith("gray") else shot.reformat(format=kind)):
                    file.mux(packet)
            for packet in stream.encode():
                file.mux(packet)
        return str(path)

    return write


def datx(folder: Path, frames: np.ndarray) -> str:
    with h5py.File(folder / "x.datx", "w") as file:
        file.create_dataset("Data/Intensity/{1-2}", data=flat(frames))
        file.create_dataset("Data/Surface/{3-4}", data=np.zeros((3, 4, 5)))
    return str(folder / "x.datx")


ANY = ("uint8", "uint16", "float32", "float64")
FORMS: dict[str, tuple[Callable[[Path, np.ndarray], str], tuple[str, ...], bool]] = {
    "npz": (npz(False), ANY, True),
    "npz, compressed": (npz(True), ("uint16", "float32"), True),
    "npz, Fortran order": (npz(False, fortran=True), ("uint16",), True),
    "npz, compressed, Fortran order": (npz(True, fortran=True), ("uint8",), True),
    "matlab 5": (matlab(False), ANY, True),
    "matlab 7": (matlab(True), ("uint16", "float64"), True),
    "matlab 7, frames first": (matlab(True, "wsyx"), ("uint8",), True),
    "matlab 7.3": (matlab_73(), ("uint16", "float32"), True),
    "matlab 7.3, compressed": (matlab_73(chunks=(1, 1, 8, 8), compression="gzip"), ("uint8",), True),
    "fits": (fits_cube(), ANY, True),
    "fits, images": (fits_extensions(fits.ImageHDU), ("uint16", "float32"), False),
    "fits, compressed": (fits_extensions(compressed), ("uint8", "uint16"), False),
    "folder of fits": (fits_folder, ("uint16",), False),
    "folder of pgm": (pgm(False), ("uint8", "uint16"), False),
    "folder of plain pgm": (pgm(True), ("uint8", "uint16"), False),
    "datx": (datx, ("uint16",), False),
    "avi, raw": (video(".avi", "rawvideo", "gray"), ("uint8",), False),
    "avi, ffv1": (video(".avi", "ffv1", "gray"), ("uint8",), False),
    "mkv, ffv1 of 16 bits": (video(".mkv", "ffv1", "gray16le"), ("uint16",), False),
    "mov, png": (video(".mov", "png", "gray"), ("uint8",), False),
    "avi, huffyuv rgb": (video(".avi", "huffyuv", "rgb24"), ("uint8",), False),
}
CASES = [(form, dtype) for form, (_, dtypes, _) in FORMS.items() for dtype in dtypes]


class TestContainers(ReaderContract):
    @pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FrameReader, np.ndarray]]:
        form, dtype = request.param
        frames = frames_of(dtype)
        reader = open_frames(FORMS[form][0](tmp_path, frames)).reader
        yield "npy" if FORMS[form][2] else "flat", reader, flat(frames)
        reader.close()


@pytest.mark.parametrize("form", FORMS)
def test_copies_open_the_same_file_again(form: str, tmp_path: Path) -> None:
    frames = frames_of(FORMS[form][1][0])
    with closing(open_frames(FORMS[form][0](tmp_path, frames)).reader) as reader:
        assert reader.files()
        with closing(pickle.loads(pickle.dumps(reader))) as copy:
            np.testing.assert_array_equal(copy.read_rows(4, 9), flat(frames)[:, 4:9])


class TestFits:
    def test_scale_and_blank(self, tmp_path: Path) -> None:
        """What is read is BZERO + BSCALE * stored, NaN where BLANK is stored, in the precision that Astropy reads."""
        stored = np.random.default_rng(1).integers(-300, 300, (3, 5, 7)).astype(np.int16)
        unit = fits.PrimaryHDU(stored)
        unit.header["BLANK"] = -7
        stored[1, 2, 3] = -7
        unit.header.update({"BSCALE": 0.25, "BZERO": 100.0})
        unit.writeto(tmp_path / "x.fits")
        truth = np.where(stored == -7, np.nan, stored * 0.25 + 100)
        with closing(open_frames(tmp_path / "x.fits").reader) as reader:
            assert reader.dtype == np.float32
            np.testing.assert_array_equal(reader.read_rows(0, 5), truth.astype(np.float32))

    def test_rows_go_as_the_file_says_and_otherwise_that_is_said(self, tmp_path: Path) -> None:
        frames = frames_of("uint16")[0]
        for order, truth in (("TOP-DOWN", frames), ("BOTTOM-UP", frames[:, ::-1]), (None, frames)):
            fits.PrimaryHDU(frames, fits.Header({"ROWORDER": order} if order else {})).writeto(
                tmp_path / "x.fits", overwrite=True
            )
            with closing(open_frames(tmp_path / "x.fits").reader) as reader:
                np.testing.assert_array_equal(reader.read_rows(0, 37), truth)
                assert reader.orientation
                assert [name for name, _ in reader.remarks] == ([] if order else ["orientation-unsaid"])

    def test_an_image_is_chosen_by_its_name(self, tmp_path: Path) -> None:
        cube = frames_of("uint8")[0]
        units = [fits.PrimaryHDU(), fits.ImageHDU(cube, name="RAW"), fits.ImageHDU(cube[:1], name="DARK")]
        fits.HDUList(units).writeto(tmp_path / "x.fits")
        for name in ("raw", "1"):
            with closing(open_frames(f"{tmp_path / 'x.fits'}::{name}").reader) as reader:
                np.testing.assert_array_equal(reader.read_rows(0, 37), cube)
        with pytest.raises(InputError, match=r"unknown image in .*x\.fits 'row'.*RAW"):
            open_frames(f"{tmp_path / 'x.fits'}::row")

    def test_without_astropy_one_line_says_how_to_get_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = fits_cube()(tmp_path, frames_of("uint8"))
        monkeypatch.setattr("cpikan.errors.importlib.util.find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"FITS files needs astropy.*pip install 'scaled-cpikan\[formats\]'"):
            open_frames(path)


class TestMatlab:
    def test_whole_numbers_in_a_double_stay_doubles(self, tmp_path: Path) -> None:
        """MATLAB stores a double array of small whole numbers in bytes."""
        frames = frames_of("uint8")[0]
        path = tmp_path / "x.mat"
        scipy.io.savemat(path, {"f": frames.transpose(1, 2, 0)})
        data = bytearray(path.read_bytes())
        assert data[144] == 9  # the class of the array: uint8, which becomes double
        data[144] = 6
        path.write_bytes(data)
        with closing(open_frames(path).reader) as reader:
            assert reader.dtype == np.float64
            np.testing.assert_array_equal(reader.read_rows(0, 37), frames)

    def test_sizes_that_do_not_tell_need_a_word(self, tmp_path: Path) -> None:
        frames = frames_of("uint8")[0][:, :3, :3]
        scipy.io.savemat(tmp_path / "x.mat", {"f": frames})
        with pytest.raises(InputError, match=r"sizes 3 x 3 x 3, which do not tell .* axes = \"yxs\""):
            open_frames(tmp_path / "x.mat")
        with closing(open_frames(tmp_path / "x.mat", ReadAs(axes="syx")).reader) as reader:
            np.testing.assert_array_equal(reader.read_rows(0, 3), frames)

    def test_names(self, tmp_path: Path) -> None:
        frames = frames_of("uint8")[0]
        scipy.io.savemat(tmp_path / "x.mat", {"one": frames, "two": frames})
        with pytest.raises(InputError, match=r"holds 2 variables .* name one of .*::one, .*::two"):
            open_frames(tmp_path / "x.mat")
        with pytest.raises(InputError, match=r"unknown variable .* 'tow'.*two"):
            open_frames(f"{tmp_path / 'x.mat'}::tow")
        scipy.io.savemat(tmp_path / "z.mat", {"note": "no numbers", "k": 4.0})
        with pytest.raises(InputError, match="holds no variables that may be frames"):
            open_frames(tmp_path / "z.mat")
        (tmp_path / "y.mat").write_bytes(b"\0" * 300)
        with pytest.raises(InputError, match="no MATLAB file of version 5 to"):
            open_frames(tmp_path / "y.mat")


def test_names_of_npz(tmp_path: Path) -> None:
    frames = frames_of("uint8")
    np.savez(tmp_path / "x.npz", one=frames, two=frames)
    with pytest.raises(InputError, match=r"holds 2 arrays .* name one of .*::one, .*::two"):
        open_frames(tmp_path / "x.npz")
    with closing(open_frames(f"{tmp_path / 'x.npz'}::two").reader) as reader:
        np.testing.assert_array_equal(reader.read_rows(0, 37), flat(frames))


@pytest.mark.parametrize("tag", ORIENTATIONS)
def test_orientation_tags_turn_the_frames(tag: int, tmp_path: Path) -> None:
    """TIFF mapped, TIFF decoded, and JPEG; what is written is what a camera that was turned stores."""
    frames = np.kron(np.random.default_rng(2).integers(60, 200, (3, 4, 5)), np.ones((1, 8, 8), int)).astype(np.uint8)
    truth = ORIENTATIONS[tag].view(frames)
    for name, compression in (("plain", None), ("packed", "zlib")):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(
            path,
            frames,
            photometric="minisblack",
            compression=compression,
            extratags=[(274, 3, 1, tag, False)],
            metadata=None,
        )
        with closing(open_frames(path).reader) as reader:
            np.testing.assert_array_equal(reader.read_rows(0, truth.shape[1]), truth)
            assert bool(reader.orientation) == (tag != 1)
    (tmp_path / "jpg").mkdir()
    for k, frame in enumerate(frames):
        image = Image.fromarray(frame)
        exif = image.getexif()
        exif[274] = tag
        image.save(tmp_path / "jpg" / f"{k}.jpg", exif=exif, quality=100)
    with closing(open_frames(tmp_path / "jpg").reader) as reader:
        found = reader.read_rows(0, truth.shape[1]).astype(int)
        assert np.abs(found - truth).max() <= 3  # of the codec


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ("AYX", r"an axis A \(angles\) of 3"),
        ("MTYX", r"an axis M \(parts of a mosaic\) of 3"),
        ("YXT", "whose rows and columns do not come last"),
        ("TZYX", "frames along T and Z"),
    ],
)
def test_axes_of_tiff_that_are_no_frames_are_named(axes: str, words: str, tmp_path: Path) -> None:
    shape = [3, 4, 5, 6][-len(axes) :] if axes[0] not in "AM" else [3, 4, 5, 6][: len(axes)]
    tifffile.imwrite(tmp_path / "x.tif", np.zeros(shape, np.uint8), photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(InputError, match=words):
        open_frames(tmp_path / "x.tif")


def test_lambda_and_phase_are_wavelengths_and_steps(tmp_path: Path) -> None:
    frames = frames_of("uint16")
    tifffile.imwrite(tmp_path / "x.tif", frames.swapaxes(0, 1), photometric="minisblack", metadata={"axes": "PEYX"})
    with closing(open_frames(tmp_path / "x.tif").reader) as reader:
        assert reader.groups == 2
        np.testing.assert_array_equal(reader.read_rows(0, 37), flat(frames))


class TestVideo:
    def test_a_lossy_codec_is_named(self, tmp_path: Path) -> None:
        frames = np.full((1, 4, 32, 48), 128, np.uint8)
        with closing(open_frames(video(".mp4", "mpeg4", "yuv420p")(tmp_path, frames)).reader) as reader:
            assert [name for name, _ in reader.remarks] == ["lossy-video"]
            assert "mpeg4" in reader.remarks[0][1]
            assert np.ptp(reader.read_rows(0, 32)) <= 2

    def test_yuv_of_a_lossless_codec_keeps_the_luma(self, tmp_path: Path) -> None:
        frames = frames_of("uint8")[:, :, :36, :28] // 2 + 40
        path = tmp_path / "x.avi"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 28, 36, "yuv420p"
            for grey in flat(frames):
                planes = np.concatenate([grey.ravel(), np.full(2 * 14 * 18, 128, np.uint8)]).reshape(54, 28)
                for packet in stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")):
                    file.mux(packet)
            for packet in stream.encode():
                file.mux(packet)
        with closing(open_frames(path).reader) as reader:
            np.testing.assert_array_equal(reader.read_rows(0, 36), flat(frames))
            assert not reader.remarks

    def test_colour(self, tmp_path: Path) -> None:
        path = tmp_path / "x.avi"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("huffyuv", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "rgb24"
            pixels = np.zeros((16, 32, 3), np.uint8)
            pixels[..., 1] = 200
            for packet in [*stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")), *stream.encode()]:
                file.mux(packet)
        with pytest.raises(InputError, match="colour"):
            open_frames(path)


def zygo_file(path: Path, frames: np.ndarray, largest: int = 4095) -> Path:
    """A MetroPro file of format 1 with intensity frames (N, H, W) and no phase, by the offsets of its reference guide."""
    head = bytearray(834)
    buckets, height, width = frames.shape
    for offset, form, *values in (
        (0, ">IHI", 0x881B036F, 1, 834),
        (52, ">HHHHI", width, height, buckets, largest, 2 * frames.size),
        (168, ">f", 632.8e-9),
        (184, ">f", 5e-6),
        (164, ">f", 0.5),
        (176, ">f", 1.0),
    ):
        struct.pack_into(form, head, offset, *values)
    path.write_bytes(bytes(head) + frames.astype(">u2").tobytes())
    return path


def test_buckets_of_metropro(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 4096, (5, 37, 29)).astype(np.uint16)
    frames[2, 3, 4] = 65535
    with closing(open_frames(zygo_file(tmp_path / "x.dat", frames)).reader) as reader:
        truth = np.where(frames > 65000, np.nan, frames).astype(np.float32)
        np.testing.assert_array_equal(reader.read_rows(0, 37), truth)
        assert reader.bits == 12
        assert reader.told == {"wavelengths": ["632.8 nm"], "pixel_size": reader.told["pixel_size"]}
    with pytest.raises(InputError, match="holds a height map but no intensity frames"):
        open_frames(zygo_file(tmp_path / "y.dat", frames[:0]))


def test_no_data_of_datx(tmp_path: Path) -> None:
    frames = frames_of("uint16")[0]
    with h5py.File(tmp_path / "x.datx", "w") as file:
        file.create_dataset("Data/Intensity/{1}", data=frames).attrs["No Data"] = frames[1, 2, 3]
    with closing(open_frames(tmp_path / "x.datx").reader) as reader:
        np.testing.assert_array_equal(reader.read_rows(0, 37), np.where(frames == frames[1, 2, 3], np.nan, frames))


def refusal(source: str) -> str | None:
    """Read a few rows; what was said where they were refused."""
    try:
        with closing(open_frames(source).reader) as reader:
            reader.read_rows(0, min(3, reader.shape[1]))
    except InputError as error:
        return str(error)
    return None


SMALL = [
    "npz",
    "npz, compressed",
    "matlab 5",
    "matlab 7",
    "fits",
    "fits, images",
    "folder of pgm",
    "folder of plain pgm",
    "avi, ffv1",
]


@pytest.mark.parametrize("form", SMALL)
def test_damaged_files_are_one_line(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bits flipped, cut, zeroed, by a seed: read, or refused in one line that names the file; nothing on stderr."""
    draw = random.Random(5)
    source = FORMS[form][0](tmp_path, frames_of(FORMS[form][1][0])[:, :, :12, :10])
    path = next(file for file in sorted(tmp_path.iterdir()))
    whole = path.read_bytes()
    for _ in range(12):
        data = bytearray(whole)
        at = draw.randrange(min(len(data), 400)) if draw.random() < 0.6 else draw.randrange(len(data))
        kind = draw.randrange(4)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + 8] = b"\xff" * len(data[at : at + 8])
        else:
            data[at : at + 4] = b"\0" * len(data[at : at + 4])
        path.write_bytes(data)
        told = refusal(source)
        assert told is None or (path.name in told and told.isprintable())
    assert capfd.readouterr().err == ""

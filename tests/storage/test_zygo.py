"""Zygo MetroPro files: made here byte by byte, and two real ones."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.storage.instruments.zygo import INVALID_PHASE, ZygoFile, open_zygo

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "zygo").is_dir(), reason="measured data absent: set CPIKAN_DATA")

CODES = np.array([[0, 32768, -32768], [INVALID_PHASE, 2**31 - 1, 7]])
COUNTS = np.arange(24).reshape(2, 3, 4)
MAGICS = {1: (0x881B036F, 834), 2: (0x881B0370, 834), 3: (0x881B0371, 4096)}


def metropro(
    form: int = 1, codes: np.ndarray = CODES, counts: np.ndarray = COUNTS, **changes: tuple[str, object]
) -> bytes:
    """A MetroPro file; ``changes`` are fields by "at_OFFSET" with their format and value."""
    magic, size = MAGICS[form]
    header = bytearray(size)
    fields: dict[int, tuple[str, object]] = {
        0: (">I", magic),
        4: (">H", form),
        6: (">I", size),
        52: (">H", counts.shape[2]),
        54: (">H", counts.shape[1]),
        56: (">H", counts.shape[0]),
        58: (">H", 255),
        60: (">I", 2 * counts.size),
        64: (">H", 139),
        66: (">H", 38),
        68: (">H", codes.shape[1]),
        70: (">H", codes.shape[0]),
        72: (">I", 4 * codes.size),
        80: ("82s", b"a comment\0junk"),
        164: (">f", 0.5),
        168: (">f", 632.8e-9),
        176: (">f", 1.0),
        184: (">f", 5e-6),
        218: (">h", 1),
        320: ("40s", b"S/N 12"),
    }
    fields |= {int(name.removeprefix("at_")): change for name, change in changes.items()}
    for offset, (kind, value) in fields.items():
        struct.pack_into(kind, header, offset, value)
    return bytes(header) + counts.astype(">u2").tobytes() + codes.astype(">i4").tobytes()


def opened(folder: Path, content: bytes) -> ZygoFile:
    file = folder / "a.dat"
    file.write_bytes(content)
    return open_zygo(file)


@pytest.mark.parametrize("form", [1, 2, 3])
@pytest.mark.parametrize(("phase_res", "resolution"), [(0, 4096), (1, 32768), (2, 131072)])
def test_height_follows_the_resolution(form: int, phase_res: int, resolution: int, tmp_path: Path) -> None:
    file = opened(tmp_path, metropro(form, at_218=(">h", phase_res), at_176=(">f", 1.25)))
    assert file.header.resolution == resolution
    # W S O / R, with what float32 keeps of 632.8 nm
    unit = float(np.float32(632.8e-9)) * 1e9 * 0.5 * 1.25 / resolution
    expected = np.array([[0, 32768, -32768], [np.nan, np.nan, 7]]) * unit
    np.testing.assert_array_equal(file.height_nm, expected)
    np.testing.assert_array_equal(file.height_rows(1, 2), expected[1:])
    assert file.height_nm.dtype == np.float64


def test_header_and_intensities(tmp_path: Path) -> None:
    counts = COUNTS.copy()
    counts[1, 0, 0] = 65535
    file = opened(tmp_path, metropro(counts=counts, at_232=(">h", 1)))
    header = file.header
    assert (file.shape, header.origin, header.intensity_shape) == ((2, 3), (139, 38), (2, 3, 4))
    assert (header.comment, header.serial_number, header.part) == ("a comment", "S/N 12", "")
    assert header.wavelength_nm == pytest.approx(632.8, rel=1e-7)
    assert header.pixel_um == pytest.approx(5.0, rel=1e-7)
    assert header.inverted
    np.testing.assert_array_equal(file.intensity(0), COUNTS[0])
    assert np.isnan(file.intensity(1)[0, 0])
    assert file.intensity(1)[2, 3] == 23
    for bucket in (-1, 2):
        with pytest.raises(InputError, match="holds 2 intensity frames"):
            file.intensity(bucket)


def test_phase_alone_and_no_calibration(tmp_path: Path) -> None:
    file = opened(tmp_path, metropro(counts=np.zeros((0, 3, 4)), at_184=(">f", 0.0)))
    assert file.header.pixel_um is None
    assert file.height_nm[0, 1] == pytest.approx(316.4, rel=1e-7)  # half a wavelength a fringe
    with pytest.raises(InputError, match="holds 0 intensity frames"):
        file.intensity(0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a MetroPro"),
        (b"\x88\x1b\x03", "not a MetroPro"),
        (b"PK\x03\x04" + bytes(2000), "not a MetroPro"),
        (metropro()[:500], "truncated: 500 of at least 834"),
        (metropro()[:-1], "truncated: 905 of 906"),
        (metropro(at_6=(">I", 4096)), "format 1 of 4096"),
        (metropro(at_4=(">H", 3)), "format 3 of 834"),
        (metropro(at_68=(">H", 65535), at_70=(">H", 65535)), "contradicts itself"),
        (metropro(at_68=(">H", 0)), "0 pixels|hold pixels"),
        (metropro(at_72=(">I", 0)), "no phase"),
        (metropro(at_56=(">H", 60000)), "contradicts itself"),
        (metropro(at_60=(">I", 2**32 - 1)), "contradicts itself"),
        (metropro(at_218=(">h", 3)), "phase_res 3"),
        (metropro(at_168=(">f", 0.0)), "wavelength 0"),
        (metropro(at_164=(">f", float("nan"))), "scale factor nan"),
        (metropro(at_176=(">f", -1.0)), "obliquity factor -1"),
    ],
)
def test_bad_files_are_refused_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        opened(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert "a.dat" in str(caught.value)


def test_huge_claims_allocate_nothing(tmp_path: Path) -> None:
    """A consistent header of 17 GB over a file of a kilobyte is refused by its size."""
    with pytest.raises(InputError, match="truncated"):
        opened(tmp_path, metropro(at_68=(">H", 65535), at_70=(">H", 16384), at_72=(">I", 4 * 65535 * 16384)))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_zygo(tmp_path / "none.dat")
    with pytest.raises(InputError):
        open_zygo(tmp_path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 833), st.binary(min_size=1, max_size=8))
def test_any_damage_to_the_header_is_refused_or_harmless(tmp_path: Path, offset: int, junk: bytes) -> None:
    content = bytearray(metropro())
    content[offset : offset + len(junk)] = junk
    _read_or_refuse(tmp_path, bytes(content))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.integers(1, 3),
    flips=st.lists(st.tuples(st.integers(0, 240) | st.integers(0, 5000), st.integers(0, 7)), max_size=6),
    keep=st.none() | st.integers(0, 5000),
)
def test_flipped_bits_and_lost_ends_are_refused_or_harmless(
    tmp_path: Path, form: int, flips: list[tuple[int, int]], keep: int | None
) -> None:
    content = bytearray(metropro(form))
    for offset, bit in flips:
        content[offset % len(content)] ^= 1 << bit
    _read_or_refuse(tmp_path, bytes(content[:keep]))


def _read_or_refuse(folder: Path, content: bytes) -> None:
    """Reads all of it, or tells the user in one line; never another error, never more memory than the file explains."""
    tracemalloc.start()
    told = ""
    try:
        file = opened(folder, content)
        heights = file.height_nm
        assert heights.shape == file.shape
        assert heights.size * 4 <= len(content)
        for bucket in range(file.header.intensity_shape[0]):
            assert file.intensity(bucket).size * 2 <= len(content)
    except InputError as failure:
        told = str(failure)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in told
    assert not told or "a.dat" in told
    assert peak < 1 << 20


@needs_data
def test_fizeau_map() -> None:
    file = open_zygo(DATA / "zygo" / "valid_zygo_dat_file.dat")
    assert file.shape == (432, 425)
    assert file.header.origin == (139, 38)
    assert file.header.wavelength_nm == pytest.approx(632.8, rel=1e-7)
    # 25.73 % of dropouts (prysm)
    assert np.isnan(file.height_nm).mean() == pytest.approx(0.2573, abs=5e-5)
    assert file.intensity(0).shape == (480, 640)
    assert file.intensity(0).max() <= file.header.intensity_shape[0] * 255


@needs_data
def test_microscope_map() -> None:
    """SurfaceTopography: 702.8813 x 527.1610 um, Sq 75.28822 nm; a reader that ignores phase_res is 8 times off."""
    file = open_zygo(DATA / "zygo" / "metropro-1.dat")
    height, width = file.shape
    assert file.header.pixel_um is not None
    assert width * file.header.pixel_um == pytest.approx(702.8813, rel=1e-6)
    assert height * file.header.pixel_um == pytest.approx(527.1610, rel=1e-6)
    assert file.height_nm.std() == pytest.approx(75.28822204734589, rel=1e-12)

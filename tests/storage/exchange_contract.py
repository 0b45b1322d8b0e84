"""What a format of heights alone promises: a contract that its test class inherits."""

from __future__ import annotations

import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.pipeline.maps.convert import convert_map
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.storage.formats import format_of
from exchange_maps import EPS32, PIXEL_UM, in_memory, marked


def damaged(data: bytes, draw: random.Random, head: int) -> bytes:
    """Change one thing of a file, half of the times in its first ``head`` bytes."""
    changed = bytearray(data)
    at = draw.randrange(min(head, len(data)) if draw.random() < 0.5 else len(data))
    size = draw.choice((1, 1, 2, 4, 8))
    match draw.randrange(5):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            changed[at : at + size] = draw.randbytes(size)
        case 3:
            changed[at : at + size] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"9")) * size
        case _:
            del changed[at : at + size]
    return bytes(changed)


def _read_or_refused(path: Path) -> tuple[str | None, int]:
    """Read a map whole; the line that refused it, None where it was read, and the most bytes it took."""
    tracemalloc.start()
    try:
        np.asarray(open_height_map(path).height_nm)
        return None, tracemalloc.get_traced_memory()[1]
    except InputError as failure:
        return str(failure), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class ExchangeContract:
    """Orientation, sign, unit, pixel size, missing points, wavelength; files that are damaged, cut short, or none."""

    suffix: str
    relative = 0.0  # what the format may change a height by: this part of it,
    keeps_aspect = True
    keeps_wavelength = True
    keeps_wavelengths = False  # more than one
    head = 600  # bytes that damage is likely to change
    mutations = 40

    def absolute_nm(self, heights: np.ndarray) -> float:
        """And this much besides."""
        return 0.0

    def pixel_error(self) -> float:
        """What a pixel size may be off by, relatively."""
        return 1e-15 * 4

    def written(self, folder: Path, heights: np.ndarray, **known: Any) -> Path:
        path = folder / f"out{self.suffix}"
        convert_map(in_memory(heights, **known), path, overwrite=True)
        return path

    def same(self, found: np.ndarray, heights: np.ndarray) -> None:
        np.testing.assert_array_equal(np.isnan(found), np.isnan(heights))
        allowed = self.absolute_nm(heights) + self.relative * np.abs(heights.astype(float))
        assert (np.abs(found - heights.astype(float))[~np.isnan(heights)] <= allowed[~np.isnan(heights)]).all()

    def test_a_round_trip(self, tmp_path: Path) -> None:
        heights = marked()
        known = {} if self.keeps_aspect else {"pixel_um": 2.5}
        opened = open_height_map(self.written(tmp_path, heights, **known))
        self.same(np.asarray(opened.height_nm), heights)
        pair = PIXEL_UM if self.keeps_aspect else (2.5, 2.5)
        np.testing.assert_allclose(np.broadcast_to(opened.pixel_um, 2), pair, rtol=self.pixel_error())
        if self.keeps_wavelength:
            assert opened.wavelengths_nm == pytest.approx((632.8,), rel=2 * EPS32)
        else:
            assert opened.wavelengths_nm == ()

    def test_what_is_lost_is_told(self, tmp_path: Path) -> None:
        heights = marked()
        two = HeightMap(
            Path("memory.npy"),
            {"height_nm": heights, "sigma_nm": heights, "flags": np.zeros(heights.shape, np.uint8)},
            {"acquisition": {"wavelengths_nm": [633.0, 637.0], "pixel_um": list(PIXEL_UM)}, "summary": {"method": "x"}},
        )
        result = convert_map(two, tmp_path / f"out{self.suffix}")
        expected = ["sigma_nm", "flags", *([] if self.keeps_aspect else ["pixel_um"])]
        expected += [*([] if self.keeps_wavelengths else ["wavelengths_nm"]), "summary"]
        assert result["lost"] == expected
        told = [line for line in result["warnings"] if "has no room for" in line]
        assert len(told) == 1
        assert all(name in told[0] for name in expected)
        assert result["valid_fraction"] == np.isfinite(heights).mean()

    def test_windows_are_those_of_the_whole(self, tmp_path: Path) -> None:
        opened = open_height_map(self.written(tmp_path, marked()))
        whole = np.asarray(opened.height_nm)
        for window in (np.s_[7:12, 4:9], np.s_[3], np.s_[::-2, ::3], np.s_[-1, -2], np.s_[0:0]):
            np.testing.assert_array_equal(opened.height_nm[window], whole[window])

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3)])
    def test_small_maps_without_any_valid_point_and_flat_ones(self, shape: tuple[int, int], tmp_path: Path) -> None:
        for value in (np.nan, 0.0, -12.5):
            flat = np.full(shape, value, np.float32)
            found = np.asarray(open_height_map(self.written(tmp_path, flat)).height_nm)
            self.same(found, flat)

    def test_a_map_without_pixel_size_or_wavelength(self, tmp_path: Path) -> None:
        result = convert_map(in_memory(marked(), None, ()), tmp_path / f"out{self.suffix}")
        opened = open_height_map(tmp_path / f"out{self.suffix}")
        self.same(np.asarray(opened.height_nm), marked())
        if opened.pixel_um is not None:  # made up, and said so
            assert any("no pixel size" in line for line in result["warnings"])
        if opened.wavelengths_nm:
            assert any("no wavelength" in line for line in result["warnings"])

    def test_equal_maps_give_equal_files(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        first = self.written(tmp_path, marked()).read_bytes()
        assert self.written(tmp_path / "a", marked()).read_bytes() == first

    def test_a_file_that_is_cut_short_is_refused(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, marked())
        data = path.read_bytes()
        for keep in (0, 3, 20, len(data) // 3, len(data) // 2, len(data) - self.last):
            path.write_bytes(data[:keep])
            with pytest.raises(InputError) as caught:
                np.asarray(open_height_map(path).height_nm)
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)

    last = 1  # bytes at the end without which a file is not whole

    def test_damaged_files_are_read_or_refused_in_one_line(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, marked())
        data = path.read_bytes()
        refused = 0
        for number in range(self.mutations):
            path.write_bytes(damaged(data, random.Random(f"{self.suffix} {number}"), self.head))
            told, peak = _read_or_refused(path)
            assert told is None or ("\n" not in told and path.name in told), number
            assert not re.search("NameError|AttributeError|AssertionError|UnboundLocal|Recursion", told or ""), number
            assert peak < 64 << 20, number
            refused += told is not None
        assert refused

    def test_nothing_is_left_of_an_output_that_failed(self, tmp_path: Path) -> None:
        heights = marked()
        heights[3, 3] = 1e20
        with pytest.raises(InputError, match="is no height"):
            convert_map(in_memory(heights), tmp_path / f"out{self.suffix}")
        assert list(tmp_path.iterdir()) == []

    def test_an_output_that_exists_stays(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, marked())
        before = path.read_bytes()
        with pytest.raises(InputError, match="exists: say overwrite"):
            convert_map(in_memory(marked(seed=2)), path)
        assert path.read_bytes() == before

    def test_the_format_is_in_the_table(self) -> None:
        known = format_of(Path(f"x{self.suffix}"))
        assert known is not None
        assert known.exporter is not None

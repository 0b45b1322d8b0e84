"""Formats of heights alone: each keeps the promises of the contract, within what its numbers can hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from exchange_contract import EPS32, ExchangeContract, in_memory, marked

from cpikan.errors import InputError
from cpikan.pipeline.maps.convert import convert_map
from cpikan.pipeline.maps.height_map import open_height_map


def refused(path: Path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        np.asarray(open_height_map(path).height_nm)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


class TestZygo(ExchangeContract):
    suffix = ".dat"
    keeps_aspect = False  # one number for both directions
    head = 834

    def absolute_nm(self, heights: np.ndarray) -> float:
        return 632.8 / 2 / 131072 / 2 * (1 + 1e-6)  # half a code

    def pixel_error(self) -> float:
        return EPS32

    def test_codes_come_back_exactly(self, tmp_path: Path) -> None:
        first = self.written(tmp_path, marked(), pixel_um=2.5)
        again = tmp_path / "again.dat"
        convert_map(first, again)
        assert again.read_bytes() == first.read_bytes()

    def test_heights_beyond_the_codes_are_refused(self, tmp_path: Path) -> None:
        heights = marked()
        heights[1, 1] = 2e8  # 0.2 m: 4096 codes of 316.4 nm reach 0.166 m
        with pytest.raises(InputError, match="beyond what a MetroPro file counts"):
            convert_map(in_memory(heights), tmp_path / "x.dat")
        heights[1, 1] = 1e8
        convert_map(in_memory(heights), tmp_path / "x.dat")
        found = open_height_map(tmp_path / "x.dat").height_nm[1, 1]
        assert found == pytest.approx(1e8, abs=632.8 / 2 / 4096)


class TestGsf(ExchangeContract):
    suffix = ".gsf"
    relative = 1.0001 * EPS32  # m as float32

    def test_files_that_lack_something(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gsf"
        data = self.written(tmp_path, marked()).read_bytes()
        refused(path, data.replace(b"ZUnits = m\n", b"ZUnits = V\n"), "heights in V")
        refused(path, data.replace(b"ZUnits = m\n", b"ZUnits =  \n"), "heights in no unit")
        refused(path, data.replace(b"XRes", b"QRes"), "lacks XRes")
        refused(path, data.replace(b"XRes = 26", b"XRes = 0 "), "hold pixels")
        path.write_bytes(data.replace(b"XYUnits = m", b"XYUnits = s"))
        opened = open_height_map(path)
        assert opened.pixel_um is None
        assert "lateral size in s" in opened.notes[0]


class TestGwy(ExchangeContract):
    suffix = ".gwy"
    relative = 2.0**-51  # to m and back
    head = 300

    def test_the_mask_marks_the_missing_points(self, tmp_path: Path) -> None:
        data = self.written(tmp_path, marked()).read_bytes()
        at = data.index(b"data\0D", data.index(b"/0/mask")) + 10
        mask = np.frombuffer(data, "<f8", marked().size, at).reshape(marked().shape)
        np.testing.assert_array_equal(mask == 1, np.isnan(marked()))

    def test_files_without_heights(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gwy"
        data = self.written(tmp_path, marked()).read_bytes()
        z = data.index(b"si_unit_z")
        refused(path, data[:z] + data[z:].replace(b"unitstr\0sm\0", b"unitstr\0sV\0", 1), r"in a length \(V\)")
        refused(path, data.replace(b"/0/data\0o", b"/0/dbtb\0o"), "no data field")
        refused(path, data.replace(b"xres\0i\x1a", b"xres\0i\x1b"), "without as many numbers")
        nested = b"x\0oGwyContainer\0" + struct.pack("<I", 0)
        for _ in range(20):
            nested = b"x\0oGwyContainer\0" + struct.pack("<I", len(nested)) + nested
        refused(path, b"GWYPGwyContainer\0" + struct.pack("<I", len(nested)) + nested, "inside one another")


class TestSdf(ExchangeContract):
    suffix = ".sdf"
    keeps_wavelength = False
    head = 81

    @pytest.mark.parametrize("family", ["ISO", "BCR"])
    @pytest.mark.parametrize("code", range(8))
    def test_every_type_binary_and_ascii(self, family: str, code: int, tmp_path: Path) -> None:
        kind = np.dtype(("u1", "<u2", "<u4", "<f4", "i1", "<i2", "<i4", "<f8")[code])
        limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
        mark = limits.max if family == "BCR" or kind.kind == "u" else limits.min
        numbers = np.array([[1, 2, 3], [100, 5, 6]], kind)
        numbers[0, 1] = mark
        expected = np.array([[1, np.nan, 3], [100, 5, 6]]) * 0.5
        sizes = struct.pack("<HHddddBBB", 3, 2, 2e-6, 3e-6, 0.5e-9, 0, 0, code, 0)
        (tmp_path / "b.sdf").write_bytes(f"b{family}-1.0".encode() + b" " * 34 + sizes + numbers.tobytes() + b"\r\n*")
        big = struct.pack("<IIddddBBB", 3, 2, 2e-6, 3e-6, 0.5e-9, 0, 0, code, 0) if family == "ISO" else b""
        fields = (
            f"ManufacID = x\r\nNumPoints = 3\r\nNumProfiles = 2\r\nXscale = 2E-6\r\nYscale = 3E-6\r\nZscale = 0.5E-9\r\n"
            f"Zresolution = 0\r\nCompression = 0\r\nDataType = {code}\r\nCheckType = 0\r\n*\r\n"
        )
        bad = "BAD" if family == "ISO" else repr(kind.type(mark).item())
        (tmp_path / "a.sdf").write_text(
            f"a{family}-1.0\r\n{fields}1 {bad}\r\n3 100 5\r\n6\r\n*\r\ntext\r\n*\r\n", newline=""
        )
        names = ["a.sdf", "b.sdf"]
        if big:
            (tmp_path / "c.sdf").write_bytes(b"bISO-2.0" + b" " * 34 + big + numbers.tobytes())
            names.append("c.sdf")
        for name in names:
            opened = open_height_map(tmp_path / name)
            np.testing.assert_allclose(opened.height_nm[:], expected, rtol=1e-15, err_msg=name)
            assert opened.pixel_um == pytest.approx((3.0, 2.0), rel=1e-15)
            assert any("BCR-1.0" in note for note in opened.notes) == (family == "BCR")

    def test_headers_that_cannot_be(self, tmp_path: Path) -> None:
        path, data = tmp_path / "x.sdf", bytearray(self.written(tmp_path, marked()).read_bytes())
        scale = data[:62] + struct.pack("<d", 0.0) + data[70:]
        refused(path, bytes(scale), "a Zscale of 0")
        refused(path, bytes(data[:78] + b"\1" + data[79:]), "is compressed")
        refused(path, bytes(data[:79] + b"\x08" + data[80:]), "DataType 8")
        refused(path, b"bISO-3.0" + bytes(data[8:]), "is no SDF file")
        refused(path, b"aISO-1.0\r\nNumPoints = 3\r\n*\r\n", "lacks NumProfiles")

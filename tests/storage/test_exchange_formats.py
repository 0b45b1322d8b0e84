"""Formats of heights alone: each keeps the promises of the contract, within what its numbers can hold."""

from __future__ import annotations

import hashlib
import itertools
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from exchange_contract import ExchangeContract
from PIL import Image, PngImagePlugin

from cpikan.errors import InputError
from cpikan.pipeline.maps import height_map
from cpikan.pipeline.maps.convert import convert_map
from cpikan.pipeline.maps.height_map import open_height_map
from cpikan.storage.instruments import mesh
from exchange_maps import EPS32, in_memory, marked


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
        path.write_bytes(data.replace(b"GwyContainer\0", b"G\n\1Container\0", 1)[:-9])
        with pytest.raises(InputError) as told:  # names are shown on one line, whatever they hold
            open_height_map(path)
        assert str(told.value).isprintable()
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


class TestOpd(ExchangeContract):
    suffix = ".opd"
    relative = 1.0001 * EPS32  # wavelengths as float32
    head = 180

    def pixel_error(self) -> float:
        return 2.0001 * EPS32  # an aspect of a width

    def test_sixteen_bits_count_from_the_bottom(self, tmp_path: Path) -> None:
        numbers = np.array([[10, 20, 32766], [-40, 32767, 60]], "<i2")  # of columns, from the bottom
        blocks = [(b"Wavelength", 7, 4), (b"Mult", 6, 2), (b"OPD", 3, 6 + numbers.nbytes)]
        head = struct.pack("<16shlH", b"Directory", 1, 24 * 4, 0xFFFF)
        head += b"".join(struct.pack("<16shlH", *block, 8) for block in blocks)
        data = struct.pack("<fhHHH", 600.0, 3, 2, 3, 2) + numbers.tobytes()
        (tmp_path / "x.opd").write_bytes(b"\1\0" + head + data)
        opened = open_height_map(tmp_path / "x.opd")
        np.testing.assert_array_equal(opened.height_nm[:], 200.0 * np.array([[np.nan, 60], [20, np.nan], [10, -40]]))
        assert opened.pixel_um is None

    def test_headers_that_cannot_be(self, tmp_path: Path) -> None:
        path, data = tmp_path / "x.opd", self.written(tmp_path, marked()).read_bytes()
        refused(path, data.replace(b"RAW_DATA", b"RAW_DUST"), "its arrays are RAW_DUST")
        refused(path, data.replace(b"Wavelength", b"Wavelengtt"), "does not say the wavelength")
        at = data.rindex(struct.pack("<f", 632.8))
        refused(path, data[:at] + struct.pack("<f", 0) + data[at + 4 :], "a wavelength of 0")
        refused(path, data[: at + 4] + struct.pack("<h", 0) + data[at + 6 :], "a Mult of 0")
        first = data.index(struct.pack("<HHH", 26, 19, 4))
        refused(path, data[:first] + struct.pack("<HHH", 26, 20, 4) + data[first + 6 :], "claims 26 x 20")
        refused(path, data[:first] + struct.pack("<HHH", 26, 19, 1) + data[first + 6 :], "heights of 1 bytes")


class TestSur(ExchangeContract):
    suffix = ".sur"
    keeps_wavelength = False
    head = 512

    def absolute_nm(self, heights: np.ndarray) -> float:
        """Half a step: the range / 2**31; the offset below the least height adds its own rounding to it."""
        if not np.isfinite(heights).any():
            return 0.0
        low, high = float(np.nanmin(heights)), float(np.nanmax(heights))
        return 0.5001 * (high - low + 2 * EPS32 * abs(low)) / 2**31 + 4 * 2.0**-52 * max(abs(low), abs(high))

    def pixel_error(self) -> float:
        return 1.0001 * EPS32

    def packed(self, folder: Path, blocks: int = 3) -> tuple[bytes, bytes]:
        """The plain file as one of several compressed blocks: header, and what follows."""
        data = self.written(folder, marked()).read_bytes()
        numbers = data[512:]
        cuts = [len(numbers) * n // blocks for n in range(blocks + 1)]
        parts = [numbers[a:b] for a, b in itertools.pairwise(cuts)]
        packed = [zlib.compress(part) for part in parts]
        table = b"".join(struct.pack("<2I", len(a), len(b)) for a, b in zip(parts, packed, strict=True))
        return b"DSCOMPRESSED" + data[12:512], struct.pack("<I", blocks) + table + b"".join(packed)

    def test_compressed_blocks_are_those_of_the_plain_file(self, tmp_path: Path) -> None:
        head, rest = self.packed(tmp_path)
        head = head[:334] + struct.pack("<HH", 5, 3) + head[338:]  # a comment and a private zone
        (tmp_path / "c.sur").write_bytes(head + b"commePRI" + rest)
        found = open_height_map(tmp_path / "c.sur").height_nm
        np.testing.assert_array_equal(found[:], open_height_map(tmp_path / "out.sur").height_nm[:])
        np.testing.assert_array_equal(found[4:6], open_height_map(tmp_path / "out.sur").height_nm[4:6])  # once more

    def test_compressed_blocks_that_do_not_hold(self, tmp_path: Path) -> None:
        path = tmp_path / "c.sur"
        head, rest = self.packed(tmp_path)
        refused(path, head + rest[:-1], "compressed blocks end at")
        refused(path, head + struct.pack("<I", 2**31) + rest[4:], "claims 2147483648 compressed blocks")
        refused(path, head + rest[:4] + struct.pack("<I", 4) + rest[8:], "where 1976 are a map")
        refused(path, head + rest[:-4] + b"abcd", "Error -3")  # zlib's own checksum
        short = zlib.compress(b"abc")
        refused(path, head + struct.pack("<3I", 1, 1976, len(short)) + short, "a block of 3 bytes")
        huge = head[:108] + struct.pack("<3i", 60000, 30000, 1800000000) + head[120:]
        refused(path, huge + struct.pack("<3I", 1, 4 * 1800000000 % 2**32, 20) + bytes(20), "are a map")

    def test_headers_that_cannot_be(self, tmp_path: Path) -> None:
        path, data = tmp_path / "x.sur", self.written(tmp_path, marked()).read_bytes()
        refused(path, data[:128] + struct.pack("<f", 0) + data[132:], "a spacing in z of 0")
        refused(path, data[:212] + b"V".ljust(16) + data[228:], "heights in V")
        refused(path, data[:212] + b"n\xf8\x1ap\n-?".ljust(16) + data[228:], "a map needs a length")
        refused(path, data[:212] + bytes(16) + data[228:], "heights in no unit")
        refused(path, data[:98] + struct.pack("<h", 24) + data[100:], "integers of 24 bits")
        refused(path, data[:18] + struct.pack("<h", 12) + data[20:], "object of kind 12")
        refused(path, data[:116] + struct.pack("<i", 7) + data[120:], "claims 7 points")
        path.write_bytes(data[:290] + struct.pack("<h", 1) + data[292:])
        assert "it was inverted (1)" in open_height_map(path).notes[0]


class TestX3p(ExchangeContract):
    suffix = ".x3p"
    relative = 2.0**-51  # to m and back
    keeps_wavelength = False
    last = 22  # the end of the zip's directory

    def repacked(self, folder: Path, **changes: tuple[bytes, bytes]) -> Path:
        """The file with one piece of a member replaced, checksums of the members as they were."""
        first = self.written(folder, marked())
        with zipfile.ZipFile(first) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for key, (old, new) in changes.items():
            name = {"main": "main.xml", "data": "bindata/data.bin", "sums": "md5checksum.hex"}[key]
            assert old in members[name]
            members[name] = members[name].replace(old, new, 1)
        with zipfile.ZipFile(folder / "x.x3p", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return folder / "x.x3p"

    def resummed(self, folder: Path, *changes: tuple[bytes, bytes]) -> Path:
        """The file with pieces of main.xml replaced, and its checksum right."""
        path = self.repacked(folder)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for old, new in changes:
            assert old in members["main.xml"]
            members["main.xml"] = members["main.xml"].replace(old, new, 1)
        members["md5checksum.hex"] = hashlib.md5(members["main.xml"]).hexdigest().encode() + b" *main.xml"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    def test_checksums_that_do_not_hold(self, tmp_path: Path) -> None:
        numbers = (marked() / np.float64(1e9)).astype("<f8")
        sums = hashlib.md5(numbers.tobytes()).hexdigest().encode()
        with zipfile.ZipFile(self.written(tmp_path, marked())) as archive:
            own = hashlib.md5(archive.read("main.xml")).hexdigest().encode()
        for changes, words in (
            ({"main": (b"<SizeZ>1<", b"<SizeZ>1 <")}, "a main.xml with another checksum"),
            ({"sums": (own, b"0" * 32)}, "a main.xml with another checksum"),
            ({"data": (numbers.tobytes()[:8], bytes(8))}, "numbers with another checksum"),
        ):
            with pytest.raises(InputError, match=words):
                open_height_map(self.repacked(tmp_path, **changes))
        wrong = open_height_map(self.repacked(tmp_path, sums=(own, sums)))  # of SurfaceTopography
        assert "the checksum of its numbers where that of main.xml belongs" in wrong.notes[0]
        np.testing.assert_allclose(wrong.height_nm[:], marked(), rtol=1e-15)
        assert "no readable checksum" in open_height_map(self.repacked(tmp_path, sums=(own, b"none"))).notes[0]

    @pytest.mark.parametrize(("kind", "dtype"), [("I", "<i2"), ("L", "<i4"), ("F", "<f4")])
    def test_other_types_with_increment_offset_and_valid_points(self, kind: str, dtype: str, tmp_path: Path) -> None:
        numbers = np.arange(15).reshape(3, 5).astype(dtype)
        valid = np.ones((3, 5), bool)
        valid[1, 2:4] = valid[2, 4] = False
        path = self.resummed(
            tmp_path,
            (
                b"<DataType>D</DataType><Increment>1.0</Increment><Offset>0.0</Offset></CZ>",
                b"<DataType>%s</DataType><Increment>2e-9</Increment><Offset>1e-6</Offset></CZ>" % kind.encode(),
            ),
            (b"<SizeX>26<", b"<SizeX>5<"),
            (b"<SizeY>19<", b"<SizeY>3<"),
            (b"</PointDataLink>", b"</PointDataLink><ValidPointsLink>bindata/valid.bin</ValidPointsLink>"),
        )
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        old = hashlib.md5(members["bindata/data.bin"]).hexdigest().upper().encode()
        members["bindata/data.bin"] = numbers.tobytes()
        members["bindata/valid.bin"] = np.packbits(valid, bitorder="little").tobytes()
        members["main.xml"] = members["main.xml"].replace(old, hashlib.md5(numbers.tobytes()).hexdigest().encode())
        members["md5checksum.hex"] = hashlib.md5(members["main.xml"]).hexdigest().encode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        found = open_height_map(path).height_nm
        np.testing.assert_allclose(found[:], np.where(valid, 2 * numbers + 1000.0, np.nan), rtol=1e-12)
        np.testing.assert_allclose(found[1:2], np.where(valid, 2 * numbers + 1000.0, np.nan)[1:2], rtol=1e-12)

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (b"SUR<", b"PRF<", "holds PRF, not a surface"),
            (b"<SizeX>26<", b"<SizeX>0<", "hold pixels"),
            (b"<SizeX>26<", b"<SizeX>27<", "it is truncated"),
            (b"<SizeZ>1<", b"<SizeZ>2<", "has 2 layers"),
            (b"<DataType>D</DataType><Increment>1.0<", b"<DataType>Q</DataType><Increment>1.0<", "heights of type Q"),
            (b"<DataType>D</DataType><Increment>1.0<", b"<DataType>D</DataType><Increment>0<", "increment in z of 0"),
            (b"<Increment>1.25e-06<", b"<Increment>0<", "increment of CX of 0"),
            (b"<AxisType>I<", b"<AxisType>A<", "CX coordinates of its own"),
            (b"bindata/data.bin", b"bindata/none.bin", "heights inside main.xml are not read"),
            (b"<p:ISO", b'<!DOCTYPE x [<!ENTITY a "b">]><p:ISO', "a document type of its own"),
            (b"</Record3>", b"", "no XML"),
        ],
    )
    def test_descriptions_that_cannot_be(self, old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=words) as caught:
            open_height_map(self.resummed(tmp_path, (old, new)))
        assert "\n" not in str(caught.value)


class TestDatx(ExchangeContract):
    suffix = ".datx"
    head = 4000
    mutations = 15  # HDF5 opens slowly

    def test_a_file_that_is_cut_short_is_refused(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, marked())
        data = path.read_bytes()
        refused(path, b"", "does not begin as HDF5")
        for keep in (100, len(data) // 2, len(data) - 1):
            refused(path, data[:keep], "it is truncated")
        moved = data[:700] + data[684:]  # the library does not come back from some of these
        refused(path, moved, "its header does not belong to its data")

    def test_texts_that_would_stop_the_library_are_refused(self, tmp_path: Path) -> None:
        data = bytearray(self.written(tmp_path, marked()).read_bytes())
        at = data.index(b"GCOL") + 16
        for size in (0, 2**64 - 16):  # of free space that never ends, and one that goes around
            changed = data.copy()
            changed[at : at + 16] = struct.pack("<HHIQ", 0, 0, 0, size)
            refused(tmp_path / "x.datx", bytes(changed), "among its texts")

    def test_fringes_are_scaled_and_other_units_are_refused(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, marked())
        with h5py.File(path, "r+") as file:
            surface = next(iter(file["Data/Surface"].values()))
            surface.attrs["Unit"] = np.array(["Fringes"], h5py.string_dtype())
            surface.attrs["Obliquity Factor"] = np.array([1.5])
        opened = open_height_map(path)
        np.testing.assert_allclose(opened.height_nm[:], marked() * np.float64(632.8 / 2 * 1.5), rtol=1e-12)
        assert opened.fringes_nm == pytest.approx((632.8 / 2 * 1.5,), rel=1e-12)
        for name, value, words in (
            ("Wavelength", np.array([0.0]), "a wavelength of 0"),
            ("Unit", np.array(["Volts"], h5py.string_dtype()), "heights in Volts"),
        ):
            with h5py.File(path, "r+") as file:
                next(iter(file["Data/Surface"].values())).attrs[name] = value
            with pytest.raises(InputError, match=words):
                open_height_map(path)
        with h5py.File(path, "w") as file:
            file["frames"] = np.zeros((3, 4, 5), np.uint8)
        with pytest.raises(InputError, match="no Data/Surface"):
            open_height_map(path)


def test_nanofocus(tmp_path: Path) -> None:
    head = bytearray(3468)
    struct.pack_into("<2d", head, 16, -1.0, 5.5535)
    struct.pack_into("<2I2d", head, 1368, 3, 2, 500.0, 250.0)
    codes = np.array([[0, 10000, 65535], [1, 2, 3]], "<u2")
    path = tmp_path / "x.nms"
    path.write_bytes(bytes(head) + codes.tobytes() + bytes(6))
    opened = open_height_map(path)
    np.testing.assert_allclose(opened.height_nm[:], codes * (6553.5 / 65535) - 1000.0, rtol=1e-12)
    assert opened.pixel_um == (0.25, 0.5)
    assert "not published" in opened.notes[0]
    refused(path, bytes(head) + codes.tobytes()[:-1], "is truncated")
    refused(path, bytes(head)[:400], "bytes of header")
    for at, form, value, words in (
        (16, "<d", 5.5535, "a range of heights .um. of 0"),
        (16, "<d", np.nan, "heights from nan"),
        (1368, "<I", 200000, "claims 2 x 200000"),
        (1368, "<I", 0, "hold pixels"),
    ):
        changed = bytearray(head)
        struct.pack_into(form, changed, at, value)
        refused(path, bytes(changed) + codes.tobytes(), words)


class TestCsv(ExchangeContract):
    suffix = ".csv"
    keeps_wavelengths = True
    relative = 1e-8  # nine digits, of which the ninth is rounded: less than half a unit of float32, which comes back
    head = 120

    def test_single_and_double_precision_come_back_exactly(self, tmp_path: Path) -> None:
        for heights in (marked(), marked().astype(np.float64) / 3):
            found = np.asarray(open_height_map(self.written(tmp_path, heights)).height_nm, heights.dtype)
            np.testing.assert_array_equal(found, heights)

    def test_a_file_that_is_cut_short_is_refused(self, tmp_path: Path) -> None:
        """A table cannot tell that rows are lacking, but it does of a row, and of a unit."""
        path = self.written(tmp_path, marked())
        data = path.read_bytes()
        refused(path, data[: len(data) // 2], "numbers, where the first row has 26")
        refused(path, data[:8], "does not say the unit")
        refused(path, b"", "does not say the unit")
        refused(path, b"# unit: nm\n", "hold pixels")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("# unit: um\n1;2,5\n;-3\n", [[1000, 2500], [np.nan, -3000]]),
            ("% Unit = nm\n\n1\t2\n***\tBAD\n\n", [[1, 2], [np.nan, np.nan]]),
            ("#unit:mm\n1 2 3\n4 5 nan", [[1e6, 2e6, 3e6], [4e6, 5e6, np.nan]]),
            ('# unit: nm\n1,"No Data"\n3,-\n', [[1, np.nan], [3, np.nan]]),
            ("# unit: nm\n1\n\nnan\n3\n", [[1], [np.nan], [3]]),
        ],
    )
    def test_tables_of_others(self, text: str, expected: list[list[float]], tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text(text)
        np.testing.assert_allclose(open_height_map(tmp_path / "x.csv").height_nm[:], expected, rtol=1e-15)

    def test_what_is_no_number(self, tmp_path: Path) -> None:
        refused(tmp_path / "x.csv", b"# unit: nm\n1,2\n3,bread\n", "line 3, holds 'bread'")
        refused(tmp_path / "x.csv", b"# unit: parsec\n1,2\n", "names the unit 'parsec'")
        refused(tmp_path / "x.csv", b"# unit: nm\n# pixel: 5\n1,2\n", "has no unit")


class TestXyz(ExchangeContract):
    suffix = ".xyz"
    keeps_wavelengths = True
    relative = 1e-8
    head = 120

    def pixel_error(self) -> float:
        return 1e-9  # said in the head, else from places of 12 digits

    def test_a_file_that_is_cut_short_is_refused(self, tmp_path: Path) -> None:
        """A list of points cannot tell that some are lacking, but it does of a unit, and half a line."""
        path = self.written(tmp_path, marked())
        data = path.read_bytes()
        refused(path, data[:8], "does not say the unit")
        refused(path, b"# unit: m\n", "holds no points")
        refused(path, b"# unit: m\n0 0 1\n1 0\n", "damaged|other than x, y and z")

    def test_points_in_any_order_with_some_left_out(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        heights = marked((7, 9))
        rows, columns = np.nonzero(~np.isnan(heights))
        order = rng.permutation(len(rows))
        for sign, told in ((1, "# y: down\n"), (-1, "# y: up\n")):
            lines = [
                f"{3 * columns[i]},{sign * 2 * rows[i] + 50},{heights[rows[i], columns[i]] / 1000!s}" for i in order
            ]
            (tmp_path / "x.xyz").write_text("# unit: um\n" + told + "\n".join(lines))
            opened = open_height_map(tmp_path / "x.xyz")
            np.testing.assert_allclose(opened.height_nm[:], heights, rtol=1e-6)
            assert opened.pixel_um == pytest.approx((2.0, 3.0), rel=1e-12)
            assert opened.notes == ()
        (tmp_path / "x.xyz").write_text("# unit: um\n" + "\n".join(lines))
        assert "does not say whether y grows upwards" in open_height_map(tmp_path / "x.xyz").notes[0]

    def test_points_on_no_grid(self, tmp_path: Path) -> None:
        path = tmp_path / "x.xyz"
        refused(path, b"# unit: m\n0 0 1\n1 0 1\n2.3 0 1\n", "x lie on no grid")
        refused(path, b"# unit: m\n" + b"".join(b"%d %d 1\n" % (n, n) for n in range(200)), "they lie on no grid")
        refused(path, b"# unit: m\nnan 0 1\n", "a point without x")


class TestPng(ExchangeContract):
    suffix = ".png"
    keeps_wavelengths = True
    head = 500
    last = 16  # less than the check of the last pixels

    def absolute_nm(self, heights: np.ndarray) -> float:
        """Half of one of 65534 steps."""
        low, high = np.nanmin(heights, initial=np.inf), np.nanmax(heights, initial=-np.inf)
        return max(0.0, float(high) - float(low)) / 65534 / 2 * (1 + 1e-9) + 1e-12

    def test_any_program_sees_the_values(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, marked())
        with Image.open(path) as picture:
            values = np.array(picture)
            texts = dict(picture.text)  # type: ignore[attr-defined]
        assert values.dtype == np.uint16
        np.testing.assert_array_equal(values == 0, np.isnan(marked()))
        low, high = (float(texts[f"Gwy::Z{name}"]) for name in ("Min", "Max"))
        found = low + values / 65535 * (high - low)
        np.testing.assert_allclose(
            found[values > 0] * 1e9, marked()[values > 0], atol=1.01 * self.absolute_nm(marked())
        )
        assert float(texts["Gwy::YReal"]) == pytest.approx(19 * 2.5e-6, rel=1e-12)

    def picture(self, path: Path, texts: dict[str, str], values: np.ndarray) -> Path:
        info = PngImagePlugin.PngInfo()
        for key, text in texts.items():
            info.add_text(key, text)
        Image.fromarray(values).save(path, pnginfo=info)
        return path

    def test_pictures_of_gwyddion_and_of_nobody(self, tmp_path: Path) -> None:
        values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
        texts = {"Gwy::ZMin": "-1e-6", "Gwy::ZMax": "2e-6", "Gwy::ZUnit": "m", "Gwy::XYUnit": "m"}
        texts |= {"Gwy::XReal": "8e-6", "Gwy::YReal": "3e-6"}
        opened = open_height_map(self.picture(tmp_path / "x.png", texts, values))
        np.testing.assert_allclose(opened.height_nm[:], -1000 + values / 65535 * 3000, rtol=1e-12, atol=1e-9)
        assert opened.pixel_um == pytest.approx((1.0, 2.0), rel=1e-12)
        for changes, words in (
            ({"Gwy::ZUnit": "V"}, "heights in V"),
            ({"Gwy::ZMax": "-1e-6"}, "a range of 0"),
            ({"cpikan": '{"unit": "nm", "scale": 0}'}, "a scale of 0"),
            ({"cpikan": '{"scale": 1}'}, "without a unit"),
        ):
            path = self.picture(tmp_path / "x.png", texts | changes, values)
            refused(path, path.read_bytes(), words)
        path = self.picture(tmp_path / "x.png", {}, values)
        refused(path, path.read_bytes(), "does not say what its grey values mean")
        path = self.picture(tmp_path / "x.png", texts, values.astype(np.uint8))
        refused(path, path.read_bytes(), "8 bits of colour kind 0")


def bumps(shape: tuple[int, int]) -> np.ndarray:
    heights = marked(shape)
    heights[0], heights[:, 0], heights[-1] = np.nan, np.nan, np.nan  # cut away
    return heights


@pytest.mark.parametrize("bands", [1, 1 << 20])
def test_meshes_are_one_surface_seen_from_above(bands: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corners are the points of the crop, facets look up, each edge is shared by two facets or is one of the border."""
    monkeypatch.setattr(height_map, "_BLOCK_PIXELS", bands)  # rows of a band
    heights = bumps((9, 12))
    for suffix in (".stl", ".ply"):
        result = convert_map(in_memory(heights), tmp_path / f"x{suffix}")
        assert "lengths are mm" in result["warnings"][0]
        assert "rows 1 to 7 and columns 1 to 11" in result["warnings"][0]
    data = (tmp_path / "x.stl").read_bytes()
    (count,) = struct.unpack_from("<I", data, 80)
    facets = np.frombuffer(data, [("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")], count, 84)
    assert len(data) == 84 + 50 * count
    crop = heights[1:8, 1:12]
    valid = ~np.isnan(crop)
    quads = [valid[:-1, :-1], valid[:-1, 1:], valid[1:, :-1], valid[1:, 1:]]
    corners = sum(quad.astype(int) for quad in quads)
    assert count == 2 * (corners == 4).sum() + (corners == 3).sum()
    assert (facets["n"][:, 2] > 0).all()
    places = np.rint(facets["c"][..., :2] / [1.25e-3, 2.5e-3]).astype(int)
    np.testing.assert_allclose(facets["c"][..., 2], crop[6 - places[..., 1], places[..., 0]] / 1e6, rtol=1e-6)
    head, _, rest = (tmp_path / "x.ply").read_bytes().partition(b"end_header\n")
    points = np.frombuffer(rest, "<f8", 3 * valid.sum()).reshape(-1, 3)
    faces = np.frombuffer(rest, [("n", "u1"), ("v", "<i4", 3)], offset=points.nbytes)
    assert f"element face {count}".encode() in head
    assert f"element vertex {len(points)}".encode() in head
    np.testing.assert_allclose(points[:, 2], crop[valid].astype(float) / 1e6, rtol=1e-12)

    def triangles(corners: np.ndarray) -> set[tuple[float, ...]]:
        return {tuple(np.float32(one).ravel().tolist()) for one in corners}

    turned = [triangles(np.roll(points[faces["v"]], turn, axis=1)) for turn in range(3)]
    assert triangles(facets["c"]) <= set.union(*turned)
    edges = Counter((int(a), int(b)) for face in faces["v"] for a, b in zip(face, np.roll(face, -1), strict=True))
    assert max(edges.values()) == 1  # each edge once in each direction at most: the surface has one side


def test_a_mesh_of_nothing_or_of_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".stl", ".ply"):
        with pytest.raises(InputError, match="no valid point"):
            convert_map(in_memory(np.full((3, 4), np.nan)), tmp_path / f"x{suffix}")
        with monkeypatch.context() as small:
            small.setattr(mesh, "_POINTS", 20)
            with pytest.raises(InputError, match=r"a mesh of 7 x 11 points is more .* cut the map first"):
                convert_map(in_memory(bumps((9, 12))), tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2"])
def test_elevations_of_others(compression: str | None, dtype: str, tmp_path: Path) -> None:
    """One page with a unit, as GDAL writes it, plain and compressed."""
    heights = np.arange(12).reshape(3, 4).astype(dtype)
    heights[1, 2] = -9999
    words = "<GDALMetadata><Item name='UNITTYPE' sample='0' role='unittype'>um</Item><Item role='scale'>2</Item></GDALMetadata>"
    tags = [(33550, 12, 3, (2e-6, 3e-6, 0.0)), (42112, 2, None, words), (42113, 2, None, "-9999")]
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, heights, compression=compression, extratags=tags, metadata=None)
    opened = open_height_map(path)
    np.testing.assert_array_equal(opened.height_nm[:], np.where(heights == -9999, np.nan, heights * 2000.0))
    assert opened.pixel_um == pytest.approx((3.0, 2.0), rel=1e-12)
    assert "pixel size without a unit" in opened.notes[0]
    for changed, reason in (
        (words.replace("um", ""), "not a map this program wrote"),
        (words.replace("2<", "0<"), "a scale of 0"),
    ):
        tifffile.imwrite(path, heights, extratags=[(42112, 2, None, changed)], metadata=None)
        refused(path, path.read_bytes(), reason)


def test_our_tif_says_its_unit_and_pixel_to_gdal(tmp_path: Path) -> None:
    convert_map(in_memory(marked()), tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        assert tags[33550].value == (1.25e-6, 2.5e-6, 0.0)
        assert tags[33922].value == (0.0,) * 6
        assert 'role="unittype">nm<' in tags[42112].value

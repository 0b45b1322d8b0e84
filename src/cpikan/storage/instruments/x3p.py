"""ISO 25178-72 (ISO 5436-2) files, .x3p: a zip of main.xml, a file of numbers, at will one of valid points, and checksums.

Lengths are in m, the first row of numbers is row 0. A missing point of a float is NaN; integers have a bit for each point,
the least significant first. The checksum of the numbers stands in main.xml, that of main.xml in a file of its own.
"""

from __future__ import annotations

import hashlib
import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_compressed_size, check_frame_size, check_raw_size
from cpikan.storage.instruments.rasters import (
    Linear,
    StreamedRaster,
    pixel_pair_um,
    positive,
    rows_of_bytes,
    stored_map,
)
from cpikan.storage.maps import StoredMap

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_DTYPES = {"I": "<i2", "L": "<i4", "F": "<f4", "D": "<f8"}
_LONGEST = 2**24  # bytes of main.xml
_PIECE = 1 << 20
_NAMESPACE = "http://www.opengps.eu/2008/ISO5436_2"


@dataclass(frozen=True)
class _Member:
    """Numbers in the archive, what they mean, and the bits of the points that are valid (None: all)."""

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, int]
    decode: Linear
    valid: np.ndarray | None

    def rows(self) -> Iterator[np.ndarray]:
        """Read whole rows from the top, in nm."""
        done = 0
        with zipfile.ZipFile(self.path) as archive, archive.open(self.name) as file:
            for numbers in rows_of_bytes(iter(partial(file.read, _PIECE), b""), self.dtype, self.shape[1]):
                heights = self.decode(numbers)
                if self.valid is not None:
                    heights[~self._valid(done, len(heights))] = np.nan
                done += len(heights)
                yield heights

    def _valid(self, start: int, count: int) -> np.ndarray:
        assert self.valid is not None
        width = self.shape[1]
        first, last = start * width, (start + count) * width
        bits = np.unpackbits(self.valid[first // 8 : -(-last // 8)], bitorder="little")
        return bits[first % 8 : first % 8 + count * width].reshape(count, width).astype(bool)


def open_x3p_map(path: Path) -> StoredMap:
    """Open an .x3p; InputError for another archive, a profile or points, and a checksum that does not hold.

    Numbers are read once for their checksum. A checksum of main.xml that is that of the numbers, as SurfaceTopography writes
    it, is a mistake of the writer and told as a note.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as failure:
        raise InputError(f"{path} is no .x3p: it is no zip archive, or cut short ({failure})") from failure
    with archive:
        document = _member(path, archive, "main.xml", _LONGEST)
        root = _parsed(path, document)
        name = posixpath.normpath(_text(root, "Record3/DataLink/PointDataLink"))
        member = _surface(path, archive, root, name)
        size = archive.getinfo(name).file_size
        check_raw_size(f"{path}: {name}", member.dtype.itemsize * member.shape[0] * member.shape[1], size)
        check_compressed_size(str(path), size, archive.getinfo(name).compress_size)
        notes = _check_sums(path, archive, root, document, name)
    y, x = (_increment(path, root, axis) for axis in ("CY", "CX"))
    heights = StreamedRaster(str(path), member.shape, member.rows)
    return stored_map(path, heights, pixel_um=pixel_pair_um(y * 1e6, x * 1e6), notes=notes)


def _member(path: Path, archive: zipfile.ZipFile, name: str, longest: int) -> bytes:
    if name not in archive.namelist():
        raise InputError(f"{path} lacks {name}: it is no .x3p, or damaged")
    found = archive.getinfo(name)
    if found.file_size > longest:
        raise InputError(f"{path} has a {name} of {found.file_size} bytes: at most {longest} are read; it is damaged")
    return archive.read(name)


def _parsed(path: Path, document: bytes) -> ElementTree.Element:
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise InputError(f"{path} has a main.xml with a document type of its own, which no .x3p needs: it is not read")
    try:
        return ElementTree.fromstring(document)
    except ElementTree.ParseError as failure:
        raise InputError(
            f"{path} has a main.xml that is no XML ({failure}): it is damaged; export it again"
        ) from failure


def _text(root: ElementTree.Element, where: str, default: str = "") -> str:
    found = root.find(where)
    return default if found is None or found.text is None else found.text.strip()


def _surface(path: Path, archive: zipfile.ZipFile, root: ElementTree.Element, name: str) -> _Member:
    feature = _text(root, "Record1/FeatureType")
    if feature != "SUR":
        raise InputError(f"{path} holds {feature or 'nothing'}, not a surface (SUR): export the surface as a matrix")
    if name not in archive.namelist():
        raise InputError(
            f"{path} has no file of numbers ({name}): heights inside main.xml are not read; export them as binary"
        )
    kind = _text(root, "Record1/Axes/CZ/DataType", "D")
    if kind not in _DTYPES:
        raise InputError(f"{path} has heights of type {kind[:20]}: allowed are {', '.join(_DTYPES)}; it is damaged")
    width, height, layers = (int(_text(root, f"Record3/MatrixDimension/Size{axis}", "0")) for axis in "XYZ")
    check_frame_size(str(path), height, width)
    if layers != 1:
        raise InputError(f"{path} has {layers} layers: a map has one; export it alone")
    scale = positive(path, float(_text(root, "Record1/Axes/CZ/Increment") or 1), "an increment in z of")
    offset = float(_text(root, "Record1/Axes/CZ/Offset") or 0)
    if not np.isfinite(offset):
        raise InputError(f"{path} has an offset in z of {offset:g}: it is damaged; export it again")
    valid, link = None, _text(root, "Record3/DataLink/ValidPointsLink")
    if link:
        link = posixpath.normpath(link)
        valid = np.frombuffer(_member(path, archive, link, -(-height * width // 8) + 8), np.uint8)
        if 8 * valid.size < height * width:
            raise InputError(f"{path} has {valid.size} bytes of valid points for {height} x {width}: it is damaged")
    return _Member(path, name, np.dtype(_DTYPES[kind]), (height, width), Linear(scale * 1e9, offset * 1e9), valid)


def _increment(path: Path, root: ElementTree.Element, axis: str) -> float:
    kind = _text(root, f"Record1/Axes/{axis}/AxisType", "I")
    if kind != "I":
        raise InputError(
            f"{path} has {axis} coordinates of its own for every point ({kind[:9]}): export it on a regular grid"
        )
    return positive(path, float(_text(root, f"Record1/Axes/{axis}/Increment") or "nan"), f"an increment of {axis} of")


def _check_sums(
    path: Path, archive: zipfile.ZipFile, root: ElementTree.Element, document: bytes, name: str
) -> list[str]:
    found = hashlib.md5(usedforsecurity=False)
    with archive.open(name) as file:
        for piece in iter(partial(file.read, _PIECE), b""):
            found.update(piece)
    told = _text(root, "Record3/DataLink/MD5ChecksumPointData").lower()
    if len(told) == 32 and told != found.hexdigest():
        raise InputError(
            f"{path} has numbers with another checksum than it says ({name}): it is damaged; copy it again"
        )
    link = posixpath.normpath(_text(root, "Record4/ChecksumFile", "md5checksum.hex"))
    if link not in archive.namelist():
        return [f"{path} has no checksum of main.xml: it is not checked"]
    told = _member(path, archive, link, 4096).decode("latin-1").strip()[:32].lower()
    if told == hashlib.md5(document, usedforsecurity=False).hexdigest():
        return []
    if told == found.hexdigest():
        return [f"{path} has the checksum of its numbers where that of main.xml belongs, as some programs write it"]
    if len(told) == 32:
        raise InputError(f"{path} has a main.xml with another checksum than it says: it was damaged or edited by hand")
    return [f"{path} has no readable checksum of main.xml: it is not checked"]


def export_x3p(content: MapContent, path: Path) -> None:
    """Write heights in m as float64, stored plain, with both checksums and no date: equal maps give equal files."""
    y, x = content.some_pixel_um()
    digest = hashlib.md5(usedforsecurity=False)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(_entry("bindata/data.bin"), "w", force_zip64=True) as file:
            for _, rows in content.bands():
                data = (rows / 1e9).astype("<f8").tobytes()
                digest.update(data)
                file.write(data)
        document = _document(content.shape, (y / 1e6, x / 1e6), digest.hexdigest())
        archive.writestr(_entry("main.xml"), document)
        told = hashlib.md5(document, usedforsecurity=False).hexdigest()
        archive.writestr(_entry("md5checksum.hex"), f"{told} *main.xml\n")


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _document(shape: tuple[int, int], pixel_m: tuple[float, float], checksum: str) -> bytes:
    """Write main.xml."""
    ElementTree.register_namespace("p", _NAMESPACE)
    root = ElementTree.Element(f"{{{_NAMESPACE}}}ISO5436_2")
    tree = {
        "Record1": {
            "Revision": "ISO5436 - 2000",
            "FeatureType": "SUR",
            "Axes": {
                "CX": {"AxisType": "I", "DataType": "D", "Increment": repr(pixel_m[1]), "Offset": "0.0"},
                "CY": {"AxisType": "I", "DataType": "D", "Increment": repr(pixel_m[0]), "Offset": "0.0"},
                "CZ": {"AxisType": "A", "DataType": "D", "Increment": "1.0", "Offset": "0.0"},
            },
        },
        "Record3": {
            "MatrixDimension": {"SizeX": str(shape[1]), "SizeY": str(shape[0]), "SizeZ": "1"},
            "DataLink": {"PointDataLink": "bindata/data.bin", "MD5ChecksumPointData": checksum.upper()},
        },
        "Record4": {"ChecksumFile": "md5checksum.hex"},
    }
    _grow(root, tree)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root)


def _grow(parent: ElementTree.Element, tree: dict) -> None:
    for name, value in tree.items():
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, dict):
            _grow(child, value)
        else:
            child.text = value

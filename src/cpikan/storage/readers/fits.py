"""Frames in FITS files: a cube, an image per extension, or one image; needs Astropy (the extra ``formats``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, need, unknown_name
from cpikan.storage.headers import check_compressed_size, check_raw_size, decoding
from cpikan.storage.readers.array import layout_of
from cpikan.storage.readers.base import BaseReader, fingerprint_files
from cpikan.storage.readers.joined import joined
from cpikan.storage.readers.marked import MarkedReader
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.scratch import ScratchFrames
from cpikan.storage.readers.turned import Turn, TurnedReader

_TYPES = {8: "u1", 16: "i2", 32: "i4", -32: "f4", -64: "f8"}
_UNSIGNED = {16: 2**15, 32: 2**31}
_MAX_UNITS = 2**12
_UNSAID = (
    "{path} does not say which way its rows go: row 0 of a FITS image is at the bottom by convention, on top where a program "
    'wrote an array; rows are read as they are stored: say flip = "vertical" or flip = "none"'
)


class FitsReader(BaseReader):
    """Rows of one image or cube of a FITS file; plain ones are mapped, compressed ones (fpack) decoded once a frame.

    Pixels are BZERO + BSCALE * stored: unsigned ones by the usual BZERO stay integers. Raises InputError for other shapes
    and types, and a file that is cut.
    """

    def __init__(self, path: Path, unit: int, single: bool = False) -> None:
        self._path, self._opened = path, (path.absolute(), unit, single)
        with _quiet(path), _fits().open(path, mode="readonly", memmap=True, do_not_scale_image_data=True) as file:
            hdu = file[unit]
            header, shape = hdu.header, tuple(int(length) for length in hdu.shape)
            label = f"{path}::{hdu.name or unit}"
            bits = int(header["BITPIX"])
            scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
            place = None if _is_compressed(hdu) else int(hdu.fileinfo()["datLoc"])
            stored = int(hdu.fileinfo()["datSpan"])
            self.marks = None if bits < 0 or header.get("BLANK") is None else int(header["BLANK"]) * scale + zero
            self.order = str(header.get("ROWORDER", "")).strip().upper()
        if bits not in _TYPES or not (math.isfinite(scale) and math.isfinite(zero) and scale):
            raise InputError(
                f"{label} has BITPIX {bits}, BSCALE {scale:g}, BZERO {zero:g}: 8, 16, 32, -32 and -64 are read, with a scale"
            )
        self._stored, self._scale, self._zero = np.dtype(">" + _TYPES[bits]), scale, zero
        layout = layout_of(label, shape, _value_type(bits, scale, zero), f"{path.name}::{unit}", single=single)
        super().__init__(layout)
        self._place, self._unit = place, unit
        claimed = math.prod(shape) * self._stored.itemsize
        self._scratch: ScratchFrames | None = None
        self._map: np.ndarray | None = None
        if place is None:
            check_compressed_size(label, claimed, path.stat().st_size)
            frame_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
            decode = [partial(self._decoded, k, len(shape)) for k in range(self.shape[0])]
            self._scratch = ScratchFrames(self.shape, self.dtype, decode, 4 * frame_bytes)
        else:
            check_raw_size(label, claimed, min(claimed, stored, path.stat().st_size - place))
            with decoding(label):
                self._map = np.memmap(path, self._stored, "r", place, self.shape).view(np.ndarray)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._scratch is not None:
            return self._scratch.rows(start, stop)
        assert self._map is not None
        return self._scaled(self._map[:, start:stop])

    def _scaled(self, pixels: np.ndarray) -> np.ndarray:
        if (self._scale, self._zero) == (1.0, 0.0):
            return pixels.astype(self.dtype, copy=False)
        if self.dtype.kind == "u":
            return (pixels.astype(np.int32) + int(self._zero)).astype(self.dtype)
        return pixels.astype(self.dtype) * self.dtype.type(self._scale) + self.dtype.type(self._zero)

    def _decoded(self, frame: int, axes: int) -> np.ndarray:
        with _quiet(self._path), _fits().open(self._path, do_not_scale_image_data=True) as file:
            section = file[self._unit].section
            index = [frame, *(slice(None),) * 2] if axes == 3 else [slice(None)] * 2
            if axes == 4:
                steps = file[self._unit].shape[1]
                index = [frame // steps, frame % steps, slice(None), slice(None)]
            return self._scaled(np.asarray(section[tuple(index)]))

    def files(self) -> list[Path]:
        return [self._path]

    def origin(self) -> tuple[Any, ...]:
        return self._opened

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self._unit, self.shape, self.dtype)

    def close(self) -> None:
        self._map = np.empty((self.shape[0], 0, self.shape[2]), self._stored)
        if self._scratch is not None:
            self._scratch.close()


def open_fits(path: Path, how: ReadAs) -> BaseReader:
    """Open the images of a FITS file: those of all extensions as frames, or the one that is named (EXTNAME or number).

    Values that BLANK marks are NaN. ROWORDER decides which way the rows go; without it they are read as they are stored,
    and that is said.
    """
    if how.axes is not None:
        raise InputError(f"{path} is a FITS file, whose axes are (wavelengths, steps, rows, columns): leave axes out")
    names = _images(path)
    units = _chosen(path, how.dataset, names)
    single = how.single or len(units) > 1
    parts = [(f"{path}::{names[unit] or unit}", partial(_open_unit, path, unit, single)) for unit in units]
    return joined(parts) if len(parts) > 1 else parts[0][1]()


def _open_unit(path: Path, unit: int, single: bool) -> BaseReader:
    found = FitsReader(path, unit, single)
    reader: BaseReader = found
    if found.marks is not None:
        reader = MarkedReader(reader, found.marks, found.marks)
    if found.order == "BOTTOM-UP":
        reader = TurnedReader(reader, Turn(flip_rows=True))
        reader.orientation = "turned upside down, for ROWORDER says that the first row is at the bottom"
    elif found.order == "TOP-DOWN":
        reader.orientation = "as stored: ROWORDER says that the first row is on top"
    else:
        reader.orientation = "as stored, though row 0 of a FITS image is at the bottom by convention"
        reader.remarks = (("orientation-unsaid", _UNSAID.format(path=path)),)
    return reader


def _images(path: Path) -> dict[int, str]:
    """List the units of a file that hold images, with their names."""
    with _quiet(path), _fits().open(path, do_not_scale_image_data=True) as file:
        found = {}
        for unit, hdu in enumerate(file):
            if unit > _MAX_UNITS:
                raise InputError(f"{path} has more than {_MAX_UNITS} extensions: it is damaged")
            if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2 and hdu.shape:
                found[unit] = str(hdu.name)
    if not found:
        raise InputError(f"{path} holds no image: give a FITS file with a cube of frames, or an image per extension")
    return found


def _chosen(path: Path, name: str, names: dict[int, str]) -> list[int]:
    if name in ("", "/"):
        return list(names)
    if name.isdecimal() and int(name) in names:
        return [int(name)]
    found = [unit for unit, known in names.items() if known.upper() == name.upper()]
    if not found:
        raise unknown_name(f"image in {path}", name, [f"{known or unit}" for unit, known in names.items()][:8])
    return found


def _value_type(bits: int, scale: float, zero: float) -> np.dtype:
    """Find the type of scaled pixels: unsigned by the usual BZERO, else the smallest float that holds the stored ones."""
    if (scale, zero) == (1.0, 0.0):
        return np.dtype(_TYPES[bits])
    if bits == 16 and scale == 1.0 and zero == _UNSIGNED[bits]:
        return np.dtype("u2")
    return np.dtype("f4") if bits in (8, 16, -32) else np.dtype("f8")


def _is_compressed(hdu: Any) -> bool:
    return type(hdu).__name__ == "CompImageHDU"


@contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Turn what Astropy raises into one line that names the file, and leave out its remarks on headers."""
    with decoding(str(path)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _fits() -> Any:
    need("astropy", "formats", "FITS files")
    from astropy.io import fits

    return fits

"""Zygo MetroPro .dat files: the header, the height from the phase codes, and the intensity frames."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size, decoding
from cpikan.storage.maps import LazyMap, StoredMap

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

INVALID_PHASE = 2147483640  # codes from here on mark pixels without a phase
INVALID_INTENSITY = 65412  # and from here on pixels without an intensity
RESOLUTIONS = {0: 4096, 1: 32768, 2: 131072}  # phase_res -> codes per fringe

_FORMATS = {0x881B036F: (1, 834), 0x881B0370: (2, 834), 0x881B0371: (3, 4096)}  # magic -> format, header size
_FIELDS = {  # name: offset, struct format; big endian
    "magic": (0, "I"),
    "header_format": (4, "H"),
    "header_size": (6, "I"),
    "intensity_width": (52, "H"),
    "intensity_height": (54, "H"),
    "buckets": (56, "H"),
    "intensity_range": (58, "H"),
    "intensity_bytes": (60, "I"),
    "x": (64, "H"),
    "y": (66, "H"),
    "width": (68, "H"),
    "height": (70, "H"),
    "phase_bytes": (72, "I"),
    "time_stamp": (76, "i"),
    "comment": (80, "82s"),
    "scale_factor": (164, "f"),
    "wavelength_m": (168, "f"),
    "numerical_aperture": (172, "f"),
    "obliquity_factor": (176, "f"),
    "magnification": (180, "f"),
    "pixel_m": (184, "f"),
    "phase_res": (218, "h"),
    "sign": (232, "h"),
    "camera_width": (234, "H"),
    "camera_height": (236, "H"),
    "objective": (246, "12s"),
    "part": (258, "40s"),
    "phase_averages": (300, "H"),
    "serial_number": (320, "40s"),
}
_SHORTEST = 834


@dataclass(frozen=True)
class ZygoHeader:
    """What a MetroPro header says of the measurement (MetroPro Reference Guide, OMP-0347, section 12).

    ``shape`` (H, W) of the phase and ``origin`` (x, y) of its first pixel on the camera; ``resolution`` is the number R
    of phase codes per fringe; ``pixel_um`` is None when the file has no lateral calibration; ``inverted`` tells of the
    instrument's data sign control, which the height formula does not use.
    """

    header_format: int
    header_size: int
    shape: tuple[int, int]
    origin: tuple[int, int]
    intensity_shape: tuple[int, int, int]
    wavelength_nm: float
    scale_factor: float
    obliquity_factor: float
    resolution: int
    pixel_um: float | None
    inverted: bool
    numerical_aperture: float
    magnification: float
    time_stamp: int
    comment: str
    part: str
    serial_number: str
    objective: str
    phase_averages: int

    @property
    def nm_per_code(self) -> float:
        """Compute the height of one phase code in nm: W S O / R."""
        return self.wavelength_nm * self.scale_factor * self.obliquity_factor / self.resolution


@dataclass(frozen=True)
class ZygoFile:
    """An open MetroPro file: ``header``, and pixels that are read from disk when asked for."""

    path: Path
    header: ZygoHeader

    @property
    def shape(self) -> tuple[int, int]:
        return self.header.shape

    @cached_property
    def _codes(self) -> NDArray[np.int32]:
        start = self.header.header_size + 2 * math.prod(self.header.intensity_shape)
        return np.memmap(self.path, ">i4", "r", start, self.header.shape)

    def height_rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Read rows [start, stop) of the height in nm, float64, NaN where the instrument found no phase."""
        codes = np.asarray(self._codes[start:stop], np.int32)
        height = np.multiply(codes, self.header.nm_per_code, dtype=np.float64)
        height[codes >= INVALID_PHASE] = np.nan
        return height

    @property
    def height_nm(self) -> NDArray[np.float64]:
        """Read the whole height map (H, W) in nm."""
        return self.height_rows(0, self.shape[0])

    def intensity(self, bucket: int) -> NDArray[np.float32]:
        """Read one intensity frame in camera counts, float32 (H, W) of the camera's area, NaN where it is invalid.

        Raises InputError when the file holds no such frame.
        """
        buckets, height, width = self.header.intensity_shape
        if not 0 <= bucket < buckets:
            raise InputError(f"{self.path} holds {buckets} intensity frames: frame {bucket} is not there")
        start = self.header.header_size + 2 * bucket * height * width
        counts = np.asarray(np.memmap(self.path, ">u2", "r", start, (height, width)), np.uint16)
        return np.where(counts < INVALID_INTENSITY, counts, np.nan).astype(np.float32)


def open_zygo(path: str | Path) -> ZygoFile:
    """Open a MetroPro .dat file from its header alone.

    Height = code * W * S * O / R with wavelength W, interferometric scale factor S, obliquity factor O and R codes per
    fringe, which ``phase_res`` selects (4096, 32768 or 131072). Raises InputError, before anything is allocated, for a
    file that is missing, of another kind, without phase, truncated, or whose header contradicts itself.
    """
    path = Path(path)
    fields = read_zygo_fields(path, needs_phase=True)
    _check_scale(path, fields)
    return ZygoFile(path, _header(fields))


def read_zygo_fields(path: Path, *, needs_phase: bool = False) -> dict[str, Any]:
    """Read the fields of a MetroPro header, of a file that holds phase, intensities or both.

    Raises InputError for a file of another kind, one that is cut, one whose sizes contradict each other, and one without
    the phase where that is needed.
    """
    with decoding(str(path)):
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(_SHORTEST)
    fields = _parse(path, start)
    _check_kind(path, fields)
    if needs_phase:
        if not fields["phase_bytes"]:
            raise InputError(f"{path} holds intensities but no phase: save the data with the phase from MetroPro")
        check_frame_size(str(path), fields["height"], fields["width"])
    _check_sizes(path, fields, size)
    return fields


class _ZygoHeights(LazyMap):
    """The height of a MetroPro file, NaN where the instrument found no phase."""

    def __init__(self, file: ZygoFile) -> None:
        super().__init__(file.shape, np.dtype(np.float64))
        self._file = file

    def _read(self, rows: range, columns: range) -> np.ndarray:
        return self._file.height_rows(rows.start, rows.stop)[:, columns.start : columns.stop]


def open_zygo_map(path: Path) -> StoredMap:
    """Open a MetroPro .dat file as a height map; raises as `open_zygo`."""
    file = open_zygo(path)
    header = file.header
    notes = [_SIGN.format(path=file.path)] if header.inverted else []
    acquisition = {"wavelengths_nm": [header.wavelength_nm], "pixel_um": header.pixel_um}
    fringe_nm = header.nm_per_code * header.resolution
    document = {"acquisition": acquisition, "fringes_nm": [fringe_nm], "notes": notes}
    return StoredMap(file.path, {"height_nm": _ZygoHeights(file)}, document)


_SIGN = (
    "{path} says that its data sign is inverted (sign = 1): heights are read as they are stored, as prysm and surfalize read "
    "them; Gwyddion and SurfaceTopography turn them upside down, so look which side is up before maps of several programs "
    "are compared"
)


def _parse(path: Path, start: bytes) -> dict[str, Any]:
    magic = int.from_bytes(start[:4], "big")
    if len(start) < 4 or magic not in _FORMATS:
        raise InputError(f"{path} is not a MetroPro .dat file (it starts with {start[:4].hex() or 'nothing'})")
    if len(start) < _SHORTEST:
        raise InputError(f"{path} is truncated: {len(start)} of at least {_SHORTEST} bytes of header; copy it again")
    return {name: struct.unpack_from(">" + form, start, offset)[0] for name, (offset, form) in _FIELDS.items()}


def _check_kind(path: Path, fields: dict[str, Any]) -> None:
    if (fields["header_format"], fields["header_size"]) != _FORMATS[fields["magic"]]:
        raise InputError(
            f"{path} claims header format {fields['header_format']} of {fields['header_size']} bytes, which MetroPro "
            "does not write: the file is damaged, export it again"
        )


def _check_sizes(path: Path, fields: dict[str, Any], size: int) -> None:
    frame = 2 * fields["intensity_width"] * fields["intensity_height"]
    phase = 4 * fields["width"] * fields["height"] if fields["phase_bytes"] else 0
    if fields["phase_bytes"] != phase or fields["intensity_bytes"] != frame * fields["buckets"]:
        raise InputError(
            f"{path} contradicts itself: {fields['phase_bytes']} bytes for {fields['width']} x {fields['height']} "
            f"phases, {fields['intensity_bytes']} for {fields['buckets']} x {fields['intensity_width']} x "
            f"{fields['intensity_height']} intensities; it is damaged, export it again"
        )
    needed = fields["header_size"] + fields["intensity_bytes"] + phase
    if size < needed:
        raise InputError(f"{path} is truncated: {size} of {needed} bytes are there; copy it again")


def _check_scale(path: Path, fields: dict[str, Any]) -> None:
    if fields["phase_res"] not in RESOLUTIONS:
        raise InputError(f"{path} has phase_res {fields['phase_res']}: allowed are 0, 1 and 2; the file is damaged")
    for name, what in (
        ("wavelength_m", "wavelength"),
        ("scale_factor", "scale factor"),
        ("obliquity_factor", "obliquity factor"),
    ):
        if not (math.isfinite(fields[name]) and fields[name] > 0):
            raise InputError(f"{path} has {what} {fields[name]:g}: without one above zero there is no height")


def _header(fields: dict[str, Any]) -> ZygoHeader:
    pixel = fields["pixel_m"]
    return ZygoHeader(
        header_format=fields["header_format"],
        header_size=fields["header_size"],
        shape=(fields["height"], fields["width"]),
        origin=(fields["x"], fields["y"]),
        intensity_shape=(fields["buckets"], fields["intensity_height"], fields["intensity_width"]),
        wavelength_nm=fields["wavelength_m"] * 1e9,
        scale_factor=fields["scale_factor"],
        obliquity_factor=fields["obliquity_factor"],
        resolution=RESOLUTIONS[fields["phase_res"]],
        pixel_um=pixel * 1e6 if math.isfinite(pixel) and pixel > 0 else None,
        inverted=fields["sign"] != 0,
        numerical_aperture=fields["numerical_aperture"],
        magnification=fields["magnification"],
        time_stamp=fields["time_stamp"],
        phase_averages=fields["phase_averages"],
        **{name: _text(fields[name]) for name in ("comment", "part", "serial_number", "objective")},
    )


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("latin-1").strip()


_LIMIT = 2**16 - 1  # of rows and columns, counted in two bytes
_NOMINAL_NM = 632.8


def export_zygo(content: MapContent, path: Path) -> None:
    """Write heights as phase codes, of 131072 a fringe or of as few as their range wants, in header format 1.

    A height is off by half a code at most: 1.2 pm at 632.8 nm. Raises InputError for heights beyond what codes reach.
    """
    content.check_size(_LIMIT, (2**32 - 1) // 4)
    if content.wavelength_nm is None:
        content.warnings.append(
            f"{content.name}: the map has no wavelength, and this format counts in it: {_NOMINAL_NM} nm is written; heights "
            "are right"
        )
    wavelength_nm = content.wavelength_nm or _NOMINAL_NM
    fringe_nm = content.fringe_nm if content.fringe_nm and content.wavelength_nm else wavelength_nm / 2
    wave, scale = np.float32(wavelength_nm / 1e9), np.float32(fringe_nm / wavelength_nm)
    per_fringe = float(wave) * 1e9 * float(scale)  # as readers will compute it
    phase_res = _phase_res(content, per_fringe)
    nm_per_code = per_fringe / RESOLUTIONS[phase_res]
    head = _export_header(content, {"wavelength_m": wave, "scale_factor": scale, "phase_res": phase_res})
    with open(path, "wb") as file:
        file.write(head)
        for _, rows in content.bands():
            codes = np.where(np.isnan(rows), INVALID_PHASE, np.rint(rows / nm_per_code))
            file.write(codes.astype(">i4").tobytes())


def _phase_res(content: MapContent, fringe_nm: float) -> int:
    largest = max(abs(edge) for edge in content.range_nm)
    for phase_res in sorted(RESOLUTIONS, reverse=True):
        if largest / fringe_nm * RESOLUTIONS[phase_res] < INVALID_PHASE - 1:
            return phase_res
    raise InputError(
        f"output {content.name}: heights up to {largest:g} nm are beyond what a MetroPro file counts "
        f"({INVALID_PHASE} codes): take off the piston, or choose another format"
    )


def _export_header(content: MapContent, scales: dict[str, Any]) -> bytes:
    height, width = content.shape
    pixel = content.pixel_um
    known: dict[str, Any] = {
        "magic": next(magic for magic, known in _FORMATS.items() if known == (1, _SHORTEST)),
        "header_format": 1,
        "header_size": _SHORTEST,
        "width": width,
        "height": height,
        "phase_bytes": 4 * width * height,
        "obliquity_factor": 1.0,
        "pixel_m": pixel[0] / 1e6 if pixel is not None and pixel[0] == pixel[1] else 0.0,
        "camera_width": width,
        "camera_height": height,
        **scales,
    }
    head = bytearray(_SHORTEST)
    for name, value in known.items():
        offset, form = _FIELDS[name]
        struct.pack_into(">" + form, head, offset, value)
    return bytes(head)

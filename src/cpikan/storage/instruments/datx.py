"""Zygo .datx files of Mx: HDF5 with heights as float64 under Data/Surface, and what they mean in attributes.

Zygo publishes no text; the layout is that of files of Mx as other readers take it. Row 0 is on top. ``Unit`` is Fringes
(height = number x scale factor x obliquity x wavelength) or a length; ``No Data`` marks a missing point; the pixel in m is the
second parameter of ``X Converter`` and ``Y Converter``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.storage.hdf5_heaps import check_heaps
from cpikan.storage.headers import check_frame_size, check_raw_size, decoding
from cpikan.storage.instruments.rasters import Linear, pixel_pair_um, positive, stored_map
from cpikan.storage.maps import LazyMap, StoredMap
from cpikan.units import unit_nm

if TYPE_CHECKING:
    import h5py

    from cpikan.storage.instruments.content import MapContent

_MARK = float(np.finfo(np.float64).max)


class _Heights(LazyMap):
    """Heights of a dataset, whose file is open only while rows are read."""

    def __init__(self, path: Path, name: str, shape: tuple[int, int], decode: Linear) -> None:
        super().__init__(shape, np.dtype(np.float64))
        self._path, self._name, self._decode = path, name, decode

    def _read(self, rows: range, columns: range) -> np.ndarray:
        import h5py

        with decoding(str(self._path)), h5py.File(self._path, "r") as file:
            return self._decode(file[self._name][rows.start : rows.stop, columns.start : columns.stop])


@dataclass(frozen=True)
class _Scale:
    nm: float
    wavelength_nm: float | None
    fringe_nm: float | None


def open_datx_map(path: Path) -> StoredMap:
    """Open the first surface of a .datx; InputError for another HDF5 file, one without heights, unit or wavelength."""
    import h5py

    _check_end(path)
    with h5py.File(path, "r") as file:
        names = _surfaces(path, file)
        dataset = file[names[0]]
        if not isinstance(dataset, h5py.Dataset) or len(dataset.shape) != 2 or dataset.dtype.kind not in "fiu":
            raise InputError(f"{path} has a surface that is no matrix of numbers: it is damaged; export it again")
        shape = (int(dataset.shape[0]), int(dataset.shape[1]))
        check_frame_size(str(path), *shape)
        if dataset.id.get_storage_size() == 0:
            raise InputError(f"{path} has a surface without stored numbers: it is damaged; export it again")
        scale = _scale(path, dataset)
        mark = _value(dataset, "No Data", math.nan)
        pixels = [_pixel_um(dataset, axis) for axis in "YX"]
    missing = (lambda numbers: numbers >= mark) if mark > 0 else (lambda numbers: numbers == mark)
    notes = [f"{path} holds {len(names)} surfaces: the first is read"] if len(names) > 1 else []
    return stored_map(
        path,
        _Heights(path, names[0], shape, Linear(scale.nm, missing=missing)),
        pixel_um=pixel_pair_um(*pixels),
        wavelengths_nm=[] if scale.wavelength_nm is None else [scale.wavelength_nm],
        notes=notes,
        more={} if scale.fringe_nm is None else {"fringes_nm": [scale.fringe_nm]},
    )


_ENDS = {0: 40, 1: 44, 2: 28, 3: 28}  # where a superblock of each version has the address of the file's end


def _check_end(path: Path) -> None:
    """Refuse a file that is longer or shorter than it says: the library may never come back from one with bytes moved."""
    with open(path, "rb") as file:
        head = file.read(64).ljust(64, b"\0")
    at = _ENDS.get(head[8])
    if not head.startswith(b"\x89HDF\r\n\x1a\n") or at is None:
        raise InputError(f"{path} is no .datx: it does not begin as HDF5 of a known version")
    told = int.from_bytes(head[at : at + 8], "little")
    check_raw_size(str(path), told, path.stat().st_size)
    check_heaps(path)


def _surfaces(path: Path, file: h5py.File) -> list[str]:
    import h5py

    group = file.get("Data/Surface")
    if not isinstance(group, h5py.Group) or not len(group):
        raise InputError(f"{path} has no Data/Surface: it is no .datx with heights; save the surface from Mx")
    return [f"Data/Surface/{name}" for name in group]


def _value(dataset: h5py.Dataset, name: str, default: float) -> float:
    """Read a number of an attribute, which is one or a list of one."""
    found = np.ravel(dataset.attrs.get(name, default))
    return float(found[0]) if found.size and found.dtype.kind in "fiu" else default


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _scale(path: Path, dataset: h5py.Dataset) -> _Scale:
    wavelength = _value(dataset, "Wavelength", math.nan) * 1e9
    known = wavelength if 0 < wavelength < math.inf else None
    factor = _value(dataset, "Interferometric Scale Factor", math.nan) * _value(dataset, "Obliquity Factor", 1.0)
    fringe = known * factor if known is not None and 0 < factor < math.inf else None
    units = np.ravel(dataset.attrs.get("Unit", ""))
    unit = _word(units[0]) if units.size else ""
    if unit in ("Fringes", "FringeUnit"):
        wavelength = positive(path, wavelength, "a wavelength of")
        return _Scale(wavelength * positive(path, factor, "an interferometric scale factor of"), known, fringe)
    size = unit_nm(unit)
    if size is None:
        raise InputError(
            f"{path} has heights in {one_line(unit) or 'no unit'}: allowed are Fringes and lengths such as NanoMeters"
        )
    return _Scale(size, known, fringe)


def _pixel_um(dataset: h5py.Dataset, axis: str) -> float:
    """Read the pixel of an axis from its converter (category, unit, parameters); NaN where it does not say it."""
    converter = np.ravel(dataset.attrs.get(f"{axis} Converter", ()))
    if not converter.size or converter.dtype.names is None or len(converter.dtype.names) < 3:
        return math.nan
    category, unit, *_, parameters = converter[0]
    parameters = np.ravel(parameters)
    if _word(category) != "LateralCat" or _word(unit) != "Pixels" or parameters.size < 2:
        return math.nan
    return float(parameters[1]) * 1e6


_SURFACE, _MEASUREMENT, _ATTRIBUTES = (f"{{00000000-0000-0000-0000-00000000000{n}}}" for n in (1, 2, 3))


def export_datx(content: MapContent, path: Path) -> None:
    """Write heights in nm as float64, exact to the bit, with the groups and attributes that readers look for."""
    import h5py

    place = f"/Data/Surface/{_SURFACE}"
    text = h5py.string_dtype("ascii")
    with h5py.File(path, "w") as file:
        rows_of = [
            ("Root", "Measurement", _MEASUREMENT),
            (_MEASUREMENT, "Surface", _SURFACE),
            (_MEASUREMENT, "Attributes", _ATTRIBUTES),
            (_SURFACE, "Path", place),
            (_ATTRIBUTES, "Path", f"/Attributes/{_ATTRIBUTES}"),
        ]
        links = np.array(rows_of, [(name, text) for name in ("Source", "Link", "Destination")])
        file.create_dataset("MetaData", data=links)
        file.create_group(f"Attributes/{_ATTRIBUTES}")
        dataset = file.create_dataset(place, content.shape, "<f8")
        for name, value in _attributes(content).items():
            dataset.attrs[name] = value
        for start, rows in content.bands():
            dataset[start : start + len(rows)] = np.where(np.isnan(rows), _MARK, rows)


def _attributes(content: MapContent) -> dict[str, np.ndarray]:
    import h5py

    text = h5py.string_dtype("ascii")
    converter = np.dtype([("Category", text), ("BaseUnit", text), ("Parameters", h5py.vlen_dtype(np.float64))])
    y, x = content.some_pixel_um()
    made: dict[str, np.ndarray] = {
        "Unit": np.array(["NanoMeters"], text),
        "No Data": np.array([_MARK]),
        "X Converter": np.array([("LateralCat", "Pixels", np.array([0.0, x / 1e6, 0.0]))], converter),
        "Y Converter": np.array([("LateralCat", "Pixels", np.array([0.0, y / 1e6, 0.0]))], converter),
        "Z Converter": np.array([("HeightCat", "NanoMeters", np.array([0.0, 1.0, 0.0]))], converter),
        "Obliquity Factor": np.array([1.0]),
    }
    if content.wavelength_nm is not None:
        fringe = content.fringe_nm or content.wavelength_nm / 2
        made["Wavelength"] = np.array([content.wavelength_nm / 1e9])
        made["Interferometric Scale Factor"] = np.array([fringe / content.wavelength_nm])
    return made

"""What every output has in common: the quantities, their types, names and sizes of the files, the writer of each suffix."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.storage.atomic import PARTIAL, full_disk_named, read_json
from cpikan.storage.formats import Format, require_format, suffixes_of
from cpikan.storage.protocols import MapWriter
from cpikan.units import pixel_pair


@dataclass(frozen=True)
class Quantity:
    """One map of an output: type in the file, value where nothing was measured, unit, short name for file names.

    ``coarsen`` makes one pixel of the next pyramid level of four: the mean of those that are not NaN, the bitwise or, or
    the first that is not zero.
    """

    name: str
    dtype: np.dtype
    fill: float
    unit: str | None
    short: str
    coarsen: Literal["mean", "or", "first"] = "mean"


_TABLE = (
    Quantity("height_nm", np.dtype("<f4"), np.nan, "nm", "height"),
    Quantity("sigma_nm", np.dtype("<f4"), np.nan, "nm", "sigma"),
    Quantity("modulation", np.dtype("<f4"), np.nan, None, "modulation"),
    Quantity("flags", np.dtype("u1"), 1, None, "flags", "or"),  # 1 = invalid
    Quantity("component", np.dtype("<i4"), 0, None, "component", "first"),  # 0 = none
    Quantity("slope_y_nm_per_px", np.dtype("<f4"), np.nan, "nm/px", "slope_y"),
    Quantity("slope_x_nm_per_px", np.dtype("<f4"), np.nan, "nm/px", "slope_x"),
    Quantity("curvature_nm_per_px2", np.dtype("<f4"), np.nan, "nm/px^2", "curvature"),
    Quantity("slope_sigma_nm_per_px", np.dtype("<f4"), np.nan, "nm/px", "slope_sigma"),
    Quantity("curvature_sigma_nm_per_px2", np.dtype("<f4"), np.nan, "nm/px^2", "curvature_sigma"),
)
QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _TABLE}
SLOPES = tuple(quantity.name for quantity in _TABLE if quantity.unit in ("nm/px", "nm/px^2"))  # of a fitted surface


@dataclass(frozen=True)
class MapLayout:
    """The output that was asked for: ``path``, ``shape`` (H, W), ``quantities`` in the caller's order, metadata."""

    path: Path
    shape: tuple[int, int]
    quantities: tuple[str, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def checked(
        cls, path: Path, shape: tuple[int, int], quantities: Mapping[str, np.dtype], attributes: Mapping[str, Any]
    ) -> MapLayout:
        """Build a layout, raising InputError for a quantity or a type that has no place in an output."""
        if len(shape) != 2 or min(shape) < 1:
            raise InputError(f"a map of shape {shape} cannot be written: give (H, W), each at least 1")
        for name, dtype in quantities.items():
            check_name("quantity", name, QUANTITIES)
            if np.dtype(dtype) != QUANTITIES[name].dtype:
                raise InputError(f"{name} of type {np.dtype(dtype)} cannot be written: use {QUANTITIES[name].dtype}")
        if "height_nm" not in quantities:
            raise InputError(f"quantities {', '.join(quantities) or 'none'} lack height_nm: a map has a height")
        return cls(path, (int(shape[0]), int(shape[1])), tuple(quantities), attributes)

    @property
    def partial(self) -> Path:
        return partial_of(self.path)

    @property
    def raw_bytes(self) -> int:
        """Count the bytes of all maps without any overhead."""
        return self.shape[0] * self.shape[1] * sum(QUANTITIES[name].dtype.itemsize for name in self.quantities)

    def remaining_bytes(self, start: int) -> int:
        """Estimate the bytes rows from ``start`` on will take; rows are written nearly in order."""
        return self.raw_bytes * (self.shape[0] - start) // self.shape[0]

    def checked_rows(self, start: int, rows: Mapping[str, np.ndarray], align: int) -> dict[str, np.ndarray]:
        """Return rows as C-contiguous arrays of the file's type; raises ValueError where they do not fit the output."""
        if set(rows) != set(self.quantities):
            raise ValueError(f"rows of {sorted(rows)} given for an output of {sorted(self.quantities)}")
        count = len(rows[self.quantities[0]])
        stop = start + count
        if start % align or start < 0 or not start < stop <= self.shape[0] or (stop % align and stop != self.shape[0]):
            raise ValueError(f"rows {start}:{stop} of {self.shape[0]}: ranges start and end at multiples of {align}")
        for name, array in rows.items():
            if array.shape != (count, self.shape[1]):
                raise ValueError(f"{name} has shape {array.shape} where {(count, self.shape[1])} is written")
            if not np.can_cast(array.dtype, QUANTITIES[name].dtype, "same_kind"):
                raise ValueError(f"{name} has type {array.dtype} where {QUANTITIES[name].dtype} is written")
        return {name: np.ascontiguousarray(rows[name], QUANTITIES[name].dtype) for name in self.quantities}


def partial_of(path: Path) -> Path:
    """Return the name an output has until it is finished."""
    return path.with_name(path.name + PARTIAL)


def npy_path(path: Path, quantity: str) -> Path:
    """Return the file of a quantity of a .npy output: ``path`` itself for the height, else STEM.sigma.npy etc."""
    return path if quantity == "height_nm" else path.with_name(f"{path.stem}.{QUANTITIES[quantity].short}.npy")


def document_path(path: Path | str) -> Path:
    """Return STEM.json beside an output: acquisition, settings, summary."""
    return Path(path).with_suffix(".json")


def pixel_um(attributes: Mapping[str, Any]) -> tuple[float, float] | None:
    """Read the lateral sampling (y, x) in um, where the attributes carry one under ``pixel_um``, else None."""
    return pixel_pair(attributes.get("pixel_um"))


def open_writer(
    path: Path | str,
    shape: tuple[int, int],
    quantities: Mapping[str, np.dtype],
    *,
    attributes: Mapping[str, Any],
    resume: bool,
) -> MapWriter:
    """Open the output ``path`` for image rows of shape (H, W); the suffix chooses the format.

    ``quantities`` are height_nm and any of sigma_nm, modulation (float32), flags (uint8), component (int32), in the
    order wanted. ``attributes`` is JSON-like metadata kept inside .tif and .zarr outputs (``pixel_um`` also becomes
    their lateral scale). With ``resume`` the partial output is continued and never created or truncated: ResumeError
    when it is missing or differs; without, a partial output is made anew. Raises InputError for a bad path or quantity
    and StorageFull for lack of space.
    """
    path = Path(path)
    writer = output_format(path).writer
    assert writer is not None
    if not path.parent.is_dir():
        raise InputError(f"folder {path.parent} of the output {path.name} does not exist: create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"folder {path.parent} is not writable: choose another place for {path.name}")
    layout = MapLayout.checked(path, shape, quantities, attributes)
    return writer(layout, resume=resume)


def output_format(path: Path | str) -> Format:
    """Find the format of an output by its suffix; InputError, listing those that can be written, for any other."""
    return require_format(Path(path), "writer", f"output {Path(path).name!r}")


def output_paths(path: Path | str, quantities: Iterable[str] | None = None) -> list[Path]:
    """List the files (the folder, for .zarr) of a finished output; by default with every quantity there may be.

    The JSON document beside them is not among them: see ``document_path``.
    """
    path = Path(path)
    names = QUANTITIES if quantities is None else quantities
    return [npy_path(path, name) for name in names] if output_format(path).beside else [path]


def check_document(path: Path | str) -> None:
    """Refuse an output whose document STEM.json is that of another output, or of something else.

    Raises InputError naming the other one: a map is measured with the pixel size and the wavelengths of its document.
    """
    path = Path(path)
    file = document_path(path)
    others = [path.with_suffix(suffix) for suffix in suffixes_of("writer") if suffix != path.suffix]
    running = next((other for other in others if other.with_name(f"{other.name}.journal").exists()), None)
    if running is not None:
        raise InputError(
            f"an unfinished run will write {file.name} for {running.name}: choose another stem for {path.name}"
        )
    if not file.exists():
        return
    document = read_json(file)
    owner = path.with_name(_owner(document) or path.name)
    if owner.name != path.name and document_path(owner) == file:
        others = [owner]
    elif owner.name == path.name and _owner(document):
        return
    there = next((other for other in others if other.exists()), None)
    if there is not None and _is_record(document):
        raise InputError(
            f"{file.name} describes {there.name} and cannot describe {path.name} too: choose another stem for "
            f"{path.name}, or remove {there.name} with {file.name}"
        )
    if not _is_record(document) and not path.exists():
        raise InputError(
            f"{file} is there and no record of a map: choose another stem for {path.name}, or move it away"
        )


def _owner(document: Mapping[str, Any]) -> str | None:
    """Read the name of the output that a document was written for, None where it says none."""
    summary = document.get("summary")
    output = summary.get("output") if isinstance(summary, Mapping) else None
    return Path(output).name if isinstance(output, str) and output else None


def _is_record(document: Mapping[str, Any]) -> bool:
    """Tell whether a document was written beside a map."""
    return any(isinstance(document.get(key), Mapping) for key in ("summary", "plan", "acquisition", "tiling"))


def partial_paths(path: Path | str, quantities: Iterable[str] | None = None) -> list[Path]:
    """List the names that the files of an output have until it is finished."""
    return [partial_of(final) for final in output_paths(path, quantities)]


def required_bytes(path: Path | str, shape: tuple[int, int], quantities: Iterable[str]) -> int:
    """Estimate from above the disk space an output takes in bytes, pyramids included."""
    size = output_format(path).bytes_for
    assert size is not None, "every format that is written says its size"
    return sum(size(shape, QUANTITIES[name].dtype.itemsize) for name in quantities)


class LayoutWriter(ABC):
    """The part of a MapWriter that does not depend on the format; a writer supplies ``_put`` and ``_flush``."""

    row_align = 1

    def __init__(self, layout: MapLayout) -> None:
        self._layout, self.quantities = layout, layout.quantities

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        with full_disk_named(self._layout.path, self._layout.remaining_bytes(start)):
            for name, array in self._layout.checked_rows(start, rows, self.row_align).items():
                self._put(name, start, array)

    def sync(self) -> None:
        with full_disk_named(self._layout.path, self._layout.raw_bytes):
            self._flush()

    @abstractmethod
    def _put(self, name: str, start: int, rows: np.ndarray) -> None:
        """Store rows of a quantity, C-contiguous and of its type."""

    @abstractmethod
    def _flush(self) -> None:
        """Make everything written durable."""


class RowAssembler:
    """Collects consecutive rows for a writer whose ranges must start at multiples of its ``row_align``.

    Compute bands stay small enough for the caches, whatever the chunks of the output are.
    """

    def __init__(self, writer: MapWriter, shape: tuple[int, int]) -> None:
        self._writer, self._height, self._width = writer, shape[0], shape[1]
        self._held: dict[str, np.ndarray] = {}
        self._start = self._count = 0

    def write(self, start: int, rows: Mapping[str, np.ndarray]) -> int:
        """Take rows that follow the last ones; returns the row up to which everything was handed to the writer."""
        align = self._writer.row_align
        if align == 1:
            self._writer.write_rows(start, rows)
            return start + len(next(iter(rows.values())))
        if self._count == 0:
            self._start = start
        taken, total = 0, len(next(iter(rows.values())))
        while taken < total:
            piece = min(align - self._count, total - taken)
            for name, array in rows.items():
                self._buffer(name, array.dtype)[self._count : self._count + piece] = array[taken : taken + piece]
            self._count += piece
            taken += piece
            if self._count == align or self._start + self._count == self._height:
                self._writer.write_rows(self._start, {name: self._held[name][: self._count] for name in rows})
                self._start, self._count = self._start + self._count, 0
        return self._start

    def _buffer(self, name: str, dtype: np.dtype) -> np.ndarray:
        if name not in self._held:
            rows = min(self._writer.row_align, self._height)
            self._held[name] = np.empty((rows, self._width), dtype)
        return self._held[name]

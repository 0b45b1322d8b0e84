"""What every output has in common: the quantities, their types, and the names of the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.storage.checks import PARTIAL
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
            if name not in QUANTITIES:
                raise unknown_name("quantity", name, QUANTITIES)
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

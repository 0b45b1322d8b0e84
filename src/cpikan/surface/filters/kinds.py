"""The table of filters: what makes the large-scale part of a map, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Float64
from numpy import ndarray

from cpikan.surface.filters.gaussian import GaussianMean, Rows
from cpikan.surface.filters.robust import RobustMean
from cpikan.surface.filters.spline import SplineSurface


class LargeScale(Protocol):
    """The large-scale part of a map, evaluated at any of its rows."""

    def rows(self, start: int, stop: int) -> Float64[ndarray, "rows w"]:
        """Evaluate rows [start, stop) in nm, float64."""


FILTERS: dict[str, Callable[[Rows, tuple[float, float]], LargeScale]] = {
    "gaussian": GaussianMean,  # ISO 16610-61, regression of zero order at edges and holes
    "gaussian2": lambda source, nesting_px: GaussianMean(source, nesting_px, 2),  # of second order everywhere
    "robust": RobustMean,  # ISO 16610-71, of zero order
    "robust2": lambda source, nesting_px: RobustMean(source, nesting_px, 2),
    "spline": SplineSurface,  # ISO 16610-62
}

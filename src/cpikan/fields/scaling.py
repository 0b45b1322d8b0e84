"""AffineScaling: the box of a field in physical coordinates, mapped to [-1, 1] per axis and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet

Bounds = Sequence[float] | Sequence[Sequence[float]] | np.ndarray | Tensor
Domain = tuple[Bounds, Bounds] | None  # None: [-1, 1] per axis


class AffineScaling(nn.Module):
    """x^ = 2 (x - lower) / (upper - lower) - 1 per axis, exactly -1 and 1 at the ends of the box in any precision.

    ``lower`` and ``upper`` have one number per axis, (d,), or one row per network, (N, d). Raises InputError for a box
    that is empty on an axis, not finite, or of another shape. Mostajeran and Faroughi, arXiv 2501.02762, eq. for the
    spatial scaling; derivatives follow by the chain rule, d/dx = 2 / (upper - lower) d/dx^.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Bounds, upper: Bounds) -> None:
        super().__init__()
        low, high = _numbers(lower, "lower"), _numbers(upper, "upper")
        if low.shape != high.shape:
            raise InputError(
                f"domain has bounds of shapes {low.shape} and {high.shape}: give one number per axis in both"
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            bad = np.argwhere(~((low < high) & np.isfinite(low) & np.isfinite(high)))[0]
            where = tuple(int(i) for i in bad)
            raise InputError(
                f"domain from {low[where]:g} to {high[where]:g} on axis {where[-1]} is empty: "
                f"give finite bounds, the lower one first"
            )
        self.register_buffer("lower", torch.tensor(low.tolist(), dtype=torch.float64))
        self.register_buffer("upper", torch.tensor(high.tolist(), dtype=torch.float64))

    @classmethod
    def of(cls, domain: Domain, dimension: int, networks: int | None) -> AffineScaling:
        """Make the scaling of a field of so many axes and networks, by default of [-1, 1] per axis.

        Raises InputError for a domain of other axes, fewer networks than one, and boxes for another number of them.
        """
        scaling = cls(*(([-1.0] * dimension, [1.0] * dimension) if domain is None else domain))
        if scaling.dimension != dimension:
            raise InputError(f"domain has {scaling.dimension} axes and the field {dimension}: make them equal")
        if networks is not None and networks < 1:
            raise InputError(f"networks {networks}: give at least 1, or None for a single field")
        if scaling.networks not in (None, networks):
            raise InputError(
                f"domain holds {scaling.networks} boxes for networks={networks}: give one box, or one each"
            )
        return scaling

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return int(self.lower.shape[-1])

    @property
    def networks(self) -> int | None:
        """Count the boxes held, None for one."""
        return int(self.lower.shape[0]) if self.lower.ndim == 2 else None

    def slopes(self) -> Float[Tensor, "*networks d"]:
        """Compute dx^/dx, (d,) or (N, d)."""
        return 2 / (self.upper - self.lower)

    def forward(self, x: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points d"]:
        """Scale physical points (..., d), or (N, ..., d) with N boxes, to [-1, 1]."""
        lower, upper = self._fitting(x)
        return 2 * ((x - lower) / (upper - lower)) - 1

    def inverse(self, scaled: Float[Tensor, "*#points d"]) -> Float[Tensor, "*#points d"]:
        """Turn scaled points into physical ones, exact at -1 and 1."""
        lower, upper = self._fitting(scaled)
        return 0.5 * (lower * (1 - scaled) + upper * (1 + scaled))

    def physical(self, jet: Jet) -> Jet:
        """Turn a jet by the scaled coordinates ("axes" or "full") into one by the physical coordinates."""
        slopes = self._lead(self.slopes(), jet.gradient.ndim)
        square = slopes * slopes
        if jet.second.ndim > jet.gradient.ndim:
            square = slopes.unsqueeze(-1) * slopes.unsqueeze(-2)
        return Jet(jet.value, jet.gradient * slopes, jet.second * square)

    def config(self) -> dict[str, Any]:
        """Write down the box as plain numbers."""
        return {"lower": self.lower.double().tolist(), "upper": self.upper.double().tolist()}

    def _fitting(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1:] != self.lower.shape[-1:]:
            raise InputError(
                f"points of shape {tuple(x.shape)} for {self.dimension} axes: give (..., {self.dimension})"
            )
        return self._lead(self.lower, x.ndim), self._lead(self.upper, x.ndim)

    @staticmethod
    def _lead(row: Tensor, ndim: int) -> Tensor:
        """Reshape (N, d) to (N, 1, ..., 1, d), so that N meets the first axis of what it is multiplied with."""
        if row.ndim == 1:
            return row
        return row.reshape(row.shape[0], *(1,) * (ndim - 2), row.shape[1])


def _numbers(bounds: Bounds, what: str) -> np.ndarray:
    """Read one table of numbers, (d,) or (N, d)."""
    plain = bounds.detach().cpu().numpy() if isinstance(bounds, Tensor) else bounds
    try:
        array = np.asarray(plain, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"domain bound {what} {bounds!r} is not made of numbers: give one per axis") from None
    if array.ndim not in (1, 2) or not array.size:
        raise InputError(f"domain bound {what} has shape {array.shape}: give one number per axis")
    return array

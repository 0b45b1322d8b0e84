"""PiecewiseChebyshev: a product Chebyshev series of its own on every box of a tiling, each with its own affine scaling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.functional import functional
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.tensor_chebyshev import TensorChebyshev

_CHUNK = 2**22  # comparisons of points with boxes at once


class PiecewiseChebyshev(nn.Module):
    """u(x) = u_j(x) where box j holds x; neighbours meet as well as the solver made them.

    ``parts`` are N product series with one box each; the boxes should cover the region without overlap. A point
    on a common side belongs to the first of its boxes, one outside all to the nearest. Subdomains with interface
    conditions: Jagtap and Karniadakis, Commun. Comput. Phys. 28, 2002 (2020).
    """

    networks = None  # the series make one field

    def __init__(self, parts: TensorChebyshev | ProductChebyshev) -> None:
        super().__init__()
        if parts.networks is None:
            raise InputError("one box makes no tiling: give networks=N with a box each")
        self.parts = parts
        self._forward, self._jet = functional(parts), functional(parts, "jet")

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self.parts.dimension

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return self.parts.outputs

    def owner(self, x: Tensor) -> Tensor:
        """Find the box of each point (B, d), (B,)."""
        lower, upper = self.parts.scaling.lower, self.parts.scaling.upper
        found = []
        for part in x.detach().split(max(1, _CHUNK // len(lower))):
            outside = torch.maximum(lower - part[:, None], part[:, None] - upper).amax(dim=-1).clamp_min(0.0)
            found.append(outside.argmin(dim=1))
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        points, batch, tensors = self._enter(x)
        return self._forward(tensors, points)[: math.prod(batch)].reshape(*batch, self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives of the series that owns each point; see ``Jet`` for ``second``."""
        check_second(second)
        points, batch, tensors = self._enter(x)
        jet = self._jet(tensors, points, second=second)
        return Jet(*(part[: math.prod(batch)].reshape(*batch, *part.shape[2:]) for part in jet))

    def output_coefficients(self) -> Tensor:
        """Return the coefficients of all series, (N, F, outputs)."""
        return self.parts.output_coefficients()

    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put coefficients in place."""
        self.parts.set_output_coefficients(coefficients)

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again, without its parameters."""
        return self.parts.config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PiecewiseChebyshev:
        """Make a field of this shape with coefficients that are zero."""
        return cls((ProductChebyshev if "outputs" in config else TensorChebyshev).from_config(config))

    def _enter(self, x: Tensor) -> tuple[Tensor, tuple[int, ...], dict[str, Tensor]]:
        """Sort points (B, 1, d), at least one, the shape B came from, and the series of every point."""
        flat, batch = flat_points(x, None, self.parts.scaling.lower.dtype)
        if not len(flat):  # a series needs a point to work on
            flat = self.parts.scaling.lower[:1]
        index = self.owner(flat)
        tensors = {name: tensor[index] for name, tensor in self.parts.state_dict(keep_vars=True).items()}
        return flat[:, None], batch, tensors

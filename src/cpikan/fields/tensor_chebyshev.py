"""TensorChebyshev: u = sum c_ij T_i(x0^) T_j(x1^) on a rectangle, the field that closed form fits and evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.scaling import AffineScaling, Domain


class TensorChebyshev(nn.Module):
    """A product Chebyshev series in two coordinates, one output; all its coefficients are linear.

    ``modes`` = (m0, m1) counts the polynomials T_0 ... T_(m-1) per axis; ``coefficients`` is (m0, m1), or (N, m0, m1) for
    ``networks`` = N fields, zero at first. ``domain`` is the rectangle (lower, upper) in physical units, one, or one row
    per field. ``fit_grid`` in ``tensor_fit`` finds the coefficients. Raises InputError for fewer than one mode.
    """

    dimension, outputs = 2, 1

    def __init__(self, modes: Sequence[int], domain: Domain = None, *, networks: int | None = None) -> None:
        super().__init__()
        counts = tuple(int(m) for m in modes)
        if len(counts) != 2 or min(counts) < 1:
            raise InputError(f"modes {list(modes)}: give two whole numbers from 1, one per axis")
        self.scaling = AffineScaling.of(domain, 2, networks)
        self._modes = (counts[0], counts[1])
        lead = () if networks is None else (networks,)
        self.coefficients = nn.Parameter(torch.zeros(*lead, *counts, dtype=torch.float64))

    @property
    def networks(self) -> int | None:
        """Count the independent fields held, None for one; read off the coefficients, which may be swapped."""
        return None if self.coefficients.ndim == 2 else int(self.coefficients.shape[0])

    @property
    def modes(self) -> tuple[int, int]:
        """Count the polynomials per axis."""
        return self._modes

    def forward(self, x: Float[Tensor, "*#points 2"]) -> Float[Tensor, "*#points 1"]:
        """Evaluate values (..., 1) at physical points (..., 2)."""
        scaled, batch = self._enter(x)
        t0, t1 = (_with_constant(chebyshev.polynomials(scaled, max(self._modes)))[..., a] for a in (0, 1))
        value = self._contract(t0, t1)
        return value.reshape(*value.shape[:-1], *batch, 1)

    def jet(self, x: Float[Tensor, "*#points 2"], second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives by the physical coordinates, one pass; see ``Jet`` for ``second``."""
        scaled, batch = self._enter(x)
        return self._jet(scaled, second, batch, self._contract, 1)

    def features(self, x: Tensor) -> Tensor:
        """Evaluate the products T_i T_j, (..., m0 * m1), which the value is linear in."""
        scaled, batch = self._enter(x)
        t0, t1 = (_with_constant(chebyshev.polynomials(scaled, max(self._modes)))[..., a] for a in (0, 1))
        value = self._outer(t0, t1)
        return value.reshape(*value.shape[:-2], *batch, value.shape[-1])

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate ``features`` with their derivatives, (..., F), (..., F, 2) and second derivatives as in ``jet``."""
        scaled, batch = self._enter(x)
        return self._jet(scaled, second, batch, self._outer, self._modes[0] * self._modes[1])

    def output_coefficients(self) -> Tensor:
        """Return the coefficients of the features, (m0 * m1, 1) or (N, m0 * m1, 1)."""
        return self.coefficients.flatten(-2).unsqueeze(-1)

    @torch.no_grad()
    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place, as a least-squares step found them."""
        shape = tuple(self.output_coefficients().shape)
        if tuple(coefficients.shape) != shape:
            raise InputError(f"output coefficients of shape {tuple(coefficients.shape)}: give {shape}")
        self.coefficients.copy_(coefficients.reshape(self.coefficients.shape))

    def grid(self, x0: Float[Tensor, " h"], x1: Float[Tensor, " w"]) -> Float[Tensor, "*networks h w"]:
        """Compute values (H, W), or (N, H, W), on the grid of the coordinates x0 (H,) and x1 (W,): two small matrix
        products."""
        left, right = self._grid_bases(x0, x1)
        return (left @ self.coefficients) @ right.mT

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again, without its parameters."""
        return {"modes": list(self._modes), "domain": self.scaling.config(), "networks": self.networks}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TensorChebyshev:
        """Make a field of this shape with coefficients that are zero."""
        box = config["domain"]
        return cls(config["modes"], (box["lower"], box["upper"]), networks=config["networks"])

    def _enter(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Scale points to (..., B, 2), and return them with the shape B came from."""
        flat, batch = flat_points(x, self.networks, self.scaling.lower.dtype)
        return self.scaling(flat), batch

    def _grid_bases(self, x0: Tensor, x1: Tensor) -> list[Tensor]:
        lower, upper = self.scaling.lower, self.scaling.upper
        bases = []
        for axis, (x, modes) in enumerate(zip((x0, x1), self._modes, strict=True)):
            low, high = lower[..., axis, None], upper[..., axis, None]
            bases.append(basis_1d(2 * ((x.to(low) - low) / (high - low)) - 1, modes))
        return bases

    def _contract(self, left: Tensor, right: Tensor) -> Tensor:
        """Compute sum c_ij left_i right_j over (..., modes, B) bases, (..., B)."""
        m0, m1 = self._modes
        return ((self.coefficients.mT @ left[..., :m0, :]) * right[..., :m1, :]).sum(dim=-2)

    def _outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Compute all products left_i right_j of (..., modes, B) bases, (..., B, m0 * m1)."""
        m0, m1 = self._modes
        return (left[..., :m0, None, :] * right[..., None, :m1, :]).flatten(-3, -2).mT

    def _jet(self, scaled: Tensor, second: Second, batch: tuple[int, ...], combine: Any, width: int) -> Jet:
        """Compute the jet of what ``combine`` makes of the two one-dimensional bases, ``width`` numbers per point."""
        check_second(second)
        value, first, curve = chebyshev.polynomials_jet(scaled, max(self._modes))
        t, d, c = _with_constant(value), _with_constant(first, 0.0), _with_constant(curve, 0.0)
        t0, t1, d0, d1, c0, c1 = t[..., 0], t[..., 1], d[..., 0], d[..., 1], c[..., 0], c[..., 1]
        u, gradient = combine(t0, t1), torch.stack([combine(d0, t1), combine(t0, d1)], dim=-1)
        twice = [combine(c0, t1), combine(t0, c1)]
        if second == "full":
            mixed = combine(d0, d1)
            bend = torch.stack([torch.stack([twice[0], mixed], -1), torch.stack([mixed, twice[1]], -1)], dim=-1)
        else:
            bend = torch.stack(twice, dim=-1)
        lead = u.shape[: u.ndim - (1 if width == 1 else 2)]
        shape = (*lead, *batch, width)
        jet = Jet(u.reshape(shape), gradient.reshape(*shape, 2), bend.reshape(*shape, *bend.shape[gradient.ndim - 1 :]))
        jet = self.scaling.physical(jet)
        if second == "laplacian":
            return jet._replace(second=jet.second.sum(dim=-1))
        return jet._replace(second=jet.second[..., :0]) if second == "none" else jet


def basis_1d(scaled: Float[Tensor, "*points"], modes: int) -> Float[Tensor, "*points {modes}"]:
    """Compute T_0 ... T_(modes-1) at scaled coordinates (..., n), shape (..., n, modes)."""
    terms = [torch.ones_like(scaled), scaled]
    for _ in range(modes - 2):
        terms.append(2 * scaled * terms[-1] - terms[-2])
    return torch.stack(terms[:modes], dim=-1)


def _with_constant(terms: Tensor, constant: float = 1.0) -> Tensor:
    """Compute T_1, T_2, ... (..., B, degree, 2) with T_0 in front, laid out (..., degree + 1, B, 2)."""
    first = torch.full_like(terms[..., :1, :], constant)
    return torch.cat([first, terms], dim=-2).movedim(-2, -3)

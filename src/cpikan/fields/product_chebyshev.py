"""ProductChebyshev: sums of products of Chebyshev polynomials, one per axis, for any number of axes and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.scaling import AffineScaling, Domain


class ProductChebyshev(nn.Module):
    """u_o(x) = sum over (i, j, ...) of c_ij...o T_i(x0^) T_j(x1^) ...; all its coefficients are linear.

    ``modes`` counts the polynomials T_0 ... T_(m-1) per axis; ``coefficients`` is (F, outputs) with F their product, the
    last axis fastest, or (N, F, outputs) for ``networks`` = N fields, zero at first. ``domain`` is the box (lower, upper),
    one, or one row per field. Raises InputError for fewer than one mode on an axis.
    """

    def __init__(
        self, modes: Sequence[int], domain: Domain = None, *, outputs: int = 1, networks: int | None = None
    ) -> None:
        super().__init__()
        counts = tuple(int(m) for m in modes)
        if not counts or min(counts) < 1 or outputs < 1:
            raise InputError(f"modes {list(modes)} for {outputs} outputs: give whole numbers from 1, one per axis")
        self.modes = counts
        self.scaling = AffineScaling.of(domain, len(counts), networks)
        lead = () if networks is None else (networks,)
        self.coefficients = nn.Parameter(torch.zeros(*lead, math.prod(counts), outputs, dtype=torch.float64))

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return len(self.modes)

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return int(self.coefficients.shape[-1])

    @property
    def networks(self) -> int | None:
        """Count the independent fields held, None for one; read off the coefficients, which may be swapped."""
        return None if self.coefficients.ndim == 2 else int(self.coefficients.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        scaled, batch = self._enter(x)
        bases = [basis[0] for basis in self._bases(scaled, 0)]
        value = self._contract(bases)
        return value.reshape(*value.shape[:-2], *batch, self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives by the physical coordinates, one pass; see ``Jet`` for ``second``."""
        return self._jet(x, second, self._contract, self.outputs)

    def features(self, x: Tensor) -> Tensor:
        """Evaluate the products of polynomials, (..., F), which the value is linear in."""
        scaled, batch = self._enter(x)
        value = _products([basis[0] for basis in self._bases(scaled, 0)])
        return value.reshape(*value.shape[:-2], *batch, value.shape[-1])

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate ``features`` with their derivatives, (..., F), (..., F, d) and second derivatives as in ``jet``."""
        return self._jet(x, second, _products, math.prod(self.modes))

    def output_coefficients(self) -> Tensor:
        """Return the coefficients of the features, (F, outputs) or (N, F, outputs)."""
        return self.coefficients

    @torch.no_grad()
    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place, as a least-squares step found them."""
        if coefficients.shape != self.coefficients.shape:
            given, wanted = tuple(coefficients.shape), tuple(self.coefficients.shape)
            raise InputError(f"output coefficients of shape {given}: give {wanted}")
        self.coefficients.copy_(coefficients)

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again, without its parameters."""
        parts = {"modes": list(self.modes), "domain": self.scaling.config()}
        return {**parts, "networks": self.networks, "outputs": self.outputs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ProductChebyshev:
        """Make a field of this shape with coefficients that are zero."""
        box = (config["domain"]["lower"], config["domain"]["upper"])
        return cls(config["modes"], box, outputs=config["outputs"], networks=config["networks"])

    def _enter(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Scale points to (..., B, d), and return them with the shape B came from."""
        flat, batch = flat_points(x, self.networks, self.scaling.lower.dtype)
        return self.scaling(flat), batch

    def _bases(self, scaled: Tensor, order: int) -> list[list[Tensor]]:
        """Evaluate T_k and derivatives up to ``order`` on every axis, (..., B, modes) each."""
        return [basis_jet(scaled[..., axis], modes, order) for axis, modes in enumerate(self.modes)]

    def _contract(self, bases: Sequence[Tensor]) -> Tensor:
        """Sum coefficients times products of bases (..., B, modes), (..., B, outputs)."""
        found = self.coefficients.unflatten(-2, self.modes).unsqueeze(-self.dimension - 2)
        for number, basis in enumerate(reversed(bases)):  # the last axis first
            left = basis.reshape(*basis.shape[:-1], *(1,) * (self.dimension - 1 - number), basis.shape[-1], 1)
            found = (found * left).sum(dim=-2)
        return found

    def _jet(self, x: Tensor, second: Second, combine: Any, width: int) -> Jet:
        """Compute the jet of what ``combine`` makes of one basis per axis, ``width`` numbers per point."""
        check_second(second)
        scaled, batch = self._enter(x)
        bases = self._bases(scaled, 1 if second == "none" else 2)

        def derived(*orders: int) -> Tensor:
            value: Tensor = combine([basis[order] for basis, order in zip(bases, orders, strict=True)])
            return value.reshape(*value.shape[:-2], *batch, width)

        axes = range(self.dimension)
        unit = [[int(a == axis) for a in axes] for axis in axes]
        value, gradient = derived(*(0 for _ in axes)), torch.stack([derived(*unit[axis]) for axis in axes], dim=-1)
        if second == "none":
            jet = self.scaling.physical(Jet(value, gradient, torch.zeros_like(gradient)))
            return jet._replace(second=jet.second[..., :0])
        if second == "full":
            rows = [[derived(*(p + q for p, q in zip(unit[a], unit[b], strict=True))) for b in axes] for a in axes]
            bend = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
        else:
            bend = torch.stack([derived(*(2 * p for p in unit[a])) for a in axes], dim=-1)
        jet = self.scaling.physical(Jet(value, gradient, bend))
        return jet._replace(second=jet.second.sum(dim=-1)) if second == "laplacian" else jet


@torch.no_grad()
def interpolate(series: ProductChebyshev, function: Callable[[Tensor], Tensor]) -> None:
    """Set the coefficients of N series to those that interpolate ``function``, points (B, d) to (B, outputs)."""
    grid = torch.cartesian_prod(*[chebyshev_nodes(modes) for modes in series.modes]).reshape(-1, series.dimension)
    x = series.scaling.inverse(grid.expand(len(series.coefficients), -1, -1))
    table = function(x.flatten(0, 1)).reshape(len(x), *series.modes, series.outputs)
    for axis, modes in enumerate(series.modes):
        basis = basis_jet(chebyshev_nodes(modes), modes, 0)[0]
        size = torch.full((modes, 1), 2.0, dtype=torch.float64) / modes
        size[0] /= 2
        table = torch.tensordot(table, size * basis.mT, ([axis + 1], [1])).movedim(-1, axis + 1)
    series.set_output_coefficients(table.flatten(1, -2))


def chebyshev_nodes(count: int) -> Tensor:
    """Place the zeros of T_count in rising order, (count,)."""
    return -torch.cos(torch.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count)


def basis_jet(scaled: Tensor, modes: int, order: int) -> list[Tensor]:
    """Evaluate T_0 ... T_(modes-1) at scaled coordinates (...,) with derivatives up to ``order``, (..., modes) each."""
    if order == 0:
        found = [chebyshev.polynomials(scaled[..., None], max(1, modes - 1))]
    else:
        found = list(chebyshev.polynomials_jet(scaled[..., None], max(1, modes - 1), order > 1)[: order + 1])
    tables = []
    for number, table in enumerate(found):
        first = torch.full_like(table[..., :1, :], 0.0 if number else 1.0)
        tables.append(torch.cat([first, table], dim=-2)[..., :modes, 0])
    return tables


def _products(bases: Sequence[Tensor]) -> Tensor:
    """Multiply bases (..., B, modes) of all axes with each other, (..., B, F), the last axis fastest."""
    found = bases[0]
    for basis in bases[1:]:
        found = (found[..., :, None] * basis[..., None, :]).flatten(-2)
    return found

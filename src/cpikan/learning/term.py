"""Terms of an objective, and the point sets they are taken at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.duals import along_axis
from cpikan.fields.protocol import Jet, Second


class PointSet(NamedTuple):
    """Points (n, d) of a term, with what the term may need there.

    ``normals`` (n, d) point outwards, ``partner`` (n, d) are the points at the other end of a period, ``data`` (n,) was
    measured, and ``weight`` (n,) multiplies residuals point by point; for a density it is the quadrature weight. A term that
    couples its points has a ``mix`` (rows, n): its residuals are sums over points. Or it has ``tests`` (n, S, T): residuals
    are integrals over elements, T of them of S values at a point times what stands there, and ``element`` (n,) is the number
    of the point's element. ``shift`` (residuals of the term, rows) is added to residuals: lambda / mu where multipliers lambda
    complete the square, lambda r + mu r^2 / 2. Where points are coupled ``weight`` is that of the rows.
    """

    points: Tensor
    normals: Tensor | None = None
    partner: Tensor | None = None
    data: Tensor | None = None
    weight: Tensor | None = None
    shift: Tensor | None = None
    mix: Tensor | None = None
    tests: Tensor | None = None
    element: Tensor | None = None

    @property
    def rows(self) -> int:
        """Count what a mean of squares is taken over: the points, sums over points, or test functions of all elements."""
        if self.tests is not None and self.element is not None:
            return len(self.element.unique()) * self.tests.shape[2]
        return len(self.points) if self.mix is None else len(self.mix)

    def taken(self, index: Tensor) -> PointSet:
        """Take some of the points, with what belongs to each of them; the set itself where residuals are sums over points."""
        if self.mix is not None or self.tests is not None:
            return self
        found = PointSet._make(None if part is None else part[index] for part in self._replace(shift=None))
        return found if self.shift is None else found._replace(shift=self.shift[:, index])

    def assembled(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Make residuals (rows,) of what a term is at every point: coupled, shifted and weighed."""
        found = self._coupled(values)
        if self.shift is not None:
            found = [value + shift for value, shift in zip(found, self.shift, strict=True)]
        return found if self.weight is None else [self.weight * value for value in found]

    def slopes(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Make rows of a Jacobian (rows, P) of the derivatives of every value at every point (n, P)."""
        found = self._coupled(values)
        return found if self.weight is None else [self.weight[:, None] * rows for rows in found]

    def _coupled(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Sum what is at points, values (n,) or rows (n, P), over them."""
        if self.tests is not None and self.element is not None:
            return [_integrated(torch.stack(list(values), dim=1), self.tests, self.element)]
        return list(values) if self.mix is None else [self.mix @ value for value in values]


def _integrated(values: Tensor, tests: Tensor, element: Tensor) -> Tensor:
    """Sum values (n, S, ...) times tests (n, S, T) over the points of every element, (elements * T, ...)."""
    parts = []
    for number in element.unique():
        mine = torch.nonzero(element == number).flatten()
        parts.append(tests[mine].flatten(0, 1).mT @ values[mine].flatten(0, 1))
    return torch.cat(parts)


@dataclass(frozen=True)
class Term:
    """One summand of the cost: ``function(jet, at, jet at partner) -> {name: (n,)}``.

    A "residual" is squared and summed. A "density" is integrated as it is, by the weights of its points or else as a mean:
    the energy of Deep Ritz (E and Yu 2018). ``user_weight`` multiplies what balancing finds; ``inside`` marks the equation.
    ``slopes`` weigh derivatives of the residuals along the axes, which are further residuals (gradient-enhanced; Yu et al.,
    CMAME 393, 2022).
    """

    name: str
    function: Callable[[Jet, PointSet, Jet | None], Mapping[str, Tensor]]
    second: Second = "none"
    kind: Literal["residual", "density"] = "residual"
    inside: bool = False
    user_weight: float = 1.0
    slopes: tuple[float, ...] = ()

    def at(self, field: nn.Module, at: PointSet) -> list[Tensor]:
        """Evaluate the term at points, (rows,) per residual, times the weights of the points; differentiable."""
        jet: Any = field.jet
        return self.through(jet, at)

    def through(self, jet: Callable[[Tensor, Second], Jet], at: PointSet) -> list[Tensor]:
        """Evaluate the term on what gives jets at points: its residuals, then their weighted slopes, axis by axis."""

        def values(x: Tensor) -> list[Tensor]:
            partner = None if at.partner is None else jet(at.partner, self.second)
            return self.values(jet(x, self.second), at._replace(points=x), partner)

        found = values(at.points)
        for axis, weight in enumerate(self.slopes):
            found += [weight * slope for slope in along_axis(values, at.points, axis)]
        return found

    def values(self, jet: Jet, at: PointSet, partner: Jet | None) -> list[Tensor]:
        """Evaluate the term on jets."""
        return at.assembled(self.pointwise(jet, at, partner))

    def pointwise(self, jet: Jet, at: PointSet, partner: Jet | None) -> list[Tensor]:
        """Evaluate the term at every point, (n,) per residual: each depends on the jets of its own point alone."""
        return list(self.function(jet, at, partner).values())

    def check(self, field: nn.Module, at: PointSet) -> None:
        """Raise InputError for values that are not finite, and for those that cannot be differentiated by the parameters."""
        try:
            with torch.enable_grad():
                found = torch.cat(self.at(field, at))
        except RuntimeError as failure:
            if not any(said in str(failure) for said in ("requires grad", "forward AD")):
                raise
            found = at.points.new_zeros(())
        if not found.requires_grad and any(parameter.requires_grad for parameter in field.parameters()):
            raise InputError(
                f"residuals of {self.name!r} do not follow the field: make them of the jet by torch functions that can be "
                "differentiated, without detach() and NumPy"
            )
        if not bool(torch.isfinite(found).all()):
            raise InputError(
                f"residuals of {self.name!r} are not finite at the start: check the formula at the region's ends"
            )

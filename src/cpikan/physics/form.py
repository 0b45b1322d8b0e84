"""Form: what stands in the cost for the equation of a problem while a field is fitted, and where it is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import Tensor

from cpikan.fields.protocol import Jet, Second

Values = Callable[[Jet, Tensor], Mapping[str, Tensor]]


class Places(NamedTuple):
    """Points (n, d) of a form, with the weights (n,) of a quadrature, or with test functions.

    ``tests`` (n, S, T) are what each of S values at a point is multiplied with in T integrals over the point's element, the
    number of which is ``element`` (n,).
    """

    points: Tensor
    weight: Tensor | None = None
    tests: Tensor | None = None
    element: Tensor | None = None


@dataclass(frozen=True)
class Form:
    """Values at points, ``values(jet, x) -> {name: (B,)}``, of jets with ``second``: residuals, or a density.

    ``place(count, seed, held_out)`` chooses about so many points; without it they are the sampler's. ``slopes`` are weights of
    the residuals' derivatives along the axes, further residuals. A field is judged by ``judge``, or by the equation itself.
    """

    values: Values
    second: Second
    kind: Literal["residual", "density"] = "residual"
    place: Callable[[int, int, bool], Places] | None = None
    slopes: tuple[float, ...] = ()
    judge: Form | None = None

    def behind(self, jet_of: Callable[[Jet, Tensor], Jet]) -> Form:
        """Take the form on a function of jets: that of an ansatz around a network."""
        judge = None if self.judge is None else self.judge.behind(jet_of)
        return replace(self, values=lambda jet, x: self.values(jet_of(jet, x), x), judge=judge)

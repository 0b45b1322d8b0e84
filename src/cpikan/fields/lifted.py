"""LiftedField: a network behind a lift that is data, as a Chebyshev series in pieces: a field that needs no problem."""

from __future__ import annotations

from typing import Any

from cpikan.fields.constrained import Ansatz, ConstrainedField
from cpikan.fields.end_distance import EndDistance
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.rounded_kink import RoundedKink

Lift = PiecewiseChebyshev | RoundedKink


class LiftedField(ConstrainedField):
    """u = lift(x) + distance(x) network(x); the lift is data, its coefficients do not train."""

    def __init__(self, network: Any, lift: Lift, distance: EndDistance) -> None:
        super().__init__(network, Ansatz(lift, distance))
        self.lift, self.distance = lift.requires_grad_(False), distance

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again beside its network and its lift."""
        return self.distance.config()

    @classmethod
    def from_config(cls, config: dict[str, Any], network: Any, lift: Lift) -> LiftedField:
        """Put a network behind a lift again."""
        return cls(network, lift, EndDistance.from_config(config))

"""StackedField: a field with corrections on top of it, each with a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.constrained import Ansatz, ConstrainedField
from cpikan.fields.protocol import Jet, Second


class StackedField(nn.Module):
    """u(x) = u_1(x) + s_2 u_2(x) + s_3 u_3(x) + ..., fields of any kinds; ``scales`` are those of the corrections.

    Source of the chain: Heinlein, Howard, Beecroft and Stinis, Multifidelity domain decomposition-based physics-informed neural
    networks (2024), with a level that is added in place of networks that see the level below; of the scales: Wang and Lai,
    Multi-stage neural networks, J. Comput. Phys. 504 (2024). Raises InputError for fewer than two levels, another number of
    scales, and levels of different axes or outputs.
    """

    networks = None  # the levels make one field

    def __init__(self, scales: Sequence[float], *levels: Any) -> None:
        super().__init__()
        if len(levels) < 2 or len(scales) != len(levels) - 1:
            raise InputError(
                f"{len(levels)} levels with {len(scales)} scales: give two levels or more, and a scale each above"
            )
        if len({(one.dimension, one.outputs) for one in levels}) > 1:
            raise InputError("levels of different axes or outputs: give fields that are alike")
        self.levels = nn.ModuleList(levels)
        self.scales = tuple(float(one) for one in scales)
        self._shape = levels[0].dimension, levels[0].outputs

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return int(self._shape[0])

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return int(self._shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at points (..., d)."""
        return reduce(torch.add, (s * level(x) for s, level in self._scaled()))

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives; see ``Jet`` for ``second``."""
        jets = [[s * part for part in level.jet(x, second)] for s, level in self._scaled()]
        return Jet(*(reduce(torch.add, parts) for parts in zip(*jets, strict=True)))

    def config(self) -> dict[str, Any]:
        """Write down the scales; the levels are stored with their own."""
        return {"scales": list(self.scales)}

    @classmethod
    def from_config(cls, config: dict[str, Any], *levels: Any) -> StackedField:
        """Put levels on top of each other again."""
        return cls(config["scales"], *levels)

    def _scaled(self) -> list[tuple[float, Any]]:
        return list(zip((1.0, *self.scales), self.levels, strict=True))


@dataclass(frozen=True)
class Correction(Ansatz):
    """u = lift + distance v where the lift is a field that stays as it is, ``below``, and v a correction of it.

    ``behind`` is the form that both stand behind, None where the field below holds no conditions by its form.
    """

    below: Any = None
    scale: float = 1.0
    behind: Ansatz | None = None

    @classmethod
    def of(cls, below: Any, scale: float, behind: Ansatz | None) -> Correction:
        """Put a correction with a scale on top of a field."""

        def distance(x: Tensor) -> Tensor:
            return scale * (x.new_ones(len(x), below.outputs) if behind is None else behind.distance(x))

        lift = below if behind is None else ConstrainedField(below, behind)
        return cls(lift, distance, below=below, scale=scale, behind=behind)

    def whole(self, network: Any) -> nn.Module:
        """Make the field of a correction: the levels below and this one, behind the form of all."""
        if isinstance(self.below, StackedField):
            stack = StackedField((*self.below.scales, self.scale), *self.below.levels, network)
        else:
            stack = StackedField((self.scale,), self.below, network)
        return stack if self.behind is None else ConstrainedField(stack, self.behind)

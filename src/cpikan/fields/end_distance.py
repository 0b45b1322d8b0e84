"""EndDistance: a product that vanishes at chosen ends of the axes of a box, output by output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Ends = Sequence[Sequence[tuple[int, bool]]]  # of every output, the ends that bind it: (axis, whether the upper one)


@dataclass(frozen=True)
class EndDistance:
    """The product over axes of t, 1 - t or 4 t (1 - t), t from 0 to 1 along the axis, for the ends that bind an output.

    An output that nothing binds has the distance 1.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    ends: tuple[tuple[tuple[int, bool], ...], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the distances (B, outputs) at points (B, d)."""
        return torch.stack([self._of(x, of) for of in self.ends], dim=-1)

    def share(self, x: Tensor, axis: int) -> Tensor:
        """Evaluate t (B,) along an axis, 0 at its lower end and 1 at its upper."""
        return (x[:, axis] - self.lower[axis]) / (self.upper[axis] - self.lower[axis])

    def config(self) -> dict[str, Any]:
        """Write down the box and the ends as plain data."""
        ends = [[[axis, upper] for axis, upper in of] for of in self.ends]
        return {"lower": list(self.lower), "upper": list(self.upper), "ends": ends}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EndDistance:
        """Make the distance that ``config`` wrote down."""
        ends = tuple(tuple((int(axis), bool(upper)) for axis, upper in of) for of in config["ends"])
        lower, upper = (tuple(float(v) for v in config[name]) for name in ("lower", "upper"))
        return cls(lower, upper, ends)

    def _of(self, x: Tensor, of: Sequence[tuple[int, bool]]) -> Tensor:
        found = torch.ones_like(x[:, 0])
        for axis in sorted({axis for axis, _ in of}):
            t, sides = self.share(x, axis), {upper for number, upper in of if number == axis}
            found = found * (4 * t * (1 - t) if len(sides) == 2 else 1 - t if True in sides else t)
        return found

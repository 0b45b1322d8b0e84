"""LevelledField: the sum of fields on coarser and finer subdomains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.cover import Cover
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.protocol import Jet, Second
from cpikan.fields.start import Start

_APART = 104729  # between the seeds of levels


class LevelledField(nn.Module):
    """u(x) = u_1(x) + u_2(x) + ..., one decomposed field per level, the coarsest first.

    Coarse levels carry what is far from local, so that fine ones need not pass it on from neighbour to neighbour. Dolean,
    Heinlein, Mishra and Moseley, Multilevel domain decomposition-based architectures for PINNs, CMAME 429 (2024), without
    their factor 1 / levels, which the output coefficients take up. Raises InputError for no levels, and levels of different
    axes or outputs.
    """

    networks = None  # the levels make one field

    def __init__(self, *levels: DecomposedField) -> None:
        super().__init__()
        if not levels or len({(one.dimension, one.outputs) for one in levels}) > 1:
            raise InputError(f"{len(levels)} levels of different axes or outputs: give at least one, all alike")
        self.levels = nn.ModuleList(levels)

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self._parts()[0].dimension

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return self._parts()[0].outputs

    def cover(self, x: Tensor) -> list[Cover]:
        """Sort points (..., d) into the subdomains of every level once; pass it back as ``covered``."""
        return [level.cover(x) for level in self._parts()]

    def forward(self, x: Tensor, covered: Sequence[Cover] | None = None) -> Tensor:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        covers: Sequence[Cover | None] = covered or [None] * len(self.levels)
        return reduce(torch.add, (level(x, one) for level, one in zip(self.levels, covers, strict=True)))

    def jet(self, x: Tensor, second: Second = "axes", covered: Sequence[Cover] | None = None) -> Jet:
        """Evaluate value and exact derivatives, one pass; see ``Jet`` for ``second``."""
        covers: Sequence[Cover | None] = covered or [None] * len(self.levels)
        jets = [level.jet(x, second, one) for level, one in zip(self._parts(), covers, strict=True)]
        return Jet(*(reduce(torch.add, parts) for parts in zip(*jets, strict=True)))

    def features(self, x: Tensor) -> Tensor:
        """Evaluate what the field is linear in, (..., F), level by level."""
        return torch.cat([level.features(x) for level in self._parts()], dim=-1)

    def features_jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate ``features`` with their derivatives, (..., F), (..., F, d) and second ones as in `Jet`."""
        jets = [level.features_jet(x, second) for level in self._parts()]
        axis = jets[0].value.ndim - 1
        return Jet(*(torch.cat(parts, dim=axis) for parts in zip(*jets, strict=True)))

    def output_coefficients(self) -> Tensor:
        """Return the coefficients of the features, (F, outputs)."""
        return torch.cat([level.output_coefficients() for level in self._parts()])

    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place; raises InputError for another shape."""
        sizes = [len(level.output_coefficients()) for level in self._parts()]
        if coefficients.shape != (sum(sizes), self.outputs):
            given = tuple(coefficients.shape)
            raise InputError(f"output coefficients of shape {given}: give {(sum(sizes), self.outputs)}")
        for level, part in zip(self._parts(), coefficients.split(sizes), strict=True):
            level.set_output_coefficients(part)

    def restart(self, start: Start) -> None:
        """Draw the coefficients of all levels anew, each from a seed of its own."""
        for number, level in enumerate(self._parts()):
            level.restart(Start(start.seed + _APART * number))

    def config(self) -> dict[str, Any]:
        """Write down nothing: the levels are stored with their own descriptions."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any], *levels: DecomposedField) -> LevelledField:
        """Put the levels together again."""
        return cls(*levels)

    def _parts(self) -> list[DecomposedField]:
        return [level for level in self.levels if isinstance(level, DecomposedField)]

"""TimeWindows: a field of its own in every window of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.lifted import LiftedField
from cpikan.fields.protocol import Jet, Second, flat_points


class TimeWindows(nn.Module):
    """u(x) = u_j(x) where window j holds the time of x; windows follow one another along ``axis``.

    A time on a common edge belongs to the window before it. After the last window the field stands still, before the first
    it goes on as that begins. Raises InputError for no windows, and for windows that do not follow one another.
    """

    networks = None  # the windows make one field

    def __init__(self, axis: int, *parts: LiftedField) -> None:
        super().__init__()
        ends = [(part.distance.lower[axis], part.distance.upper[axis]) for part in parts]
        if not parts or any(before[1] != after[0] for before, after in itertools.pairwise(ends)):
            raise InputError(f"windows of time {ends}: give at least one, each beginning where the one before ends")
        self.axis, self.parts = axis, nn.ModuleList(parts)
        self._ends = [end for _, end in ends]
        self._shape = parts[0].dimension, parts[0].outputs

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self._shape[0]

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return self._shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at points (..., d)."""
        flat, batch = flat_points(x, None, torch.float64)
        (value,) = self._gathered(flat, lambda part, at: (part(at),))
        return value.reshape(*batch, self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives of the window that owns each point; see ``Jet`` for ``second``."""
        flat, batch = flat_points(x, None, torch.float64)
        late = flat[:, self.axis] > self._ends[-1]
        apart: Second = "axes" if second == "laplacian" and bool(late.any()) else second
        jet = Jet(*self._gathered(flat, lambda part, at: part.jet(at, apart)))
        if bool(late.any()):
            jet = self._still(jet, late, apart)
            jet = jet._replace(second=jet.second.sum(dim=-1)) if apart != second else jet
        return Jet(*(part.reshape(*batch, *part.shape[1:]) for part in jet))

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again beside its parts."""
        return {"axis": self.axis}

    @classmethod
    def from_config(cls, config: dict[str, Any], *parts: LiftedField) -> TimeWindows:
        """Put windows together again."""
        return cls(config["axis"], *parts)

    def _gathered(self, x: Tensor, at: Callable[[Any, Tensor], Any]) -> list[Tensor]:
        """Evaluate every point (B, d) by its window, and put the results back into the order of the points."""
        time = x[:, self.axis].detach().clamp(max=self._ends[-1])
        owner = torch.searchsorted(torch.tensor(self._ends, dtype=torch.float64), time.contiguous())
        held = torch.minimum(x, torch.where(torch.arange(x.shape[1]) == self.axis, self._ends[-1], math.inf))
        places = [torch.nonzero(owner == number).squeeze(1) for number in range(len(self.parts))]
        found = [
            at(part, held[place]) for part, place in zip(self.parts, places, strict=True) if len(place) or not len(x)
        ]
        order = torch.argsort(torch.cat(places))
        return [torch.cat(one)[order] for one in zip(*found, strict=True)] if len(x) else list(found[0])

    def _still(self, jet: Jet, late: Tensor, second: Second) -> Jet:
        """Let the derivatives by time vanish at the points ``late``."""
        keep = torch.ones_like(jet.gradient)
        keep[late, :, self.axis] = 0.0
        bend = jet.second
        if second == "axes":
            bend = bend * keep
        elif second == "full":
            bend = bend * keep[..., None] * keep[..., None, :]
        return Jet(jet.value, jet.gradient * keep, bend)

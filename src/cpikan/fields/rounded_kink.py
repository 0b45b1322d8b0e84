"""RoundedKink: a lift whose slope jumps where a period closes, with the jump taken away as diffusion takes it away."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import basis_jet
from cpikan.fields.protocol import Jet, Second, check_second, flat_points

_LEAST = 1e-300  # time since the beginning, where a root of it is divided by
_FAR = 26.0  # of z, where erfc(z) is below the smallest number


class RoundedKink(nn.Module):
    """u(x, t) = series(x, t) + j(t) V(s, t), s the distance from where the period of ``axis`` closes.

    With q = sqrt(D (t - t0)) and ierfc(z) = exp(-z^2) / sqrt(pi) - z erfc(z), V = q ierfc(|s| / (2 q)) solves V_t = D V_ss
    beside s = 0, vanishes at the beginning t0 of ``box``, and has a slope that falls by 1 across s = 0: with j(t) the jump of
    the series' slope there, the sum has none for any t > t0. ``jump`` (modes, outputs) is j as a Chebyshev series in the time
    of the box, ``diffusivity`` (outputs,) is D. Carslaw and Jaeger, Conduction of Heat in Solids (1959), section 2.9.
    """

    networks = None

    def __init__(
        self, series: PiecewiseChebyshev, axis: int, time: int, box: Any, diffusivity: Any, jump: Tensor
    ) -> None:
        super().__init__()
        self.series, self.axis, self.time = series, axis, time
        lower, upper = (tuple(float(v) for v in bound) for bound in box)
        self.lower, self.upper = lower, upper
        self.diffusivity = tuple(float(v) for v in diffusivity)
        self.jump = nn.Parameter(jump, requires_grad=False)

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return self.series.dimension

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return self.series.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at points (..., d)."""
        flat, batch = flat_points(x, None, self.jump.dtype)
        return (self.series(flat) + self._kink(flat)[0]).reshape(*batch, self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and exact derivatives; see ``Jet`` for ``second``. The time derivative is infinite at the start
        where the period closes."""
        check_second(second)
        flat, batch = flat_points(x, None, self.jump.dtype)
        plain = self.series.jet(flat, second)
        value, by_space, by_time, bend, mixed, by_time_twice = self._kink(flat)
        gradient = plain.gradient.clone()
        gradient[..., self.axis] += by_space
        gradient[..., self.time] += by_time
        curve = plain.second.clone()
        if second == "laplacian":
            curve += bend + by_time_twice
        elif second == "axes":
            curve[..., self.axis] += bend
            curve[..., self.time] += by_time_twice
        elif second == "full":
            curve[..., self.axis, self.axis] += bend
            curve[..., self.time, self.time] += by_time_twice
            curve[..., self.axis, self.time] += mixed
            curve[..., self.time, self.axis] += mixed
        found = (plain.value + value, gradient, curve)
        return Jet(*(part.reshape(*batch, *part.shape[1:]) for part in found))

    def config(self) -> dict[str, Any]:
        """Write down what is needed to build the field again beside its series."""
        box = {"lower": list(self.lower), "upper": list(self.upper)}
        shape = {"axis": self.axis, "time": self.time, "modes": len(self.jump)}
        return {**shape, "domain": box, "diffusivity": list(self.diffusivity)}

    @classmethod
    def from_config(cls, config: dict[str, Any], series: PiecewiseChebyshev) -> RoundedKink:
        """Round the kink of a series again; its jump is zero."""
        box = (config["domain"]["lower"], config["domain"]["upper"])
        jump = torch.zeros(config["modes"], len(config["diffusivity"]), dtype=torch.float64)
        return cls(series, config["axis"], config["time"], box, config["diffusivity"], jump)

    def _kink(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute j V (B, outputs) with its derivatives: value, by s, by t, by s twice, by both, by t twice.

        With z = |s| / (2 q) and E = exp(-z^2) / sqrt(pi), V = q (E - z erfc z), V_s = -sign erfc(z) / 2, V_ss = E / (2 q) and
        V_t = D V_ss; the rest follows from these.
        """
        rate = x.new_tensor(self.diffusivity)
        since = (x[:, self.time : self.time + 1] - self.lower[self.time]).clamp_min(_LEAST)
        below, above = x[:, self.axis] - self.lower[self.axis], self.upper[self.axis] - x[:, self.axis]
        away, sign = torch.minimum(below, above)[:, None], torch.where(below <= above, 1.0, -1.0)[:, None]
        q = torch.sqrt(rate * since)
        z = (away / (2 * q)).clamp_max(_FAR)
        bell, tail = torch.exp(-z * z) / math.sqrt(math.pi), torch.special.erfc(z)
        value, by_space, bend = q * (bell - z * tail), -sign * tail / 2, bell / (2 * q)
        by_time = rate * bend
        across = -sign * z * bell / (2 * q * q)  # d/ds of V_ss
        later = bend * (z * z - 0.5) / since  # d/dt of V_ss
        j, slope, curve = self._jumps(x)
        return (
            j * value,
            j * by_space,
            slope * value + j * by_time,
            j * bend,
            slope * by_space + j * rate * across,
            curve * value + 2 * slope * by_time + j * rate * later,
        )

    def _jumps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate j (B, outputs) with two derivatives by time."""
        low, high = self.lower[self.time], self.upper[self.time]
        scale = 2 / (high - low)
        unit = (x[:, self.time : self.time + 1] - low) * scale - 1
        value, slope, curve = (basis @ self.jump for basis in basis_jet(unit[:, 0], len(self.jump), 2))
        return value, slope * scale, curve * scale**2

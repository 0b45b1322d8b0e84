"""Local flow: what an evolution does at every place by itself, with all derivatives by space left out."""

from __future__ import annotations

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem

_STEPS = 8  # of Runge and Kutta from one time to the next
_SAME = 1e-9


class LocalFlow:
    """The ordinary equation u_t = f(x, t, u) that a problem has for functions that do not vary in space.

    Half of a splitting (Lie and Trotter): what is sharp because values are driven apart place by place is sharp in it too.
    """

    def __init__(self, problem: Problem, time: int) -> None:
        self._problem, self._time = problem, time

    def rate(self, x: Tensor, value: Tensor) -> Tensor | None:
        """Compute u_t (B, outputs) at points (B, d) with values (B, outputs); None where the equation does not say it."""
        rest = self._residuals(x, value, torch.zeros_like(value))
        count = value.shape[-1]
        if rest.shape != value.shape:
            return None
        unit = torch.eye(count, dtype=value.dtype)
        columns = [self._residuals(x, value, one.expand_as(value)) - rest for one in unit]
        matrix = torch.stack(columns, dim=-1)
        twice = self._residuals(x, value, torch.full_like(value, 2.0)) - rest
        if not torch.allclose(twice, 2 * matrix.sum(dim=-1), rtol=_SAME, atol=_SAME):
            return None  # not linear in u_t
        found, info = torch.linalg.solve_ex(matrix, -rest[..., None])
        return None if bool(info.any()) else found.squeeze(-1)

    @torch.no_grad()
    def along(self, x: Tensor, start: Tensor, times: Tensor) -> Tensor | None:
        """Follow values (B, outputs) at points (B, d), whose time is the start's, through rising times (m,), (m, B, outputs).

        By Runge's and Kutta's fourth-order steps; None where there is no rate, or where the values leave what is finite.
        """
        found, value, now = [], start, float(x[0, self._time])
        for time in times.tolist():
            step = (time - now) / _STEPS
            for number in range(_STEPS):
                moved = self._step(x, value, now + number * step, step)
                if moved is None or not bool(moved.isfinite().all()):
                    return None
                value = moved
            now = time
            found.append(value)
        return torch.stack(found)

    def _step(self, x: Tensor, value: Tensor, time: float, step: float) -> Tensor | None:
        total, slope = torch.zeros_like(value), torch.zeros_like(value)
        for share, weight in ((0.0, 1.0), (0.5, 2.0), (0.5, 2.0), (1.0, 1.0)):
            found = self.rate(self._at(x, time + share * step), value + share * step * slope)
            if found is None:
                return None
            slope = found
            total = total + weight * slope
        return value + step / 6 * total

    def _at(self, x: Tensor, time: float) -> Tensor:
        found = x.clone()
        found[:, self._time] = time
        return found

    def _residuals(self, x: Tensor, value: Tensor, rate: Tensor) -> Tensor:
        """Evaluate the residuals (B, equations) of what does not vary in space."""
        second = {"axes": (x.shape[1],), "laplacian": (), "full": (x.shape[1],) * 2, "none": (0,)}[self._problem.second]
        gradient = value.new_zeros(*value.shape, x.shape[1])
        gradient[..., self._time] = rate
        jet = Jet(value, gradient, value.new_zeros(*value.shape, *second))
        return torch.stack(list(self._problem.interior(jet, x).values()), dim=-1)

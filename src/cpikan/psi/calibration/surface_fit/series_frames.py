"""Raw frames whose light and phase are Chebyshev series: normal equations from moments, without a Jacobian.

The products of series terms are sums of terms, T_i T_j = (T_{i+j} + T_{|i-j|}) / 2, so that every block of J'WJ is read off
the weighted moments of twice the degree: (2 d + 1)^2 sums over the samples where the Jacobian takes d^4 / 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor

from cpikan.psi.calibration.smooth_terms import terms
from cpikan.psi.calibration.surface_fit.frame_residuals import FrameResiduals, RobustLoss


@dataclass(frozen=True)
class Moments:
    """Sums of weighted products of series terms at ``points`` (B, 2) up to ``degree``."""

    points: Tensor
    degree: int
    _tables: tuple[Tensor, Tensor] = field(init=False, repr=False)
    _places: tuple[Tensor, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        y, x = (torch.from_numpy(chebvander(axis, 2 * self.degree)) for axis in self.points.numpy().T)
        object.__setattr__(self, "_tables", (y.mT.contiguous(), x))
        rows = terms(self.degree)
        size = 2 * self.degree + 1
        i, j = (torch.from_numpy(np.stack([part[:, None] + part, abs(part[:, None] - part)])) for part in rows.T)
        object.__setattr__(self, "_places", tuple(i[a] * size + j[b] for a in (0, 1) for b in (0, 1)))

    def sums(self, weights: Tensor) -> Tensor:
        """Compute moments (n, (2 degree + 1)^2) of weights (n, B)."""
        y, x = self._tables
        rows = (weights.mT.unsqueeze(-1) * x.unsqueeze(1)).flatten(1)
        return (y @ rows).unflatten(1, (len(weights), -1)).transpose(0, 1).flatten(1)

    def block(self, sums: Tensor, rows: int, columns: int) -> Tensor:
        """Compute weighted products of the first ``rows`` with the first ``columns`` terms, (n, rows, columns)."""
        total = sum(sums[:, place[:rows, :columns]] for place in self._places)
        assert isinstance(total, Tensor)
        return 0.25 * total


@dataclass(frozen=True)
class SeriesFrames(FrameResiduals):
    """`FrameResiduals` of a `LinearPhase` whose features, and those of the light, are `features` of the points."""

    moments: Moments | None = None

    def normal(self, parameters: Tensor, loss: RobustLoss) -> tuple[Tensor, Tensor, Tensor]:
        """Compute cost (n,), gradient (n, P) and J'WJ (n, P, P), the prior included."""
        if self.moments is None:
            return super().normal(parameters, loss)
        n, blocks = len(parameters), self.layout.blocks
        parts = self.layout.split(parameters)
        phase, slopes = self.form.value(parts.form), self.form.jacobian(parts.form[:1])[1][0]
        cost = self.prior(parameters)
        gradient = self.precision * (parameters - self.mean)
        matrix = torch.diag(self.precision).expand(n, -1, -1).clone()
        bases = {"background": self.light, "modulation": self.light, "phase": slopes}
        spans = [(slice(blocks[name][0], blocks[name][-1] + 1), basis) for name, basis in bases.items()]
        squares = parameters.new_zeros(6, n, len(self.points))
        slants = parameters.new_zeros(3, n, len(self.points))
        for frame in self.linearised(parts, phase):
            cost = cost + loss.value(frame.rest).sum(dim=-1)
            weight = loss.weight(frame.rest) * frame.sharp
            pull, weight = weight * frame.rest, weight * frame.sharp
            leaning = [weight * one for one in frame.lead]
            for i, one in enumerate(frame.lead):
                slants[i].addcmul_(pull, one)
            for i, (a, b) in enumerate(_PAIRS):
                squares[i].addcmul_(leaning[a], frame.lead[b])
            if not frame.own:
                continue
            extra, place = torch.stack(frame.own, dim=1), torch.from_numpy(frame.place)
            weighted = extra * weight.unsqueeze(1)
            gradient[:, place] += (extra @ pull.unsqueeze(-1)).squeeze(-1)
            matrix[:, place[:, None], place] += extra @ weighted.mT
            for one, (span, basis) in zip(frame.lead, spans, strict=True):
                cross = (weighted * one.unsqueeze(1)) @ basis
                matrix[:, place, span] += cross
                matrix[:, span, place] += cross.mT
        sums = self.moments.sums(squares.flatten(0, 1)).unflatten(0, (6, n))
        for i, (a, b) in enumerate(_PAIRS):
            (down, rows), (across, columns) = spans[a], spans[b]
            block = self.moments.block(sums[i], rows.shape[1], columns.shape[1])
            matrix[:, down, across] += block
            if a != b:
                matrix[:, across, down] += block.mT
        for one, (span, basis) in zip(slants, spans, strict=True):
            gradient[:, span] += one @ basis
        return cost, gradient, matrix


_PAIRS = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))

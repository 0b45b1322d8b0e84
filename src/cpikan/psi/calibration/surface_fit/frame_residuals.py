"""Raw frames of one wavelength as residuals: light, steps, tilts and gains are unknown beside a parametric phase.

For frames too few or too disturbed to be demodulated pixel by pixel: a smooth surface under smooth light has far fewer
unknowns than the frames have pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters
from cpikan.fields.parameter_jacobian import parameter_jacobian
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.robust import Loss
from cpikan.psi.calibration.parameter_vector import ParameterVector, stacked
from cpikan.psi.calibration.smooth_terms import terms


class PhaseForm(Protocol):
    """A phase in rad at fixed points as a function of its parameters (n, F)."""

    @property
    def parameters(self) -> int: ...

    def value(self, parameters: Tensor) -> Tensor:
        """Evaluate the phase in rad, (n, B)."""
        ...

    def jacobian(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the phase in rad, (n, B), and its derivatives, (n, B, F) or (1, B, F)."""
        ...


@dataclass(frozen=True)
class LinearPhase:
    """A sum of terms, ``features`` (B, F)."""

    features: Tensor

    @property
    def parameters(self) -> int:
        return self.features.shape[1]

    def value(self, parameters: Tensor) -> Tensor:
        """Evaluate the phase in rad, (n, B)."""
        return parameters @ self.features.mT

    def jacobian(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the phase in rad, (n, B), and its derivatives, (1, B, F)."""
        return self.value(parameters), self.features[None]


@dataclass(frozen=True)
class NetworkPhase:
    """A sum of fixed terms plus a network, both in rad, at ``points`` (B, 2); ``base`` makes the fixed part of points."""

    field: ScaledCPIKAN
    points: Tensor
    base: Callable[[Tensor], Tensor]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.field.parameters())

    def at(self, points: Tensor) -> NetworkPhase:
        """Move the phase to other points (B, 2)."""
        return replace(self, points=points)

    def value(self, parameters: Tensor) -> Tensor:
        """Evaluate the phase in rad, (n, B)."""
        call = functional(self.field)
        found = [call(named_parameters(self.field, one), self.points).squeeze(-1) for one in parameters]
        return self.base(self.points) + torch.stack(found)

    def jacobian(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the phase in rad, (n, B), and its derivatives, (n, B, F)."""
        found = [parameter_jacobian(self.field, self.points, one) for one in parameters]
        slopes = torch.stack([slope.squeeze(-2) for _, slope in found])
        return self.base(self.points) + torch.stack([value.squeeze(-1) for value, _ in found]), slopes


class FrameParts(NamedTuple):
    """Numbers of A and B (..., M), steps and gains less one (..., K - 1), tilts (..., K - 1, 2), the share of the second
    harmonic (..., 1), numbers of the phase (..., F)."""

    mean: Tensor
    power: Tensor
    steps: Tensor
    tilts: Tensor
    gains: Tensor
    second: Tensor
    form: Tensor


@dataclass(frozen=True)
class FrameLayout(ParameterVector):
    """Places of the numbers in the vector of parameters; frame 0 is the reference.

    ``light`` terms of A, as many of B, K - 1 steps (rad), K - 1 tilts (rad per unit, y and x) if ``fit_tilt``, K - 1 gains
    less one if ``fit_gain``, the second harmonic's share of B if there is one, ``form`` numbers of the phase.
    """

    frames: int
    light: int
    form: int
    fit_tilt: bool = True
    fit_gain: bool = False
    has_second_harmonic: bool = False

    @cached_property
    def blocks(self) -> dict[str, np.ndarray]:
        later = self.frames - 1
        shapes: dict[str, tuple[int, ...]] = {
            "background": (self.light,),
            "modulation": (self.light,),
            "step": (later,),
        }
        shapes |= {"tilt": (later * self.fit_tilt, 2), "gain": (later * self.fit_gain,)}
        return stacked(shapes | {"harmonic2": (int(self.has_second_harmonic),), "phase": (self.form,)})

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Count the numbers of each block."""
        return tuple(block.size for block in self.blocks.values())

    def split(self, parameters: Tensor) -> FrameParts:
        """Split the parameter vector (..., P) by its parts; zeros for those the layout does not have."""
        a, b, steps, tilts, gains, second, form = parameters.split(self.sizes, dim=-1)
        tilts = tilts.unflatten(-1, (-1, 2)) if self.fit_tilt else steps.new_zeros(*steps.shape, 2)
        gains = gains if self.fit_gain else torch.zeros_like(steps)
        second = second if self.has_second_harmonic else torch.zeros_like(a[..., :1])
        return FrameParts(a, b, steps, tilts, gains, second, form)

    def own(self, k: int) -> np.ndarray:
        """Locate what frame ``k`` depends on beside light and phase: its step, tilt and gain, and the harmonic."""
        frame = slice(max(k - 1, 0), k)
        mine = (self.blocks[name][frame].ravel() for name in ("step", "tilt", "gain"))
        return np.concatenate([*mine, self.blocks["harmonic2"]])


class LinearFrame(NamedTuple):
    """Derivatives of one frame's samples, each (n, B): ``lead`` by A, B and the phase, ``own`` by the numbers at ``place``
    of the vector; ``rest`` (n, B) is model minus samples in units of their noise, one over ``sharp`` (B,)."""

    place: np.ndarray
    lead: tuple[Tensor, Tensor, Tensor]
    own: list[Tensor]
    rest: Tensor
    sharp: Tensor


@dataclass(frozen=True)
class FrameResiduals:
    """Residuals of raw frames under the model, in units of their noise, and normal equations frame by frame.

    ``points`` (B, 2) in [-1, 1]; ``frames`` (K, B) in a unit of noise, of which a sample has one over ``sharpness`` (K, B)
    or (1, 1), one unless given; ``light`` (B, M) the smooth terms of A and B; ``mean`` and ``precision`` (P,) a
    Gaussian prior of the parameters. Only one frame's Jacobian exists at a time.
    """

    layout: FrameLayout
    points: Tensor
    frames: Tensor
    light: Tensor
    form: PhaseForm
    mean: Tensor
    precision: Tensor
    sharpness: Tensor = field(default_factory=lambda: torch.ones(1, 1, dtype=torch.float64))

    def __post_init__(self) -> None:
        if self.frames.ndim != 2 or len(self.frames) < 2 or self.frames.shape[1] != len(self.points):
            raise InputError(
                f"frames of shape {tuple(self.frames.shape)} at {len(self.points)} points: give at least two frames (K, B)"
            )
        object.__setattr__(self, "sharpness", self.sharpness.expand_as(self.frames))

    def residuals(self, parameters: Tensor) -> Tensor:
        """Compute model minus frames (n, K, B), in units of the noise, for parameters (n, P)."""
        parts = self.layout.split(parameters)
        mean, power, phase = parts.mean @ self.light.mT, parts.power @ self.light.mT, self.form.value(parts.form)
        rows = []
        for k in range(self.layout.frames):
            angle, gain = self._argument(k, parts, phase)
            wave = torch.cos(angle) + parts.second * torch.cos(2 * angle)
            rows.append(self.sharpness[k] * (gain * (mean + power * wave) - self.frames[k]))
        return torch.stack(rows, dim=1)

    def _argument(self, k: int, parts: FrameParts, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the argument of the fringes of frame ``k`` in rad, (n, B), and the gain of that frame."""
        if not k:
            return phase, torch.ones_like(phase[:, :1])
        angle = phase + parts.steps[:, k - 1, None] + parts.tilts[:, k - 1] @ self.points.mT
        return angle, 1 + parts.gains[:, k - 1, None]

    def linearised(self, parts: FrameParts, phase: Tensor) -> Iterator[LinearFrame]:
        """Linearise every frame about some parameters and their ``phase`` (n, B)."""
        mean, power, layout = parts.mean @ self.light.mT, parts.power @ self.light.mT, self.layout
        for k in range(layout.frames):
            angle, gain = self._argument(k, parts, phase)
            double = torch.cos(2 * angle)
            wave = torch.cos(angle) + parts.second * double
            fall = -gain * power * (torch.sin(angle) + 2 * parts.second * torch.sin(2 * angle))
            light = mean + power * wave
            own = [fall, *(fall * axis for axis in self.points.T if layout.fit_tilt)] if k else []
            own += [light] if k and layout.fit_gain else []
            own += [gain * power * double] if layout.has_second_harmonic else []
            rest = self.sharpness[k] * (gain * light - self.frames[k])
            yield LinearFrame(layout.own(k), (gain.expand_as(wave), gain * wave, fall), own, rest, self.sharpness[k])

    def prior(self, parameters: Tensor) -> Tensor:
        """Compute half the sum of squared departures from the prior in its units, (n,)."""
        return 0.5 * (self.precision * (parameters - self.mean) ** 2).sum(dim=-1)

    def cost(self, parameters: Tensor, loss: Loss) -> Tensor:
        """Compute the loss of each problem with its prior, (n,)."""
        return loss.value(self.residuals(parameters)).sum(dim=(-2, -1)) + self.prior(parameters)

    def normal(self, parameters: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Compute cost (n,), gradient (n, P) and J'WJ (n, P, P), the prior included."""
        n, blocks = len(parameters), self.layout.blocks
        parts = self.layout.split(parameters)
        phase, slopes = self.form.jacobian(parts.form)
        cost = self.prior(parameters)
        gradient = self.precision * (parameters - self.mean)
        matrix = torch.diag(self.precision).expand(n, -1, -1).clone()
        light = self.light.expand(n, -1, -1)
        for frame in self.linearised(parts, phase):
            by_mean, by_power, by_phase = (one.unsqueeze(-1) for one in frame.lead)
            own = [torch.stack(frame.own, dim=-1)] if frame.own else []
            rows = torch.cat([by_mean * light, by_power * light, *own, by_phase * slopes], dim=-1)
            weighted = rows * (loss.weight(frame.rest) * frame.sharp).unsqueeze(-1)
            where = [blocks["background"], blocks["modulation"], frame.place, blocks["phase"]]
            place = torch.from_numpy(np.concatenate(where)).to(parameters.device)
            gradient[:, place] += (frame.rest.unsqueeze(-2) @ weighted).squeeze(-2)
            matrix[:, place[:, None], place] += rows.mT @ (weighted * frame.sharp.unsqueeze(-1))
            cost = cost + loss.value(frame.rest).sum(dim=-1)
        return cost, gradient, matrix


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

    def normal(self, parameters: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
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

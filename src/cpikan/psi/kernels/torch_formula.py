"""The pixel pass as torch functions of flat pixels: eager on any device, one fused kernel each where they are compiled.

Every number of a stack comes in as a tensor and every loop has a fixed length, so that what was compiled for a number of
wavelengths, frames and a pixel type serves every stack of that kind. Phase arithmetic is float32, as on the CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpikan.psi.kernels.model import LOW_SIGMA_RAD, PARITY_BEND, PARITY_MAX, PARITY_ROUNDING, PixelModel
from cpikan.psi.model.flags import Flag

CHUNK = 16  # orders one compiled search tries; a longer search calls it again
_TURN = 2 * math.pi
_LOW_VARIANCE = (LOW_SIGMA_RAD / _TURN) ** 2  # turns^2
_TINY, _LARGE = 1e-30, 1e30
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)
_SATURATION, _SNR_MIN, _MARGIN_MIN, _MISFIT_MAX, _JOINT, _HALF_WAVE, _BLACK = range(7)  # of ``level``
_LOWEST, _END, _ORDERS = range(3)  # of ``near`` and ``wide``


class Constants(NamedTuple):
    """A stack's model on the device, wavelengths anchor first.

    ``weights`` (4, L, K): cosine, sine, mean, parity; ``noise`` (L, 6): read, gain, var u, cov u v, var v, phase floor
    (turns^2); ``level`` (7,): saturation, smallest signal-to-noise, smallest margin, largest misfit, 1 for the joint height
    and 0 for the anchor's alone, half a wave in nm, black; ``ratio`` (L,); all float32. ``planes`` (L, 3): piston,
    tilt in y and x (turns), ``centre`` (2,), float64. ``near`` and ``wide`` (3,) float32: lowest height, end (turns)
    and number of orders. ``bow`` (L, 5, 5) float64, or (L, 0, 0): the factors of y^i x^j of smooth errors.
    """

    weights: Tensor
    noise: Tensor
    level: Tensor
    ratio: Tensor
    planes: Tensor
    centre: Tensor
    near: Tensor
    wide: Tensor
    bow: Tensor


class Kind(NamedTuple):
    """What is compiled in: int16 samples hold the bits of uint16 (torch has few operations on it); Carre's formula."""

    unsigned16: bool
    carre: bool


class Pixels(NamedTuple):
    """Pixels in the order of their rows: ``samples`` (L, K, P), anchor first; ``inside`` (P,) uint8, the mask.

    ``place`` (3,) int32: the first pixel's column, the image's width, the first pixel's row.
    """

    samples: Tensor
    inside: Tensor
    place: Tensor


class Waves(NamedTuple):
    """Phases ``turns`` and their ``weight`` (turns^-2), anchor first, L tensors (P,) each."""

    turns: tuple[Tensor, ...]
    weight: tuple[Tensor, ...]


class Found(NamedTuple):
    """State of an order search: least misfit, the runner-up's, order and correction (turns), each (P,) float32."""

    best: Tensor
    second: Tensor
    order: Tensor
    shift: Tensor


class Phasors(NamedTuple):
    """Demodulated pixels: phases and weights; sigma (of the height, in turns or nm, or of the phase); modulation; flags."""

    waves: Waves
    sigma: Tensor
    modulation: Tensor
    flags: Tensor


class Formed(NamedTuple):
    """Finished pixels: height or phase, float32; flags, uint8; ``far``: valid, but no order tried so far fits."""

    value: Tensor
    flags: Tensor
    far: Tensor


def constants(model: PixelModel, device: torch.device) -> Constants:
    """Pack a model for the device; one wavelength gets an empty search."""
    d, search = model.demodulation, model.search
    order = list(range(d.wavelengths)) if search is None else list(search.order)
    noise = np.concatenate([d.noise, d.covariance, d.phase_floor_rad2[:, None] / _TURN**2], axis=1)[order]
    weights = np.stack([d.cosine, d.sine, d.mean, d.parity])[:, order]
    level = [d.saturation_dn, d.snr_min, 0.0, math.inf, 1.0, 1.0, d.black_dn]
    ratio, centre = np.ones(len(order)), np.zeros(2)
    planes, near, wide = np.zeros((len(order), 3)), np.zeros(3), np.zeros(3)
    if search is not None:
        half = search.half_wave_nm
        level[_MARGIN_MIN:_BLACK] = [search.margin_min, search.misfit_max, 0.0 if search.finest else 1.0, half]
        ratio, centre = search.ratio, np.asarray(search.centre)
        planes = np.column_stack([search.piston_turns, search.tilt_turns])
        near = np.array(
            [search.near_low_nm / half, (search.near_low_nm + search.near_range_nm) / half, search.near_candidates]
        )
        wide = np.array([search.low_nm / half, (search.low_nm + search.range_nm) / half, search.candidates])

    def single(values: object) -> Tensor:
        return torch.tensor(np.asarray(values, np.float32), device=device)

    def double(values: object) -> Tensor:
        return torch.tensor(np.asarray(values, np.float64), device=device)

    return Constants(
        single(weights),
        single(noise),
        single(level),
        single(ratio),
        double(planes),
        double(centre),
        single(near),
        single(wide),
        double(np.zeros((len(order), 0, 0)) if search is None or search.bow_turns is None else search.bow_turns),
    )


def demodulate(pixels: Pixels, c: Constants, kind: Kind) -> Phasors:
    """Demodulate frames to phases and sigma in turns, modulation, and the flags that need no order."""
    samples = pixels.samples
    turns, weight = [], []
    snr = power_sum = torch.zeros_like(pixels.inside, dtype=torch.float32)
    clipped = black = weak = torch.zeros_like(pixels.inside, dtype=torch.bool)
    for i in range(samples.shape[0]):
        stack = [_number(samples[i, k], kind.unsigned16) for k in range(samples.shape[1])]
        u, v, mean, parity = (_carre_sums if kind.carre else _sums)(stack, c.weights[:, i])
        power = u * u + v * v
        variance, modulation_variance, sample_variance = _variances(u, v, mean, power, c.noise[i])
        over = ((parity * parity - PARITY_ROUNDING * mean * mean) / sample_variance - PARITY_MAX).clamp_min(0)
        excess = 1 + over * (2 + PARITY_BEND * over)
        turns.append(torch.atan2(v, u) * (1 / _TURN))
        weight.append(1 / (variance.clamp_min(_TINY) * excess))
        snr = snr + power / (modulation_variance.clamp_min(_TINY) * excess)
        power_sum = power_sum + power.sqrt()
        weak = weak | ~(variance <= _LOW_VARIANCE)
        for sample in stack:
            clipped = clipped | (sample >= c.level[_SATURATION])
            black = black | (sample <= c.level[_BLACK])
    measured = (snr >= c.level[_SNR_MIN]) & (snr > 0) & (snr < _LARGE)
    clipped = clipped | (black & measured)  # what is black and shows no fringes is dark, not clipped
    valid = measured & (pixels.inside != 0) & ~clipped
    waves = Waves(tuple(turns), tuple(weight))
    joint = torch.where(c.level[_JOINT] > 0, _joint_variance(waves, c.ratio), 1 / weight[0])
    weak = weak | (joint > _LOW_VARIANCE)
    flags = _bit(~valid, _INVALID) | _bit(clipped, _SATURATED) | _bit(~clipped & (weak | ~measured), _LOW)
    modulation = torch.where(power_sum < _LARGE, power_sum / samples.shape[0], 0.0)
    return Phasors(waves, torch.where(valid, joint.sqrt(), math.nan), modulation, flags)


def _number(sample: Tensor, unsigned16: bool) -> Tensor:
    if unsigned16:
        return (sample.to(torch.int32) & 0xFFFF).to(torch.float32)
    return sample.to(torch.float32)


def _bit(where: Tensor, bit: int) -> Tensor:
    return where.to(torch.uint8) * bit


def _sums(stack: list[Tensor], weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum K frames with ``weights`` (4, K): u, v, the mean and parity."""
    u, v, mean, parity = (weights[row, 0] * stack[0] for row in range(4))
    for k, sample in enumerate(stack[1:], 1):
        u = u + weights[0, k] * sample
        v = v + weights[1, k] * sample
        mean = mean + weights[2, k] * sample
        parity = parity + weights[3, k] * sample
    return u, v, mean, parity


def _carre_sums(stack: list[Tensor], weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute Carre's square root for four frames; see `cpikan.psi.model.schemes`."""
    real, imag, scale, sign = (weights[0, k] for k in range(4))
    i0, i1, i2, i3 = stack
    outer, inner = i0 - i3, i1 - i2
    even = (i1 + i2 - i0 - i3) * scale
    odd = ((3 * inner - outer) * (inner + outer)).abs().sqrt() * scale.abs() * sign * inner.sign()
    mean = (i0 + i1 + i2 + i3) * 0.25
    return even * real - odd * imag, even * imag + odd * real, mean, torch.zeros_like(mean)


def _variances(u: Tensor, v: Tensor, mean: Tensor, power: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the variance of the phase (turns^2) with its floor, of the modulation, and of a sample."""
    read, gain, var_u, cov, var_v, floor = (noise[k] for k in range(6))
    sample_variance = read + gain * mean.clamp_min(0)
    spread = sample_variance * (var_u * v * v - 2 * cov * u * v + var_v * u * u)
    modulation_variance = sample_variance * (var_u + var_v) * 0.5
    # the noise adds 2 var B to B^2 on average: take it off, or weak pixels would look better than they are
    true_power = torch.maximum(power - 2 * modulation_variance, power * 0.25)
    return spread * (1 / _TURN**2) / (power * true_power).clamp_min(_TINY) + floor, modulation_variance, sample_variance


def _joint_variance(waves: Waves, ratio: Tensor) -> Tensor:
    """Compute the variance of the height from all wavelengths, turns^2 of the anchor."""
    total = waves.weight[0] * (ratio[0] * ratio[0])
    for i, row in enumerate(waves.weight[1:], 1):
        total = total + row * (ratio[i] * ratio[i])
    return 1 / total


def remove_pistons(turns: tuple[Tensor, ...], place: Tensor, c: Constants) -> tuple[Tensor, ...]:
    """Remove relative piston and tilt from phases in turns; ``place`` as in `Pixels`.

    Whole turns of the planes do not matter, so they are taken off in float64 and what is left is exact to 3e-8 turns.
    """
    index = torch.arange(turns[0].shape[0], dtype=torch.int32, device=turns[0].device) + place[0]
    row = torch.div(index, place[1], rounding_mode="floor")
    x = (index - row * place[1]).to(torch.float64) - c.centre[1]
    y = (row + place[2]).to(torch.float64) - c.centre[0]
    level = []
    for i, phase in enumerate(turns):
        plane = c.planes[i, 0] + c.planes[i, 1] * y + c.planes[i, 2] * x
        if c.bow.shape[1] > 0:
            plane = plane + _bow(c.bow[i], y, x)
        level.append(phase - (plane - plane.round()).to(torch.float32))
    return tuple(level)


def _bow(factors: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Evaluate the sum of ``factors`` (5, 5) times y^i x^j by Horner's rule."""
    total = torch.zeros_like(y)
    for i in range(4, -1, -1):
        along = torch.zeros_like(x)
        for j in range(4, -1, -1):
            along = along * x + factors[i, j]
        total = total * y + along
    return total


def nothing_found(like: Tensor) -> Found:
    """Make the state before the first order is tried."""
    most, none = torch.full_like(like, _LARGE), torch.zeros_like(like)
    return Found(most, most.clone(), none, none.clone())


def try_orders(waves: Waves, ratio: Tensor, limits: Tensor, first: Tensor, found: Found) -> Found:
    """Try `CHUNK` orders from the one ``first`` (0-d float32) above the lowest within ``limits`` (`Constants.near`)."""
    turns, weight = waves
    total = _joint_variance(waves, ratio)
    start = torch.ceil(limits[_LOWEST] - turns[0])
    best, second, order, shift = found
    for j in range(CHUNK):
        step = first + j
        k = start + step
        anchor = turns[0] + k
        misfit = slope = torch.zeros_like(anchor)
        for i in range(1, len(turns)):
            residual = turns[i] - anchor * ratio[i]
            residual = residual - residual.round()
            weighted = weight[i] * residual
            misfit = misfit + weighted * residual
            slope = slope + weighted * ratio[i]
        correction = slope * total
        # the lowest order is tried in any case: a range may be shorter than half a wave
        asked = (step == 0) | ((anchor < limits[_END]) & (step < limits[_ORDERS]))
        misfit = torch.where(asked, misfit - slope * correction, _LARGE)
        better = misfit < best
        second = torch.minimum(second, torch.maximum(misfit, best))
        order, shift = torch.where(better, k, order), torch.where(better, correction, shift)
        best = torch.minimum(misfit, best)
    return Found(best, second, order, shift)


def form(anchor: Tensor, found: Found, flags: Tensor, level: Tensor) -> Formed:
    """Form the height once (nm; NaN where there is no measurement) and flag doubtful orders."""
    valid = (flags & _INVALID) == 0
    height = (anchor + found.order + level[_JOINT] * found.shift) * level[_HALF_WAVE]
    far = valid & (found.best > level[_MISFIT_MAX])
    doubtful = far | (valid & (found.second - found.best < level[_MARGIN_MIN]))
    return Formed(torch.where(valid, height, math.nan), flags | _bit(doubtful, _AMBIGUOUS), far)


def measure(pixels: Pixels, c: Constants, kind: Kind) -> tuple[Phasors, Found, Formed]:
    """Convert frames of several wavelengths to heights and sigma in nm by the first `CHUNK` orders of the near ones."""
    raw = demodulate(pixels, c, kind)
    waves = raw.waves._replace(turns=remove_pistons(raw.waves.turns, pixels.place, c))
    first = torch.zeros_like(c.level[_SATURATION])
    found = try_orders(waves, c.ratio, c.near, first, nothing_found(waves.turns[0]))
    phasors = raw._replace(waves=waves, sigma=raw.sigma * c.level[_HALF_WAVE])
    return phasors, found, form(waves.turns[0], found, raw.flags, c.level)


def wrap(pixels: Pixels, c: Constants, kind: Kind) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Convert frames of one wavelength to wrapped phase and sigma (rad; NaN if not measured), modulation and flags."""
    raw = demodulate(pixels, c, kind)
    valid = (raw.flags & _INVALID) == 0
    phase = torch.where(valid, raw.waves.turns[0] * _TURN, math.nan)
    return phase, raw.sigma * _TURN, raw.modulation, raw.flags

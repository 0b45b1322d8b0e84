"""The detector's response, fitted to the frames: the curve that turns bent fringes back into cosines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cpikan.psi.calibration.steps.iterate import Solution, solve
from cpikan.psi.calibration.steps.model import Effect, Layout, Samples
from cpikan.psi.model.frame_model import HIGHEST, Response, bends, fringe_columns

FEWEST_FRAMES = 6  # two samples more than a pixel's unknowns are too few to tell a bent curve from noise
_ROUNDS = 4  # the curve's own change is then below a thousandth of it
_ITERATIONS = 12
_TAILS = (0.001, 0.999)  # single samples far out would decide on the ends of the curve
_BENT: frozenset[Effect] = frozenset({"harmonic2", "harmonic3"})


@dataclass(frozen=True)
class Bent:
    """A solution for light instead of samples; ``response`` in the units of the samples, ``cost`` comparable with that of a
    solution for the samples as they are."""

    solution: Solution
    samples: Samples
    response: Response
    cost: float


def fit_response(samples: Samples, start: Solution) -> Bent | None:
    """Fit the curve, and the frames without harmonics, from a solution with harmonics; None where no rising curve serves.

    Under given steps the curve that makes the fringes cosines is linear least squares: what the design leaves of a sample
    and of its bends must vanish. Curve and frames are found in turn. The cost counts the curve's slope (the density of the
    samples is that of the light times the slope), so that a curve that flattens noise wins nothing.
    """
    if samples.frames < FEWEST_FRAMES:
        return None
    low, high = (float(v) for v in np.quantile(samples.values, _TAILS))
    layout = replace(start.layout, effects=start.layout.effects - _BENT)
    theta, spread, found = start.layout.moved_to(layout, start.state.theta), start.spread, None
    for _ in range(_ROUNDS):
        response = _curve(samples, layout, theta, low, high)
        if not response.is_rising:
            return None
        light = Samples(response.light_dn(samples.values), samples.waves, samples.fields)
        found = solve(light, layout, theta, _ITERATIONS, spread)
        theta, spread = found.state.theta, found.spread
    assert found is not None
    slope = np.log(np.maximum(response.slope(samples.values), 1e-6))
    return Bent(found, light, response, found.cost - 2 * float(slope.sum(axis=0).mean()))


def _curve(samples: Samples, layout: Layout, theta: np.ndarray, low: float, high: float) -> Response:
    at = layout.unpack(theta)
    delta = np.moveaxis(at.wave @ samples.wave_terms(layout), 0, -1)
    scale = at.gain[:, None] * np.stack([np.ones_like(at.contrast), at.contrast, at.contrast], axis=1)
    across = np.linalg.qr(fringe_columns(delta) * scale)[0]
    plain = Response(low, high, ())
    curves = bends(plain.at(samples.values), HIGHEST)[1:]
    rest = [_rest(across, part) for part in (samples.values - at.offset[:, None], *curves)]
    columns = np.stack([part.ravel() for part in rest[1:]], axis=1)
    factors = np.linalg.lstsq(columns.T @ columns, -columns.T @ rest[0].ravel(), rcond=1e-12)[0]
    bent = Response(low, high, (0.0, *(float(f) for f in factors)))
    mean = float(bent.slope(samples.values).mean())
    # light in units of the samples: a curve's straight part is a matter of units
    return Response(low, high, ((1 / mean - 1) * (high - low) / 2, *(float(f / mean) for f in factors)))


def _rest(across: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Subtract what the columns of every pixel (P, K, 3) explain of values (K, P): (P, K)."""
    samples = values.T
    held = np.einsum("pkc,pk->pc", across, samples)
    return samples - np.einsum("pkc,pc->pk", across, held)


def scaled_response(response: Response, scale: float) -> Response:
    """Convert a curve to samples in units ``scale`` times smaller."""
    return Response(
        response.low_dn * scale, response.high_dn * scale, tuple(c * scale for c in response.coefficients_dn)
    )

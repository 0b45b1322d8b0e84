"""Numbers of optical surfaces: Seidel aberrations, radius of curvature, irregularity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.form import Form, fit_form
from cpikan.surface.forms.zernike import ZernikeBasis, fringe_mode
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

_SEIDEL_TERMS = 9
_STEPS, _ENOUGH = 50, 1e-13


@dataclass(frozen=True)
class Seidel:
    """Third-order aberrations of a surface in nm at the pupil's edge, angles in degrees from +x towards +y of the rows."""

    tilt_nm: float
    tilt_deg: float
    focus_nm: float
    astigmatism_nm: float
    astigmatism_deg: float
    coma_nm: float
    coma_deg: float
    spherical_nm: float


def seidel(form: Form) -> Seidel:
    """Compute Seidel aberrations from the fringe terms 1 to 9 of a form that was fitted with them ("zernike:9" or more).

    W = tilt r cos + focus r^2 + astigmatism r^2 cos^2 + coma r^3 cos + spherical r^4 (Wyant and Creath 1992, section XII); of
    the two ways to share r^2 between focus and astigmatism the one with the smaller focus is taken. Raises InputError for a
    form without these terms, or of an annulus, whose polynomials are others.
    """
    modes = [fringe_mode(k) for k in range(1, _SEIDEL_TERMS + 1)]
    if any(mode not in form.basis.modes for mode in modes) or form.pupil.obscuration:
        raise InputError("Seidel aberrations need the fringe terms 1 to 9 on a disc: fit the form with zernike:9")
    edge = _edge_values(modes)
    z = [form.coefficient_nm(mode) * value for mode, value in zip(modes, edge, strict=True)]
    tilt_x, tilt_y = z[1] - 2 * z[6], z[2] - 2 * z[7]
    focus, cylinder = 2 * z[3] - 6 * z[8], math.hypot(z[4], z[5])
    sign = 1.0 if abs(focus - cylinder) < abs(focus + cylinder) else -1.0
    axis = math.degrees(math.atan2(z[5], z[4])) / 2 + (0.0 if sign > 0 else 90.0)
    return Seidel(
        math.hypot(tilt_x, tilt_y),
        math.degrees(math.atan2(tilt_y, tilt_x)),
        focus - sign * cylinder,
        2 * sign * cylinder,
        axis,
        3 * math.hypot(z[6], z[7]),
        math.degrees(math.atan2(z[7], z[6])),
        6 * z[8],
    )


def _edge_values(modes: list[tuple[int, int]]) -> list[float]:
    """Give the radial parts at the pupil's edge of polynomials of unit RMS: what turns their factors into fringe ones."""
    one = ZernikeBasis(tuple((n, abs(m)) for n, m in modes)).values(np.zeros(1), np.ones(1))
    return [float(value) for value in one[:, 0]]


@dataclass(frozen=True)
class Sphere:
    """The sphere nearest to a map: radius in mm, positive for a bowl (higher at the edge), the RMS of the rest in nm."""

    radius_mm: float
    rest_nm: float


def best_sphere(height_nm: Float[np.ndarray, "h w"], pixel_um: PixelUm) -> Sphere:
    """Fit a sphere to a map (H, W) by least squares of heights, with its centre and height; NaN ignored.

    Newton's steps of Gauss from the paraboloid; the curvature is what is solved for, so that a flat map is no special case
    (its radius is infinite). Raises InputError for fewer than four valid pixels, or without a pixel size.
    """
    pair = pixel_pair(pixel_um)
    heights = np.asarray(height_nm, np.float64)
    y, x = np.nonzero(np.isfinite(heights))
    if pair is None or y.size < 4:
        raise InputError(
            f"{y.size} valid pixels and pixels of {pixel_um} um give no sphere: give four or more, and a size"
        )
    z = heights[y, x] / 1000  # um, as x and y
    x, y = (x - x.mean()) * pair[1], (y - y.mean()) * pair[0]
    far = float(np.hypot(x, y).max()) or 1.0
    x, y, z = x / far, y / far, (z - z.mean()) / far
    terms = np.stack([np.ones(x.size), x, y, (x * x + y * y) / 2], 1)
    guess = np.linalg.lstsq(terms, z, rcond=None)[0]
    for _ in range(_STEPS):
        surface, slopes = _cap(guess, x, y)
        change = np.linalg.lstsq(slopes, z - surface, rcond=None)[0]
        guess = guess + change
        if np.abs(change).max() <= _ENOUGH * max(1.0, float(np.abs(guess).max())):
            break
    rest = z - _cap(guess, x, y)[0]
    radius = math.inf if guess[3] == 0 else far / float(guess[3]) / 1000
    return Sphere(radius, float(np.sqrt((rest**2).mean())) * far * 1000)


def _cap(guess: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Evaluate the cap of a sphere that has height, slopes and curvature of ``guess`` at the middle, and its derivatives.

    On a sphere of curvature k through (0, 0, h) with slopes (p, q) there z = h + v, v = p x + q y + s k (x^2 + y^2 + v^2) / 2,
    s = sqrt(1 + p^2 + q^2): a quadratic in v, solved without loss for small k.
    """
    height, p, q, k = guess
    bend = k * math.sqrt(1 + p * p + q * q)
    plain = p * x + q * y + bend * (x * x + y * y) / 2
    root = np.sqrt(np.maximum(1 - 2 * bend * plain, 1e-12))
    v = 2 * plain / (1 + root)
    # by the rule of implicit functions, the change of bend with the slopes included
    of_bend = (x * x + y * y + v * v) / 2 / root
    scale = k / math.sqrt(1 + p * p + q * q)
    slopes = np.stack(
        [
            np.ones(x.size),
            x / root + of_bend * scale * p,
            y / root + of_bend * scale * q,
            of_bend * math.sqrt(1 + p * p + q * q),
        ],
        1,
    )
    return height + v, slopes


@dataclass(frozen=True)
class Irregularity:
    """What a map departs from its nearest sphere (power) form, in nm: ISO 10110-5's irregularity and its RMS."""

    power_nm: float
    pv_nm: float
    rms_nm: float


def irregularity(height_nm: Float[np.ndarray, "h w"], pupil: Circle | None = None) -> Irregularity:
    """Measure what is left of a map without piston, tilt and power, and the power itself as its PV over the pupil.

    NaN ignored; the pupil is the circle around the valid pixels unless it is given, and only its pixels count.
    """
    form = fit_form(height_nm, None, "piston,tilt,power", pupil)
    rest = form.remove(np.asarray(height_nm, np.float64))
    rest = rest[form.pupil.inside(0, *rest.shape) & np.isfinite(rest)]
    if not rest.size:
        raise InputError("no pixel of the pupil is valid: give another circle")
    power = 2 * math.sqrt(3) * form.coefficient_nm((2, 0))  # sqrt 3 (2 r^2 - 1) from the middle to the edge
    return Irregularity(power, float(np.ptp(rest)), float(rest.std()))

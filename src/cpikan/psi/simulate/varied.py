"""Surfaces of many kinds and scales, one per seed: what a network has to see that is to serve wafers it has not seen."""

from __future__ import annotations

import math

import numpy as np

from cpikan.psi.simulate.random import generator
from cpikan.psi.simulate.settings import SurfaceSettings

_DRAW = 31
_KINDS = ("wafer", "etched", "bumps", "smooth", "plain")
_PIXEL_MM = (0.04, 0.7)  # a camera of 9344 pixels to one of 512 on 300 mm
_STEP_NM = (20.0, 2000.0)
_USUAL_STEP_NM = (80.0, 200.0)
_DETAIL_NM = (3.0, 60.0)


def varied_surface(seed: int, size_px: int, form_peak_nm: float) -> tuple[SurfaceSettings, float]:
    """Draw a surface by ``seed``, and its pixel size in um, for fields of about ``size_px`` pixels.

    Details are drawn in pixels, so every seed has some that a pixel resolves: dies and streets of all sizes with steps of 20
    to 2000 nm (half of them 80 to 200), bumps, scratches of one pixel and more, particles, nanotopography up to 60 nm rms.
    Bow and warp stay below ``form_peak_nm``; one surface in five has none of the details.
    """
    draw = generator(seed, _DRAW)
    kind = _KINDS[int(draw.integers(len(_KINDS)))]
    pixel_mm = _between(draw, *_PIXEL_MM)
    extent_mm = size_px * pixel_mm
    detailed = kind in ("wafer", "etched", "bumps")
    step_nm = _between(draw, *_STEP_NM) if draw.random() < 0.5 else float(draw.uniform(*_USUAL_STEP_NM))
    die_mm = (float(extent_mm * draw.uniform(0.03, 0.4)), float(extent_mm * draw.uniform(0.03, 0.4)))
    settings = SurfaceSettings(
        disc=bool(draw.random() < 0.5) and extent_mm > 200,
        form_peak_nm=float(form_peak_nm * draw.random()),
        nano_rms_nm=_between(draw, *_DETAIL_NM) if kind == "smooth" or draw.random() < 0.5 else 0.0,
        die_step_nm=step_nm if kind in ("wafer", "etched") else 0.0,
        die_levels=int(draw.integers(1, 5)),
        die_mm=die_mm,
        street_mm=float(min(die_mm) * draw.uniform(0.02, 0.4)),
        bumps=int(draw.integers(0, 120)) if kind in ("wafer", "bumps") else 0,
        bump_nm=_between(draw, 30.0, 1000.0),
        bump_mm=float(pixel_mm * draw.uniform(4, 40)),
        scratches=int(draw.integers(0, 30)) if detailed else 0,
        scratch_nm=_between(draw, 30.0, 400.0),
        scratch_mm=float(pixel_mm * draw.uniform(0.8, 4)),
        particles=int(draw.integers(0, 20)) if kind == "wafer" else 0,
        particle_nm=_between(draw, 100.0, 1000.0),
        particle_mm=float(pixel_mm * draw.uniform(1.5, 12)),
    )
    return settings, 1e3 * pixel_mm


def _between(draw: np.random.Generator, low: float, high: float) -> float:
    """Draw a number from ``low`` to ``high``, evenly in the logarithm."""
    return float(math.exp(draw.uniform(math.log(low), math.log(high))))

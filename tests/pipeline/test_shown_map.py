"""What a network is shown does not depend on how steep the form of a map is."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.images.features import FeatureSpec
from cpikan.pipeline.reconstruction.shown_map import ShownMap
from cpikan.psi.model.flags import Flag

SHAPE = (96, 128)
SIGMA_NM = 2.0
WAVE_NM = 600.0


def shown(form_nm: np.ndarray, spec: FeatureSpec) -> tuple[ShownMap, np.ndarray]:
    """Steps and noise of 2 nm on a form, a third of a row missing; the phase of one wavelength."""
    rng = np.random.default_rng(3)
    height = form_nm + rng.normal(0, SIGMA_NM, SHAPE) + 30.0 * (np.arange(SHAPE[1]) // 32 % 2)
    flags = np.zeros(SHAPE, np.uint8)
    flags[40, :40] = Flag.INVALID
    quantities = {
        "height_nm": np.where(flags == 0, height, np.nan).astype(np.float32),
        "sigma_nm": np.full(SHAPE, SIGMA_NM, np.float32),
        "flags": flags,
        "modulation": np.full(SHAPE, 50.0, np.float32),
    }
    phase = np.angle(np.exp(1j * (4 * np.pi / WAVE_NM * height + 0.3)))[None].astype(np.float32)
    found = ShownMap.of(
        spec,
        lambda start, stop: {name: rows[start:stop] for name, rows in quantities.items()},
        lambda start, stop: phase[:, start:stop],
        SHAPE,
    )
    planes = np.empty(found.planes, np.float32)
    found.fill(0, SHAPE[0], planes)
    return found, planes


def bowl_nm(rise_nm: float) -> np.ndarray:
    y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    return rise_nm * np.add.outer(y**2, x**2 + 0.5 * x)


@pytest.mark.parametrize("rise_nm", [1e3, 2e4])
def test_a_steep_form_is_taken_off_and_phases_follow(rise_nm):
    """Differences have a noise of 2.83 nm: 35 terms fitted to 12000 of them rise wrongly by 2.83 sqrt(35 / 12000) = 0.15 nm."""
    spec = FeatureSpec(wavelengths_nm=(WAVE_NM,), modulation=True)
    flat, without = shown(np.zeros(SHAPE), spec)
    steep, planes = shown(bowl_nm(rise_nm), spec)
    assert flat.form is None
    assert steep.form is not None
    assert steep.unit_nm == pytest.approx(flat.unit_nm, rel=0.01)
    inside = without[2] > 0
    assert np.array_equal(planes[[1, 2, 4]], without[[1, 2, 4]])
    for plane in (planes, without):
        plane[0] -= np.median(plane[0][inside])
    rises = np.diff(planes[0] - without[0], axis=1)[inside[:, 1:] & inside[:, :-1]]
    assert np.sqrt(np.mean(rises**2)) <= 2 * 0.15
    # the phasor beside the guide: the same angle between the phase and what the height says
    beside = [p[3] - 4 * np.pi / WAVE_NM * p[0] for p in (planes, without)]
    turned = np.exp(1j * (beside[0] - beside[1]))[inside]
    assert np.abs(turned / turned.mean() - 1).max() <= 5e-3  # float32 of 2e4 nm is 2e-3 nm, 4e-5 rad


def test_a_form_that_rises_by_less_than_the_noise_stays():
    found, planes = shown(bowl_nm(40.0), FeatureSpec())
    assert found.form is None
    assert np.ptp(planes[0]) > 60

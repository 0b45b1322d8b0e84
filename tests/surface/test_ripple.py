from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.spectra.ripple import fringe_ripple


def _form(height: int, width: int) -> np.ndarray:
    """About 45 fringes of tilt and a bowl: smooth, of order 3, in rad."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return 2 * np.pi * (20 * x + 9 * y + 3 * (x**2 + y**2) + x**3)


def _wrap(phase: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * phase))


@pytest.mark.parametrize("shape", [(300, 400), (1500, 1700)])
def test_planted_ripple_is_found(shape: tuple[int, int]) -> None:
    form = _form(*shape)
    planted = {1: 3.0, 2: 40.0, 3: 0.0, 4: 12.0}
    angle = {1: 0.3, 2: 1.9, 3: 0.0, 4: -2.0}
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    mask = y**2 + x**2 < 0.95
    noise = np.random.default_rng(1).normal(0, 0.02, shape)
    ripple = sum(1e-3 * a * np.cos(k * form + angle[k]) for k, a in planted.items())
    # as a demodulator sees it: the fringe phase itself carries the ripple
    measured = form + ripple + noise
    measured[~mask] = 1e6
    found = fringe_ripple(measured, _wrap(measured), mask)
    # noise of an amplitude: 20 mrad * sqrt(2 / 60 000) = 0.12 mrad, five of them; the ripple in the argument turns
    # a_k a_m / 2 * k into neighbours: 40 * 12e-3 / 2 * 4 = 1 mrad; the form takes at most a few per cent of a line at
    # k = 1
    for k, amplitude in planted.items():
        assert found[k] == pytest.approx(amplitude, abs=1.7)


def test_a_clean_map_has_no_ripple_and_offsets_do_not_matter() -> None:
    form = _form(300, 400) + 1e4
    found = fringe_ripple(form, _wrap(form))
    # order 3 lies in the form space: only rounding is left, 1e4 rad * 2^-52 * condition
    assert max(found.values()) < 1e-4


def test_nan_pixels_are_left_out() -> None:
    form = _form(300, 400)
    phase = form + 0.05 * np.cos(2 * form)
    phase[100:140] = np.nan
    assert fringe_ripple(phase, _wrap(form))[2] == pytest.approx(50, abs=1.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="differ"):
        fringe_ripple(np.zeros((9, 9)), np.zeros((9, 8)))
    with pytest.raises(InputError, match="mask"):
        fringe_ripple(np.zeros((9, 9)), np.zeros((9, 9)), np.ones((3, 3), bool))
    with pytest.raises(InputError, match="too few"):
        fringe_ripple(np.zeros((9, 9)), np.zeros((9, 9)))


@pytest.mark.parametrize("turns", [0.2, 0.5])
def test_no_ripple_where_there_is_no_fringe(turns):
    """The harmonics of phases on a part of the circle are alike: amplitudes of kilometres would come out."""
    x = np.mgrid[:60, :80][1]
    draw = np.random.default_rng(8)
    phase = 2 * np.pi * turns * x / 80 + 0.02 * draw.normal(size=x.shape)
    assert fringe_ripple(phase, np.angle(np.exp(1j * phase))) == {}


def test_no_ripple_of_phases_that_take_eight_values():
    draw = np.random.default_rng(9)
    wrapped = np.pi / 4 * draw.integers(-4, 4, (60, 80))
    assert fringe_ripple(wrapped + 2 * np.pi * draw.integers(0, 3, wrapped.shape), wrapped) == {}

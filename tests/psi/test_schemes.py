"""Every scheme against its published formula, noise figures and sensitivity to step errors."""

from __future__ import annotations

import itertools

import numpy as np
import plain_kernels as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.psi.kernels.model import Demodulation
from cpikan.psi.model.schemes import CARRE, LEAST_SQUARES, SCHEMES, PhasorWeights, design_matrix, phasor_weights

PHASES = np.linspace(-np.pi, np.pi, 721)[:-1]  # every half degree: multiples of 2 phi average out exactly


def frames_at(steps_deg: tuple[float, ...], phase: np.ndarray, a: float = 120.0, b: float = 80.0) -> np.ndarray:
    return a + b * np.cos(phase[None] + np.radians(steps_deg)[:, None])


def demodulate(weights: PhasorWeights, frames: np.ndarray) -> tuple[np.ndarray, ...]:
    """Phase, variance, modulation of frames (K, P) by the reference kernel, unit noise."""
    model = Demodulation.of_weights([weights], np.array([[1.0, 0.0]]))
    phase, variance, modulation, *_ = reference.demodulate(frames[None], model)
    return phase[0], variance[0], modulation[0]


def wrap(phase: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * phase))


def steps_of(name: str, sign: int = 1, offset: float = 0.0) -> tuple[float, ...]:
    return tuple(offset + sign * step for step in SCHEMES[name].steps_deg)


# the published formulas, tan(p) of the phase p at the middle frame, written out by hand for I = A + B cos(p + k step)
def _hariharan(i: np.ndarray) -> np.ndarray:
    return np.arctan2(2 * (i[1] - i[3]), 2 * i[2] - i[4] - i[0])


def _de_groot(i: np.ndarray) -> np.ndarray:
    return np.arctan2(7 * (i[2] - i[4]) - (i[0] - i[6]), 8 * i[3] - 4 * (i[1] + i[5]))


def _thirteen(i: np.ndarray) -> np.ndarray:
    s = -3 * (i[0] - i[12]) - 4 * (i[1] - i[11]) + 12 * (i[3] - i[9]) + 21 * (i[4] - i[8]) + 16 * (i[5] - i[7])
    c = -4 * (i[1] + i[11]) - 12 * (i[2] + i[3] + i[9] + i[10]) + 16 * (i[5] + i[7]) + 24 * i[6]
    return np.arctan2(s, c)


@pytest.mark.parametrize(
    ("name", "formula"), [("schwider-hariharan", _hariharan), ("de-groot-7", _de_groot), ("13-frame", _thirteen)]
)
def test_schemes_are_their_published_formulas(name: str, formula) -> None:  # type: ignore[no-untyped-def]
    steps = steps_of(name)
    wrong = tuple(1.03 * step for step in steps)  # also where the step is not what the formula wants
    phase, _, _ = demodulate(phasor_weights(name, steps), frames_at(wrong, PHASES))
    published = formula(frames_at(wrong, PHASES)) - np.radians(steps[len(steps) // 2])
    np.testing.assert_allclose(wrap(phase - published), 0, atol=1e-12)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("offset", [0.0, 33.0])
def test_schemes_give_the_phase_of_step_zero(name: str, sign: int, offset: float) -> None:
    steps = steps_of(name, sign, offset)
    phase, _, modulation = demodulate(phasor_weights(name, steps), frames_at(steps, PHASES))
    # float64 sums of at most 13 samples of 200: 13 * 200 * 2^-53 / 80 = 4e-15, with room
    np.testing.assert_allclose(wrap(phase - PHASES), 0, atol=1e-13)
    np.testing.assert_allclose(modulation, 80.0, rtol=1e-13)


@given(
    st.lists(st.floats(-400, 400), min_size=3, max_size=13).filter(
        lambda s: np.linalg.cond(design_matrix(tuple(s))) < 30
    ),
    st.floats(-np.pi, np.pi),
)
def test_least_squares_is_exact_at_any_steps(steps: list[float], phase: float) -> None:
    weights = phasor_weights(LEAST_SQUARES, tuple(steps))
    frames = frames_at(tuple(steps), np.array([phase]))
    u, v, a = weights.cosine @ frames, weights.sine @ frames, weights.mean @ frames
    # rounding grows with the condition number: 200 * 2^-53 * 30^2
    np.testing.assert_allclose([u[0], v[0], a[0]], [80 * np.cos(phase), 80 * np.sin(phase), 120], atol=1e-9)


@pytest.mark.parametrize("name", [*SCHEMES, LEAST_SQUARES])
def test_a_constant_and_the_conjugate_do_not_enter(name: str) -> None:
    steps = (0.0, 77.0, 160.0, 250.0) if name == LEAST_SQUARES else steps_of(name)
    weights = phasor_weights(name, steps)
    both = weights.cosine + 1j * weights.sine
    delta = np.radians(steps)
    assert abs(both.sum()) < 1e-13
    assert abs((both * np.exp(-1j * delta)).sum()) < 1e-13
    assert (both * np.exp(1j * delta)).sum() == pytest.approx(2)


EVEN = {n: tuple(360.0 * k / n for k in range(n)) for n in (3, 4)}


@pytest.mark.parametrize(
    ("name", "steps", "effective"),
    [
        (LEAST_SQUARES, EVEN[3], 3.00),
        (LEAST_SQUARES, EVEN[4], 4.00),
        ("schwider-hariharan", steps_of("schwider-hariharan"), 4.57),
        ("de-groot-7", steps_of("de-groot-7"), 5.22),
        ("13-frame", steps_of("13-frame"), 10.15),
        (LEAST_SQUARES, tuple(90.0 * k for k in range(8)), 8.00),
        (LEAST_SQUARES, tuple(60.0 * k for k in range(12)), 12.00),
    ],
)
def test_effective_number_of_frames(name: str, steps: tuple[float, ...], effective: float) -> None:
    """sigma_phi = sqrt(2 / Neff) sigma / B, from the kernel's own variance averaged over the phase."""
    _, variance, _ = demodulate(phasor_weights(name, steps), frames_at(steps, PHASES, b=1e4))  # no bias at high SNR
    assert 2 / (variance.mean() * 1e8) == pytest.approx(effective, abs=0.006)


RIPPLES = [
    (LEAST_SQUARES, EVEN[3], (12.2, 62.4, 129.0)),
    (LEAST_SQUARES, EVEN[4], (7.9, 39.3, 78.7)),
    ("schwider-hariharan", steps_of("schwider-hariharan"), (0.06, 1.5, 6.2)),
    ("de-groot-7", steps_of("de-groot-7"), (0.000, 0.002, 0.04)),
    ("13-frame", steps_of("13-frame"), (0.000, 0.03, 0.22)),
    (LEAST_SQUARES, tuple(90.0 * k for k in range(8)), (7.9, 39.3, 78.7)),
    (LEAST_SQUARES, tuple(60.0 * k for k in range(12)), (6.0, 29.8, 58.7)),
]


@pytest.mark.parametrize(("name", "steps", "expected"), RIPPLES)
@pytest.mark.parametrize("case", [0, 1, 2])
def test_ripple_of_a_miscalibrated_step(
    name: str, steps: tuple[float, ...], expected: tuple[float, ...], case: int
) -> None:
    scale = 1 + (0.01, 0.05, 0.10)[case]
    real = tuple(scale * step for step in steps)
    phase, _, _ = demodulate(phasor_weights(name, steps), frames_at(real, PHASES))
    error = wrap(phase - PHASES)
    amplitude = 2e3 * abs(np.mean(error * np.exp(2j * PHASES)))
    # the table is rounded to its last digit
    digits = {0.0: 6e-4, 0.002: 6e-4, 0.04: 6e-3, 0.06: 6e-3, 0.03: 6e-3, 0.22: 6e-3}
    assert amplitude == pytest.approx(
        expected[case], abs=digits.get(expected[case], 0.06 if expected[case] < 100 else 0.6)
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", range(20, 111, 10))
def test_carre_needs_only_equal_steps(step: int, sign: int) -> None:
    nominal = tuple(sign * step * k for k in (0.0, 1.0, 2.0, 3.0))
    for off in (-4.0, 0.0, 3.0):
        real = tuple(sign * (step + off) * k for k in range(4))
        phase, _, _ = demodulate(phasor_weights(CARRE, nominal), frames_at(real, PHASES))
        # the phase midway between the frames is exact; the nominal step refers it back to frame 0
        midway = PHASES + np.radians(np.mean(real)) - np.radians(np.mean(nominal))
        error = wrap(phase - midway)
        # a square root near zero loses half the digits: sqrt(200 * 2^-53 * 10 / (8 B sin^2 cos)) at 16 deg
        assert np.abs(error).max() < 2e-6
        assert np.abs(error)[np.abs(np.sin(midway)) > 0.1].max() < 1e-10


def test_carre_modulation_is_right_at_the_nominal_step() -> None:
    steps = (0.0, 80.0, 160.0, 240.0)
    _, _, modulation = demodulate(phasor_weights(CARRE, steps), frames_at(steps, PHASES))
    np.testing.assert_allclose(modulation, 80, rtol=1e-10)


@pytest.mark.parametrize("name", [*SCHEMES, CARRE])
def test_steps_modulo_a_turn_are_the_same_steps(name: str) -> None:
    """Estimated steps come in [0, 360): the fifth of five 90 degree steps is 0 again, and -90 is 270."""
    for sign in (1, -1):
        steps = (0.0, -80.0, -160.0, -240.0) if name == CARRE else steps_of(name, sign)
        turned = tuple(step % 360 for step in steps)
        phase, _, _ = demodulate(phasor_weights(name, turned), frames_at(steps, PHASES))
        np.testing.assert_allclose(wrap(phase - PHASES), 0, atol=3e-7)


@pytest.mark.parametrize(
    ("name", "steps", "cov_tolerance"),
    [
        (LEAST_SQUARES, (0.0, 66.0, 150.0, 190.0, 290.0), 0.03),
        (LEAST_SQUARES, (0.0, 50.0, 120.0), 0.03),
        ("schwider-hariharan", steps_of("schwider-hariharan"), 0.03),
        ("de-groot-7", steps_of("de-groot-7"), 0.03),
        ("13-frame", steps_of("13-frame"), 0.03),
    ],
)
def test_phase_variance_agrees_with_monte_carlo(name: str, steps: tuple[float, ...], cov_tolerance: float) -> None:
    weights = phasor_weights(name, steps)
    rng = np.random.default_rng(5)
    trials = 20_000  # the variance of a variance: sqrt(2 / n) = 1 %, so 3 % are three standard errors
    for phase in (-2.1, 0.0, 0.7, 2.9):
        clean = frames_at(steps, np.full(trials, phase), b=200.0)
        measured, variance, _ = demodulate(weights, clean + rng.normal(0, 1, clean.shape))
        assert wrap(measured - phase).var() == pytest.approx(variance.mean(), rel=cov_tolerance + 0.01)


@pytest.mark.parametrize("step", [40, 65, 90, 110, -90])
def test_carre_variance_agrees_with_monte_carlo(step: int) -> None:
    steps = tuple(float(step * k) for k in range(4))
    rng = np.random.default_rng(6)
    for phase in (-2.1, 0.3, 0.9, 2.5):
        clean = frames_at(steps, np.full(40_000, phase), b=2000.0)  # strong fringes: the formula is the first order
        measured, variance, _ = demodulate(phasor_weights(CARRE, steps), clean + rng.normal(0, 1, clean.shape))
        # four standard errors of a variance from 40 000 trials, 4 sqrt(2 / n)
        assert wrap(measured - phase).var() == pytest.approx(variance.mean(), rel=0.03)


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("hariharn", EVEN[4], "hariharan"),
        ("schwider-hariharan", EVEN[4], "takes 5 frames, the stack has 4"),
        ("schwider-hariharan", (0.0, 60.0, 120.0, 180.0, 240.0), "made for steps of 90 deg"),
        ("de-groot-7", tuple(45.0 * k for k in range(7)), "made for steps of 90 deg"),
        ("13-frame", tuple(90.0 * k for k in range(13)), "made for steps of 45 deg"),
        (CARRE, EVEN[3], "four equally spaced"),
        (CARRE, (0.0, 90.0, 150.0, 270.0), "four equally spaced"),
        (CARRE, tuple(90.0 * k for k in range(5)), "four equally spaced"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, steps: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        phasor_weights(name, steps)


def test_names_are_unique_and_sources_are_given() -> None:
    for first, second in itertools.combinations(SCHEMES.values(), 2):
        assert first.name != second.name
    assert all(scheme.source and len(scheme.sine) == len(scheme.cosine) for scheme in SCHEMES.values())

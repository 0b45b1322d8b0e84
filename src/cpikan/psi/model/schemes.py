"""Phase-shifting schemes as data: weights that turn N frames into a phasor B exp(i phi)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.psi.model.frame_model import fringe_columns, parity_vector


@dataclass(frozen=True)
class Scheme:
    """A published N-frame formula: weights of the sine and cosine sums, and the step it is made for.

    ``sine`` and ``cosine`` are up to a common factor and a common phase; `phasor_weights` fixes both.
    """

    name: str
    step_deg: float
    sine: tuple[float, ...]
    cosine: tuple[float, ...]
    source: str

    @property
    def frames(self) -> int:
        return len(self.sine)

    @property
    def steps_deg(self) -> tuple[float, ...]:
        return tuple(self.step_deg * k for k in range(self.frames))


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "schwider-hariharan",
            90.0,
            (0, 2, 0, -2, 0),
            (-1, 0, 2, 0, -1),
            "Schwider et al., Appl. Opt. 22, 3421 (1983); Hariharan, Oreb, Eiju, Appl. Opt. 26, 2504 (1987)",
        ),
        Scheme(
            "de-groot-7",
            90.0,
            (-1, 0, 7, 0, -7, 0, 1),
            (0, -4, 0, 8, 0, -4, 0),
            "de Groot, Appl. Opt. 34, 4723 (1995)",
        ),
        Scheme(
            "13-frame",
            45.0,
            (-3, -4, 0, 12, 21, 16, 0, -16, -21, -12, 0, 4, 3),
            (0, -4, -12, -12, 0, 16, 24, 16, 0, -12, -12, -4, 0),
            "de Groot, 13-frame window for 45 degree steps, Appl. Opt. 34, 4723 (1995)",
        ),
    )
}

LEAST_SQUARES = "least-squares"
CARRE = "carre"
SCHEME_NAMES = (LEAST_SQUARES, CARRE, *SCHEMES)


@dataclass(frozen=True)
class PhasorWeights:
    """How K frames of one wavelength become u + i v = B exp(i phi) and the mean A.

    ``cosine``, ``sine`` and ``mean`` have shape (K,), float64; so has ``parity``, which sums frames to noise alone.
    ``covariance`` is (var u, cov u v, var v) for frames with unit noise variance. ``carre`` marks the one non-linear
    formula, whose sums are combined by a square root; its weights then hold the scale of the two sums.
    """

    cosine: np.ndarray
    sine: np.ndarray
    mean: np.ndarray
    parity: np.ndarray
    covariance: np.ndarray
    carre: bool = False


def phasor_weights(name: str, steps_deg: tuple[float, ...]) -> PhasorWeights:
    """Compute the weights of the named scheme for frames at the given cumulative steps (degrees).

    ``least-squares`` serves any steps (Greivenkamp, Opt. Eng. 23, 350 (1984)); the others only the steps they were made for.
    Raises InputError for an unknown name, a frame count or steps the scheme does not fit.
    """
    if name == LEAST_SQUARES:
        return _least_squares(steps_deg)
    if name == CARRE:
        return _carre(steps_deg)
    check_name("scheme", name, SCHEME_NAMES)
    scheme = SCHEMES[name]
    _check_steps(scheme, steps_deg)
    delta = np.radians(steps_deg)
    weights = np.asarray(scheme.cosine, float) + 1j * np.asarray(scheme.sine, float)
    # I = A + B/2 (exp(i(phi + delta)) + conjugate): the response to exp(+i phi) must be 1, that to exp(-i phi) vanishes
    if abs(np.sum(weights * np.exp(1j * delta))) < abs(np.sum(weights * np.exp(-1j * delta))):
        weights = weights.conj()
    weights = weights * 2 / np.sum(weights * np.exp(1j * delta))
    plain = _least_squares(steps_deg)
    return _linear(weights.real, weights.imag, plain.mean, plain.parity)


def _linear(cosine: np.ndarray, sine: np.ndarray, mean: np.ndarray, parity: np.ndarray) -> PhasorWeights:
    covariance = np.array([cosine @ cosine, cosine @ sine, sine @ sine])
    return PhasorWeights(cosine, sine, mean, parity, covariance)


def design_matrix(steps_deg: tuple[float, ...]) -> np.ndarray:
    """Build the least-squares matrix (K, 3) of steps in degrees: frames = matrix @ (A, B cos phi, B sin phi)."""
    return fringe_columns(np.radians(steps_deg))


def _least_squares(steps_deg: tuple[float, ...]) -> PhasorWeights:
    design = design_matrix(steps_deg)
    mean, cosine, sine = np.linalg.pinv(design)
    return _linear(cosine, sine, mean, parity_vector(design))


def _check_steps(scheme: Scheme, steps_deg: tuple[float, ...], tolerance_deg: float = 10.0) -> None:
    if len(steps_deg) != scheme.frames:
        raise InputError(
            f"scheme {scheme.name!r} takes {scheme.frames} frames, the stack has {len(steps_deg)}: use least-squares"
        )
    # modulo a turn: estimated steps come in [0, 360)
    direction = np.sign(_wrap_deg(np.diff(steps_deg[:2])))
    off = np.abs(_wrap_deg(np.asarray(steps_deg) - steps_deg[0] - direction * np.asarray(scheme.steps_deg)))
    if off.max() > tolerance_deg:
        raise InputError(
            f"scheme {scheme.name!r} is made for steps of {scheme.step_deg:g} deg, given were {list(steps_deg)}: "
            "use least-squares"
        )


def _carre(steps_deg: tuple[float, ...]) -> PhasorWeights:
    """Apply Carre's formula to four equally spaced frames of unknown step; the given step only fixes scale and piston.

    With steps of 2 a: I1 - I4 = 2 B sin(p) sin(3 a), I2 - I3 = 2 B sin(p) sin(a), and
    (I2 + I3) - (I1 + I4) = 8 B cos(p) sin(a)^2 cos(a), where p is the phase midway between the frames
    (Carre, Metrologia 2, 13 (1966)).
    """
    spacing = _wrap_deg(np.diff(steps_deg))
    if len(steps_deg) != 4 or np.ptp(spacing) > 10.0:
        raise InputError(
            f"scheme 'carre' takes four equally spaced frames, given were steps {list(steps_deg)}: use least-squares"
        )
    half = np.radians(spacing.mean()) / 2
    scale = 1 / (8 * np.sin(half) ** 2 * np.cos(half))
    middle = np.radians(steps_deg[0] + np.mean([0.0, *np.cumsum(spacing)]))
    rotate = np.exp(-1j * middle)  # from the phase midway back to the phase of step zero
    covariance = _carre_covariance(half, scale, rotate)
    return PhasorWeights(
        np.array([rotate.real, rotate.imag, scale, np.sign(half)]),
        np.zeros(4),
        np.full(4, 0.25),
        np.zeros(4),  # four frames of an unknown step leave nothing over
        covariance,
        carre=True,
    )


def _carre_covariance(half: float, scale: float, rotate: complex) -> np.ndarray:
    """Compute (var u, cov u v, var v) at unit noise, to first order; the square root's own variance is free of p.

    d sqrt((3 i - o)(i + o)) = ((3 i + o) di + (i - o) do) / sqrt(...), with i = I2 - I3 and o = I1 - I4.
    """
    inner, outer = np.sin(half), np.sin(3 * half)
    odd = 2 * ((3 * inner + outer) ** 2 + (inner - outer) ** 2) * (2 * scale) ** 2 * scale**2
    even = 4 * scale**2
    r, i = rotate.real, rotate.imag
    return np.array([r * r * even + i * i * odd, r * i * (even - odd), i * i * even + r * r * odd])


def _wrap_deg(angle: np.ndarray) -> np.ndarray:
    """Wrap angles to [-180, 180) degrees."""
    return (np.asarray(angle) + 180.0) % 360.0 - 180.0

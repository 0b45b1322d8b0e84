"""Fringe print-through: how strongly the fringes themselves show in a phase map, harmonic by harmonic."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cpikan.errors import InputError

HARMONICS = (1, 2, 3, 4)

_SAMPLE = 60_000  # pixels in the fit: 66 columns of float64 stay near 30 MB
_LEAST_RATIO = (
    0.02  # of singular values: 0.7 for phases all around the circle, 0.3 on 7/8, 0.08 on 3/4, 0.01 on 5/8 of it
)
_FEWEST = 1_000  # below this the form of order 10 fits the ripple itself


def fringe_ripple(
    phase_rad: Float[np.ndarray, "h w"],
    wrapped_rad: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None = None,
    form_order: int = 10,
) -> dict[int, float]:
    """Measure amplitudes in mrad of the ripple at 1 to 4 times the fringe frequency of an unwrapped phase map.

    The smooth form (Chebyshev polynomials of total degree up to ``form_order``) is fitted by least squares on the
    masked area and removed; the rest is regressed jointly on cos(k phi), sin(k phi), k = 1..4, and a constant, phi the
    wrapped phase. ``phase_rad`` (H, W) is unwrapped phase in rad (for a height multiply by 4 pi / wavelength). k = 1
    speaks of intensity drift, 2 of step, tilt and vibration errors, 3 and 4 of detector nonlinearity. Large maps are
    sampled evenly. It needs clearly more fringes across the map than ``form_order``, or the form takes part of the
    ripple away; where the phases do not go around the circle the harmonics cannot be told apart, and nothing is returned.
    Raises InputError when shapes differ or fewer than 1000 pixels are valid.
    """
    if np.ndim(phase_rad) != 2 or np.shape(phase_rad) != np.shape(wrapped_rad):
        raise InputError(
            f"phase {np.shape(phase_rad)} and wrapped phase {np.shape(wrapped_rad)} differ: "
            "give two maps of one shape (H, W)"
        )
    if mask is not None and np.shape(mask) != np.shape(phase_rad):
        raise InputError(
            f"mask {np.shape(mask)} does not fit the phase map {np.shape(phase_rad)}: give one of its shape"
        )
    y, x, phase, wrapped = _samples(phase_rad, wrapped_rad, mask)
    if phase.size < _FEWEST:
        raise InputError(f"{phase.size} valid pixels are too few for a ripple measure: give at least {_FEWEST}")
    if not _told_apart(wrapped):
        return {}
    return _amplitudes(_least_squares_rest(_form_basis(y, x, form_order), phase), wrapped)


def ripple_of_points(
    position: Float[np.ndarray, "points 2"],
    phase_rad: Float[np.ndarray, " points"],
    wrapped_rad: Float[np.ndarray, " points"],
    form_order: int = 10,
) -> dict[int, float]:
    """Measure the fringe ripple of unwrapped phases (P,) at ``position`` (P, 2); at most one term in 20 pixels."""
    y, x = (_fill_interval(np.asarray(column, np.float64)) for column in np.transpose(position))
    order = min(form_order, int(np.sqrt(len(y) / 10)))
    rest = _least_squares_rest(_form_basis(y, x, order), np.asarray(phase_rad, np.float64))
    return _amplitudes(rest, np.asarray(wrapped_rad, np.float64))


def _amplitudes(residual: NDArray[np.float64], wrapped: NDArray[np.float64]) -> dict[int, float]:
    found = np.linalg.lstsq(_harmonics(wrapped), residual, rcond=None)[0]
    return {k: float(1e3 * np.hypot(found[2 * k - 1], found[2 * k])) for k in HARMONICS}


def _harmonics(wrapped: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = [np.ones_like(wrapped)]
    for k in HARMONICS:
        columns += [np.cos(k * wrapped), np.sin(k * wrapped)]
    return np.stack(columns, 1)


def _told_apart(wrapped: NDArray[np.float64]) -> bool:
    """Tell whether the harmonics differ on these phases: not where all lie on a part of the circle, or on few values."""
    design = _harmonics(wrapped)
    values = np.linalg.eigvalsh(design.T @ design)
    return bool(values[0] > _LEAST_RATIO**2 * values[-1])


def sample_step(shape: tuple[int, ...]) -> int:
    """Choose the step in rows and columns at which to sample a map (H, W): a map cut so gives the same amplitudes."""
    return max(1, int(np.sqrt(shape[0] * shape[1] / (16 * _SAMPLE))))


def _samples(
    phase_rad: NDArray[np.floating], wrapped_rad: NDArray[np.floating], mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], ...]:
    """Sample valid pixels evenly: coordinates in [-1, 1] over the valid area, phase and wrapped phase."""
    # a coarse grid first, so that a 65 MPix map is never copied whole; then an even pick of what is valid
    step = sample_step(phase_rad.shape)
    phase = np.asarray(phase_rad[::step, ::step], np.float64)
    wrapped = np.asarray(wrapped_rad[::step, ::step], np.float64)
    valid = np.isfinite(phase) & np.isfinite(wrapped)
    if mask is not None:
        valid &= np.asarray(mask[::step, ::step], bool)
    chosen = np.flatnonzero(valid)
    if chosen.size > _SAMPLE:
        chosen = chosen[np.linspace(0, chosen.size - 1, _SAMPLE).astype(np.int64)]
    rows, columns = np.unravel_index(chosen, phase.shape)
    y, x = _scaled_coordinates(phase.shape[0])[rows], _scaled_coordinates(phase.shape[1])[columns]
    return _fill_interval(y), _fill_interval(x), phase.ravel()[chosen], wrapped.ravel()[chosen]


def _scaled_coordinates(count: int) -> NDArray[np.float64]:
    """Map the pixel centres of an axis to [-1, 1]; a single pixel lies at 0."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(count)


def _fill_interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch coordinates to [-1, 1], where Chebyshev polynomials are well conditioned."""
    if not values.size or np.ptp(values) == 0:
        return np.zeros_like(values)
    return 2 * (values - values.min()) / np.ptp(values) - 1


def _form_basis(y: NDArray[np.float64], x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Stack the columns T_i(y) T_j(x) with i + j <= order."""
    along_y = np.polynomial.chebyshev.chebvander(y, order)
    along_x = np.polynomial.chebyshev.chebvander(x, order)
    columns = [along_y[:, i] * along_x[:, j] for i in range(order + 1) for j in range(order + 1 - i)]
    return np.stack(columns, 1)


def _least_squares_rest(basis: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract from the values their mean and the projection on the columns of the basis."""
    centred = values - values.mean()
    # normal equations: Chebyshev columns are well conditioned, and an SVD of the tall basis takes a second
    coefficients = np.linalg.lstsq(basis.T @ basis, basis.T @ centred, rcond=1e-12)[0]
    return centred - basis @ coefficients

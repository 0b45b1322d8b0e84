"""Everything the fused pixel pass needs to know, as a few small arrays; built once per stack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.schemes import PhasorWeights

AMBIGUOUS_POSTERIOR = 0.99  # an order whose posterior against its runner-up is below this is flagged
LEAST_MARGIN = 2 * math.log(AMBIGUOUS_POSTERIOR / (1 - AMBIGUOUS_POSTERIOR))  # chi squared
LONGEST_SEGMENT = 2048  # pixels: the block of the compiled loops, and the longest stretch weights are interpolated over
LOW_SIGMA_RAD = 0.5  # a wavelength noisier than this counts as low modulation
# chi squared of one degree of freedom, six sigma: noise alone takes one pixel of 500 million beyond it. There a pixel's samples
# contradict each other: its variance grows by twice the excess and a quarter of its square, so that it soon counts for nothing:
# neighbours share such faults, and their sum must not pass for evidence of an order
PARITY_MAX = 36.0
PARITY_BEND = 0.25
PARITY_ROUNDING = 4e-12  # single precision sums samples to 2e-6 of the mean


@dataclass(frozen=True)
class Demodulation:
    """Weights and noise of L wavelengths with K frames each; all arrays float64.

    ``cosine``, ``sine``, ``mean``: (L, K), turning frames into u = B cos phi, v = B sin phi and A. ``covariance``: (L, 3),
    var u, cov(u, v), var v at unit noise. ``parity``: (L, K), vectors that no background, cosine or sine of the frames
    reaches, so that the sum they weigh is noise alone; their length is one, less where the frames hold structure beside the
    model that counts as noise there, and zero where there is none. ``noise``: (L, 2), the variance of one sample
    is noise[0] + noise[1] * A in DN^2.
    ``phase_floor_rad2``: (L,), phase variance that frame noise does not explain. ``saturation_dn``, ``black_dn``: samples at
    or above the one, and at or below the other, are clipped. ``snr_min``: a pixel is measured when sum over wavelengths of
    B^2 / var B reaches it.

    ``models``, one per wavelength, when weights vary over the image or frames have offsets: then ``cosine``, ``sine``, ``mean``
    and ``covariance`` are those of the image's centre, every pixel has its own, and fast kernels interpolate them over
    segments of ``node_px`` (y, x) pixels, powers of two. `cpikan.psi.kernels.weight_field.model_demodulation` makes both.
    """

    cosine: np.ndarray
    sine: np.ndarray
    mean: np.ndarray
    parity: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray
    phase_floor_rad2: np.ndarray
    saturation_dn: float = math.inf
    black_dn: float = -math.inf
    snr_min: float = 0.0
    carre: bool = False
    models: tuple[FrameModel, ...] | None = None
    node_px: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.models is None:
            return
        if self.carre or len(self.models) != self.wavelengths or any(m.frames != self.frames for m in self.models):
            raise ValueError("models take least squares, and one model per wavelength with the frames of the weights")
        if any(not 2 <= px <= LONGEST_SEGMENT or px & (px - 1) for px in self.node_px):
            raise ValueError(f"node_px {self.node_px} are not powers of two from 2 to {LONGEST_SEGMENT}")

    @classmethod
    def of_weights(cls, weights: Sequence[PhasorWeights], noise: np.ndarray, **limits: Any) -> Demodulation:
        """Make the demodulation of one set of ``weights`` per wavelength; ``limits`` are further fields."""
        names = ("cosine", "sine", "mean", "parity", "covariance")
        fields: dict[str, Any] = {name: np.stack([getattr(w, name) for w in weights]) for name in names}
        fields |= {"noise": noise, "phase_floor_rad2": np.zeros(len(weights)), "carre": weights[0].carre}
        return cls(**(fields | limits))

    def clips(self, frames: np.ndarray) -> np.ndarray:
        """Tell which samples of frames are clipped at either end."""
        samples = np.asarray(frames)
        return (samples >= self.saturation_dn) | (samples <= self.black_dn)

    @property
    def wavelengths(self) -> int:
        return self.cosine.shape[0]

    @property
    def frames(self) -> int:
        return self.cosine.shape[1]


@dataclass(frozen=True)
class OrderSearch:
    """The joint maximum-likelihood search for the fringe order, in turns of the shortest wavelength (the anchor).

    ``order`` lists the wavelengths, anchor first. ``ratio``: anchor wavelength over each, (L,). ``half_wave_nm``: half the
    anchor wavelength, the height of one turn. ``piston_turns`` (L,) and ``tilt_turns`` (L, 2; per pixel in y, x about
    ``centre``) are taken off the phases. Orders are tried that put the anchor's phase into [low_nm, low_nm + range_nm).
    When [near_low_nm, near_low_nm + near_range_nm) is narrower it is searched first, and only pixels whose misfit exceeds
    ``misfit_max`` search the rest. An order whose runner-up is within ``margin_min`` (chi squared) is ambiguous.
    ``finest`` takes the height from the anchor alone instead of from all wavelengths. ``rivals`` are the steps to the orders
    that are most easily taken for the right one, ``shared`` is the share of the phase variance that neighbours share.
    ``bow_turns`` (L, 5, 5) are the factors of y^i x^j, pixels from ``centre``, of smooth errors that are taken off too.
    """

    order: tuple[int, ...]
    ratio: np.ndarray
    half_wave_nm: float
    piston_turns: np.ndarray
    tilt_turns: np.ndarray
    centre: tuple[float, float]
    low_nm: float
    range_nm: float
    near_low_nm: float
    near_range_nm: float
    misfit_max: float
    finest: bool = False
    margin_min: float = LEAST_MARGIN
    rivals: tuple[int, int, int, int] = (1, 2, 3, 4)
    shared: float = 0.0
    bow_turns: np.ndarray | None = None

    def relative_turns(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Compute what is taken off the phases at rows and columns (y, x) of a common shape, (L, ...)."""
        dy, dx = np.broadcast_arrays(np.asarray(y) - self.centre[0], np.asarray(x) - self.centre[1])
        shape = (-1,) + (1,) * dy.ndim
        tilt = (self.tilt_turns[:, i].reshape(shape) for i in range(2))
        plane = self.piston_turns.reshape(shape) + next(tilt) * dy + next(tilt) * dx
        if self.bow_turns is None:
            return plane
        bow = np.polynomial.polynomial.polyval2d(dy, dx, np.moveaxis(self.bow_turns, 0, -1))
        return np.asarray(plane + bow)

    @property
    def candidates(self) -> int:
        return math.ceil(self.range_nm / self.half_wave_nm)

    @property
    def near_candidates(self) -> int:
        return math.ceil(self.near_range_nm / self.half_wave_nm)


@dataclass(frozen=True)
class PixelModel:
    """One stack's model: demodulation, and with two or more wavelengths the order search."""

    demodulation: Demodulation
    search: OrderSearch | None = None
    notes: dict[str, float] = field(default_factory=dict)


class HeightRows(NamedTuple):
    """Rows of a height map: height_nm, sigma_nm, modulation (DN, mean over wavelengths), float32; flags uint8; (rows, W)."""

    height_nm: np.ndarray
    sigma_nm: np.ndarray
    modulation: np.ndarray
    flags: np.ndarray


class PhaseRows(NamedTuple):
    """Rows of one wavelength: wrapped phase_rad, sigma_rad, modulation (DN), float32; flags uint8; (rows, W)."""

    phase_rad: np.ndarray
    sigma_rad: np.ndarray
    modulation: np.ndarray
    flags: np.ndarray


def empty_rows(
    rows: int, width: int, empty: Callable[..., np.ndarray] = np.empty
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Make buffers for `HeightRows` or `PhaseRows` by ``empty(shape, dtype)``."""
    single, byte = np.dtype(np.float32), np.dtype(np.uint8)
    first, second, third = (empty((rows, width), single) for _ in range(3))
    return first, second, third, empty((rows, width), byte)


class DemodulatedRows(NamedTuple):
    """Demodulated rows of an image, halo included; ``rows`` x W pixels, L wavelengths, the anchor (shortest) first.

    ``phase_cycles`` (L, rows, W): wrapped phases in cycles, pistons and tilts between wavelengths removed; ``weight``: their
    inverse variances, cycles^-2; ``order``: the order of the anchor that the pixel alone prefers, ``best`` and ``second``
    chi squared of that order and of its runner-up; ``height_nm``, ``sigma_nm``, ``modulation`` (DN) and ``flags`` (uint8) are
    those of the pixel pass, bit for bit. All but the flags are float32.
    """

    phase_cycles: np.ndarray
    weight: np.ndarray
    order: np.ndarray
    best: np.ndarray
    second: np.ndarray
    height_nm: np.ndarray
    sigma_nm: np.ndarray
    modulation: np.ndarray
    flags: np.ndarray

    def part(self, start: int, stop: int) -> DemodulatedRows:
        """Cut out rows [start, stop), as views."""
        return DemodulatedRows(*(array[..., start:stop, :] for array in self))


def empty_demodulated(
    wavelengths: int, rows: int, width: int, empty: Callable[..., np.ndarray] = np.empty
) -> DemodulatedRows:
    """Make buffers for ``rows`` x ``width`` pixels, made by ``empty(shape, dtype)``."""
    single, byte = np.dtype(np.float32), np.dtype(np.uint8)
    phase, weight = (empty((wavelengths, rows, width), single) for _ in range(2))
    order, best, second, height, sigma, modulation = (empty((rows, width), single) for _ in range(6))
    return DemodulatedRows(phase, weight, order, best, second, height, sigma, modulation, empty((rows, width), byte))

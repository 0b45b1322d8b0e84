"""Arguments of the compiled loops, packed from a stack's `PixelModel`: named tuples of small arrays and numbers.

Numba takes a named tuple apart when it compiles: names of numbers cost nothing at run time. Each array costs a count of its
users wherever it is unpacked, so that what belongs to single wavelengths comes as tuples of numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cpikan.psi.kernels.model import Demodulation, OrderSearch
from cpikan.psi.kernels.order_distance import square_distance

Array = np.ndarray
_SURE = 0.9  # of a distance: single precision works out chi squared of an order to a thousandth of that
COSINE, SINE, MEAN, PARITY = 0, 1, 2, 3  # of the weights
AT_BLACK, AT_WHITE = 1, 2  # the end at which a pixel's samples are clipped


class Noise(NamedTuple):
    """Noise of one wavelength: the variance of a sample is ``read`` + ``gain`` A; ``var_u``, ``cov``, ``var_v`` belong to u and
    v at unit noise; ``floor`` is a variance of the phase beside (cycles^2)."""

    read: np.float32
    gain: np.float32
    var_u: np.float32
    cov: np.float32
    var_v: np.float32
    floor: np.float32


class Demodulator(NamedTuple):
    """From frames to phasors: ``weights`` (4, L, K) float32, by `COSINE`, `SINE`, `MEAN` and `PARITY`, or Carre's numbers in
    place of cosines; samples up to the first of ``ends`` and from the second on are clipped; a pixel is measured from a
    signal-to-noise of ``snr_min`` on."""

    weights: Array
    carre: bool
    noise: tuple[Noise, ...]
    ends: tuple[np.float32, np.float32]
    snr_min: np.float32


class Range(NamedTuple):
    """Anchor phases from ``low`` to below ``end`` (cycles, float32), and how many ``orders`` that may be."""

    low: np.float32
    end: np.float32
    orders: int


class Plane(NamedTuple):
    """Of one wavelength: its place ``source`` in the stack, and the piston and tilts (cycles, cycles per pixel from the centre)
    that are taken off its phases; ``bow``: the factors of y^i x^j, i and j from 0 to 4, row by row, or None."""

    source: int
    piston: float
    tilt_y: float
    tilt_x: float
    centre_y: float
    centre_x: float
    bow: tuple[float, ...] | None


class Search(NamedTuple):
    """The order search: ``ratio`` of the anchor's wavelength to each, anchor first, and the ``planes``: tuples, whose length
    unrolls loops over wavelengths.

    ``near`` is searched first, ``whole`` where the misfit is above ``misfit_max``. An order whose runner-up is within
    ``margin_min`` (chi squared) is ambiguous; ``finest`` takes the height from the anchor alone. ``rivals`` are the numbers
    of orders by which one is most easily missed, ``shared`` the share of the phase variance that neighbours share. ``apart``
    is the square of the least distance of two orders of ``near`` (`order_distance`), in cycles.
    """

    ratio: tuple[np.float32, ...]
    planes: tuple[Plane, ...]
    near: Range
    whole: Range
    margin_min: np.float32
    misfit_max: np.float32
    half_wave_nm: np.float32
    finest: bool
    rivals: tuple[np.float32, ...]
    shared: np.float32
    apart: np.float32


class Span(NamedTuple):
    """Rows [first, last) of a band whose first row is row ``image_row`` of the image."""

    first: int
    last: int
    image_row: int


class Block(NamedTuple):
    """A run of ``n`` pixels from column ``x0`` on, in row ``y`` of the band and row ``image_row`` of the image."""

    y: int
    image_row: int
    x0: int
    n: int


class Sums(NamedTuple):
    """Sums of one wavelength over a block: u, v, background, parity, and where samples are clipped."""

    u: Array
    v: Array
    mean: Array
    parity: Array
    clipped: Array


class Quality(NamedTuple):
    """Sums of all wavelengths over a block: signal-to-noise and modulation; the end at which samples are clipped
    (`AT_BLACK`, `AT_WHITE`, 0 for none); and by ones and zeros whether a modulation is low, and the pixel inside the mask."""

    snr: Array
    modulation_sum: Array
    saturated: Array
    low_modulation: Array
    in_mask: Array


class Waves(NamedTuple):
    """Phases (L, n) in cycles, anchor first, and their inverse variances."""

    phase_cycles: Array
    weight: Array


class Found(NamedTuple):
    """State of an order search, (n,) each: variance of the joint height (cycles^2), first order tried, least misfit, the
    runner-up's, order, and correction of the height (cycles)."""

    variance: Array
    start: Array
    best: Array
    second: Array
    order: Array
    shift: Array


class Aside(NamedTuple):
    """Pixels of a block that are searched by themselves: ``open`` ones where there may be any, their ``places``, and room for
    their phases and their search."""

    places: Array
    open: Array
    waves: Waves
    found: Found


class Curve(NamedTuple):
    """What makes light of the samples of one wavelength: whether they are ``bent``, the light at both ends, lowest and highest
    sample of the curve, t = ``shift`` + ``scale`` sample, slope minus one below and above, the ``polynomial`` in t that is
    added to a sample; and whether harmonics are ``locked``."""

    bent: bool
    ends: tuple[np.float32, np.float32]
    low: np.float32
    high: np.float32
    shift: np.float32
    scale: np.float32
    below: np.float32
    above: np.float32
    polynomial: tuple[np.float32, ...]
    locked: bool


class NodeRows(NamedTuple):
    """Weights that vary over a band: ``nodes`` (node rows, L, segments * 3 * size) as `cpikan.psi.kernels.weight_field` has
    them, the number of the first segment along y, lengths of segments, and the detector's ``curves``."""

    nodes: Array
    first: int
    spacing_y: int
    spacing_x: int
    curves: tuple[Curve, ...]


class NodeBuffers(NamedTuple):
    """For one row whose weights vary: the segments' weights (L, segments * 3 * size), pixel numbers, light of every frame."""

    lines: Array
    ramp: Array
    light: Array


class Segments(NamedTuple):
    """Weights of one wavelength and row: parabolas over segments of ``spacing`` pixels, of ``size`` numbers each."""

    line: Array
    size: int
    spacing: int
    ramp: Array


def pack_demodulation(d: Demodulation) -> Demodulator:
    """Pack weights, noise and limits in single precision."""
    floor = d.phase_floor_rad2[:, None] / (2 * np.pi) ** 2
    noise = np.concatenate([d.noise, d.covariance, floor], axis=1).astype(np.float32)
    weights = np.stack([d.cosine, d.sine, d.mean, d.parity]).astype(np.float32)
    of_waves = tuple(Noise(*row) for row in noise)
    ends = np.float32(d.black_dn), np.float32(d.saturation_dn)
    return Demodulator(weights, d.carre, of_waves, ends, np.float32(d.snr_min))


def pack_search(search: OrderSearch) -> Search:
    """Pack the order search in cycles of the anchor, in single precision."""
    half = search.half_wave_nm

    def span(low_nm: float, range_nm: float, count: int) -> Range:
        return Range(np.float32(low_nm / half), np.float32((low_nm + range_nm) / half), count)

    return Search(
        ratio=as_tuple(search.ratio),
        planes=tuple(_plane(search, row) for row in range(len(search.order))),
        near=span(search.near_low_nm, search.near_range_nm, search.near_candidates),
        whole=span(search.low_nm, search.range_nm, search.candidates),
        margin_min=np.float32(search.margin_min),
        misfit_max=np.float32(search.misfit_max),
        half_wave_nm=np.float32(half),
        finest=search.finest,
        rivals=tuple(np.float32(sign * step) for step in search.rivals for sign in (1, -1)),
        shared=np.float32(search.shared),
        apart=np.float32(_SURE * square_distance(search.ratio, search.near_candidates)),
    )


def _plane(search: OrderSearch, row: int) -> Plane:
    (tilt_y, tilt_x), (centre_y, centre_x) = search.tilt_turns[row], search.centre
    bow = None if search.bow_turns is None else tuple(float(value) for value in search.bow_turns[row].ravel())
    piston = float(search.piston_turns[row])
    return Plane(int(search.order[row]), piston, float(tilt_y), float(tilt_x), float(centre_y), float(centre_x), bow)


def as_tuple(ratio: Array) -> tuple[np.float32, ...]:
    """Make a tuple, whose type tells the compiler the number of wavelengths."""
    return tuple(np.float32(value) for value in ratio)

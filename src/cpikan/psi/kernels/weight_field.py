"""Weights of the frames that vary over the image: exact at the nodes of a coarse grid, parabolas between them.

Where frames are tilted or defocused against each other, the least-squares weights of every pixel differ, but smoothly.
They are worked out in float64 at nodes, turned into parabolas along x, and interpolated along y once per image row:
the loops over pixels only follow parabolas. Nodes belong to the image, not to a band: bands change no bit.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from cpikan.compiled import compiled
from cpikan.errors import InputError
from cpikan.psi.kernels.arguments import Curve, NodeRows
from cpikan.psi.kernels.model import LONGEST_SEGMENT, Demodulation
from cpikan.psi.model.frame_model import HIGHEST, FrameModel
from cpikan.psi.model.noise import NoiseModel

PHASE_ERROR_RAD = 1e-5  # the most that interpolated weights may move a phase
_BUDGET_RAD = 0.8 * PHASE_ERROR_RAD  # what is left is for terms beyond the second order and for the probes' gaps
_PROBES = 17  # per axis: where the curvature of the weights is looked at
_SEGMENTS_OF_A_FIELD = 128
_WORST_CONDITION = 300.0  # of the design at any probe; beyond it noise drowns the phase

# numbers of a node after the weights of its frames, and where each begins
OFFSETS, COVARIANCE, LEAKS, EXTRAS = 0, 4, 7, 15
_LIGHT_ROUNDING = 2e-6  # of the curve's range: an eighth of a step of 16 bits
SUMS = 4  # that each frame has a weight in: u, v, A and parity
Region = tuple[tuple[int, int], tuple[int, int]]  # first and last row, first and last column
_jit: Any = functools.partial(compiled, error_model="numpy")


def model_demodulation(
    models: tuple[FrameModel, ...],
    noise: tuple[NoiseModel, ...],
    saturation_dn: float,
    shape: tuple[int, int],
    region: Region | None = None,
) -> Demodulation:
    """Make the demodulation of frames described by one model per wavelength, for an image of ``shape`` (H, W).

    ``region`` bounds the rows and columns that matter (None: the whole image); tilts may run away outside.

    Where all models are uniform and without offsets the result is the plain one, and runs on every device. ``snr_min`` and
    the phase floor are left at zero. Raises InputError when the wavelengths differ in frames, or when somewhere in the image
    the frames do not determine what the model leaves free.
    """
    if len({m.frames for m in models}) != 1:
        raise InputError(f"wavelengths have {[m.frames for m in models]} frames: give the same number for each")
    region = region or ((0, shape[0] - 1), (0, shape[1] - 1))
    for i, one in enumerate(models):
        _check_determined(one, i, region)
    middle = np.array([(low + high) / 2 for low, high in region])
    mean, cosine, sine = np.moveaxis(np.stack([m.weights_at(*middle) for m in models]), 1, 0)
    products = (cosine * cosine, cosine * sine, sine * sine)
    plain = all(m.is_plain for m in models)
    return Demodulation(
        cosine=cosine,
        sine=sine,
        mean=mean,
        parity=np.stack([m.parity_at(*middle) for m in models]),
        covariance=np.stack([p.sum(axis=1) for p in products], axis=1),
        noise=np.array([[max(n.read_dn2, 1e-12), n.gain_dn] for n in noise]),  # nothing divides by zero
        phase_floor_rad2=np.zeros(len(models)),
        saturation_dn=saturation_dn,
        models=None if plain else models,
        node_px=(0, 0) if plain else node_spacing(models, shape, region),
    )


def _check_determined(model: FrameModel, wavelength: int, region: Region) -> None:
    unknowns = 3 + 2 * len(model.harmonics) - (model.background is not None)
    if model.frames < unknowns:
        raise InputError(
            f"wavelength {wavelength + 1} has {model.frames} frames for {unknowns} unknowns in each pixel: "
            "leave harmonics out, or take more frames"
        )
    design = model.design_at(*_probes(region))
    if model.background is not None:  # one more sample, of the background alone
        known = np.broadcast_to(np.eye(design.shape[-1])[:1], (*design.shape[:-2], 1, design.shape[-1]))
        design = np.concatenate([design, known], axis=-2)
    worst = float(np.linalg.cond(design).max())
    if not worst < _WORST_CONDITION:
        raise InputError(
            f"the steps of wavelength {wavelength + 1} do not determine the phase everywhere in the image (condition "
            f"{worst:.3g}, allowed is {_WORST_CONDITION:g}): check steps and tilts, leave harmonics out, or take more frames"
        )


def _probes(region: Region) -> tuple[np.ndarray, np.ndarray]:
    y, x = (np.linspace(low, high, min(high - low + 1, _PROBES)) for low, high in region)
    return tuple(np.meshgrid(y, x, indexing="ij"))  # type: ignore[return-value]


def node_spacing(
    models: tuple[FrameModel, ...], shape: tuple[int, int], region: Region | None = None
) -> tuple[int, int]:
    """Find the length (y, x) of segments in pixels, powers of two, that keeps phases within 1e-5 rad of exact weights.

    With exact weights W and design D a pixel's W D is the identity. A parabola through both ends and the middle of S pixels
    errs by S^3 / (72 sqrt 3) times the third derivative of W at most, and (A, u, v) by that times D and the amplitudes. The
    column of A drops out, as weights of u and v that reject A at the nodes do so between them. The Frobenius norm of what is
    left bounds the phase error, for harmonics as strong as B. The derivative is taken by central differences at probes all
    over the image. Where the design is poor and noise counts more than in a stack of equal steps, the bound is let out by
    that factor. The axis that adds more is halved until the sum is within the budget.
    """
    y, x = _probes(region or ((0, shape[0] - 1), (0, shape[1] - 1)))
    third = np.zeros(2)
    for model in models:
        if model.is_uniform:
            continue
        weights, design = model.weights_at(y, x), model.design_at(y, x)[..., 1:]
        worse_noise = np.sqrt(model.frames / 4) * np.linalg.norm(weights[..., 1:, :], axis=(-2, -1))
        for axis, extent in enumerate(shape):
            step = max(1.0, extent / 128)
            dy, dx = (step, 0.0) if axis == 0 else (0.0, step)
            outer = model.weights_at(y + 2 * dy, x + 2 * dx) - model.weights_at(y - 2 * dy, x - 2 * dx)
            inner = model.weights_at(y + dy, x + dx) - model.weights_at(y - dy, x - dx)
            error = np.linalg.norm((outer - 2 * inner) @ design, axis=(-2, -1)) / (2 * step**3)
            third[axis] = max(third[axis], float((error / np.maximum(worse_noise, 1)).max()))
    longest = LONGEST_SEGMENT
    if any(model.background is not None for model in models):  # of degree six, within 1e-5 of its terms
        longest = max(2, 1 << (max(shape) // _SEGMENTS_OF_A_FIELD).bit_length() - 1)
    spacing = np.array([min(longest, max(2, 1 << (extent - 1).bit_length())) for extent in shape])
    while (error := spacing**3 * third / (72 * np.sqrt(3))).sum() > _BUDGET_RAD and spacing.max() > 2:
        spacing[int(np.argmax(np.where(spacing > 2, error, -1.0)))] //= 2
    return int(spacing[0]), int(spacing[1])


class _Frames(NamedTuple):
    """Parameters (K,) of the frames of one wavelength, float64."""

    step: np.ndarray
    tilt_y: np.ndarray
    tilt_x: np.ndarray
    defocus: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    fringe: np.ndarray  # gain times contrast


class WeightField:
    """The nodes' weights of one stack, made for the bands that ask for them.

    ``rows`` gives what the compiled pass takes: nodes (node rows, L, segments * 3 * (4 K + 15)) float32, two node rows for
    each segment along y and one more.
    Of each segment along x: cosine, sine, mean and parity of frame 0, of frame 1, ..., the constants of the four sums that take
    the offsets off, var u, cov, var v, what the second and the third harmonic add to u + i v (real and imaginary factors of
    B exp(i h phi) and of B exp(-i h phi), zero where not locked); then the factors of all these with the pixel's number
    in the segment, and with its square.
    Only the node rows of the last band are kept.
    """

    def __init__(self, d: Demodulation) -> None:
        assert d.models is not None, "weights that are the same everywhere need no field"
        self._models, self._spacing = d.models, d.node_px
        self._parities = np.linalg.norm(d.parity, axis=1)
        self._curves = tuple(_pack_curve(one, (d.black_dn, d.saturation_dn)) for one in d.models)
        self._kept: dict[tuple[int, int], np.ndarray] = {}

    def rows(self, first_row: int, rows: int, width: int) -> NodeRows:
        """Give nodes for image rows [first_row, first_row + rows)."""
        every_y, every_x = self._spacing
        first, last = first_row // every_y, (first_row + rows - 1) // every_y
        wanted = [(j, width) for j in range(2 * first, 2 * last + 3)]
        kept = self._kept
        self._kept = made = {key: kept[key] if key in kept else self._row(*key) for key in wanted}
        return NodeRows(np.stack([made[key] for key in wanted]), first, every_y, every_x, self._curves)

    def _row(self, number: int, width: int) -> np.ndarray:
        """Compute node row ``number``, half a segment after the one before: (L, segments * 3 * (4 K + 15))."""
        every_y, every_x = self._spacing
        segments = -(-width // every_x)
        lines = []
        for one, length in zip(self._models, self._parities, strict=True):
            exact = np.zeros((2 * segments + 1, SUMS * one.frames + EXTRAS))
            y, x = np.broadcast_arrays(number * every_y / 2, np.arange(2 * segments + 1) * every_x / 2)
            smooth = np.zeros(len(x)) if one.background is None else one.background.at(y, x)
            orders = np.array([1, *one.harmonics], np.float64)
            tilt_y, tilt_x = one.tilt_rad_px.T
            frames = _Frames(
                *(
                    np.ascontiguousarray(part, np.float64)
                    for part in (
                        one.steps_rad,
                        tilt_y,
                        tilt_x,
                        one.defocus_rad_px2,
                        one.gain,
                        one.offset_dn,
                        one.gain * one.fringe_contrast,
                    )
                )
            )
            _exact_nodes(
                number * every_y / 2 - one.pivot[0],
                -one.pivot[1],
                every_x / 2,
                frames,
                orders,
                one.background_weight,
                smooth,
                exact,
            )
            parity = length * one.parity_at(y, x)
            exact[:, 3 : SUMS * one.frames : SUMS] = parity
            exact[:, SUMS * one.frames + OFFSETS + 3] = -parity @ one.offset_dn
            for i, (order, _) in enumerate(one.locked):
                place = SUMS * one.frames + LEAKS + 4 * (order - 2)
                leaks = one.leaks_at(y, x)[:, i]
                exact[:, place : place + 4] = leaks.view(np.float64).reshape(len(x), 4)
            start, middle, end = exact[:-1:2], exact[1::2], exact[2::2]
            slope = (4 * middle - 3 * start - end) / every_x
            bend = 2 * (start - 2 * middle + end) / every_x**2
            lines.append(np.concatenate([start, slope, bend], axis=1).ravel())
        return np.stack(lines).astype(np.float32)


def _pack_curve(model: FrameModel, ends_dn: tuple[float, float]) -> Curve:
    """Pack the detector's curve of one wavelength in single precision."""
    response, locked, single = model.response, bool(model.locked), np.float32
    if response is None:
        zero = single(0)
        return Curve(
            False,
            (single(ends_dn[0]), single(ends_dn[1])),
            zero,
            zero,
            zero,
            zero,
            zero,
            zero,
            (zero,) * (HIGHEST + 1),
            locked,
        )
    low, high = response.low_dn, response.high_dn
    # single precision rounds the light of a clipped sample a little to either side
    slack = _LIGHT_ROUNDING * (high - low)
    black, white = (float(response.light_dn(np.array([end]))[0]) if np.isfinite(end) else end for end in ends_dn)
    below, above = response.slope(np.array([low, high])) - 1
    return Curve(
        bent=True,
        ends=(single(black + slack), single(white - slack)),
        low=single(low),
        high=single(high),
        shift=single(-(low + high) / (high - low)),
        scale=single(2 / (high - low)),
        below=single(below),
        above=single(above),
        polynomial=tuple(response.monomials().astype(single)),
        locked=locked,
    )


@_jit
def _exact_nodes(dy, dx0, spacing, frames, orders, trust, smooth, out):  # type: ignore[no-untyped-def]
    """Compute weights, constants and covariance at nodes of one row, as `FrameModel.weights_at` has them.

    Normal equations by Cholesky in float64: a condition of 300 leaves eleven digits. ``dy``, ``dx0`` are from the pivot;
    ``out`` is (nodes, 4 K + EXTRAS). ``smooth`` (nodes,) is the background that counts as ``trust`` samples.
    """
    count, unknowns = len(frames.step), 1 + 2 * len(orders)
    design, gram, solved = np.empty((count, unknowns)), np.empty((unknowns, unknowns)), np.empty((3, unknowns))
    for node in range(out.shape[0]):
        dx = dx0 + node * spacing
        for k in range(count):
            step, gain = frames.step[k] + frames.tilt_y[k] * dy + frames.tilt_x[k] * dx, frames.gain[k]
            step += frames.defocus[k] * (dy * dy + dx * dx)
            design[k, 0], fringe = gain, frames.fringe[k]
            for h in range(len(orders)):
                design[k, 1 + 2 * h] = fringe * np.cos(orders[h] * step)
                design[k, 2 + 2 * h] = -fringe * np.sin(orders[h] * step)
        _solve_for_three(design, trust, gram, solved)
        _fill_node(design, frames.offset, solved, trust, smooth[node], out[node])


@_jit
def _solve_for_three(design, trust, gram, solved):  # type: ignore[no-untyped-def]
    """Solve for the rows of the inverse of design^T design that belong to A, u and v."""
    size = gram.shape[0]
    for i in range(size):
        for j in range(i + 1):  # the Cholesky factor, in the lower half of ``gram``
            total = trust if i == 0 else 0.0
            for k in range(design.shape[0]):
                total += design[k, i] * design[k, j]
            for m in range(j):
                total -= gram[i, m] * gram[j, m]
            gram[i, j] = np.sqrt(total) if i == j else total / gram[j, j]
    for r in range(3):
        for i in range(size):
            total = 1.0 if i == r else 0.0
            for m in range(i):
                total -= gram[i, m] * solved[r, m]
            solved[r, i] = total / gram[i, i]
        for i in range(size - 1, -1, -1):
            total = solved[r, i]
            for m in range(i + 1, size):
                total -= gram[m, i] * solved[r, m]
            solved[r, i] = total / gram[i, i]


@_jit
def _fill_node(design, offset, solved, trust, smooth, out):  # type: ignore[no-untyped-def]
    count = design.shape[0]
    offsets, covariance = out[SUMS * count + OFFSETS :], out[SUMS * count + COVARIANCE :]
    offsets[:3], covariance[:3] = 0.0, 0.0
    for r in range(3):
        offsets[(r + 2) % 3] = trust * solved[r, 0] * smooth
    covariance[0] = trust * solved[1, 0] * solved[1, 0]
    covariance[1] = trust * solved[1, 0] * solved[2, 0]
    covariance[2] = trust * solved[2, 0] * solved[2, 0]
    for k in range(count):
        for r in range(3):
            weight = 0.0
            for m in range(design.shape[1]):
                weight += solved[r, m] * design[k, m]
            place = (r + 2) % 3  # u, v, A
            out[SUMS * k + place] = weight
            offsets[place] -= weight * offset[k]
        u, v = out[SUMS * k], out[SUMS * k + 1]
        covariance[0] += u * u
        covariance[1] += u * v
        covariance[2] += v * v

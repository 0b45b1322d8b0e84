"""A few pixels of every frame, spread over the image: what calibration looks at, and what betrays a broken stack."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError
from cpikan.order_statistics import quantile
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.carrier import WholeRows
from cpikan.surface.apertures.aperture import Aperture

_LARGEST = 1e15  # of a sample: fourth powers still fit single precision
_ROWS = 96
_COLUMNS = 128
_WHOLE_ROWS = 4  # kept entire, for noise from neighbours
_LIT = 0.3  # of the brightest pixels
_FEWEST_LIT = 200
_FEWEST_FRAMES = 4  # that differ, of one wavelength: their steps can be fitted; three of four may be enough too
_BRIGHTER = 0.75  # of the frames are no brighter than what counts as usual: half of them may be dark
_SPAN = 3.29  # standard deviations of noise from 5 to 95 % of the samples
_DIM, _DARK = 0.35, 0.15  # of the light of the other frames: with its noise, and without
_STRIPED = 0.6  # of the light of a frame that its fringes span, where there is a whole one
_WRAPPED = 0.7  # full-range fringes: wrapped light has half the steps once read as unsigned, light of either sign twice


def take_subsample(stack: FrameStack, mask: Aperture | None) -> Subsample:
    """Sample pixels on a staggered grid inside the mask's extent; InputError for constant or duplicated frames."""
    height, width = stack.shape[2:]
    top, bottom, left, right = _extent(mask, (height, width))
    lines = np.unique(np.linspace(top, bottom - 1, min(_ROWS, bottom - top)).round().astype(int))
    step = max(1, (right - left) // _COLUMNS)
    pieces, positions, valid, whole, whole_lines = [], [], [], [], []
    for i, line in enumerate(lines):
        row = stack.rows(int(line), int(line) + 1)[:, :, 0]
        # staggered, so that a grid of dies does not fall in step with the samples
        columns = np.arange(left + (i * 7) % step, right, step)
        pieces.append(row[:, :, columns])
        positions.append(np.stack([np.full(columns.size, line), columns], axis=1))
        inside = np.ones((1, width), np.uint8) if mask is None else mask.rows(int(line), int(line) + 1, width)
        valid.append(inside[0, columns] != 0)
        if i % max(1, len(lines) // _WHOLE_ROWS) == 0:
            whole.append(row[:, :, None, left:right].copy())
            whole_lines.append(int(line))
    sample = Subsample(
        np.concatenate(pieces, axis=2),
        np.concatenate(positions),
        WholeRows(np.concatenate(whole, axis=2), np.array(whole_lines), left),
        np.concatenate(valid),
        (height, width),
    )
    _check_frames(stack, sample)
    _check_dark(stack, sample)
    _check_sign(stack, sample)
    return sample


def _extent(mask: Aperture | None, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Find the rows and columns the mask spans (top, bottom, left, right): a small mask still gives enough samples."""
    height, width = shape
    if mask is None:
        return 0, height, 0, width
    any_row = np.zeros(height, bool)
    any_column = np.zeros(width, bool)
    for start in range(0, height, 256):
        rows = mask.rows(start, min(start + 256, height), width)
        any_row[start : start + len(rows)] = rows.any(axis=1)
        any_column |= rows.any(axis=0)
    used_rows, used_columns = np.flatnonzero(any_row), np.flatnonzero(any_column)
    return int(used_rows[0]), int(used_rows[-1]) + 1, int(used_columns[0]), int(used_columns[-1]) + 1


def _check_frames(stack: FrameStack, sample: Subsample) -> None:
    """Refuse frames that are constant, and frames that are the same picture though their steps differ.

    A frame of one wavelength that was stored twice is not refused where enough others are left to fit the steps.
    """
    wavelengths, steps = stack.shape[:2]
    seen: dict[bytes, int] = {}
    twice = [0] * wavelengths
    for index in range(wavelengths * steps):
        pixels = np.ascontiguousarray(sample.frames.reshape(wavelengths * steps, -1)[index])
        finite = pixels[np.isfinite(pixels)]
        if finite.size == 0 or finite.min() == finite.max():
            value = "not a number" if finite.size == 0 else f"{finite[0]:g}"
            raise InputError(
                f"frame {stack.labels[index]} is constant ({value} in every sampled pixel): it holds no fringes; check it"
            )
        largest, contrast = max(abs(float(finite.min())), abs(float(finite.max()))), float(np.ptp(finite.astype(float)))
        if largest > _LARGEST or contrast < 1 / _LARGEST:
            raise InputError(
                f"frame {stack.labels[index]} has values of up to {largest:.3g} that differ by {contrast:.3g}: between "
                f"{1 / _LARGEST:g} and {_LARGEST:g} they can be computed with; scale the frames, or check how they were stored"
            )
        twin = seen.setdefault(pixels.tobytes(), index)
        if twin != index and should_differ(stack, twin, index):
            wave = index // steps
            twice[wave] += 1
            left = steps - twice[wave]
            of_four = steps == _FEWEST_FRAMES and left == steps - 1 and stack.acquisition.phase_steps_deg is not None
            if twin // steps == wave and (left >= _FEWEST_FRAMES or of_four):
                continue
            raise InputError(
                f"frames {stack.labels[twin]} and {stack.labels[index]} are identical though their phase steps differ: "
                "one was stored twice; give each frame once"
            )


def _check_dark(stack: FrameStack, sample: Subsample) -> None:
    """Refuse a frame without light among frames with fringes: it belongs to the dark level, not to the steps."""
    for i, one in enumerate(sample.frames[..., sample.valid]):
        lit = one[:, np.nan_to_num(one).max(axis=0) > _LIT * _known_quantile(one, 0.99)]
        if lit.shape[1] < _FEWEST_LIT:
            continue
        low, high = (np.array([_known_quantile(frame, share) for frame in lit]) for share in (0.05, 0.95))
        floor = float(low.min())
        light, swing = high - floor, high - low
        usual, noise = np.quantile(light, _BRIGHTER), _row_noise_dn(sample.rows.samples[i])
        beside_noise = np.sqrt(np.maximum(light**2 - (_SPAN * noise) ** 2, 0))
        dark = (light < _DIM * usual) & (beside_noise < _DARK * usual)  # narrow fringes look like noise, but not dim
        # a part without fringes is dark as a whole in some frame, and even in all of them: that is no fault
        striped = np.quantile(swing, _BRIGHTER) > _STRIPED * usual
        for k in np.flatnonzero(striped & dark):
            raise InputError(
                f"frame {stack.labels[i * stack.shape[1] + int(k)]} is dark ({high[k]:.0f} DN where the others reach "
                f"{np.quantile(high, _BRIGHTER):.0f} DN): a dark frame or a lost exposure is no phase step; leave it and its "
                "step out"
            )


def _row_noise_dn(samples: np.ndarray) -> np.ndarray:
    """Estimate the noise of frames (K,) from how samples (K, rows, W) differ from the middle of their two neighbours."""
    whole = samples.astype(np.float32).reshape(len(samples), -1)
    bend = np.abs(whole[:, 1:-1] - (whole[:, 2:] + whole[:, :-2]) / 2)
    return np.array([_known_quantile(one, 0.5) for one in bend]) / (0.6745 * 1.5**0.5)


def _known_quantile(values: np.ndarray, share: float) -> float:
    """Compute the quantile of the values that are numbers."""
    return quantile(values[~np.isnan(values)] if values.dtype.kind == "f" else values, share)


def _check_sign(stack: FrameStack, sample: Subsample) -> None:
    """Refuse unsigned light that was stored as signed integers: neighbours then differ by the whole range of the type."""
    stored = stack.stored_dtype
    if stored.kind != "i":
        return
    rows = sample.rows.samples.astype(np.float64)
    as_unsigned = np.mod(rows, 2.0 ** (8 * stored.itemsize))
    if _roughness(as_unsigned) < _WRAPPED * _roughness(rows):
        raise InputError(
            f"{stack.source} holds unsigned light stored as {stored}, which jumps from {rows.max():g} to {rows.min():g} "
            f"between neighbours: save the frames with .view('uint{8 * stored.itemsize}')"
        )


def _roughness(rows: np.ndarray) -> float:
    """Sum the steps between neighbours in rows (..., W)."""
    return float(np.abs(np.diff(rows)).sum())


def should_differ(stack: FrameStack, first: int, second: int) -> bool:
    """Tell whether two frames should differ: only those of one wavelength a whole turn apart may be the same."""
    steps = stack.shape[1]
    given = stack.acquisition.phase_steps_deg
    if given is None or first // steps != second // steps:
        return True
    turn = (given[first // steps][first % steps] - given[second // steps][second % steps]) % 360
    return min(turn, 360 - turn) > 1.0

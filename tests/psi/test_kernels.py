"""The compiled pixel pass against the plain reference, and its promise that bands and threads change no bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import plain_kernels as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.model import (
    LOW_SIGMA_RAD,
    Demodulation,
    HeightRows,
    OrderSearch,
    PhaseRows,
    PixelModel,
    empty_rows,
)
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.psi.kernels.weight_field import PHASE_ERROR_RAD, model_demodulation
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.noise import NoiseModel
from cpikan.psi.model.schemes import CARRE, LEAST_SQUARES, phasor_weights

TURN = 2 * np.pi
ULP = 2.0**-24
# every type, and what is odd about a number of wavelengths: none, one, several; each pair is compiled once, for seconds
KINDS = [(1, "u1"), (2, "u1"), (1, "u2"), (4, "f4"), (1, "f8")]
FIELD_KINDS = [(1, "u1"), (2, "u1"), (1, "u2"), (1, "f4")]
TOP = {"u1": 255.0, "u2": 4095.0, "f4": np.inf, "f8": np.inf}


@dataclass(frozen=True)
class Case:
    """Frames (L, K, rows, W), the model they are worked through with, a mask, and the first image row."""

    frames: np.ndarray
    model: PixelModel
    mask: np.ndarray | None
    first_row: int

    @property
    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """Image rows and columns of the pixels."""
        y, x = np.mgrid[: self.frames.shape[2], : self.frames.shape[3]]
        return y + self.first_row, x


def make_case(seed: int, kind: tuple[int, str], shape: tuple[int, int], *, carre: bool = False) -> Case:
    rng = np.random.default_rng(seed)
    wavelengths, dtype = kind
    count = 4 if carre else int(rng.integers(3, 14))
    steps = [_steps(rng, count, carre) for _ in range(wavelengths)]
    weights = [phasor_weights(CARRE if carre else LEAST_SQUARES, row) for row in steps]
    top = 255.0 if dtype == "u1" else 4095.0
    level = float(rng.uniform(0.003, 0.06)) * 0.3 * top  # standard deviation of a sample
    model = Demodulation.of_weights(
        weights,
        noise=np.tile([0.7 * level**2, 0.3 * level**2 / (0.4 * top)], (wavelengths, 1)),
        phase_floor_rad2=rng.choice([0.0, 1e-4], wavelengths),
        saturation_dn=TOP[dtype],
        black_dn=(-np.inf, 0.0, 0.1 * top)[seed % 3],
        snr_min=float(rng.uniform(5, 40)),
    )
    search = _search(rng, wavelengths, shape) if wavelengths > 1 else None
    frames = _frames(rng, np.array(steps), search, shape, top, level)
    frames = _with_faults(rng, frames, dtype, top)
    mask = None if rng.random() < 0.3 else (rng.random(shape) < 0.8).astype(np.uint8)
    return Case(frames, PixelModel(model, search), mask, int(rng.integers(0, 50)))


def make_field_case(seed: int, kind: tuple[int, str], shape: tuple[int, int]) -> Case:
    """A case whose frames have tilts, defocus, gains, offsets and, where there are frames enough, a second harmonic.

    One wavelength of several keeps uniform steps.
    """
    plain = make_case(seed, kind, shape)
    rng, d, first_row = np.random.default_rng(seed + 1), plain.model.demodulation, plain.first_row
    wavelengths, count = d.wavelengths, max(5, d.frames)
    extent = (first_row + shape[0], shape[1])
    unit = 1.0 if kind[1] == "u1" else 16.0  # of the offsets, in DN
    models = tuple(
        _frame_model(rng, count, extent, unit, still=i > 0 and i == wavelengths - 1) for i in range(wavelengths)
    )
    noise = tuple(NoiseModel(float(read), float(gain), "residuals", 1) for read, gain in d.noise)
    field = replace(
        replace(model_demodulation(models, noise, d.saturation_dn, extent), black_dn=d.black_dn),
        phase_floor_rad2=d.phase_floor_rad2,
        snr_min=d.snr_min,
    )
    y, x = plain.place
    steps = np.stack([m.steps_at(y, x) for m in models])
    top = 255.0 if kind[1] == "u1" else 4095.0
    level = float(np.sqrt(d.noise[0, 0] / 0.7))
    frames = _frames(
        rng, np.degrees(steps), plain.model.search, shape, top, level, second=0.1 if models[0].harmonics else 0.0
    )
    gain, offset = (np.stack([getattr(m, name) for m in models])[..., None, None] for name in ("gain", "offset_dn"))
    frames = _with_faults(rng, gain * frames + offset, kind[1], top)
    return replace(plain, frames=frames, model=replace(plain.model, demodulation=field))


def _frame_model(
    rng: np.random.Generator, count: int, extent: tuple[int, int], unit: float, *, still: bool
) -> FrameModel:
    span = np.maximum(np.array(extent) - 1.0, 1.0)
    tilt = rng.uniform(-0.25, 0.25, (count, 2)) / span
    defocus = rng.uniform(-0.5, 0.5, count) / (span @ span)
    harmonics = (2,) if count > 6 else ()
    step = 2 * np.pi / count if harmonics else np.radians(80)
    steps = step * np.arange(count) + rng.uniform(-0.1, 0.1, count)
    gain, offset = rng.uniform(0.95, 1.05, count), rng.uniform(-3, 3, count) * unit
    if still:
        tilt[:], defocus[:] = 0, 0
    steps[0] = tilt[0] = defocus[0] = offset[0] = 0
    gain[0] = 1
    return FrameModel(steps, tilt, defocus, gain, offset, (span[0] / 2, span[1] / 2), harmonics)


def _steps(rng: np.random.Generator, count: int, carre: bool) -> tuple[float, ...]:
    step = rng.uniform(60, 110) * rng.choice([-1, 1])
    jitter = np.zeros(count) if carre else rng.uniform(-12, 12, count)
    return tuple(float(s) for s in step * np.arange(count) + jitter)


def _search(rng: np.random.Generator, wavelengths: int, shape: tuple[int, int]) -> OrderSearch:
    waves = np.sort(rng.uniform(450, 700, wavelengths))
    half = float(waves[0] / 2)
    low = float(rng.uniform(-3000, 1000))
    range_nm = float(rng.uniform(3, 15)) * half
    near = (low, range_nm) if rng.random() < 0.4 else (low + 0.3 * range_nm, 0.35 * range_nm)
    return OrderSearch(
        order=tuple(int(i) for i in rng.permutation(wavelengths)),
        ratio=waves[0] / waves,
        half_wave_nm=half,
        piston_turns=rng.uniform(-0.5, 0.5, wavelengths),
        tilt_turns=rng.uniform(-1e-3, 1e-3, (wavelengths, 2)),
        centre=((shape[0] - 1) / 2, (shape[1] - 1) / 2),
        low_nm=low,
        range_nm=range_nm,
        near_low_nm=near[0],
        near_range_nm=near[1],
        misfit_max=30.0,
        finest=bool(rng.random() < 0.3),
    )


def _frames(
    rng: np.random.Generator,
    steps_deg: np.ndarray,
    search: OrderSearch | None,
    shape: tuple[int, int],
    top: float,
    level: float,
    second: float = 0.0,
) -> np.ndarray:
    """Noisy frames of heights all over the range, by steps (L, K) or (L, K, rows, W); ``second`` harmonic over the first."""
    wavelengths = len(steps_deg)
    if search is None:
        turns = rng.uniform(-0.5, 0.5, (1, *shape))
    else:
        height = rng.uniform(search.low_nm, search.low_nm + search.range_nm, shape)
        turns = np.empty((wavelengths, *shape))
        for i, source in enumerate(search.order):
            turns[source] = search.ratio[i] * height / search.half_wave_nm + search.piston_turns[i]
    modulation = top * rng.uniform(0.02, 0.4, shape)
    steps = np.radians(steps_deg)
    angle = TURN * turns[:, None] + (steps[:, :, None, None] if steps.ndim == 2 else steps)
    clean = 0.45 * top + modulation * (np.cos(angle) + second * np.cos(2 * angle))
    return clean + rng.normal(0, level, clean.shape)


def _with_faults(rng: np.random.Generator, frames: np.ndarray, dtype: str, top: float) -> np.ndarray:
    """Dark, flat, struck and saturated pixels everywhere; NaN and infinities among floats."""
    shape = frames.shape[2:]
    bad = rng.random(shape)
    frames = np.where(bad < 0.02, 0.0, np.where(bad > 0.98, 0.3 * top, frames))
    frames[-1, 0] += np.where((bad > 0.15) & (bad < 0.2), (bad - 0.15) * 6 * top, 0.0)  # struck samples
    if dtype[0] == "u":
        frames = np.clip(np.rint(frames), 0, top)
        frames[0, 1, (bad > 0.05) & (bad < 0.07)] = top
    else:
        for value, at in ((np.nan, 0.05), (np.inf, 0.08), (-np.inf, 0.11)):
            frames[-1, 2, (bad > at) & (bad < at + 0.02)] = value
    return np.ascontiguousarray(frames.astype(dtype))


def run_heights(case: Case, threads: int = 1) -> tuple[HeightRows, np.ndarray]:
    rows, width = case.frames.shape[2:]
    table = np.full((rows, COLUMNS), -1.0)
    kernels = CpuKernels(case.model, threads)
    out = kernels.heights(case.frames, case.first_row, case.mask, HeightRows(*empty_rows(rows, width)), table)
    kernels.close()
    return out, table


def run_phases(case: Case, threads: int = 1) -> PhaseRows:
    kernels = CpuKernels(case.model, threads)
    out = kernels.phases(case.frames, case.mask, PhaseRows(*empty_rows(*case.frames.shape[2:])), case.first_row)
    kernels.close()
    return out


def phase_tolerance_rad(case: Case, modulation: np.ndarray) -> np.ndarray:
    """Rounding error of a float32 phase, (L, ...): the sums of K products, then the arctangent's 3e-8 turns.

    A sum of K products of weights |w| and samples up to I errs by (K + 2) 2^-24 I sum |w|; over B that is an angle.
    """
    d = case.model.demodulation
    largest = np.nan_to_num(case.frames.astype(float), nan=0, posinf=0, neginf=0).max()
    size = np.abs(d.cosine).sum(axis=1) + np.abs(d.sine).sum(axis=1)
    if d.carre:  # differences of samples times the scale, and a square root
        size = 40 * np.abs(d.cosine[:, 2])
    field = 0.0
    if d.models is not None:  # weights in three parts, off the centre up to half as large again, and interpolated
        size, field = 1.5 * size * (d.frames + 8) / (d.frames + 2), 2 * PHASE_ERROR_RAD
    rounding = (d.frames + 2) * ULP * largest * size
    return rounding[:, None, None] / np.maximum(modulation, 1e-9) + 3e-8 * TURN + 2 * ULP * np.pi + field


@dataclass(frozen=True)
class Expected:
    """What the reference finds, and by how much rounding may move each quantity, turned into relative bounds."""

    relative: np.ndarray
    unsure: np.ndarray  # pixels within rounding of a threshold
    error_rad: np.ndarray


def expect(case: Case) -> Expected:
    d = case.model.demodulation
    with np.errstate(all="ignore"):
        _, variance, modulation, snr, _, excess = reference.demodulate(case.frames, d, case.place)
        error = phase_tolerance_rad(case, modulation)
        relative = 1e-5 + 8 * error.max(axis=0)
        if d.models is not None:
            # parity is interpolated to 1e-4 of the fringe, B / sigma <= sqrt(snr); d ln(excess) / dz is 24 at most, at z = 6
            moved = 24 * 10 * PHASE_ERROR_RAD * np.sqrt(snr * excess)
            relative = relative + np.where(excess > 1, moved, 0.0).max(axis=0)
        total = snr.sum(axis=0)
        unsure = np.abs(total - d.snr_min) < relative * d.snr_min
        for spread in (variance, variance / excess):
            unsure |= (np.abs(spread - LOW_SIGMA_RAD**2) < relative * LOW_SIGMA_RAD**2).any(axis=0)
    return Expected(relative, unsure, error)


def assert_close(got: np.ndarray, want: np.ndarray, relative: np.ndarray) -> None:
    assert (np.abs(got.astype(float) - want) <= relative * np.abs(want)).all()


def check_phases(case: Case) -> None:
    got, want, expected = (
        run_phases(case),
        reference.phases(case.frames, case.model, case.mask, case.first_row),
        expect(case),
    )
    sure = ~expected.unsure
    np.testing.assert_array_equal(got.flags[sure], want.flags[sure])
    both = (got.flags & Flag.INVALID == 0) & (want.flags & Flag.INVALID == 0)
    assert np.isnan(got.phase_rad[got.flags & Flag.INVALID != 0]).all()
    difference = np.abs(np.angle(np.exp(1j * (got.phase_rad.astype(float) - want.phase_rad))))[both]
    tolerance = expected.error_rad[0][both]
    if case.model.demodulation.carre:
        tolerance = np.maximum(tolerance, np.sqrt(tolerance))  # next to a zero of the sine the root halves the digits
    assert (difference <= tolerance).all()
    relative = expected.relative[both]
    if not case.model.demodulation.carre:
        assert_close(got.sigma_rad[both], want.sigma_rad[both], relative)
        assert_close(got.modulation[both], want.modulation[both], relative)
    assert np.isfinite(got.modulation).all()


def check_heights(case: Case) -> None:
    search, d = case.model.search, case.model.demodulation
    assert search is not None
    got, table = run_heights(case)
    want, expected = reference.heights(case.frames, case.model, case.first_row, case.mask), expect(case)
    with np.errstate(all="ignore"):
        phase, variance, *_ = reference.demodulate(case.frames, d, case.place)
        turns = reference.remove_pistons(phase, search, case.first_row)
        spread = variance[list(search.order)] / TURN**2
        moved = expected.error_rad[list(search.order)] / TURN + 8 * ULP * (np.abs(search.low_nm) + search.range_nm) / (
            search.half_wave_nm
        )
        slack = np.zeros(turns.shape[1:])
        unsure = expected.unsure.copy()
        near = reference.search_orders(turns, spread, search, search.near_low_nm, search.near_range_nm)
        wide = reference.search_orders(turns, spread, search, search.low_nm, search.range_nm)
        far = near[2] > search.misfit_max if search.near_range_nm < search.range_nm else np.zeros(turns.shape[1:], bool)
        best, second = np.where(far, wide[2], near[2]), np.where(far, wide[3], near[3])
        # chi squared moves by 2 sqrt(w chi^2) dr for each wavelength, and relatively as the weights do
        for cost in (best, second):
            level = np.where(np.isfinite(cost), cost, 0)
            slack += 2 * np.sqrt(level / spread * moved**2).sum(axis=0) + (moved**2 / spread).sum(axis=0)
            slack += expected.relative * (level + 1)
        slack *= 2
        unsure |= (second - best < slack) | (np.abs(near[2] - search.misfit_max) < slack)
        unsure |= np.abs(best - search.misfit_max) < slack
        unsure |= np.abs(second - best - search.margin_min) < slack
        # a height within rounding of an end of a range has or has not a candidate there
        for low, length in ((search.near_low_nm, search.near_range_nm), (search.low_nm, search.range_nm)):
            for end in (low, low + length):
                above = (turns[0] - end / search.half_wave_nm) % 1.0
                unsure |= np.minimum(above, 1 - above) < 2 * moved[0]
    sure = ~unsure
    np.testing.assert_array_equal(got.flags[sure], want.flags[sure])
    valid = (got.flags & Flag.INVALID == 0) & (want.flags & Flag.INVALID == 0) & sure
    if not d.carre:
        # the correction moves with every residual and with the weights: |shift| <= 0.5 turns
        allowed = search.half_wave_nm * (2 * moved.sum(axis=0) + expected.relative * 0.5 * len(search.ratio))
        allowed = allowed + 4 * ULP * np.abs(want.height_nm)
        assert (np.abs(got.height_nm - want.height_nm)[valid] <= allowed[valid]).all()
        assert_close(got.sigma_nm[valid], want.sigma_nm[valid], expected.relative[valid])
        assert_close(got.modulation[valid], want.modulation[valid], expected.relative[valid])
    assert np.isnan(got.height_nm[got.flags & Flag.INVALID != 0]).all()
    assert np.isfinite(got.modulation).all()
    np.testing.assert_array_equal(table[:, 0], (got.flags & Flag.INVALID == 0).sum(axis=1))
    # the cases are worth their while: most pixels are measured and compared
    inside = valid.size if case.mask is None else case.mask.sum()
    assert valid.sum() > 0.3 * inside or valid.size < 300


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.integers(1, 6), st.integers(1, 1100))
def test_compiled_pass_equals_the_reference(seed: int, kind: tuple[int, str], rows: int, width: int) -> None:
    case = make_case(seed, kind, (rows, width))
    check_phases(case) if kind[0] == 1 else check_heights(case)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(FIELD_KINDS), st.integers(1, 6), st.integers(20, 1100))
def test_compiled_pass_equals_the_reference_where_weights_vary(
    seed: int, kind: tuple[int, str], rows: int, width: int
) -> None:
    case = make_field_case(seed, kind, (rows, width))
    check_phases(case) if kind[0] == 1 else check_heights(case)


@pytest.mark.parametrize("kind", FIELD_KINDS)
def test_compiled_pass_equals_the_reference_where_weights_vary_at_fixed_seeds(kind: tuple[int, str]) -> None:
    for seed in (1, 2, 3):
        case = make_field_case(seed, kind, (3, 2300))
        check_phases(case) if kind[0] == 1 else check_heights(case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 511), (2, 2049)])
def test_compiled_pass_equals_the_reference_at_fixed_seeds(kind: tuple[int, str], shape: tuple[int, int]) -> None:
    for seed in (1, 2, 3):
        case = make_case(seed, kind, shape)
        check_phases(case) if kind[0] == 1 else check_heights(case)


@pytest.mark.parametrize("kind", [(1, "u1"), (2, "u1")])
def test_carre_equals_the_reference(kind: tuple[int, str]) -> None:
    for seed in range(6):
        case = make_case(seed, kind, (3, 700), carre=True)
        check_phases(case) if kind[0] == 1 else check_heights(case)


@pytest.mark.parametrize(
    ("kind", "make"),
    [((2, "u1"), make_case), ((4, "f4"), make_case), ((4, "f8"), make_case), ((2, "u1"), make_field_case)],
)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_bands_and_threads_change_no_bit(kind: tuple[int, str], make: Callable[..., Case], data: st.DataObject) -> None:
    case = make(data.draw(st.integers(0, 99)), kind, (17, 613))
    whole, table = run_heights(case)
    threaded, threaded_table = run_heights(case, threads=3)
    cuts = sorted(data.draw(st.sets(st.integers(1, 16), max_size=5)))
    bands = list(zip([0, *cuts], [*cuts, 17], strict=True))
    parts = [
        run_heights(
            replace(
                case,
                frames=np.ascontiguousarray(case.frames[:, :, a:b]),
                mask=None if case.mask is None else case.mask[a:b],
                first_row=case.first_row + a,
            )
        )
        for a, b in bands
    ]
    for name in HeightRows._fields:
        expected = getattr(whole, name).tobytes()
        assert getattr(threaded, name).tobytes() == expected
        assert np.concatenate([getattr(part, name) for part, _ in parts]).tobytes() == expected
    assert threaded_table.tobytes() == table.tobytes()
    assert np.concatenate([rows for _, rows in parts]).tobytes() == table.tobytes()


def test_threads_change_no_bit_of_phases() -> None:
    case = make_case(4, (1, "u1"), (23, 700))
    one, three = run_phases(case), run_phases(case, threads=3)
    for name in PhaseRows._fields:
        assert getattr(one, name).tobytes() == getattr(three, name).tobytes()


@pytest.mark.parametrize(("kind", "make"), [((4, "f4"), make_case), ((2, "u1"), make_field_case)])
def test_heights_alone_are_those_beside_sigma(kind: tuple[int, str], make: Callable[..., Case]) -> None:
    case = make(6, kind, (3, 2500))
    whole, table = run_heights(case)
    none = np.empty((0, 0), np.float32)
    alone = HeightRows(np.empty_like(whole.height_nm), none, none, np.empty_like(whole.flags))
    counted = np.empty_like(table)
    kernels = CpuKernels(case.model, 1)
    kernels.heights(case.frames, case.first_row, case.mask, alone, counted)
    for one, other in ((whole.height_nm, alone.height_nm), (whole.flags, alone.flags), (table, counted)):
        assert one.tobytes() == other.tobytes()


def test_pixels_do_not_look_at_each_other() -> None:
    """Strictly per pixel: a frame whose columns are shuffled gives the shuffled map, whatever block a pixel falls in."""
    case = make_case(11, (4, "u1"), (2, 1100))
    search = replace(case.model.search, tilt_turns=np.zeros((4, 2)))
    case = replace(case, model=replace(case.model, search=search), mask=None)
    shuffle = np.random.default_rng(0).permutation(1100)
    plain, _ = run_heights(case)
    moved, _ = run_heights(replace(case, frames=np.ascontiguousarray(case.frames[..., shuffle])))
    for name in HeightRows._fields:
        assert getattr(moved, name).tobytes() == getattr(plain, name)[:, shuffle].tobytes()


def test_phase_over_the_whole_circle_is_good_to_its_stated_error() -> None:
    """Float frames of a pure phasor: the arctangent alone, 3e-8 turns beside the rounding of its arguments."""
    phase = np.linspace(-np.pi, np.pi, 20001)[None, :]
    weights = phasor_weights(LEAST_SQUARES, (0.0, 90.0, 180.0, 270.0))
    model = Demodulation.of_weights([weights], np.array([[1e-12, 0.0]]))
    frames = np.stack([1000 * np.cos(phase + k * np.pi / 2) for k in range(4)])[None].astype(np.float32)
    u, v = (frames[0, 0] - frames[0, 2]).astype(float), (frames[0, 3] - frames[0, 1]).astype(float)
    got = run_phases(Case(frames, PixelModel(model), None, 0)).phase_rad
    error = np.abs(np.angle(np.exp(1j * (got.astype(float) - np.arctan2(v, u)))))
    # the polynomial in float32 3e-8 turns, the phase itself rounded to 2^-24 pi, the sums of four terms 2^-22
    assert error.max() < 3e-8 * TURN + ULP * np.pi + 4 * ULP


def test_nothing_measured_gives_nothing() -> None:
    case = make_case(3, (2, "u1"), (2, 64))
    for frames in (np.zeros_like(case.frames), np.full_like(case.frames, 255)):
        got, table = run_heights(replace(case, frames=frames, mask=None))
        assert np.isnan(got.height_nm).all()
        assert np.isnan(got.sigma_nm).all()
        assert (got.flags & Flag.INVALID != 0).all()
        assert (table[:, 0] == 0).all()
    assert (got.flags & Flag.SATURATED != 0).all()

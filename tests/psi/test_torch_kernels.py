"""The torch kernels against the NumPy reference: pieces, padding, masks, pixel types, searches of any length."""

from __future__ import annotations

import math
import runpy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import plain_kernels as reference
import pytest
import torch

from cpikan.errors import InputError
from cpikan.psi.kernels import torch_compute, torch_formula
from cpikan.psi.kernels.cuda import TorchKernels
from cpikan.psi.kernels.model import (
    LOW_SIGMA_RAD,
    Demodulation,
    HeightRows,
    OrderSearch,
    PhaseRows,
    PixelModel,
    empty_rows,
)
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.schemes import CARRE, phasor_weights

WAVES_NM = (632.8, 658.1, 690.3, 725.9)
SHAPE = (24, 53)
FIRST_ROW = 100
TURN = 2 * math.pi
# pieces are multiples of 64 where bits are compared: on the CPU torch computes what is left of a vector by other code


@dataclass(frozen=True)
class Case:
    """A made-up stack; ``spread_dn`` is the standard deviation of its noise, half of which the model knows of."""

    wavelengths: int = 2
    frames: int = 4
    dtype: str = "uint8"
    scheme: str = "least-squares"
    range_nm: float = 7e3  # the first two wavelengths repeat after 8.2 um
    near_nm: float = 7e3
    finest: bool = False
    spread_dn: float = 1.0
    step_deg: float = 90.0


def make_model(case: Case) -> PixelModel:
    """Weights for equal steps, noise as made, an anchor that is not the first wavelength, pistons and tilts."""
    steps = tuple(case.step_deg * k for k in range(case.frames))
    weights = [phasor_weights(case.scheme, steps)] * case.wavelengths
    top = {"uint8": 255.0, "uint16": 65535.0}.get(case.dtype, math.inf)
    demodulation = Demodulation.of_weights(
        weights,
        np.tile([case.spread_dn**2 * gain(case) ** 2, 0.002 * gain(case)], (case.wavelengths, 1)),
        phase_floor_rad2=np.full(case.wavelengths, 1e-5),
        saturation_dn=top,
        black_dn=38.5 * gain(case),
        snr_min=30.0,
    )
    if case.wavelengths == 1:
        return PixelModel(demodulation)
    waves = wavelengths_nm(case)
    order = tuple(int(i) for i in np.argsort(waves))
    count = len(order)
    return PixelModel(
        demodulation,
        OrderSearch(
            order,
            waves.min() / waves[list(order)],
            float(waves.min()) / 2,
            np.linspace(0, 0.3, count),
            np.outer(np.arange(count), [0.013, -0.021]),
            (FIRST_ROW + 11.5, 26.0),
            -case.range_nm / 2,
            case.range_nm,
            -case.near_nm / 2,
            case.near_nm,
            30.0,
            case.finest,
        ),
    )


def wavelengths_nm(case: Case) -> np.ndarray:
    """The shortest stands last."""
    return np.asarray(WAVES_NM[: case.wavelengths])[::-1]


def gain(case: Case) -> float:
    """Counts of this pixel type for one count of eight bits."""
    return {"uint8": 1.0, "uint16": 250.0}.get(case.dtype, 0.01)


def make_frames(case: Case, seed: int = 0) -> np.ndarray:
    """Frames of a slope across the near range, with dark, saturated and dead pixels and pixels far off the rest."""
    rng = np.random.default_rng(seed)
    model = make_model(case)
    height = np.linspace(-0.45, 0.45, SHAPE[1]) * case.near_nm + 200 * np.sin(np.arange(SHAPE[0]))[:, None]
    height[3] = 0.45 * case.range_nm
    turns = np.stack([2 * height / wave for wave in wavelengths_nm(case)])
    if model.search is not None:
        zero = reference.remove_pistons(np.zeros((case.wavelengths, *SHAPE)), model.search, FIRST_ROW)
        turns[list(model.search.order)] -= zero
    steps = np.radians(case.step_deg) * np.arange(case.frames)[:, None, None]
    amplitude = np.full(SHAPE, 70.0)
    amplitude[5, 10:20] = 0.0
    amplitude[6, :] = 8.0 * rng.random(SHAPE[1])
    light = 110 + amplitude * np.cos(TURN * turns[:, None] + steps)
    light += rng.normal(0, case.spread_dn, light.shape)
    light[0, 1, 8, 4:9] = 300
    light[0, 0, 10, 5:30] += np.linspace(3, 90, 25)  # struck samples
    if case.wavelengths > 1:
        light[1, :, 9] = light[1, :, 9] + 30 * np.cos(steps[:, 0] + 0.7)  # orders that fit nowhere, now and then
    light *= gain(case)
    if np.dtype(case.dtype).kind == "u":
        return np.clip(np.rint(light), 0, np.iinfo(case.dtype).max).astype(case.dtype)
    light[-1, 2, 12, 7], light[0, 0, 12, 9] = np.nan, np.inf
    return light.astype(case.dtype)


def run(model: PixelModel, frames: np.ndarray, mask: np.ndarray | None = None, pieces: int = 320) -> tuple:
    """The four results and the table, in buffers that hold wrong values to begin with."""
    kernels = TorchKernels(model, "cpu", piece_pixels=pieces)
    rows, width = frames.shape[2:]
    out = empty_rows(rows, width)
    for array in out:
        array.fill(77)
    table = np.full((rows, COLUMNS), np.nan)
    try:
        if model.search is None:
            return kernels.phases(frames, mask, PhaseRows(*out)), table
        return kernels.heights(frames, FIRST_ROW, mask, HeightRows(*out), table), table
    finally:
        kernels.close()


def near_threshold(model: PixelModel, frames: np.ndarray) -> np.ndarray:
    """Pixels at which float32 may decide otherwise than float64: a compared quantity is within rounding of its threshold.

    Signal-to-noise and variance are products of a few float32 numbers (1e-4 is generous). A residual is the difference of
    phases up to 50 turns, rounded to 4e-6 turns; with weights up to 1e5 per turn^2 and residuals up to half a turn a
    misfit moves by 2 w r dr, up to 0.4 where it is 2.5e4: 1e-2 + 1e-4 of the misfit covers it.
    """
    phase, variance, _, snr, _, excess = reference.demodulate(frames, model.demodulation)
    with np.errstate(invalid="ignore"):
        total = snr.sum(axis=0)
        close = abs(total - model.demodulation.snr_min) < 1e-4 * model.demodulation.snr_min
        for spread in (variance, variance / excess):
            close |= (abs(spread - LOW_SIGMA_RAD**2) < 1e-4 * LOW_SIGMA_RAD**2).any(axis=0)
        search = model.search
        if search is None:
            return close
        turns = reference.remove_pistons(phase, search, FIRST_ROW)
        spread = variance[list(search.order)] / TURN**2
        for low, span in ((search.near_low_nm, search.near_range_nm), (search.low_nm, search.range_nm)):
            _, _, best, second, _ = reference.search_orders(turns, spread, search, low, span)
            near_best, near_second = (1e-2 + 1e-4 * np.minimum(misfit, 1e6) for misfit in (best, second))
            close |= abs(best - search.misfit_max) < near_best
            slack = near_best + near_second
            close |= abs(second - best - search.margin_min) < slack
            close |= abs(second - best) < slack  # a tie: either order is right
            top, bottom = (low + span) / search.half_wave_nm, low / search.half_wave_nm
            for end in (top, bottom):  # an order at the very end of the range is in or out
                gap = turns[0] - end
                close |= abs(gap - np.rint(gap)) < 1e-5
    return close


def check(case: Case, mask: np.ndarray | None = None, pieces: int = 320) -> HeightRows | PhaseRows:
    model, frames = make_model(case), make_frames(case)
    got, table = run(model, frames, mask, pieces)
    if model.search is None:
        expected = reference.phases(frames, model, mask)
    else:
        expected = reference.heights(frames, model, FIRST_ROW, mask)
    decided = ~near_threshold(model, frames)
    assert decided.mean() > 0.97  # the comparison covers nearly everything
    np.testing.assert_array_equal(got.flags[decided], expected.flags[decided])
    valid = ((got.flags | expected.flags) & Flag.INVALID) == 0
    np.testing.assert_array_equal(np.isnan(got[0]), (got.flags & Flag.INVALID) != 0)
    np.testing.assert_array_equal(np.isnan(got[1]), np.isnan(got[0]))
    if model.search is None:
        # float32 sums and atan2: an ulp or two of pi
        off = np.angle(np.exp(1j * (got[0] - expected[0])[valid]))
        assert abs(off).max() < 2e-6
        np.testing.assert_array_less(abs(got.phase_rad[valid]), np.float32(math.pi) + 1e-6)
    else:
        # phases up to 45 turns rounded to 2e-6 each, corrections alike, heights to 1e-3 nm: below 0.01 nm
        assert abs(got[0] - expected[0])[valid & decided].max() < 0.01
        np.testing.assert_array_equal(table, sums(got))
    # rounding where power and noise nearly cancel: the variance is a sum of products of float32 numbers
    np.testing.assert_allclose(got[1][valid], expected[1][valid], rtol=2e-4)
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-5, atol=2e-4 * gain(case))
    return got


def sums(rows: HeightRows) -> np.ndarray:
    table = np.empty((len(rows.flags), COLUMNS))
    row_sums(rows.height_nm, rows.flags, table)
    return table


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("wavelengths", [1, 2, 3, 4])
def test_equals_the_reference(dtype: str, wavelengths: int) -> None:
    case = Case(wavelengths, dtype=dtype, frames=3 + wavelengths % 3)
    flags = check(case).flags
    assert (flags & Flag.LOW_MODULATION).any()
    assert (flags == 0).mean() > 0.5
    if np.dtype(dtype).kind == "u":
        assert (flags & Flag.SATURATED).any()


@pytest.mark.parametrize("wavelengths", [1, 3])
def test_mask_and_dark_pixels_are_invalid(wavelengths: int) -> None:
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :7] = 0
    mask[20:, ::2] = 0
    mask[0, 40:] = 5  # any nonzero value lets in
    got = check(Case(wavelengths), mask)
    assert np.isnan(got[0][mask == 0]).all()
    assert np.isnan(got[0][5, 10:20]).all()
    assert np.isfinite(got[0][0, 40:]).any()
    check(Case(wavelengths), mask != 0)


@pytest.mark.parametrize("wavelengths", [1, 2])
def test_carre(wavelengths: int) -> None:
    check(Case(wavelengths, scheme=CARRE, step_deg=80.0))


def test_finest_takes_the_anchor_alone() -> None:
    case = Case(3)
    joint, alone = check(case), check(replace(case, finest=True))
    both = (joint.flags | alone.flags) & Flag.INVALID == 0
    assert (alone.sigma_nm[both] > joint.sigma_nm[both]).all()


@pytest.mark.parametrize("near_nm", [3e3, 9e3])
def test_pixels_that_fit_nothing_near_search_the_rest(near_nm: float) -> None:
    """The row at 5.4 um lies outside both near ranges (10 and 29 candidates: one chunk and two)."""
    case = Case(3, range_nm=12e3, near_nm=near_nm)
    model, frames = make_model(case), make_frames(case)
    assert model.search is not None
    got = check(case)
    assert np.nanmedian(got.height_nm[3]) == pytest.approx(5400, abs=100)
    near_only = replace(model, search=replace(model.search, low_nm=model.search.near_low_nm, range_nm=near_nm))
    blind, _ = run(near_only, frames)
    assert abs(np.nanmedian(blind.height_nm[3]) - 5400) > 300  # without the far search it would have been lost


def test_many_and_few_far_pixels_agree() -> None:
    """A far search in batches and one over the whole piece: the same bits."""
    case = Case(3, range_nm=12e3, near_nm=3e3)
    model, frames = make_model(case), make_frames(case)
    few, _ = run(model, frames, pieces=1280)  # 53 of 1272 far: batches
    many, _ = run(model, frames, pieces=64)  # whole pieces of them
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("pieces", [64, 320, 5120])
def test_pieces_and_bands_change_no_bit(pieces: int) -> None:
    case = Case(3, range_nm=12e3, near_nm=9e3)
    model, frames = make_model(case), make_frames(case)
    whole, table = run(model, frames, pieces=1280)
    cut, cut_table = run(model, frames, pieces=pieces)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(table, cut_table)


def test_one_object_serves_bands_of_any_length() -> None:
    """What a longer or masked band left in the buffers shows in no later one."""
    model, frames = make_model(Case(2)), make_frames(Case(2))
    whole, _ = run(model, frames)
    kernels = TorchKernels(model, "cpu", piece_pixels=512)
    for start, stop, masked in ((0, 13, False), (13, 20, True), (13, 20, False), (20, 24, False)):
        part = np.ascontiguousarray(frames[:, :, start:stop])
        rows = HeightRows(*empty_rows(stop - start, SHAPE[1]))
        mask = np.zeros(rows.flags.shape, np.uint8) if masked else None
        kernels.heights(part, FIRST_ROW + start, mask, rows, np.empty((stop - start, COLUMNS)))
        if masked:
            assert (rows.flags & Flag.INVALID).all()
        else:
            np.testing.assert_array_equal(rows.height_nm, whole.height_nm[start:stop])
    kernels.close()


def test_results_may_be_strided_and_frames_read_only() -> None:
    model, frames = make_model(Case(2)), make_frames(Case(2))
    whole, _ = run(model, frames)
    frames.setflags(write=False)
    kernels = TorchKernels(model, "cpu", piece_pixels=1280)
    out = HeightRows(*(np.zeros((SHAPE[0], 2 * SHAPE[1]), a.dtype)[:, ::2] for a in whole))
    kernels.heights(frames, FIRST_ROW, None, out, np.empty((SHAPE[0], COLUMNS)))
    for one, other in zip(out, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    kernels.close()


def test_range_shorter_than_half_a_wave_takes_the_lowest_order() -> None:
    check(Case(2, range_nm=200.0, near_nm=200.0))


@pytest.mark.parametrize("failures", [1, 3])
def test_short_of_memory_halves_the_pieces(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    model, frames = make_model(Case(2)), make_frames(Case(2))
    whole, _ = run(model, frames)
    seen: list[int] = []
    plain = torch_compute.TorchCompute.first_look

    def tight(self: torch_compute.TorchCompute, pixels: torch_formula.Pixels) -> torch_compute.Look:
        seen.append(pixels.samples.shape[2])
        if len(seen) <= failures:
            raise torch.OutOfMemoryError("made up")
        return plain(self, pixels)

    monkeypatch.setattr(torch_compute.TorchCompute, "first_look", tight)
    cut, table = run(model, frames, pieces=2**17)
    assert seen == [2**17 >> k for k in range(failures + 1)]
    for one, other in zip(cut, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(table, sums(cut))


def test_memory_for_not_even_small_pieces_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setattr(torch_compute.TorchCompute, "first_look", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(make_model(Case(2)), make_frames(Case(2)), pieces=2**16)


def test_another_failure_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def broken(*_: object) -> None:
        calls.append(1)
        raise RuntimeError("made up")

    monkeypatch.setattr(torch_compute.TorchCompute, "search_on", broken)
    with pytest.raises(RuntimeError, match="made up"):
        run(make_model(Case(2)), make_frames(Case(2)))
    assert len(calls) == 1


def test_a_failed_compilation_falls_back_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = make_model(Case(2)), make_frames(Case(2))

    def fail(*_: object) -> None:
        raise torch._dynamo.exc.Unsupported("no Triton")

    broken = torch_compute._Functions(fail, fail, fail, fail)
    monkeypatch.setattr(torch_compute, "_compiled", lambda: broken)
    compute = torch_compute.TorchCompute(model, torch.device("cpu"), compiled=True)
    flat = torch.from_numpy(frames.reshape(2, 4, -1)[list(compute.order)].copy())
    place = torch.tensor([0, SHAPE[1], FIRST_ROW], dtype=torch.int32)
    pixels = torch_formula.Pixels(flat, torch.ones(flat.shape[2], dtype=torch.uint8), place)
    with pytest.warns(UserWarning, match=r"torch\.compile failed, the slower plain kernels run instead"):
        compute.compile(pixels)
    np.testing.assert_array_equal(compute(pixels)[0].reshape(SHAPE), run(model, frames)[0].height_nm)


@pytest.mark.parametrize("dtype", ["int32", "float16", ">u2", ">f4"])
def test_other_pixel_types_are_refused(dtype: str) -> None:
    model = make_model(Case(2))
    with pytest.raises(InputError, match="allowed are uint8, uint16, float32, float64"):
        run(model, np.zeros((2, 4, 2, 3), dtype))


def test_empty_band_and_host_memory() -> None:
    model = make_model(Case(2))
    kernels = TorchKernels(model, "cpu")
    out = HeightRows(*empty_rows(0, 5))
    kernels.heights(np.zeros((2, 4, 0, 5), np.uint8), 0, None, out, np.empty((0, COLUMNS)))
    room = kernels.empty((2, 3, 5), np.dtype(np.uint16))
    room[:] = 7
    assert room.shape == (2, 3, 5)
    assert room.flags.c_contiguous
    assert kernels.peak_device_mib() is None
    assert kernels.device == "cpu"
    kernels.close()


def test_what_was_compiled_for_one_stack_serves_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warming up with one model leaves nothing to compile for another: other weights, orders, ranges, widths, places."""
    monkeypatch.setattr(torch_compute, "FAR_PIXELS", 64)
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    compiled = torch_compute._Functions(
        *(torch.compile(entry, backend=count, dynamic=False, fullgraph=True) for entry in torch_compute._EAGER)
    )
    monkeypatch.setattr(torch_compute, "_compiled", lambda: compiled)
    toy = torch_compute.TorchCompute(make_model(Case(3, range_nm=1e3, near_nm=1e3)), torch.device("cpu"), compiled=True)
    slot = torch_formula.Pixels(
        torch.zeros((3, 4, 1280), dtype=torch.uint8),
        torch.ones(1280, dtype=torch.uint8),
        torch.tensor([0, 1, 0], dtype=torch.int32),
    )
    toy.compile(slot)
    assert len(graphs) == 4  # measure, try_orders at two lengths, form
    for near_nm in (3e3, 9e3):
        case = Case(3, range_nm=12e3, near_nm=near_nm, finest=near_nm > 5e3)
        model, frames = make_model(case), make_frames(case)
        compute = torch_compute.TorchCompute(model, torch.device("cpu"), compiled=True)
        flat = np.zeros((3, 4, 1280), np.uint8)
        flat[:, :, : SHAPE[0] * SHAPE[1]] = frames.reshape(3, 4, -1)[list(compute.order)]
        place = torch.tensor([0, SHAPE[1], FIRST_ROW], dtype=torch.int32)
        got = compute(torch_formula.Pixels(torch.from_numpy(flat), slot.inside, place))
        expected, _ = run(model, frames, pieces=1280)
        np.testing.assert_array_equal(got[0][: SHAPE[0] * SHAPE[1]].reshape(SHAPE), expected.height_nm)
    assert len(graphs) == 4
    torch.compiler.reset()


def test_benchmark_runs_at_a_small_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "cuda_pixel_pass.py"
    target = tmp_path / "results" / "cuda_pixel_pass.csv"
    main = runpy.run_path(str(script))["main"]
    assert (
        main(["--device", "cpu", "--shape", "48x200", "--repeats", "2", "--piece", "4096", "--output", str(target)])
        == 0
    )
    rows = target.read_text().splitlines()
    assert rows[0].split(",")[:3] == ["device", "wavelengths", "frames"]
    values = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert float(values["largest_difference_nm"]) < 0.01
    assert float(values["from_host_ms"]) > 0
    assert float(values["on_device_ms"]) > 0
    assert "0.01 nm" in capsys.readouterr().out


def test_benchmark_says_when_there_is_no_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "cuda_pixel_pass.py"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runpy.run_path(str(script))["main"]([]) == 2
    assert "no CUDA device" in capsys.readouterr().err

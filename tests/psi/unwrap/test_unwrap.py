"""Unwrapping by tiles: analytic truth, the cases of the peers, scikit-image on noise, what the report must notice."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cpikan.errors import InputError
from cpikan.psi.unwrap import unwrap as door
from cpikan.psi.unwrap.integer_least_squares import OffsetSolution, solve_offsets
from cpikan.psi.unwrap.merger import unwrap_tile
from cpikan.psi.unwrap.residues import count_residues
from cpikan.psi.unwrap.unwrap import unwrap
from cpikan.streaming.memory import PeakMemory

TURN = 2 * np.pi


def wrap(phase: np.ndarray) -> np.ndarray:
    return phase - TURN * np.rint(phase / TURN)


def true_orders(surface: np.ndarray, wrapped: np.ndarray) -> np.ndarray:
    """Orders that bring the wrapped phase nearest to the surface; 0 where there is no pixel."""
    return np.nan_to_num(np.rint((surface - wrapped) / TURN)).astype(np.int64)


def wrong_fraction(orders: np.ndarray, truth: np.ndarray, component: np.ndarray) -> float:
    """Share of pixels off the commonest difference from the truth in their component."""
    wrong = 0
    for label in range(1, component.max() + 1):
        difference = (orders.astype(np.int64) - truth)[component == label]
        wrong += difference.size - np.bincount(difference - difference.min()).max()
    return wrong / max(1, np.count_nonzero(component))


def wafer(size: int, seed: int, noise_rad: float, height_rad: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth surface on a disc with holes, and its wrapped phase with noise (float32, NaN outside)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    a, b = random.uniform(0, 6, 2)
    surface = height_rad * (x * x + 0.7 * y * y * x + 0.3 * np.sin(3 * x + a) * np.cos(4 * y + b))
    texture = ndimage.gaussian_filter(random.normal(size=(size, size)), size / 16)
    surface += 8 * texture / texture.std()
    inside = x * x + y * y < 0.96
    for _ in range(12):
        cy, cx, radius = random.uniform(-0.8, 0.8), random.uniform(-0.8, 0.8), random.uniform(0.01, 0.08)
        inside &= (x - cx) ** 2 + (y - cy) ** 2 > radius**2
    wrapped = wrap(surface + noise_rad * random.normal(size=(size, size))).astype(np.float32)
    return surface, np.where(inside, wrapped, np.float32(np.nan))


def skimage_orders(wrapped: np.ndarray) -> np.ndarray:
    from skimage.restoration import unwrap_phase

    outside = ~np.isfinite(wrapped)
    filled = np.where(outside, 0, wrapped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unwrapped = unwrap_phase(np.ma.array(filled, mask=outside), rng=0)
    return np.rint((np.ma.filled(unwrapped, 0) - filled) / TURN).astype(np.int64)


def ramp(shape: tuple[int, int], per_row: float, per_column: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return per_row * y + per_column * x


# --- the peers' cases


@pytest.mark.parametrize("masked", [False, True])
def test_scikit_image_ramp(masked: bool) -> None:
    surface = ramp((8, 16), TURN * 0.1, TURN * 0.2)
    wrapped = wrap(surface)
    if masked:
        wrapped[2:4, 4:8] = np.nan
    result = unwrap(wrapped)
    difference = (wrapped + TURN * result.orders - surface)[result.component == 1]
    assert np.ptp(difference) < 1e-12  # a few units in the last place of 2 pi * 4.6 in float64
    assert result.report.congruence_rad < 1e-12
    assert np.array_equal(result.component == 0, np.isnan(wrapped))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_scikit_image_three_ramps(kept: int) -> None:
    """Only the kept ramp joins the two ends, so it decides how far apart they are."""
    ends = [4 * np.pi, 8 * np.pi, 6 * np.pi]
    image = np.stack([np.linspace(0, end, 100) for end in ends])
    wrapped = np.angle(np.exp(1j * image))
    wrapped[np.arange(3) != kept, 1:-1] = np.nan
    result = unwrap(wrapped)
    unwrapped = wrapped + TURN * result.orders
    assert result.report.components == 1
    np.testing.assert_allclose(unwrapped[:, -1] - unwrapped[0, 0], ends[kept], atol=1e-12)


@pytest.mark.parametrize(
    ("size", "extent", "tile", "overlap"), [(512, 3, 512, 64), (512, 3, 160, 40), (1024, 6, 576, 128)]
)
def test_snaphu_ramp(size: int, extent: int, tile: int, overlap: int) -> None:
    y, x = np.ogrid[-extent : extent : size * 1j, -extent : extent : size * 1j]
    surface = np.pi * (x + y)
    wrapped = np.angle(np.exp(1j * surface)).astype(np.float32)
    wrapped[size // 5 : size // 5 + 20, 10:-10] = np.nan
    result = unwrap(wrapped, tile=tile, overlap=overlap)
    difference = (wrapped + TURN * result.orders - surface)[result.component == 1]
    assert np.ptp(difference) < 1e-5  # float32 rounding of the wrapped phase, 2.4e-7, and margin
    assert result.report.components == 1
    assert result.report.overlap_disagreement == 0


# --- components


def test_u_shape_over_four_tiles_is_one_component() -> None:
    surface = ramp((512, 512), 0.05, 0.21)
    wrapped = np.full((512, 512), np.nan, np.float32)
    legs = np.zeros((512, 512), bool)
    legs[40:480, 60:120] = legs[40:480, 400:460] = legs[420:480, 60:460] = True
    wrapped[legs] = wrap(surface)[legs]
    result = unwrap(wrapped, tile=288, overlap=64)
    assert result.report.tiles == 4
    assert result.report.components == 1
    assert np.array_equal(result.component, legs.astype(np.int32))
    assert wrong_fraction(result.orders, true_orders(surface, wrapped), result.component) == 0


def test_islands_moats_and_diagonal_contact_are_not_guessed_together() -> None:
    surface = ramp((200, 200), 0.3, -0.2)
    wrapped = wrap(surface).astype(np.float32)
    y, x = np.mgrid[:200, :200]
    distance = np.hypot(y - 100, x - 100)
    wrapped[(distance > 50) & (distance < 53)] = np.nan  # a closed moat
    wrapped[:, :5] = np.nan
    wrapped[10:12, 1:3] = 0  # an island
    wrapped[12, 3] = 0  # touches it at a corner only
    result = unwrap(wrapped, tile=64, overlap=16)
    assert result.report.components == 4
    assert result.report.component_sizes == tuple(sorted(np.bincount(result.component.ravel())[1:], reverse=True))
    assert result.component[100, 100] == 2
    assert result.component[10, 1] == result.component[11, 2] == 3
    assert result.component[12, 3] == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90), st.floats(0.3, 0.95))
def test_components_are_those_of_the_mask(seed: int, height: int, width: int, filled: float) -> None:
    random = np.random.default_rng(seed)
    valid = random.random((height, width)) < filled
    wrapped = np.where(valid, random.uniform(-np.pi, np.pi, valid.shape), np.nan).astype(np.float32)
    result = unwrap(wrapped, tile=24, overlap=8)
    expected, count = ndimage.label(valid)
    assert result.report.components == count
    pairs = np.unique(np.stack((expected[valid], result.component[valid])), axis=1)
    assert pairs.shape[1] == count
    assert np.array_equal(valid, result.component > 0)
    sizes = np.bincount(result.component.ravel())[1:]
    assert np.all(np.diff(sizes) <= 0)
    for label in range(1, count + 1):
        assert np.sort(result.orders[result.component == label])[(sizes[label - 1] - 1) // 2] == 0
    assert result.report.residues == count_residues(wrapped, height, width)
    assert result.report.ambiguous_pixels == np.count_nonzero(result.ambiguous)
    assert result.report.congruence_rad <= 1e-6


# --- tiles do not matter on maps without residues


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 200), st.integers(20, 200))
def test_any_tiling_gives_the_true_orders_of_a_smooth_map(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    surface = ndimage.gaussian_filter(random.normal(size=(height, width)), random.uniform(3, 15))
    steepest = max(np.abs(np.diff(surface, axis=0)).max(), np.abs(np.diff(surface, axis=1)).max())
    surface *= 0.95 * np.pi / steepest  # below half an order per pixel, so all paths agree
    wrapped = wrap(surface).astype(np.float32)
    wrapped[ndimage.gaussian_filter(random.normal(size=surface.shape), 4) > 0.12] = np.nan
    results = [
        unwrap(wrapped, tile=tile, overlap=overlap) for tile, overlap in ((1024, 64), (64, 16), (48, 24), (33, 5))
    ]
    truth = true_orders(surface, wrapped)
    for result in results:
        assert wrong_fraction(result.orders, truth, result.component) == 0
        assert np.array_equal(result.orders, results[0].orders)
        assert np.array_equal(result.component, results[0].component)
        assert not result.ambiguous.any()
        assert result.report.residues == result.report.seam_violations == result.report.jumps == 0
        assert result.report.overlap_disagreement == 0


def test_usual_tiles_threads_and_quality_give_the_same_orders() -> None:
    surface, wrapped = wafer(700, 3, 0.05, 200.0)
    results = [
        unwrap(wrapped, tile=tile, overlap=64, threads=threads) for tile, threads in ((128, 1), (256, 3), (512, 2))
    ]
    results.append(unwrap(wrapped, np.ones_like(wrapped), tile=700))
    assert wrong_fraction(results[0].orders, true_orders(surface, wrapped), results[0].component) == 0
    for other in results[1:]:
        assert np.array_equal(other.orders, results[0].orders)
        assert np.array_equal(other.component, results[0].component)


# --- noise and inconsistency


@pytest.mark.parametrize(("size", "seed", "noise_rad"), [(512, 1, 0.8), (512, 2, 0.6), (512, 3, 1.0), (1024, 4, 0.8)])
def test_not_more_wrong_orders_than_scikit_image(size: int, seed: int, noise_rad: float) -> None:
    surface, wrapped = wafer(size, seed, noise_rad)
    truth = true_orders(surface, wrapped)
    result = unwrap(wrapped, threads=2)
    ours = wrong_fraction(result.orders, truth, result.component)
    assert ours <= wrong_fraction(skimage_orders(wrapped), truth, result.component)
    # Bound of what noise alone does: three passes and more of smoothing leave residues only above about 0.9 rad.
    assert ours < (1e-3 if noise_rad <= 0.8 else 1e-2)


@pytest.mark.parametrize("form", ["chips", "lines", "steep ramp", "cone"])
def test_smoothing_does_not_damage_edges_and_steep_slopes(form: str) -> None:
    """Residues force the smoothed path; steps below pi, single-pixel lines and slopes near half an order must survive."""
    y, x = np.mgrid[:300, :300].astype(float)
    surface, noise_rad = {
        "chips": (0.02 * x + 0.03 * y + 2.2 * ((x // 60 + y // 45) % 2), 0.3),
        "lines": (0.05 * y + 2.5 * (x % 37 < 1), 0.2),
        "steep ramp": (2.7 * x, 0.3),
        "cone": (2.7 * np.hypot(x - 150.3, y - 150.1), 0.2),
    }[form]
    wrapped = wrap(surface + noise_rad * np.random.default_rng(0).normal(size=x.shape)).astype(np.float32)
    result = unwrap(wrapped)
    assert result.report.residues > 0
    assert wrong_fraction(result.orders, true_orders(surface, wrapped), result.component) == 0


def test_noisy_map_hardly_depends_on_the_tile() -> None:
    _, wrapped = wafer(512, 7, 0.8)
    whole = unwrap(wrapped, tile=512)
    tiled = unwrap(wrapped, tile=160, overlap=64)
    assert np.mean(whole.orders != tiled.orders) < 1e-3
    assert tiled.report.overlap_disagreement < 2e-3
    assert set(tiled.report.tiles_by_method) - {"raster"}
    assert np.all(tiled.ambiguous[whole.orders != tiled.orders] | (whole.ambiguous[whole.orders != tiled.orders]))


def test_quality_keeps_the_damage_inside_the_bad_region() -> None:
    """A band of pure noise crosses the map but for a gap; the rest must be right through the gap."""
    random = np.random.default_rng(5)
    surface = ramp((300, 300), 0.3, 0.1)
    noise = np.full((300, 300), 0.3)
    noise[140:160, :220] = 3.0
    wrapped = wrap(surface + noise * random.normal(size=noise.shape)).astype(np.float32)
    result = unwrap(wrapped, (1 / noise**2).astype(np.float32), tile=512)
    good = noise < 1
    wrong = wrong_fraction(
        np.where(good, result.orders, 0), np.where(good, true_orders(surface, wrapped), 0), good.astype(int)
    )
    assert wrong < 1e-3


def vortex_pair(shape: tuple[int, int], plus: tuple[float, float], minus: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    return wrap(np.arctan2(y - plus[0], x - plus[1]) - np.arctan2(y - minus[0], x - minus[1])).astype(np.float32)


@pytest.mark.parametrize("tile", [256, 48])
def test_planted_vortices_are_counted_and_flagged(tile: int) -> None:
    wrapped = vortex_pair((100, 120), (40.5, 30.5), (60.5, 90.5))
    result = unwrap(wrapped, tile=tile, overlap=16)
    assert result.report.residues == 2
    assert result.report.components == 1
    assert result.report.jumps > 0
    assert result.ambiguous.any()
    jump_y = np.abs(np.diff(wrapped + TURN * result.orders, axis=0)) > np.pi + 1e-4
    jump_x = np.abs(np.diff(wrapped + TURN * result.orders, axis=1)) > np.pi + 1e-4
    assert np.count_nonzero(jump_y) + np.count_nonzero(jump_x) == result.report.jumps
    assert result.ambiguous[:-1][jump_y].all()
    assert result.ambiguous[1:][jump_y].all()
    assert result.ambiguous[:, :-1][jump_x].all()
    assert result.ambiguous[:, 1:][jump_x].all()


def test_winding_around_a_hole_has_no_residue_but_is_flagged() -> None:
    y, x = np.mgrid[:80, :80] - 39.5
    wrapped = np.where(np.hypot(y, x) > 6, np.arctan2(y, x), np.nan).astype(np.float32)
    result = unwrap(wrapped)
    assert result.report.residues == 0
    assert result.report.jumps > 0
    assert result.report.congruence_rad <= 1e-6


def test_a_wrong_offset_between_tiles_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = wrap(ramp((100, 100), 0.2, 0.3)).astype(np.float32)

    def spoiled(*args: object) -> OffsetSolution:
        solution = solve_offsets(*args)  # type: ignore[arg-type]
        solution.offsets[0] += 1
        return solution

    monkeypatch.setattr(door, "solve_offsets", spoiled)
    assert unwrap(wrapped, tile=60, overlap=20).report.jumps == 0  # repaired: the whole map is unwrapped as one
    monkeypatch.setattr(door, "LARGEST_REGION", 0)
    report = unwrap(wrapped, tile=60, overlap=20).report  # 2 x 2 tiles: the first meets two neighbours
    assert report.seam_violations == 2 * 50  # its core is 50 x 50
    assert report.jumps == 2 * 50
    # Of the four overlaps (20 x 60 each, as in the grid of 40-pixel steps) the two at the first tile disagree.
    assert report.overlap_disagreement == pytest.approx(0.5)
    # They share 20 x 20, of which the quarter that the fourth tile owns and agrees on with others is not flagged.
    assert report.ambiguous_pixels == 20 * 60 * 2 - 20 * 20 - 10 * 10


def test_residue_free_tile_needs_no_quality_and_agrees_with_the_flow() -> None:
    from cpikan.psi.unwrap.merger import _by_flow

    _, wrapped = wafer(200, 9, 0.1)
    scanned = unwrap_tile(wrapped)
    assert scanned.method == "raster"
    orders, labels = np.empty(wrapped.shape, np.int32), np.empty(wrapped.shape, np.int32)
    flow = _by_flow(wrapped, np.isfinite(wrapped).astype(np.float32), orders, labels)
    assert flow.count == scanned.count
    assert np.array_equal(flow.labels, scanned.labels)
    assert wrong_fraction(flow.orders, scanned.orders, flow.labels) == 0


# --- shapes, files, bad input


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (2, 3), (3, 2)])
def test_thin_maps(shape: tuple[int, int]) -> None:
    surface = ramp(shape, 1.1, 2.9)
    wrapped = wrap(surface).astype(np.float32)
    result = unwrap(wrapped, tile=64, overlap=16)
    assert wrong_fraction(result.orders, true_orders(surface, wrapped), result.component) == 0
    assert result.report.components == 1


def test_all_masked_and_one_pixel_left() -> None:
    wrapped = np.full((150, 90), np.nan, np.float32)
    result = unwrap(wrapped, tile=64, overlap=16)
    assert result.report.components == 0
    assert not result.component.any()
    assert not result.orders.any()
    assert not result.ambiguous.any()
    wrapped[77, 33] = 1.0
    wrapped[0, 0] = np.inf  # not a phase
    result = unwrap(wrapped, tile=64, overlap=16)
    assert result.report.component_sizes == (1,)
    assert result.component[77, 33] == 1


def test_files_and_memory(tmp_path: Path) -> None:
    size, tile = 2600, 256
    phase = np.memmap(tmp_path / "phase", np.float32, "w+", shape=(size, size))
    for y in range(0, size, 100):
        phase[y : y + 100] = wrap(0.4 * np.arange(size) + 0.3 * np.arange(y, y + 100)[:, None] + 1e-4 * y * y)
    outputs = {
        "orders": np.memmap(tmp_path / "orders", np.int16, "w+", shape=phase.shape),
        "component": np.memmap(tmp_path / "component", np.int32, "w+", shape=phase.shape),
        "ambiguous": np.memmap(tmp_path / "ambiguous", np.bool_, "w+", shape=phase.shape),
    }
    readonly = np.memmap(tmp_path / "phase", np.float32, "r", shape=phase.shape)
    unwrap(readonly[:300, :300], tile=tile, overlap=32)  # compile first
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        result = unwrap(readonly, tile=tile, overlap=32, out=outputs)
    assert result.orders is outputs["orders"]
    assert result.report.components == 1
    # The arrays are 71 MiB (11 bytes per pixel); five tiles of 20 bytes per pixel are 6 MiB, strips 1 MiB, then heaps.
    assert peak.mib - before.mib < 40
    plain = unwrap(np.array(phase), tile=512)
    assert np.array_equal(plain.orders, result.orders)


def test_orders_beyond_int16_are_refused_or_fit_int32() -> None:
    wrapped = wrap(3.1 * np.arange(140_000.0))[None].astype(np.float32)
    result = unwrap(wrapped, tile=4096)
    assert result.orders.dtype == np.int32
    assert np.ptp(result.orders) == np.rint(3.1 * 139_999 / TURN)
    with pytest.raises(InputError, match="int32"):
        unwrap(wrapped, tile=4096, out={"orders": np.empty(wrapped.shape, np.int16)})
    with pytest.raises(InputError, match="int32"):
        unwrap(wrapped, tile=200_000, out={"orders": np.empty(wrapped.shape, np.int16)})


GOOD = np.zeros((20, 30), np.float32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"phase_rad": GOOD[0]}, "shape"),
        ({"phase_rad": GOOD[:0]}, "at least one pixel"),
        ({"phase_rad": GOOD.astype(np.int32)}, "float32"),
        ({"phase_rad": GOOD.astype(np.complex64)}, "float32"),
        ({"quality": GOOD[:5]}, "quality"),
        ({"tile": 2}, "at least 4"),
        ({"overlap": 300}, "half a tile"),
        ({"overlap": 1}, "allowed are 2"),
        ({"threads": 0}, "at least 1"),
        ({"out": {"orders": np.zeros((20, 30), np.float32)}}, "int16 or int32"),
        ({"out": {"component": np.zeros((20, 31), np.int32)}}, "component"),
        ({"out": {"ambiguous": np.zeros((20, 30), np.uint8)}}, "bool"),
        ({"out": {"order": np.zeros((20, 30), np.int16)}}, "did you mean 'orders'"),
    ],
)
def test_bad_input_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        unwrap(**({"phase_rad": GOOD} | arguments))

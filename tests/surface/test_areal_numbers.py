"""Areal numbers of whole maps against closed forms, definitions written out, and what turning a map leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.areal import spatial as spatial_module
from cpikan.surface.areal.dales import find_dales
from cpikan.surface.areal.families import FAMILIES, families_of
from cpikan.surface.areal.features import feature_numbers
from cpikan.surface.areal.material_ratio import MaterialRatio, functional_numbers
from cpikan.surface.areal.spatial import decay_lengths, spatial_numbers
from cpikan.surface.areal.texture_direction import texture_direction_deg
from cpikan.surface.sums.measure import MeasureSettings, measure, surface_parameters


def rough(shape: tuple[int, int] = (40, 53), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    heights = rng.normal(0, 3, shape)
    heights = (heights + np.roll(heights, 1, 0) + np.roll(heights, 1, 1)) * 2
    heights[rng.random(shape) < 0.03] = np.nan
    return heights


@pytest.mark.parametrize("turn", [lambda h: h[::-1], lambda h: np.rot90(h), lambda h: h.T])
@pytest.mark.parametrize("family", FAMILIES)
def test_turned_maps_have_the_same_numbers(family, turn):
    heights = rough()
    found, turned = (FAMILIES[family].measure(one, 2.0) for one in (heights, turn(heights)))
    direction = found.pop("std_deg", None), turned.pop("std_deg", None)
    assert turned == pytest.approx(found, rel=1e-9)
    assert set(found) | ({"std_deg"} if family == "spatial" else set()) == set(FAMILIES[family].labels)
    assert (direction[0] is None) == (direction[1] is None)


@pytest.mark.parametrize("family", FAMILIES)
def test_heights_scale_and_shift(family):
    """Heights times three, shifted: numbers in nm and of volumes three times as large, the others as they were."""
    heights = rough()
    found, scaled = (FAMILIES[family].measure(one, 2.0) for one in (heights, 3 * heights + 1e4))
    for name, value in found.items():
        factor = 3 if name.endswith(("_nm", "_um3", "_per_mm")) else 1
        assert scaled[name] == pytest.approx(factor * value, rel=1e-8), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "heights", [np.full((6, 7), 5.0), np.full((6, 7), np.nan), np.full((1, 9), 2.0), np.eye(1)], ids=str
)
def test_flat_maps_have_none(family, heights):
    found = FAMILIES[family].measure(heights, 2.0)
    assert all(value is None for value in found.values()), found


@pytest.mark.parametrize("family", FAMILIES)
def test_one_row_gives_numbers_or_none(family):
    found = FAMILIES[family].measure(rough((1, 300)), 2.0)
    assert all(value is None or math.isfinite(value) for value in found.values())
    assert FAMILIES["functional"].measure(rough((1, 300)), None)["sk_nm"] > 0


def test_families_are_found_by_their_numbers():
    assert families_of(["sk_nm", "spatial", "vmp_nm"]) == ("functional", "spatial")
    with pytest.raises(InputError, match="unknown surface number 'sks'"):
        families_of(["sks"])


def test_material_ratio_of_a_ramp_with_peaks_in_closed_form():
    """A core from 10 down to -10 with peaks of 30 more that fade over the first tenth: integrals by hand."""
    ratio = (np.arange(200_000) + 0.5) / 200_000  # the middle of every pixel's share
    heights = 10 - 20 * ratio + 30 * np.maximum(0, 1 - ratio / 0.1)
    found = functional_numbers(np.random.default_rng(0).permutation(heights).reshape(4, -1))
    truth = {
        "sk_nm": 20,
        "spk_nm": 30,
        "smr1_percent": 100 * 30 / 320,  # -20 p + 30 (1 - 10 p) = 0
        "smr2_percent": 100,
        "spkx_nm": 30,
        "vmp_nm": 0.1 + 1.5,  # two triangles of base 0.1
        "vvv_nm": 0.2 * 4 / 2,
        "vmc_nm": 0.8 * 16 / 2 + 1.5 - 1.6,
        "vvc_nm": 0.9 * 18 / 2 - 0.4,
        "sxp_nm": (10 - 0.5 + 22.5) - 0,
    }
    # the curve begins and ends half a pixel's share inside: 2.5e-6 of a height that falls by 320 over all of it
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, rel=4e-5), name
    assert found["svk_nm"] == found["svkx_nm"] == pytest.approx(0, abs=1e-9)
    curve = MaterialRatio(heights)
    assert curve.height_nm(0) == heights[0]
    assert curve.height_nm(1) == heights[-1]
    assert curve.ratio(100) == 0
    assert curve.ratio(-100) == 1
    assert curve.ratio(curve.height_nm(0.37)) == pytest.approx(0.37, rel=1e-9)
    with pytest.raises(InputError, match="give 0 to 1"):
        curve.height_nm(1.1)


def test_volumes_are_means_of_what_lies_above_and_below():
    """The definition, pixel by pixel, on heights with a few high spikes and deep pits."""
    rng = np.random.default_rng(4)
    heights = rng.normal(0, 1, 5001)
    heights[:40] += 60
    heights[40:300] -= 25
    curve = MaterialRatio(heights)
    for ratio in (0.002, 0.1, 0.8, 0.97):
        level = curve.height_nm(ratio)
        assert curve.material_nm(ratio) == pytest.approx(np.maximum(heights - level, 0).mean(), rel=1e-12)
        assert curve.void_nm(ratio) == pytest.approx(np.maximum(level - heights, 0).mean(), rel=1e-12)
    found = functional_numbers(heights.reshape(3, -1))
    apart, top = heights - heights.mean(), curve.core.top_nm - heights.mean()
    assert found["spk_nm"] == pytest.approx(
        2 * np.maximum(apart - top, 0).sum() / np.count_nonzero(apart > top), rel=0.02
    )


def test_material_ratio_of_a_plateau_is_its_middle():
    curve = MaterialRatio(np.array([3.0, 2.0, 2.0, 2.0, 1.0]))
    assert (curve.ratio(3), curve.ratio(2), curve.ratio(1), curve.ratio(2.5)) == (0, 0.5, 1, 0.125)
    assert curve.material_nm(0.25) == pytest.approx(1 / 5)  # one pixel of five, 1 high
    assert curve.void_nm(0.75) == pytest.approx(1 / 5)


def test_the_core_is_the_first_flattest_forty_per_cent():
    """Three straight parts, the middle one flattest and 50 % long: the line through it, to both ends."""
    ratio = np.linspace(0, 1, 10_001)
    heights = np.interp(ratio, [0, 0.2, 0.7, 1], [50.0, 10.0, 5.0, -40.0])
    found = functional_numbers(heights.reshape(1, -1))
    assert found["sk_nm"] == pytest.approx(10.0, rel=1e-9)
    top = 10 + 0.2 * 10
    first = 0.2 * (50 - top) / 40
    assert found["smr1_percent"] == pytest.approx(100 * first, rel=1e-6)
    assert found["spk_nm"] == pytest.approx(50 - top, rel=1e-3)  # its ends count as whole pixels: 1 / 2000 of the peaks


def plain_pruning(heights: np.ndarray, pruning: float) -> list[frozenset[int]]:
    """Watershed and Wolf pruning as the standard tells them: the least deep dale goes first, until all are deep enough."""
    rows, columns = heights.shape
    threshold = pruning * np.ptp(heights)
    near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]

    def around(y: int, x: int) -> list[tuple[int, int]]:
        return [(y + a, x + b) for a, b in near if 0 <= y + a < rows and 0 <= x + b < columns]

    def pit(y: int, x: int) -> tuple[int, int]:
        lowest = min(around(y, x), key=lambda p: heights[p])
        return (y, x) if heights[lowest] >= heights[y, x] else pit(*lowest)

    owner = {(y, x): pit(y, x) for y in range(rows) for x in range(columns)}
    while True:
        saddle: dict[tuple, dict[tuple, float]] = {}
        for p, own in owner.items():
            saddle.setdefault(own, {})
            for q in around(*p):
                if owner[q] != own:
                    over = max(heights[p], heights[q])
                    saddle[own][owner[q]] = min(over, saddle[own].get(owner[q], np.inf))
        depth = {own: min(others.values()) - heights[own] for own, others in saddle.items() if others}
        if not depth or min(depth.values()) >= threshold:
            break
        gone = min(depth, key=lambda own: depth[own])
        into = min(saddle[gone], key=lambda other: saddle[gone][other])
        final = min(gone, into, key=lambda p: heights[p])
        owner = {p: final if own in (gone, into) else own for p, own in owner.items()}
    dales: dict[tuple, set[int]] = {}
    for (y, x), own in owner.items():
        dales.setdefault(own, set()).add(y * columns + x)
    return sorted((frozenset(part) for part in dales.values()), key=min)


@pytest.mark.parametrize("pruning", [0.0, 0.05, 0.3, 0.6])
def test_dales_are_those_of_wolf_pruning_step_by_step(pruning):
    for seed in range(6):
        heights = np.random.default_rng(seed).normal(0, 1, (9, 11)).cumsum(seed % 2)
        found = find_dales(heights, pruning)
        parts = [frozenset(np.flatnonzero(found.labels.ravel() == k).tolist()) for k in range(found.pits.size)]
        assert sorted(parts, key=min) == plain_pruning(heights, pruning)
        assert all(heights.ravel()[p] == min(heights.ravel()[list(s)]) for p, s in zip(found.pits, parts, strict=True))


def test_bands_of_rows_change_no_dale(monkeypatch):
    """Terrain, steps of few heights (ties), and holes: labels, pits, overflows and edges whatever the bands."""
    for seed in range(4):
        random = np.random.default_rng(seed)
        heights = (
            random.integers(0, 5, (31, 17)).astype(np.float32) if seed % 2 else random.normal(size=(31, 17)).cumsum(0)
        )
        heights[random.random(heights.shape) < 0.05] = np.nan
        whole, numbers = find_dales(heights, 0.1), feature_numbers(heights, 2.0)
        for pixels in (1, 40, 100):
            monkeypatch.setattr("cpikan.surface.areal.dales._BAND_PIXELS", pixels)
            found = find_dales(heights, 0.1)
            for name in ("labels", "pits", "open", "spill_nm", "depths_nm"):
                np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
            again = feature_numbers(heights, 2.0)
            assert again.keys() == numbers.keys()
            for key, value in again.items():
                assert value == (numbers[key] if value is None else pytest.approx(numbers[key], rel=1e-12))
        monkeypatch.undo()


def test_hills_of_known_size_in_closed_form():
    """Paraboloids on cones: how many lie inside, how high and how curved they are; those at the edge do not count."""
    y, x = np.mgrid[:200.0, :240.0]
    centres = [(20 + 40 * i, 20 + 40 * j) for i in range(5) for j in range(6)]
    squares = np.array([(y - v) ** 2 + (x - u) ** 2 for v, u in centres])
    nearest, square = squares.argmin(0), squares.min(0)
    tops = 10.0 + np.arange(30)
    heights = np.where(square < 100, tops[nearest] * (1 - square / 100), -0.01 * np.sqrt(square))
    heights[41, 41] += 1.0  # less than 5 % of Sz: no hill
    inside = [k for k, (v, u) in enumerate(centres) if 40 < v < 160 and 40 < u < 200]
    found = feature_numbers(heights, (2.0, 3.0))
    assert found["s5p_nm"] == pytest.approx(np.sort(tops[inside])[-5:].mean() - heights.mean(), rel=1e-12)
    assert found["spd_per_mm2"] * heights.size * 6e-6 == pytest.approx(len(inside), rel=1e-12)
    assert found["spc_per_mm"] == pytest.approx(tops[inside].mean() / 100 * (1 / 4 + 1 / 9), rel=1e-9)
    # cells of 40 x 40 pixels, their borders shared
    assert found["sha_um2"] == pytest.approx(1600 * 6, rel=0.03)


def test_numbers_without_a_pixel_size():
    found = feature_numbers(rough((60, 80)))
    assert found["s5p_nm"] is not None
    assert found["sda_um2"] is found["spd_per_mm2"] is found["sdv_um3"] is None
    assert spatial_numbers(rough())["sal_um"] is None
    assert spatial_numbers(rough())["str"] is not None


def test_an_egg_box_in_closed_form():
    """Equal cells: as many pits as peaks, areas of a cell, curvature (2 pi / p)^2 A, volume of A cos cos above its saddle."""
    y, x = np.mgrid[:200, :240]
    wave = 2 * np.pi / 20
    heights = 10 * np.cos(wave * (x + 0.25)) * np.cos(wave * (y + 0.25)) + 1e-9 * y  # no two pixels are equal
    found = feature_numbers(heights, 2.0)
    assert found["s10z_nm"] == pytest.approx(20 * np.cos(wave / 4) ** 2, rel=1e-6)  # a quarter of a pixel off the peak
    # second differences of a cosine: 2 - 2 cos instead of the square of its wave number
    curved = 10 * np.cos(wave / 4) ** 2 * (2 - 2 * np.cos(wave)) / 4
    assert found["spc_per_mm"] == pytest.approx(curved, rel=1e-6)
    assert found["svc_per_mm"] == pytest.approx(-curved, rel=1e-6)
    assert found["sda_um2"] == pytest.approx(200 * 4, rel=0.03)
    assert found["sha_um2"] == pytest.approx(200 * 4, rel=0.03)
    # above 0 a hill stands on 10 x 10 pixels; it overflows diagonally between pixels a quarter off the saddle
    volume = 10 * (20 / np.pi) ** 2 - 100 * 10 * np.sin(wave / 4) * np.sin(3 * wave / 4)
    assert found["shv_um3"] == pytest.approx(volume * 4 / 1000, rel=0.005)
    assert found["sdv_um3"] == pytest.approx(volume * 4 / 1000, rel=0.005)


def test_holes_are_edges_of_features():
    y, x = np.mgrid[:60, :60]
    heights = np.cos(2 * np.pi * x / 20) * np.cos(2 * np.pi * y / 20) + 1e-6 * y
    whole = feature_numbers(heights, 1.0)
    heights[40, 40] = np.nan  # the top of a hill
    holed = feature_numbers(heights, 1.0)
    change = (holed["spd_per_mm2"] * 3599 - whole["spd_per_mm2"] * 3600) / 1e6
    assert change == pytest.approx(-1, abs=1e-9)


def test_pruning_is_a_share():
    with pytest.raises(InputError, match="pruning 5 is no share"):
        find_dales(np.eye(3), 5)


@pytest.mark.parametrize("pixel", [1.0, (3.0, 2.0)])
def test_decay_of_waves_in_closed_form(pixel):
    """cos cos has the correlation cos cos: 0.2 after acos(0.2) / k along an axis, sqrt 2 acos(sqrt 0.2) / k along 45 deg."""
    dy, dx = pixel if isinstance(pixel, tuple) else (pixel, pixel)
    y, x = np.mgrid[:400, :400]
    k = 2 * np.pi / 40
    found = decay_lengths(np.cos(k * x * dx) * np.cos(k * y * dy), pixel)
    # a mean over pairs of a map of 10 periods and more: 1 / (2 x 10 pi) of the value there, over the slope
    assert found.shortest_um == pytest.approx(math.acos(0.2) / k, rel=0.02)
    assert found.longest_um == pytest.approx(math.sqrt(2) * math.acos(math.sqrt(0.2)) / k, rel=0.02)


def test_wide_structures_are_as_wide_in_means_of_pixels(monkeypatch):
    y, x = np.mgrid[:301, :420]
    heights = np.cos(2 * np.pi * x / 210) * np.cos(2 * np.pi * y / 150) + np.random.default_rng(0).normal(
        0, 0.5, x.shape
    )
    heights[rough(heights.shape) != rough(heights.shape)] = np.nan
    whole = decay_lengths(heights, (3.0, 2.0))
    monkeypatch.setattr(spatial_module, "_WIDEST_REACH", 8)
    monkeypatch.setattr(spatial_module, "_FIRST_REACH", 4)
    small = decay_lengths(heights, (3.0, 2.0))
    assert small.shortest_um == pytest.approx(whole.shortest_um, rel=0.03)  # of lengths of 8 pixels of 4 x 4
    assert small.longest_um == pytest.approx(whole.longest_um, rel=0.03)


def test_a_grating_decays_across_only():
    x = np.tile(np.arange(260), (200, 1))
    found = decay_lengths(np.cos(2 * np.pi * x / 26), 2.0)
    assert found.shortest_um == pytest.approx(2 * 26 * math.acos(0.2) / (2 * np.pi), rel=0.02)
    assert found.longest_um is None
    numbers = spatial_numbers(np.cos(2 * np.pi * x / 26), 2.0)
    assert numbers["str"] is None
    assert numbers["sal_um"] == found.shortest_um


@pytest.mark.parametrize("degrees", [0.0, 12.0, 45.0, 90.0, 133.3, 179.6])
def test_direction_of_a_grating(degrees):
    y, x = np.mgrid[:300, :300]
    turn = np.radians(degrees)
    wave = np.cos(2 * np.pi * (x * np.cos(turn) - y * np.sin(turn)) / 13.7)
    wave[100:120, 30:50] = np.nan
    found = texture_direction_deg(wave)
    assert abs((found - degrees + 90) % 180 - 90) < 0.05
    wide = np.cos(2 * np.pi * (2 * x * np.cos(turn) - y * np.sin(turn)) / 13.7)
    found = texture_direction_deg(wide, (1.0, 2.0))
    assert abs((found - degrees + 90) % 180 - 90) < 0.1


def test_the_direction_does_not_depend_on_bands(monkeypatch):
    heights = rough((70, 90))
    whole = texture_direction_deg(heights, (1.0, 1.5))
    monkeypatch.setattr("cpikan.surface.areal.texture_direction._BAND_PIXELS", 200)
    monkeypatch.setattr("cpikan.surface.areal.texture_direction._COLUMNS", 7)
    assert texture_direction_deg(heights, (1.0, 1.5)) == pytest.approx(whole, abs=1e-9)
    # written out: all of the spectrum at once
    window = np.outer(*(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 for size in heights.shape))
    amplitude = np.abs(np.fft.fft2(np.where(np.isfinite(heights), heights - np.nanmean(heights), 0.0) * window))
    y, x = np.meshgrid(np.fft.fftfreq(70, 1.0), np.fft.fftfreq(90, 1.5), indexing="ij")
    inside = (np.hypot(y, x) > 0) & (np.hypot(y, x) <= 0.5 / 1.5)
    degrees = np.degrees(np.arctan2(-y, x))[inside] % 180
    direction = float(np.bincount(np.rint(degrees).astype(int) % 180, amplitude[inside]).argmax())
    for _ in range(3):
        offset = (degrees - direction + 90) % 180 - 90
        near = np.abs(offset) <= 6
        direction = (direction + float(np.average(offset[near], weights=amplitude[inside][near] ** 2))) % 180
    assert whole == pytest.approx(direction, abs=1e-6)


def test_area_of_a_plane_and_of_a_wave():
    plane = np.add.outer(200.0 * np.arange(20), -300.0 * np.arange(30))
    found = surface_parameters(plane, MeasureSettings((), pixel_um=(0.5, 1.5)))
    assert found.sdr_percent == pytest.approx(100 * (math.sqrt(1 + 0.4**2 + 0.2**2) - 1), rel=1e-12)
    assert surface_parameters(plane).sdr_percent is None
    assert surface_parameters(np.full((4, 5), 3.0), MeasureSettings((), pixel_um=1.0)).sdr_percent == 0
    assert surface_parameters(np.arange(9.0).reshape(1, -1), MeasureSettings((), pixel_um=1.0)).sdr_percent is None
    # slopes of 1e-9: the excess of 5e-19 is not lost
    small = surface_parameters(plane * 1e-9, MeasureSettings((), pixel_um=(0.5, 1.5)))
    assert small.sdr_percent == pytest.approx(100 * (0.4**2 + 0.2**2) / 2 * 1e-18, rel=1e-9)


@pytest.mark.parametrize("scale", [800.0, 2.0])  # by roots, and by their series
def test_area_in_bands_and_by_hand(scale):
    heights = scale * rough((30, 41))
    found = surface_parameters(heights, MeasureSettings((), pixel_um=(1.0, 2.0)))
    areas = []
    for i in range(29):
        for j in range(40):
            cell = heights[i : i + 2, j : j + 2] / 1000
            if np.isfinite(cell).all():
                corner = [np.array([2.0 * b, 1.0 * a, cell[a, b]]) for a, b in ((0, 0), (0, 1), (1, 1), (1, 0))]
                for first in range(4):
                    p, q, r = (corner[(first + k) % 4] for k in range(3))
                    areas.append(np.linalg.norm(np.cross(q - p, r - p)) / 2 / 2 / 2.0)
    # by hand the excess is the difference of areas of 1
    assert found.sdr_percent == pytest.approx(100 * (sum(areas) * 4 / len(areas) - 1), rel=1e-10, abs=1e-12)
    bands = lambda: ((k, heights[None, k : k + 7]) for k in range(0, 30, 7))  # noqa: E731
    banded = measure(bands, MeasureSettings((), pixel_um=(1.0, 2.0))).surfaces[0]
    assert banded.sdr_percent == pytest.approx(found.sdr_percent, rel=1e-12)

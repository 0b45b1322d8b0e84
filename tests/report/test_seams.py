"""Seams: errors planted along the borders that a run's own partitions made, and none where nothing was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_map import memory_map

import cpikan
from cpikan.partition import Partition
from cpikan.pipeline.maps.evaluate import align_to_truth
from cpikan.psi.simulate import SimulationSettings, simulate_stack
from cpikan.psi.unwrap.unwrap import unwrap
from cpikan.report.seams import SeamSums, borders_of
from cpikan.report.survey import survey
from small_stacks import WAVES_NM, stack_of

SHAPE = (1500, 2300)
TILES = Partition.tiles(SHAPE, 512, 64, ramp=0)
UNWRAPPED = {"settings": {"tile": 512, "overlap": 64}, "summary": {"unwrapping": {"tiles": len(TILES)}}}


def _by_core(partition: Partition[int], shape: tuple[int, int], axis: int, step: float) -> np.ndarray:
    """Every second core along an axis stands ``step`` higher."""
    planted = np.zeros(shape)
    for box in partition:
        box.core_view(planted)[...] = step * (box.position[axis] % 2)
    return planted


def _checks(error: np.ndarray, document: dict[str, Any], band: int = 100) -> dict[str, Any]:
    sums = SeamSums((error.shape[0], error.shape[1]))
    for start in range(0, len(error), band):
        sums.add(start, error[start : start + band])
    return sums.checks(borders_of(document, (error.shape[0], error.shape[1])))


def _noise(shape: tuple[int, int], seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.0, shape)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("band", [64, 7, 2000])
def test_jumps_between_the_cores_of_unwrapping_are_found_on_their_axis_only(axis: int, band: int) -> None:
    error = _noise(SHAPE) + _by_core(TILES, SHAPE, axis, 3.0)
    error[200:220, 100:300] = np.nan
    checks = _checks(error, UNWRAPPED, band)
    seam, clean = checks[f"tiles along {'yx'[axis]}"], checks[f"tiles along {'xy'[axis]}"]
    assert seam.visible
    assert seam.borders == TILES.counts[axis] - 1
    assert seam.distance_px[np.nanargmax(seam.folded_nm)] == 0
    assert not clean.visible
    # a normal variate beyond 4.5: 7e-6
    assert abs(clean.deviation) < 4.5
    # neighbours differ by sqrt(2), the mean absolute value of a normal is sqrt(2 / pi); at least 6e4 steps a distance
    assert clean.ratio == pytest.approx(1.0, abs=0.03)
    assert clean.nearby_nm == pytest.approx(2 / np.sqrt(np.pi), rel=0.02)


def test_a_jump_without_any_noise_is_a_seam() -> None:
    check = _checks(_by_core(TILES, SHAPE, 1, 50.0), UNWRAPPED)["tiles along x"]
    assert check.visible
    assert check.ratio == check.deviation == float("inf")
    assert not _checks(np.zeros(SHAPE), UNWRAPPED)["tiles along x"].visible


def test_jumps_in_a_page_of_an_error_map() -> None:
    document = {"acquisition": {"wavelengths_nm": [632.8]}, **UNWRAPPED}
    planted = _by_core(TILES, SHAPE, 1, 50.0) + _noise(SHAPE)
    height_map = memory_map(planted, document=document)
    found = survey(height_map, align_to_truth(height_map, np.zeros(SHAPE)))
    assert found.error is not None
    assert {name: check.visible for name, check in found.error.seams.items()} == {
        "tiles along y": False,
        "tiles along x": True,
    }


def test_the_default_tiles_are_those_of_unwrapping() -> None:
    """Orders of a tilted plane, read back from the tiles of ``unwrap``, change nowhere but at borders of its cores."""
    planted = borders_of({"settings": {"tile": None, "overlap": None}, "summary": {"unwrapping": {"tiles": 1}}}, SHAPE)
    assert planted == {
        "tiles along y": ("y", TILES.axes[0].cuts),
        "tiles along x": ("x", TILES.axes[1].cuts),
    }
    assert unwrap(np.zeros(SHAPE, np.float32)).report.tiles == len(TILES)


@pytest.mark.parametrize("axis", [0, 1])
def test_jumps_between_the_tiles_of_a_network_are_found(axis: int) -> None:
    shape = (300, 420)
    result = cpikan.infer_tiled(
        cpikan.TileFunction(_Counted(), receptive_field_px=1, batch=1),
        np.zeros(shape, np.float32),
        tile=64,
        overlap=9,
        window="halo",
    )
    document = {"summary": {"learned": result.report}}
    changes = np.flatnonzero(np.diff(result.values, axis=axis).any(axis=1 - axis)) + 1  # where tiles end
    assert borders_of(document, shape)[f"network tiles along {'yx'[axis]}"][1] == list(changes)
    checks = _checks(_noise(shape) + result.values, document)
    assert checks[f"network tiles along {'yx'[axis]}"].visible
    assert not any(check.visible for check in _checks(_noise(shape), document).values())


class _Counted:
    """Tiles filled with the square of their number, so that every border has a step."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        self.calls += 1
        return tiles + np.float32(self.calls**2)


@pytest.mark.parametrize("rows", [16, 40])
def test_jumps_between_bands_are_found_and_nothing_is_shown_of_tiles_that_no_method_made(
    rows: int, tmp_path: Path
) -> None:
    """The whole way from a run: two wavelengths have bands and no tiles."""
    settings = SimulationSettings(shape=(210, 64), wavelengths_nm=WAVES_NM[:2], surface="smooth")
    frames, _ = simulate_stack(settings)
    document = cpikan.reconstruct(
        stack_of(frames), tmp_path / "out.npy", band_rows=rows, method="pixel", progress=False
    ).document
    assert document["summary"]["band_rows"] == rows
    error = _noise((210, 64))
    assert set(_checks(error, document)) == {"bands along y"}
    assert not _checks(error, document)["bands along y"].visible
    planted = 5.0 * (np.arange(210) // rows % 2)[:, None]
    check = _checks(error + planted, document)["bands along y"]
    assert check.visible
    assert check.borders == -(-210 // rows) - 1


def test_no_border_no_check() -> None:
    assert _checks(np.zeros((100, 100)), {"summary": {"unwrapping": {"tiles": 1}}}) == {}
    assert set(_checks(np.zeros((100, 100)), {"summary": {"band_rows": 32}})) == {"bands along y"}
    assert _checks(np.zeros((100, 100)), {"summary": {"band_rows": 2}}) == {}  # no pixel is away from a border
    odd = {"settings": {"tile": "x"}, "summary": {"unwrapping": {"tiles": 1}, "band_rows": "y", "learned": [1]}}
    assert _checks(np.zeros((100, 100)), odd) == {}

"""Changes of the frames that change nothing of the surface, or scale it: no truth is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cpikan
from independent_frames import Scene
from small_stacks import STEPS_DEG, WAVES_NM, stack_of

Record = Callable[[str, object], None]
# float32 has a quantum of 1 nm / 1024 at 10 um; two of them for heights that were rounded twice
QUANTUM_NM = 2 * 10_000 / 2**24 * 2
RANGE_NM = 27_000.0


def map_of(place: Path, frames: np.ndarray, waves_nm: tuple[float, ...] = WAVES_NM) -> cpikan.HeightMap:
    range_nm = RANGE_NM * waves_nm[0] / WAVES_NM[0] if len(frames) > 1 else None
    stack = stack_of(frames, waves_nm, STEPS_DEG)
    return cpikan.reconstruct(stack, place, range_nm=range_nm, all_quantities=True, progress=False)


def heights_of(place: Path, frames: np.ndarray, waves_nm: tuple[float, ...] = WAVES_NM) -> np.ndarray:
    return np.asarray(map_of(place, frames, waves_nm).height_nm, np.float64)


@pytest.fixture(scope="module")
def frames(wafer: Scene) -> np.ndarray:
    return np.asarray(wafer.frames).astype(np.float32)


@pytest.fixture(scope="module")
def plain(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return heights_of(tmp_path_factory.mktemp("plain") / "p.npy", frames)


def largest(record: Record, found: np.ndarray, expected: np.ndarray) -> float:
    assert np.isfinite(found).sum() > 10_000
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    change = float(np.nanmax(np.abs(found - expected)))
    record("largest change in nm", change)
    return change


def test_brighter_frames_are_the_same_surface(
    frames: np.ndarray, plain: np.ndarray, tmp_path: Path, record_property: Record
) -> None:
    assert largest(record_property, heights_of(tmp_path / "p.npy", 2 * frames), plain) <= QUANTUM_NM


def test_turned_frames_are_the_turned_surface(
    frames: np.ndarray, plain: np.ndarray, tmp_path: Path, record_property: Record
) -> None:
    turned = np.ascontiguousarray(frames.swapaxes(2, 3)[..., ::-1])
    found = map_of(tmp_path / "p.npy", turned)
    change = largest(record_property, np.asarray(found.height_nm, np.float64), plain.T[:, ::-1])
    # what all pixels share is estimated from some thousands of them, others when the image is turned
    assert change <= 0.1 * float(np.nanmedian(np.asarray(found.sigma_nm)))


def test_twice_the_wavelength_is_twice_the_height(
    frames: np.ndarray, plain: np.ndarray, tmp_path: Path, record_property: Record
) -> None:
    found = heights_of(tmp_path / "p.npy", frames, tuple(2 * wave for wave in WAVES_NM))
    assert largest(record_property, found / 2, plain) <= QUANTUM_NM


def test_a_phase_that_all_frames_share_is_a_piston(frames: np.ndarray, tmp_path: Path, record_property: Record) -> None:
    one = frames[:1]
    first = heights_of(tmp_path / "a.npy", one, WAVES_NM[:1])
    later = heights_of(tmp_path / "b.npy", one[:, [1, 2, 3, 0]], WAVES_NM[:1])  # a quarter of a wave on
    half_wave = WAVES_NM[0] / 2
    shift = np.exp(2j * np.pi * (later - first) / half_wave)
    mean = np.nanmean(shift)
    change = float(np.nanmax(np.abs(np.angle(shift / mean)))) * half_wave / (2 * np.pi)
    record_property("largest change in nm", change)
    assert abs(np.angle(mean / 1j)) < 0.01 or abs(np.angle(mean / -1j)) < 0.01
    assert change <= 0.01


def test_piston_and_tilt_do_not_change_levelled_numbers(plain: np.ndarray, record_property: Record) -> None:
    y, x = np.mgrid[: plain.shape[0], : plain.shape[1]]
    tilted = plain + 123.0 + 0.7 * y - 1.3 * x
    levelled = cpikan.MeasureSettings(remove=("piston", "tilt"))
    one, other = (cpikan.surface_parameters(heights, levelled) for heights in (plain, tilted))
    for name in ("sa_nm", "sq_nm"):
        change = abs(getattr(other, name) / getattr(one, name) - 1)
        record_property(f"relative change of {name}", change)
        assert change <= 1e-9

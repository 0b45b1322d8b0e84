"""Saturation from the samples themselves: a pile at a ceiling, wherever it lies, and values whose low bits are unused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.psi.calibration.saturation import Ceiling, find_ceiling

SHAPE = (70, 90)


def frames(*, top: float, noise: float = 5.0, uneven: float = 0.2, count: int = 4, seed: int = 0) -> np.ndarray:
    """Frames (1, K, P) of float DN whose crests reach ``top``, brightest in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    light = 1 - uneven * (x * x + y * y) / 2
    phase = 17 * x + 9 * y + 3 * y * y
    values = [top * light * (0.55 + 0.45 * np.cos(phase + 2 * np.pi * k / count)) for k in range(count)]
    return (np.array(values) + noise * rng.normal(size=(count, *SHAPE))).reshape(1, count, -1)


def digital(values: np.ndarray, most: float, kind: type = np.uint16) -> np.ndarray:
    return np.clip(np.rint(values), 0, most).astype(kind)


@pytest.mark.parametrize(
    ("bits", "noise", "uneven"), [(8, 0.0, 0.0), (8, 0.4, 0.0), (8, 1.5, 0.3), (12, 6.0, 0.2), (16, 90.0, 0.2)]
)
@pytest.mark.parametrize("reach", [0.6, 0.93])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_fringes_below_the_ceiling_are_not_clipped(
    bits: int, noise: float, uneven: float, reach: float, count: int
) -> None:
    largest = 2**bits - 1
    values = digital(frames(top=reach * largest, noise=noise, uneven=uneven, count=count), largest)
    assert find_ceiling(values, 65535.0, None) == Ceiling(65535.0, 1.0)


@pytest.mark.parametrize("ceiling", [4095, 1023, 3871, 16383])
def test_a_pile_below_the_largest_value_of_the_type_is_saturation(ceiling: int) -> None:
    values = digital(frames(top=1.15 * ceiling, noise=0.002 * ceiling), ceiling)
    found = find_ceiling(values, 65535.0, None)
    assert found == Ceiling(float(ceiling), 1.0, piled=True)
    told = found.caution(values)
    assert told is not None
    assert told.name == "saturated"
    assert f"at {ceiling} DN" in told.text


def test_a_ceiling_with_noise_after_it_and_hot_pixels_above_it_is_found() -> None:
    rng = np.random.default_rng(5)
    values = np.minimum(frames(top=3000.0), 2500.0) + 3 * rng.normal(size=(1, 4, SHAPE[0] * SHAPE[1]))
    values[0, 2, 77] = 60000
    found = find_ceiling(digital(values, 65535), 65535.0, None)
    assert found.piled
    # nearly all that was clipped, three sigma of the noise below the ceiling
    assert 2480 < found.saturation_dn < 2500


def test_infinite_samples_are_told_as_such() -> None:
    values = frames(top=1.2, noise=0.003)
    values[0, 1, ::40] = math.inf
    told = find_ceiling(values, math.inf, None).caution(values)
    assert told is not None
    assert told.name == "saturated"
    assert "2.5% of the pixels are infinite" in told.text


def test_floats_have_a_ceiling_where_they_pile_up() -> None:
    values = np.minimum(frames(top=1.2, noise=0.003), 1.0)
    found = find_ceiling(values, math.inf, None)
    assert found.piled
    assert found.saturation_dn == pytest.approx(1.0, abs=1.2 / 2**16)  # the finest window that is looked at
    assert found.saturation_dn <= 1.0
    assert find_ceiling(frames(top=1.2, noise=0.003), math.inf, None) == Ceiling(math.inf, 0.0)


@pytest.mark.parametrize("told", [None, 10])
def test_left_justified_data_saturate_at_a_multiple_of_their_step(told: int | None) -> None:
    clipped = digital(frames(top=1300.0), 1023) << 6
    found = find_ceiling(clipped, 65535.0 if told is None else 1023.0, told)
    assert found.saturation_dn == 65472
    assert found.quantum_dn == 64
    free = digital(frames(top=900.0), 1023) << 6
    assert not find_ceiling(free, 65535.0 if told is None else 1023.0, told).piled
    assert find_ceiling(free, 65535.0 if told is None else 1023.0, told).saturation_dn == 65472


def test_a_bright_rim_without_fringes_is_no_ceiling() -> None:
    values = frames(top=700.0)
    values[..., :900] = 820 + np.random.default_rng(1).normal(size=(1, 4, 900))
    assert not find_ceiling(digital(values, 4095), 65535.0, None).piled


def test_a_few_saturated_pixels_are_no_news() -> None:
    values = digital(frames(top=900.0), 1023)
    values[0, 1, :20] = 1023
    assert Ceiling(1023.0, 1.0).caution(values) is None

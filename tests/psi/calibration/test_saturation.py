"""Saturation from the samples themselves: a pile at a ceiling, wherever it lies, and values whose low bits are unused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.psi.calibration.samples.saturation import SampleLimits, find_limits

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
    assert find_limits(values, 65535.0, None) == SampleLimits(65535.0, 1.0)


@pytest.mark.parametrize("ceiling", [4095, 1023, 3871, 16383])
def test_a_pile_below_the_largest_value_of_the_type_is_saturation(ceiling: int) -> None:
    values = digital(frames(top=1.15 * ceiling, noise=0.002 * ceiling), ceiling)
    found = find_limits(values, 65535.0, None)
    assert found == SampleLimits(float(ceiling), 1.0, piled=True)
    told = found.caution(values)
    assert told is not None
    assert told.name == "saturated"
    assert f"at {ceiling} DN" in told.text


def test_a_ceiling_with_noise_after_it_and_hot_pixels_above_it_is_found() -> None:
    rng = np.random.default_rng(5)
    values = np.minimum(frames(top=3000.0), 2500.0) + 3 * rng.normal(size=(1, 4, SHAPE[0] * SHAPE[1]))
    values[0, 2, 77] = 60000
    found = find_limits(digital(values, 65535), 65535.0, None)
    assert found.piled
    # nearly all that was clipped, three sigma of the noise below the ceiling
    assert 2480 < found.saturation_dn < 2500


def test_infinite_samples_are_told_as_such() -> None:
    values = frames(top=1.2, noise=0.003)
    values[0, 1, ::40] = math.inf
    told = find_limits(values, math.inf, None).caution(values)
    assert told is not None
    assert told.name == "saturated"
    assert "2.5% of the pixels are infinite" in told.text


def test_floats_have_a_ceiling_where_they_pile_up() -> None:
    values = np.minimum(frames(top=1.2, noise=0.003), 1.0)
    found = find_limits(values, math.inf, None)
    assert found.piled
    assert found.saturation_dn == pytest.approx(1.0, abs=1.2 / 2**16)  # the finest window that is looked at
    assert found.saturation_dn <= 1.0
    assert find_limits(frames(top=1.2, noise=0.003), math.inf, None) == SampleLimits(math.inf, 0.0)


@pytest.mark.parametrize("told", [None, 10])
def test_left_justified_data_saturate_at_a_multiple_of_their_step(told: int | None) -> None:
    clipped = digital(frames(top=1300.0), 1023) << 6
    found = find_limits(clipped, 65535.0 if told is None else 1023.0, told)
    assert found.saturation_dn == 65472
    assert found.quantum_dn == 64
    free = digital(frames(top=900.0), 1023) << 6
    assert not find_limits(free, 65535.0 if told is None else 1023.0, told).piled
    assert find_limits(free, 65535.0 if told is None else 1023.0, told).saturation_dn == 65472


def test_a_bright_rim_without_fringes_is_no_ceiling() -> None:
    values = frames(top=700.0)
    values[..., :900] = 820 + np.random.default_rng(1).normal(size=(1, 4, 900))
    assert not find_limits(digital(values, 4095), 65535.0, None).piled


def test_a_few_saturated_pixels_are_no_news() -> None:
    values = digital(frames(top=900.0), 1023)
    values[0, 1, :20] = 1023
    assert SampleLimits(1023.0, 1.0).caution(values) is None


@pytest.mark.parametrize(("bits", "level"), [(8, 0), (12, 0), (12, 64), (16, 900), (14, 1)])
@pytest.mark.parametrize("depth", [0.06, 0.3])
def test_a_pile_at_black_is_found_whatever_the_black_level_is(bits: int, level: int, depth: float) -> None:
    """Fringes from a tenth of their height above zero on, of which a part is cut off at the lowest value there is."""
    largest, noise = 2**bits - 1, 0.004 * 2**bits
    values = np.maximum(frames(top=0.8 * largest, noise=noise) - (0.08 + depth) * largest, 0) + level
    found = find_limits(digital(values, 65535), 65535.0, None, lambda: noise)
    assert found == SampleLimits(65535.0, 1.0, black_dn=float(level))
    told = found.caution(digital(values, 65535))
    assert told is not None
    assert told.name == "saturated"
    assert f"clipped at black in at least one frame (at {level} DN" in told.text
    assert "less light" not in told.text
    lost = (values <= level).any(axis=(0, 1))
    assert found.clips_black(digital(values, 65535)).sum() == pytest.approx(lost.sum(), rel=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.4, 2.0, 12.0])
@pytest.mark.parametrize("count", [3, 4, 6])
def test_fringes_that_just_touch_black_are_not_clipped(noise: float, count: int) -> None:
    """Contrast of one: troughs at zero, where the camera cuts off half of the noise, which changes no phase."""
    rng = np.random.default_rng(count)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    level = 110 * (1 - 0.2 * (x * x + y * y))
    clean = [level * (1 + np.cos(17 * x + 9 * y + 3 * y * y + 2 * np.pi * k / count)) for k in range(count)]
    values = digital(np.array(clean) + noise * rng.normal(size=(count, *SHAPE)), 255, np.uint8).reshape(1, count, -1)
    assert find_limits(values, 255.0, None, lambda: noise) == SampleLimits(255.0, 1.0)


@pytest.mark.parametrize("dark", [0.0, 1.5, 20.0])
def test_a_black_background_outside_the_pupil_is_not_clipped_fringes(dark: float) -> None:
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    outside = (np.hypot(y, x) > 0.8).ravel()
    values = frames(top=200.0, noise=1.0)
    values[..., outside] = dark + np.random.default_rng(3).normal(size=(1, 4, outside.sum()))
    assert find_limits(digital(values, 255, np.uint8), 255.0, None, lambda: 1.0) == SampleLimits(255.0, 1.0)
    # and where the fringes are clipped, what is dark in all frames is not counted among what is lost
    values[..., ~outside] -= 60
    found = find_limits(digital(values, 255, np.uint8), 255.0, None, lambda: 1.0)
    assert found.black_dn == 0
    assert not found.clips_black(digital(values, 255, np.uint8))[outside].any()


def test_both_ends_are_told_in_one_sentence() -> None:
    values = digital(frames(top=330.0, noise=1.0) - 60, 255, np.uint8)
    told = find_limits(values, 255.0, None, lambda: 1.0).caution(values)
    assert told is not None
    assert "saturated in at least one frame (at 255 DN)" in told.text
    assert "clipped at black in at least one frame (at 0 DN" in told.text


@pytest.mark.parametrize(("foot", "black"), [(0.0, 0.0), (64.6, -np.inf)])
def test_light_that_a_table_linearised_has_no_black_but_zero(foot: float, black: float) -> None:
    phase = np.random.default_rng(3).uniform(0, 2 * np.pi, 4000)
    light = foot + 80 + 100 * np.cos(phase + np.radians([0, 90, 180, 270])[:, None])
    frames = np.maximum(light, foot).astype(np.float32)[None]
    assert find_limits(frames, np.inf, None).black_dn == black

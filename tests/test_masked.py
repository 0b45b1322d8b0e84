"""What a NumPy masked array masks is no measurement, at every door that takes arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cpikan
from cpikan.masked import without_mask
from cpikan.pipeline.maps.evaluate import open_truth
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.unwrap.unwrap import unwrap

SHAPE = (90, 110)
Y, X = np.indices(SHAPE)
HOLE = (X - 30) ** 2 + (Y - 50) ** 2 < 90  # a disc, and a cut across the image below
CUT = HOLE | (abs(Y - 70) < 3)
HEIGHT = 1100.0 * (X / 110) ** 2 + 2.0 * Y
WAVE = 532.0
PHASE = np.angle(np.exp(4j * np.pi * HEIGHT / WAVE))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64", "bool"])
def test_values_stay_exact_and_masked_ones_are_nan(dtype: str) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    mask = values % 3 == 1 if dtype != "bool" else np.eye(3, 4, dtype=bool)
    plain = without_mask(np.ma.MaskedArray(values, mask))
    assert type(plain) is np.ndarray
    np.testing.assert_array_equal(np.isnan(plain), mask)
    np.testing.assert_array_equal(plain[~mask], values[~mask])


def test_a_mask_of_nothing_changes_nothing() -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert without_mask(np.ma.MaskedArray(values, False)).dtype == np.uint8
    assert without_mask(values) is values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unwrap_leaves_masked_pixels_out(dtype: type) -> None:
    phase = np.where(CUT, 0.3, PHASE).astype(dtype)
    found = unwrap(np.ma.MaskedArray(phase, CUT), tile=64, overlap=16)
    wanted = unwrap(np.where(CUT, dtype(np.nan), phase), tile=64, overlap=16)
    np.testing.assert_array_equal(found.component, wanted.component)
    np.testing.assert_array_equal(found.orders, wanted.orders)
    assert found.report.components == 2
    assert not found.component[CUT].any()


def test_unwrap_takes_the_mask_of_the_quality_too() -> None:
    quality = np.ma.MaskedArray(np.ones(SHAPE), CUT)
    found = unwrap(PHASE.astype(np.float32), quality, tile=64, overlap=16)
    assert not found.component[CUT].any()
    assert found.component[~CUT].all()


def test_masked_frames_are_dead_and_keep_their_bit_depth(tmp_path: Path) -> None:
    steps = (0.0, 90.0, 180.0, 270.0)
    frames = np.array([np.rint(130 + 80 * np.cos(4 * np.pi * HEIGHT / WAVE + np.radians(step))) for step in steps])
    frames = frames.astype(np.uint8)
    frames[:, HOLE] = np.array([200, 3, 90, 41], np.uint8)[:, None]
    masked = np.ma.MaskedArray(frames, np.broadcast_to(HOLE, frames.shape))
    stack = FrameStack.from_array(masked, Acquisition((WAVE,), (steps,), "trusted"))
    assert stack.saturation_dn == 255
    height = np.asarray(cpikan.reconstruct(stack, tmp_path / "h.npy", progress=False).height_nm[:, :])
    assert np.isnan(height[HOLE]).all()
    assert np.isfinite(height[~HOLE]).mean() > 0.99


@pytest.mark.parametrize("shape", [SHAPE, (2, *SHAPE)])
def test_tiled_models_see_nan(shape: tuple[int, ...]) -> None:
    image = np.broadcast_to(np.where(HOLE, 1e7, HEIGHT), shape).astype(np.float32)
    masked = np.ma.MaskedArray(image, np.broadcast_to(HOLE, shape))
    found = np.asarray(cpikan.infer_tiled(lambda a: a, masked, tile=48, overlap=8, progress=False).values)
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(HOLE, shape))
    assert np.nanmax(found) < 1e6


def test_surface_numbers_forms_masks_and_truths_leave_masked_pixels_out() -> None:
    masked = np.ma.MaskedArray(np.where(HOLE, 1e9, HEIGHT), HOLE)
    plain = np.where(HOLE, np.nan, HEIGHT)
    assert cpikan.surface_parameters(masked).summary() == cpikan.surface_parameters(plain).summary()
    assert cpikan.fit_form(masked).summary() == cpikan.fit_form(plain).summary()
    np.testing.assert_array_equal(open_truth(masked, SHAPE), plain)
    rows = cpikan.Mask(np.ma.MaskedArray(np.ones(SHAPE, bool), HOLE), "m").rows(0, SHAPE[0], SHAPE[1])
    np.testing.assert_array_equal(rows == 0, HOLE)

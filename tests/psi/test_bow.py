"""Smooth errors between wavelengths are taken off by every kernel alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plain_kernels as reference
import pytest

from cpikan.psi.kernels.cpu import CpuKernels
from cpikan.psi.kernels.model import Demodulation, HeightRows, OrderSearch, PixelModel, empty_rows
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.psi.model.schemes import LEAST_SQUARES, phasor_weights

WAVES = (5900.0, 5300.0)
STEPS = (0.0, 90.0, 180.0, 270.0)
SHAPE, FIRST_ROW = (24, 70), 6
TURN = 2 * np.pi


def model() -> PixelModel:
    weights = [phasor_weights(LEAST_SQUARES, STEPS)] * 2
    demodulation = Demodulation.of_weights(weights, np.tile([1.0, 0.0], (2, 1)), snr_min=30.0)
    order = (1, 0)
    ratio = 5300.0 / np.array(WAVES)[list(order)]
    rng = np.random.default_rng(1)
    powers = np.add.outer(np.arange(5), np.arange(5))
    bow = rng.uniform(-0.6, 0.6, (2, 5, 5)) / 36.0**powers * (powers <= 4)
    plane = np.array([0.0, 0.2]), np.array([[0, 0], [0.01, 0.002]])
    return PixelModel(
        demodulation,
        OrderSearch(order, ratio, 2650.0, *plane, (18.0, 34.0), -5e3, 22e3, -5e3, 22e3, 40.0, bow_turns=bow),
    )


def frames_of(found: PixelModel) -> tuple[np.ndarray, np.ndarray]:
    search = found.search
    assert search is not None
    y, x = np.indices(SHAPE)
    height = 150.0 * x + 4000 * np.sin(y / 9)
    turns = np.empty((2, *SHAPE))
    off = search.relative_turns(y + FIRST_ROW, x)
    turns[list(search.order)] = search.ratio[:, None, None] * height / search.half_wave_nm + off
    frames = 120 + 90 * np.cos(TURN * turns[:, None] + np.radians(STEPS)[:, None, None])
    return frames.astype(np.float32), height


@pytest.mark.parametrize("device", ["reference", "cpu", "torch"])
def test_heights_are_right_under_smooth_errors(device: str) -> None:
    found = model()
    frames, height = frames_of(found)
    out, table = HeightRows(*empty_rows(*SHAPE)), np.empty((SHAPE[0], COLUMNS))
    if device == "reference":
        out = reference.heights(frames, found, FIRST_ROW)
    elif device == "cpu":
        kernels = CpuKernels(found, 1)
        kernels.heights(frames, FIRST_ROW, None, out, table)
        kernels.close()
    else:
        from cpikan.psi.kernels.cuda import TorchKernels

        kernels = TorchKernels(found, "cpu", piece_pixels=320)  # type: ignore[assignment]
        kernels.heights(frames, FIRST_ROW, None, out, table)
        kernels.close()
    assert not out.flags.any()
    # float32: samples of 120 to 2^-24 and phases to 3e-8 turns are 1e-6 turns of 2650 nm
    assert np.abs(out.height_nm - height).max() < 0.02


def test_without_them_heights_are_wrong() -> None:
    found = model()
    frames, height = frames_of(found)
    assert found.search is not None
    out = reference.heights(frames, PixelModel(found.demodulation, replace(found.search, bow_turns=None)), FIRST_ROW)
    assert np.abs(out.height_nm - height).max() > 100

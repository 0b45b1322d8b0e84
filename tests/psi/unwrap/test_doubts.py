"""What unwrapping cannot be sure of: dense fringes, and a map in pieces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpikan.psi.unwrap.report import UnwrapReport, dense_fringes, in_pieces

REPORT = UnwrapReport(0, 1, (1000,), 1, {}, 0, 0, 0.0, 0, 0, 0, 0.0, True)


def bands(cycles_y: float, cycles_x: float, noise: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(2)
    y, x = np.meshgrid(np.arange(9), np.arange(120), indexing="ij")
    phase = 2 * np.pi * (cycles_y * y + cycles_x * x) + noise * rng.normal(size=(20, 9, 120))
    return np.angle(np.exp(1j * phase))


@pytest.mark.parametrize("cycles", [(0.0, 0.44), (-0.46, 0.1), (0.3, -0.42)])
def test_fringes_near_the_limit_of_the_pixels_are_told(cycles: tuple[float, float]) -> None:
    found = dense_fringes(bands(*cycles))
    assert found is not None
    assert found.name == "fringes-dense"


@pytest.mark.parametrize("cycles", [(0.0, 0.0), (0.1, 0.2), (0.35, -0.36)])
@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_fringes_that_pixels_resolve_are_no_news(cycles: tuple[float, float], noise: float) -> None:
    assert dense_fringes(bands(*cycles, noise)) is None


def test_noise_without_fringes_and_holes_are_no_fringes() -> None:
    noise = np.random.default_rng(3).uniform(-np.pi, np.pi, (40, 9, 200))
    assert dense_fringes(noise) is None
    holes = bands(0.1, 0.1)
    holes[:, :, 30:90] = np.nan
    assert dense_fringes(holes) is None
    assert dense_fringes(np.full((3, 9, 50), np.nan)) is None


def test_a_map_in_pieces_is_told_and_a_few_parts_are_not() -> None:
    assert in_pieces(REPORT) is None
    assert in_pieces(replace(REPORT, components=40, component_sizes=(990, *[1] * 39))) is None
    assert in_pieces(replace(REPORT, components=3, component_sizes=(400, 300, 300))) is None
    found = in_pieces(replace(REPORT, components=40, component_sizes=(600, *[10] * 39)))
    assert found is not None
    assert found.name == "map-in-pieces"

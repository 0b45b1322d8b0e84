"""Series of light and phase: moments against products written out, normal equations against the general ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.learning.robust import SQUARES, Huber
from cpikan.psi.calibration.smooth_terms import features, terms
from cpikan.psi.calibration.surface_fit.frame_residuals import (
    FrameLayout,
    FrameResiduals,
    LinearPhase,
    Moments,
    SeriesFrames,
)

KIND = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=KIND) - 1


def test_terms_of_a_degree_are_those_of_a_lower_one_and_more():
    assert (terms(5)[: len(terms(3))] == terms(3)).all()
    points = np.array([[0.3, -0.7]])
    expected = np.polynomial.chebyshev.chebval2d(0.3, -0.7, [[0, 0, 0], [0, 1.0, 0]])
    which = int(np.flatnonzero((terms(2) == [1, 1]).all(axis=1))[0])
    assert features(points, 2)[0, which] == pytest.approx(float(expected))


@pytest.mark.parametrize("degree", [0, 1, 4])
def test_blocks_are_weighted_products_of_terms(degree):
    points, weights = random(50, 2), random(3, 50, seed=1)
    moments, basis = Moments(points, degree), torch.from_numpy(features(points.numpy(), degree))
    rows = min(3, basis.shape[1])
    expected = torch.stack([basis[:, :rows].mT @ (w[:, None] * basis) for w in weights])
    found = moments.block(moments.sums(weights), rows, basis.shape[1])
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)  # 50 products of numbers below one


@pytest.mark.parametrize(
    ("frames", "light", "form", "extras"),
    [
        (2, 2, 3, {"fit_tilt": False}),
        (3, 3, 5, {"fit_gain": True}),
        (4, 4, 2, {"fit_gain": True, "has_second_harmonic": True}),
    ],
)
def test_normal_equations_are_those_of_the_general_model(frames, light, form, extras):
    points = random(60, 2)
    lights, phases = (torch.from_numpy(features(points.numpy(), degree)) for degree in (light, form))
    layout = FrameLayout(frames, lights.shape[1], phases.shape[1], **extras)
    data, sharpness = 5 * random(frames, 60, seed=3), 1.5 + random(frames, 60, seed=4)
    prior = (random(layout.size, seed=5), 0.5 + random(layout.size, seed=6).abs())
    parts = (layout, points, data, lights, LinearPhase(phases), *prior, sharpness)
    vectors = random(2, layout.size, seed=7)
    for loss in (SQUARES, Huber(1.5)):
        expected = FrameResiduals(*parts).normal(vectors, loss)
        found = SeriesFrames(*parts, Moments(points, max(light, form))).normal(vectors, loss)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-10 * float(other.abs().max()))


def test_sharpness_weighs_residuals():
    points = random(20, 2)
    basis = torch.from_numpy(features(points.numpy(), 1))
    layout = FrameLayout(2, 3, 3, fit_tilt=False)
    plain = (
        layout,
        points,
        random(2, 20),
        basis,
        LinearPhase(basis),
        torch.zeros(layout.size),
        torch.ones(layout.size),
    )
    vector, sharpness = random(1, layout.size, seed=2), 1.5 + random(2, 20, seed=3)
    found = FrameResiduals(*plain, sharpness).residuals(vector)
    assert torch.allclose(found, sharpness * FrameResiduals(*plain).residuals(vector))

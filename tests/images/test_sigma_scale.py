"""The sigma of a network: what neighbours share stays, what averages stays as measured, what was found too small grows."""

from __future__ import annotations

import pytest
import torch

from cpikan.images.sigma_scale import SigmaScale

SIGMA = torch.tensor([2.0, 2.0, 4.0], dtype=torch.float64)


def test_nothing_known_leaves_what_the_network_says():
    relative = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    assert torch.equal(SigmaScale().sigma(relative, SIGMA), relative * SIGMA)


def test_a_systematic_share_does_not_average_out():
    """Variance 4 of which a quarter is systematic: a perfect average of the rest leaves 1."""
    scale = SigmaScale.of((), 0.1, 0.25, None)
    found = scale.sigma(torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64), SIGMA)
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, 4 * (0.75 / 4 + 0.25) ** 0.5], dtype=torch.float64))


def test_shared_noise_averages_as_it_was_measured():
    """A fifth of the noise is a mean of 5 x 5 pixels: between the factors of 4 x 4 and 8 x 8."""
    scale = SigmaScale.of((), 0.1, 0.0, {2: 1.05, 4: 2.0, 8: 3.0})
    relative = torch.tensor([0.2, 1.0, 1 / 8], dtype=torch.float64)
    wanted = torch.tensor([0.2 * 2.25, 1.0, 3 / 8], dtype=torch.float64) * SIGMA
    torch.testing.assert_close(scale.sigma(relative, SIGMA), wanted)


def test_no_more_than_a_single_pixel_and_no_less_than_a_doubt():
    scale = SigmaScale.of((), 0.1, 0.0, {2: 4.0})
    relative = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)
    torch.testing.assert_close(scale.sigma(relative, SIGMA), torch.tensor([2.0, 2.0, 10.0], dtype=torch.float64))


@pytest.mark.parametrize(("noise", "factor"), [(0.01, 1.2), (0.03, 1.2), (0.1, 1.1), (0.17, 1.0), (0.5, 1.0)])
def test_factors_are_linear_between_and_constant_beyond(noise, factor):
    found = SigmaScale.of([(0.17, 1.0), (0.03, 1.2)], noise, 0.0, {4: 1.0})
    assert found.factor == pytest.approx(factor)
    assert not found.averages

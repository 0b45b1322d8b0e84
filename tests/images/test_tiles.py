"""A network on tiles: the untiled answer, orders decided by trusted neighbours, corrections that are not believed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cpikan
from cpikan.images.features import FeatureSpec
from cpikan.images.models.unet import UNet
from cpikan.images.tiles import LearnedTiles, MapUnits
from cpikan.psi.model.flags import Flag

SPEC = FeatureSpec(means_px=(3, 7))
HALF_NM = 316.4


def network(seed: int = 0) -> UNet:
    """Small, and with an answer that is not zero."""
    torch.manual_seed(seed)
    made = UNet(SPEC.channels, 3, (4, 6), 1)
    with torch.no_grad():
        made.unfold.weight.normal_(0, 0.1)
        made.unfold.bias.copy_(torch.tensor([0.0] * 4 + [-20.0] * 4 + [-1.0] * 4))
    return made


def tiles_of(made: torch.nn.Module, **options: object) -> LearnedTiles:
    return LearnedTiles(made, SPEC, MapUnits(5.0, HALF_NM), fingerprint="x", **options)


def planes(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    y, x = np.indices(shape)
    height = 0.5 * x - 0.2 * y + 120.0 * (x > shape[1] // 2) + 5.0 * draw.standard_normal(shape)
    valid = draw.random(shape) > 0.05
    return np.stack([np.where(valid, height, 0), np.where(valid, 5.0, 0), valid]).astype(np.float32)


def test_tiles_of_the_receptive_field_give_the_untiled_answer():
    model = tiles_of(network())
    given = planes((152, 248))
    whole = model(given[None])[0]
    overlap = 4 * -(-model.receptive_field_px // 4)
    result = cpikan.infer_tiled(model, given, tile=(overlap + 24, overlap + 40), overlap=overlap)
    assert result.report["exact"] == "guaranteed by the receptive field"
    assert result.report["tiles"] > 4
    # convolutions of other sizes add in another order: 1e-6 of the largest correction, as the guide's float32 has
    assert np.abs(result.values[:2] - whole[:2]).max() <= 1e-6 * np.abs(given[0]).max()
    assert np.array_equal(result.values[2], whole[2])


def test_a_smaller_overlap_is_refused():
    model = tiles_of(network())
    with pytest.raises(cpikan.InputError, match="receptive field"):
        cpikan.infer_tiled(model, planes((152, 248)), tile=96, overlap=16)


class Answers(torch.nn.Module):
    """A network that says what it is told: correction (sigmas), log-odds and log-variance of every pixel."""

    receptive_field_px, multiple_px = 1, 1

    def __init__(self, *answer: np.ndarray) -> None:
        super().__init__()
        self.answer = torch.from_numpy(np.stack(answer).astype(np.float32))[None]

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        return self.answer


def answered(given: np.ndarray, correction: float, doubt: np.ndarray) -> np.ndarray:
    blank = np.zeros(given.shape[1:])
    logit = np.where(doubt, 3.0, -3.0)
    return tiles_of(Answers(blank + correction, logit, blank - 2.0))(given[None])[0]


def test_a_wrong_order_is_seen_by_its_neighbours_and_marked():
    given = np.zeros((3, 9, 9), np.float32)
    given[1], given[2] = 5.0, 1.0
    given[0, 4, 4] = 2 * HALF_NM + 10.0
    doubt = np.zeros((9, 9), bool)
    doubt[4, 4] = doubt[0, 0] = True
    correction, sigma, flags = answered(given, 0.1, doubt)
    assert given[0, 4, 4] + correction[4, 4] == pytest.approx(0.5)  # the mean of neighbours that were corrected by 0.5
    assert flags[4, 4] == Flag.REFINED
    assert flags[0, 0] == 0  # it was doubted for nothing: no whole order off
    assert correction[0, 0] == pytest.approx(0.5)
    assert sigma[4, 4] >= 5.0 * np.exp(-1.0) - 1e-6
    assert (flags != 0).sum() == 1


def test_a_doubtful_pixel_between_orders_stays_as_it_is():
    given = np.zeros((3, 9, 9), np.float32)
    given[1], given[2] = 5.0, 1.0
    given[0, 4, 4] = 0.6 * HALF_NM
    doubt = np.zeros((9, 9), bool)
    doubt[4, 4] = True
    correction, sigma, flags = answered(given, 0.1, doubt)
    assert flags[4, 4] == Flag.AMBIGUOUS
    assert correction[4, 4] == 0.0
    assert sigma[4, 4] == 5.0


def test_corrections_beyond_belief_are_not_made():
    given = np.zeros((3, 4, 4), np.float32)
    given[1], given[2] = 5.0, 1.0
    given[2, 0, 0] = 0.0
    correction, sigma, flags = answered(given, 9.0, np.zeros((4, 4), bool))
    assert (correction == 0).all()
    assert (sigma == 5.0)[given[2] > 0].all()
    correction, sigma, _ = answered(given, 2.0, np.zeros((4, 4), bool))
    assert correction[0, 0] == 0.0  # no measurement, no correction
    assert correction[1, 1] == 10.0
    assert sigma[1, 1] == pytest.approx(5.0 * np.exp(-1.0))
    assert not flags.any()

"""The trial of a network: its places are parts of the whole map's answer, few, and the same whatever is asked when."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.images.features import FeatureSpec
from cpikan.images.models.unet import UNet
from cpikan.images.tiles import LearnedTiles, MapUnits
from cpikan.pipeline.reconstruction import trial
from cpikan.pipeline.reconstruction.shown_map import ShownMap
from cpikan.pipeline.reconstruction.trial import tried
from cpikan.psi.model.flags import Flag

SPEC = FeatureSpec(means_px=(3,))


def map_of(shape: tuple[int, int]) -> ShownMap:
    rng = np.random.default_rng(8)
    planes = {
        "height_nm": rng.normal(0, 2, shape).astype(np.float32),
        "sigma_nm": np.full(shape, 2, np.float32),
        "flags": np.where(rng.uniform(size=shape) < 0.02, np.uint8(Flag.INVALID), np.uint8(0)),
        "modulation": np.ones(shape, np.float32),
    }

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: values[start:stop] for name, values in planes.items()}

    return ShownMap(SPEC, rows, lambda start, stop: np.empty((0, 0, 0)), shape, None, 2.0, 1.0)


def network_tiles() -> LearnedTiles:
    torch.manual_seed(1)
    network = UNet(SPEC.channels, 3, (4,), 1)
    with torch.no_grad():
        network.unfold.weight.normal_(0, 0.1)
        network.unfold.bias[4:8] = -20.0  # no pixel's order is doubted
    return LearnedTiles(network, SPEC, MapUnits(2.0, 2500.0), fingerprint="")


@pytest.mark.parametrize("shape", [(150, 171), (41, 300)])
def test_places_are_parts_of_the_answer_to_the_whole_map(shape, monkeypatch):
    """Sizes are no multiples of what the network takes, so that the last rows and columns come again."""
    monkeypatch.setattr(trial, "_SIDE_PX", 48)
    monkeypatch.setattr(trial, "_INSIDE_PX", 16)
    seen = {}
    monkeypatch.setattr(trial, "noise_left", lambda places, **known: seen.update(places=places, **known))
    tiles, shown = network_tiles(), map_of(shape)
    assert tried(tiles, shown, systematic=0.25, phase_noise_rad=0.1) is None
    assert (seen["systematic"], seen["phase_noise_rad"]) == (0.25, 0.1)
    planes = np.empty(shown.planes, np.float32)
    shown.fill(0, shape[0], planes)
    ends = [(0, -side % tiles.multiple_px) for side in shape]
    whole = tiles(np.pad(planes, ((0, 0), *ends), mode="edge")[None])[0][:, : shape[0], : shape[1]]
    rows, columns = (trial._windows(side, tiles) for side in shape)
    assert len(columns) == 3
    assert len(seen["places"]) == len(rows) * len(columns)
    places = iter(seen["places"])
    for row in rows:
        for column in columns:
            inner, one = (slice(row.first, row.last), slice(column.first, column.last)), next(places)
            assert one.correction.size > 100
            assert np.array_equal(one.used, planes[2][inner] > 0)
            assert one.correction[one.used] == pytest.approx(whole[0][inner][one.used] / 2, abs=1e-5)
            assert one.relative[one.used] == pytest.approx(whole[1][inner][one.used] / 2, rel=1e-5)
            assert set(np.unique(one.probe)) == {-1.0, 1.0}


def test_the_answer_is_the_same_twice():
    tiles, shown = network_tiles(), map_of((160, 200))
    found = [tried(tiles, shown, systematic=0.0, phase_noise_rad=0.01) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].pixels > 0.9 * 160 * 200


class _Counting:
    """Sees as far as the shipped network; counts the pixels it is given."""

    receptive_field_px, multiple_px = 145, 16

    def __init__(self) -> None:
        self.pixels = 0

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        self.pixels += tiles[:, 0].size
        return np.zeros((len(tiles), 3, *tiles.shape[2:]), np.float32)


def test_a_large_map_is_tried_on_a_few_per_cent_of_its_pixels():
    counting = _Counting()
    shape = (9344, 7000)
    one = np.ones((1, shape[1]), np.float32)

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        kinds = {"height_nm": 0, "sigma_nm": 1, "flags": 0, "modulation": 1}
        return {
            name: np.repeat(one * value, stop - start, axis=0).astype(np.uint8 if name == "flags" else np.float32)
            for name, value in kinds.items()
        }

    shown = ShownMap(SPEC, rows, lambda start, stop: np.empty((0, 0, 0)), shape, None, 1.0, 1.0)
    assert tried(counting, shown, systematic=0.0, phase_noise_rad=0.0) is None  # nothing was corrected
    assert 0 < counting.pixels <= 0.05 * shape[0] * shape[1]


def test_nothing_measured_says_nothing():
    shown = map_of((64, 64))
    empty = ShownMap(
        SPEC,
        lambda start, stop: {**shown.rows(start, stop), "height_nm": np.full((stop - start, 64), np.nan, np.float32)},
        shown.phases,
        (64, 64),
        None,
        2.0,
        1.0,
    )
    assert tried(network_tiles(), empty, systematic=0.0, phase_noise_rad=0.0) is None

"""Several processes: the same bytes as one; models that cannot travel; processes that die."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tiled_models import PAIR, PISTON, Numbered, same

import cpikan
from cpikan.errors import InputError
from cpikan.streaming.tiling.model import TileFunction

TILES = {"tile": 48, "overlap": 12}


def dies(tiles):
    os._exit(3)


def fails(tiles):
    raise ValueError("model failed there")


@pytest.mark.timeout(120)
def test_two_processes_give_the_bytes_of_one(tmp_path):
    image = np.random.default_rng(3).normal(size=(500, 130)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    for k in (1, 2):
        cpikan.infer_tiled(PISTON, tmp_path / "image.npy", tmp_path / f"{k}.npy", processes=k, **TILES)
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    frames = np.random.default_rng(4).integers(0, 255, (3, 130, 95), np.uint8)
    several = cpikan.infer_tiled(PAIR, frames, processes=3, **TILES)
    assert np.array_equal(several.values, cpikan.infer_tiled(PAIR, frames, **TILES).values)
    assert several.report["processes"] == 3
    assert several.report["tiles_run"] == several.report["tiles"]


@pytest.mark.timeout(120)
def test_every_process_is_told_a_number_of_its_own():
    rows = cpikan.infer_tiled(Numbered(), np.zeros((2000, 48), np.float32), tile=48, overlap=0, processes=2).values[
        :, 0
    ]
    assert set(np.unique(rows)) == {0.0, 1.0}
    assert set(np.unique(cpikan.infer_tiled(Numbered(), np.zeros((96, 48), np.float32), **TILES).values)) == {0.0}


@pytest.mark.timeout(120)
def test_models_that_cannot_travel_or_fail_are_named():
    image = np.zeros((200, 60), np.float32)
    with pytest.raises(InputError, match=r"cannot be sent to other processes .* give processes=1"):
        cpikan.infer_tiled(TileFunction(lambda tiles: tiles), image, processes=2, **TILES)
    with pytest.raises(ValueError, match="model failed there"):
        cpikan.infer_tiled(TileFunction(fails), image, processes=2, **TILES)
    with pytest.raises(InputError, match="a process of the run ended by itself"):
        cpikan.infer_tiled(TileFunction(dies), image, processes=2, **TILES)
    wide = np.broadcast_to(np.float32(0), (1000, 2**24))
    with pytest.raises(InputError, match=r"MiB of shared memory, .* give processes=1"):
        cpikan.infer_tiled(TileFunction(same), wide, np.broadcast_to(np.float32(0), wide.shape), processes=2)

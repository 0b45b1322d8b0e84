"""Tiles of a surface that are coupled: how far neighbours' own surfaces differ where they meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.psi.refine import field
from cpikan.psi.refine.closed_form import ClosedForm, fit_closed_form, posterior_sigma, shared_chunks
from cpikan.psi.refine.coarse import CoarseHeights
from cpikan.psi.refine.coupling import couple
from cpikan.psi.refine.footprint import MeanPixels
from cpikan.streaming.ranks import Alone

SHAPE = (80, 104)  # blocks: 3 x 4 tiles
NOISE_NM = 0.3  # of a block


def coarse_of(height_nm: np.ndarray) -> CoarseHeights:
    """Make whole blocks with heights in nm, NaN where nothing was measured."""
    known = np.isfinite(height_nm)
    shape = (8 * SHAPE[0], 8 * SHAPE[1])
    sigma = np.where(known, NOISE_NM, np.inf)
    turns = np.nan_to_num(height_nm)[None] / 316.4
    moments = MeanPixels(np.zeros((2, *SHAPE)), np.zeros((3, *SHAPE)))
    return CoarseHeights(shape, height_nm, sigma, moments, turns, np.ones((1, *SHAPE)), np.array([316.4]))


def surface(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a smooth surface in nm, and its noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE) / 40.0
    height = 500 * (np.sin(1.3 * x + y) + 0.4 * np.cos(2 * x - 1.1 * y)) + 300 * x * y
    return height, rng.normal(0, NOISE_NM, SHAPE)


def jumps(closed: ClosedForm) -> np.ndarray:
    """Subtract the own surfaces of neighbouring tiles along their shared borders, over sigma there."""
    partition = closed.tiles.partition
    sigma = posterior_sigma(closed)[0]
    found = []
    for box in partition:
        for axis in (0, 1):
            beside = [b for b in partition if b.position[axis] == box.position[axis] + 1]
            beside = [b for b in beside if b.position[1 - axis] == box.position[1 - axis]]
            if not beside or not int(closed.modes[box.index]) or not int(closed.modes[beside[0].index]):
                continue
            edge = box.core[axis][1]
            along = np.arange(*box.core[1 - axis])
            at = [edge + 0.0 * along, along + 0.5] if axis == 0 else [along + 0.5, edge + 0.0 * along]
            values = [value_of(closed, one.index, at) for one in (box, beside[0])]
            where = (edge, along) if axis == 0 else (along, edge)
            found.append((values[0] - values[1]) / sigma[where])
    return np.concatenate(found)


def value_of(closed: ClosedForm, tile: int, at: list[np.ndarray]) -> np.ndarray:
    """Evaluate one tile's own polynomial at places in blocks, by NumPy."""
    box = closed.tiles.partition[tile]
    scaled = [2 * (a - lo) / (hi - lo) - 1 for a, (lo, hi) in zip(at, box.extent, strict=True)]
    factors = closed.field.parts.get_parameter("coefficients")[tile].detach().numpy()
    return np.polynomial.chebyshev.chebval2d(*scaled, factors)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(np.square(values))))


def test_neighbours_agree_to_a_fifth_of_sigma_and_the_surface_is_no_worse():
    truth, noise = surface()
    plain = fit_closed_form(coarse_of(truth + noise))
    coupled = couple(plain)
    assert rms(jumps(plain)) > 0.5
    assert rms(jumps(coupled)) < 0.2
    errors = []
    for closed in (plain, coupled):
        own = closed.tiles.height - closed.residual
        true = torch.stack([torch.from_numpy(box.view(truth)) for box in closed.tiles.partition])
        errors.append(rms((own - true).numpy()))
    assert errors[1] < errors[0]


def test_the_blended_surface_has_no_jump_at_any_border():
    truth, noise = surface(3)
    coupled = couple(fit_closed_form(coarse_of(truth + noise)))
    edges = sorted({box.core[1][1] for box in coupled.tiles.partition} - {SHAPE[1]})
    y = torch.arange(SHAPE[0], dtype=torch.float64) + 0.5
    for edge in edges:
        sides = [torch.stack([y, torch.full_like(y, edge + step)], dim=-1) for step in (-1e-9, 1e-9)]
        one, other = (coupled.field(side)[..., 0].detach() for side in sides)
        assert (one - other).abs().max() < 1e-3  # nm


def test_coefficients_and_residuals_are_of_one_surface():
    truth, noise = surface(1)
    coupled = couple(fit_closed_form(coarse_of(truth + noise)))
    box = coupled.tiles.partition[5]
    y, x = np.meshgrid(*(np.arange(*e) + 0.5 for e in box.extent), indexing="ij")
    own = box.view(truth + noise) - coupled.residual[5].numpy()
    assert np.abs(own - value_of(coupled, 5, [y, x])).max() < 1e-9


def test_holes_and_steps_do_not_bind():
    """A step of 100 nm through the middle of an overlap; a tile's rim without data: nothing is drawn over."""
    truth, noise = surface(2)
    measured = truth + noise + 100 * (np.arange(SHAPE[1]) >= 28)
    measured[20:34, 40:60] = np.nan
    closed = couple(fit_closed_form(coarse_of(measured)))
    assert torch.isfinite(closed.chi2[closed.modes > 0]).all()
    residual = closed.residual.numpy()
    right = np.stack([box.view(np.broadcast_to(np.arange(SHAPE[1]) >= 32, SHAPE)) for box in closed.tiles.partition])
    # tiles that lie wholly on one side know nothing of the step
    whole = right.all(axis=(1, 2))
    assert whole.any()
    assert np.nanmax(np.abs(residual[whole])) < 6 * NOISE_NM


def test_one_tile_is_as_it_was():
    truth, noise = surface()
    coarse = coarse_of(truth + noise)
    cut = CoarseHeights(
        (160, 160),
        *(a[..., :20, :20] for a in (coarse.height_nm, coarse.sigma_nm)),
        MeanPixels(np.zeros((2, 20, 20)), np.zeros((3, 20, 20))),
        coarse.turns[:, :20, :20],
        coarse.weight[:, :20, :20],
        coarse.nm_per_turn,
    )
    closed = fit_closed_form(cut)
    assert couple(closed) is closed


@pytest.mark.parametrize("measuring", [True, False])
def test_only_a_surface_for_its_own_sake_is_coupled(measuring, monkeypatch):
    """Orders of hybrid and auto are decided by the tiles as they were."""
    asked = []
    monkeypatch.setattr(field, "couple", lambda closed, empty, ranks: asked.append(1) or closed)
    truth, noise = surface()
    coarse = coarse_of(truth + noise)
    if measuring:
        field.measuring_surface(coarse, networks=False)
    else:
        field.guiding_surface(coarse)
    assert len(asked) == int(measuring)


@pytest.mark.parametrize("count", [0, 1, 2, 6, 9, 25, 33, 64])
def test_two_processes_have_as_many_tiles(count):
    """The parts are those of one process, none longer than asked for, and the loads of two differ by a tile."""
    two = Alone()
    two.size = 2
    tiles = torch.arange(count)
    alone, shared = (shared_chunks(tiles, 8, ranks) for ranks in (Alone(), two))
    parts = [part.tolist() for _, part in shared]
    assert parts == [part.tolist() for _, part in alone]
    assert [tile for part in parts for tile in part] == tiles.tolist()
    assert all(1 <= len(part) <= 8 for part in parts)
    loads = [sum(len(part) for owner, part in shared if owner == rank) for rank in (0, 1)]
    assert abs(loads[0] - loads[1]) <= 1

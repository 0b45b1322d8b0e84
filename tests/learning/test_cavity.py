"""The lid-driven cavity of the benchmarks: the corners' flow in closed form, its reference, and a coarse solve beside both."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sampler_contract import unjudged

from cpikan.fields.constrained import function_jet
from cpikan.fields.protocol import Jet
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.subdomains import Subdomains

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import cavity as script
    from own_problems.cavity import cavity, navier_stokes, scraper_flow, whole
    from own_problems.cavity_reference import cavity_profiles, velocity
finally:
    sys.path.remove(str(BENCHMARKS))


def test_corners_satisfy_stokes_equations_and_have_the_speeds_of_their_walls():
    x = torch.from_numpy(np.random.default_rng(0).uniform(0.05, 0.9, (40, 2)))
    for corner in (0, 1):
        found = function_jet(lambda at, c=corner: scraper_flow(at, 7.0, c), x)
        still = found.value.clone()
        still[:, :2] = 0.0  # nothing is carried: Stokes
        left = navier_stokes(Jet(still, found.gradient, found.second), 7.0)
        assert max(float(part.abs().max()) for part in left.values()) < 1e-11 * float(found.second.abs().max())
        t = torch.linspace(0.01, 1, 9, dtype=torch.float64)
        lid = scraper_flow(torch.stack([t if corner == 0 else 1 - t, torch.ones_like(t)], -1), 7.0, corner)
        wall = scraper_flow(torch.stack([torch.full_like(t, float(corner)), 1 - t], -1), 7.0, corner)
        torch.testing.assert_close(lid[:, :2], torch.tensor([[1.0, 0.0]]).double().expand(9, 2), atol=1e-14, rtol=0)
        torch.testing.assert_close(wall[:, :2], torch.zeros(9, 2).double(), atol=1e-14, rtol=0)


def test_corners_are_those_of_the_references_stream_function():
    """Without a series the reference is the corners' flows alone; it has its own formula for them."""
    x = np.linspace(0.1, 0.9, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(velocity.__globals__, "_coefficients", lambda reynolds, modes: np.zeros((modes, modes)))
        u, v = velocity(1.0, x, x, 4)
    grid = torch.from_numpy(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))
    both = (scraper_flow(grid, 1.0, 0) + scraper_flow(grid, 1.0, 1)).numpy()
    np.testing.assert_allclose(both[..., :2], np.stack([u, v], axis=-1), atol=1e-14)


def test_a_coarse_solve_is_within_a_hundredth_of_the_table_and_nearer_to_the_reference():
    settings = SolveSettings(seconds=60, subdomains=Subdomains(1, "cpinn", modes=12))
    with unjudged():
        field = whole(solve(cavity("cavity"), settings=settings).field)
    found = script.profiles(field, script.TABLE_U[:, 0], script.TABLE_V[:, 0])
    reference = cavity_profiles(100.0, script.TABLE_U[:, 0], script.TABLE_V[:, 0], 20)
    tables = (script.TABLE_U[:, 1], script.TABLE_V[:, 1])
    for ours, truth, table in zip(found, reference, tables, strict=True):
        assert np.abs(ours - table).max() < 0.01  # of the lid's speed
        assert np.abs(truth - table).max() < 0.01
        assert np.abs(ours - truth).max() < 0.01  # 12 modes
    lid = torch.tensor([[0.3, 1.0], [0.0, 0.4], [1.0, 0.4], [0.6, 0.0]]).double()
    with torch.no_grad():
        walls = field(lid)[:, :2]
    torch.testing.assert_close(walls, torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 0]]).double(), atol=1e-4, rtol=0)


def test_the_corners_own_walls_are_at_rest_up_to_the_corner():
    at = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]]).double()
    flow = scraper_flow(at, 100.0, 0) + scraper_flow(at, 100.0, 1)
    assert bool(torch.isfinite(flow).all())
    assert math.isclose(float(flow[2, 0]), 2.0, abs_tol=1e-14)

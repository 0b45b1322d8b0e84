"""Processes that judge a field together (here threads): the figures of one process, each from points of its own."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.errors import InputError
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.iterate import placed
from cpikan.learning.panel import SOLE_JUDGE, Panel, panel_of
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import errors, evaluate
from cpikan.learning.subdomains import Subdomains
from cpikan.learning.trust.evidence import gather
from cpikan.learning.violations import violations, zero_cost
from cpikan.partition import Partition
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Problem, dirichlet, integral
from cpikan.physics.regions import box
from cpikan.streaming.ranks import ALONE
from thread_ranks import together

SMALL = Recipe("small", "a few functions", (), hidden=(3,), degree=3)


def with_a_mean():
    """A problem whose solution has a given integral: residuals that are sums over points."""
    region = box([-1, 0], [1, 1])
    residual = lambda u, x: u.second[..., 0, :].sum(-1) - u.value[..., 0] ** 2  # noqa: E731
    mean = integral(region, 0.3, lambda u, x: u.value[..., 0])
    return Problem("mean", region, residual, [dirichlet(0.2, on="x=min"), mean], lambda x: x[..., 0])


class Counted(torch.nn.Module):
    """A field that counts the points at which it is evaluated."""

    def __init__(self, field):
        super().__init__()
        self.field, self.seen = field, 0
        self.outputs = field.outputs

    def jet(self, x, second="axes"):
        self.seen += len(x)
        return self.field.jet(x, second)

    def forward(self, x):
        self.seen += len(x)
        return self.field(x)


def judged(ranks, problem, cut):
    """All that is said of a network as it was drawn, and how many points that took."""
    posed = cut.coupled(problem)
    iterate = placed(posed, cut.network(problem, SMALL, 3), Points(300, 120), MEAN_SQUARES, ranks)[0]
    iterate.keep_best()
    field = iterate.field
    iterate.field = counted = Counted(field)
    missed = violations(counted, iterate.heldout, iterate.panel)
    x = iterate.panel.points(torch.rand(500, 2, generator=torch.Generator().manual_seed(1)).double())
    values = evaluate(field, x)
    sums = [
        iterate.scale,
        iterate.best_cost,
        zero_cost(counted, iterate.heldout, iterate.panel),
        iterate.panel.cost(iterate.heldout, counted),
        *errors(problem, values, x, iterate.panel),
    ]
    worst = [one.largest for one in missed] + [one.relative for one in missed]
    taken = counted.seen
    iterate.field = field  # what follows asks for unknowns too
    found, known = gather(posed, iterate, (), missed)
    trust = [found.size, found.residual, found.noise, found.estimate, found.bound, found.amplification, found.unseen]
    return sums, worst, trust, [] if known is None else list(known.standard_errors), taken, found


@pytest.mark.parametrize(
    ("problem", "cut", "size", "most"),
    [
        (problem_named("diffusion-inverse"), Subdomains((2, 2), "xpinn"), 3, 0.6),  # data, a coefficient, faces
        (with_a_mean(), Subdomains((3, 1), "fbpinn"), 2, 0.9),  # sums over points, which the first process has
    ],
)
def test_figures_are_those_of_one_process_at_a_share_of_the_points(problem, cut, size, most):
    sums, worst, trust, deviations, taken, found = judged(ALONE, problem, cut)
    assert all(math.isfinite(value) and value != 0 for value in sums)
    shared = together(size, lambda ranks: judged(ranks, problem, cut))
    for one in shared:
        # at most 500 squares are added in another order, each step of which rounds once
        assert one[0] == pytest.approx(sums, rel=500 * 2.3e-16)
        assert one[1] == pytest.approx(worst, rel=1e-12)  # of single points, in batches of another shape
        # triangles of columns of unit length, whose inverse is at most 1 / damping: 1e13 times rounding, were it reached
        assert one[2] == pytest.approx(trust, rel=1e-8)
        assert one[3] == pytest.approx(deviations, rel=1e-8)
        assert (one[5].weakest, one[5].missed[0]) == (found.weakest, found.missed[0])
    looked = [one[4] for one in shared]
    assert sum(looked) == taken  # every point once
    assert max(looked) < most * taken


def test_every_point_belongs_to_the_owner_of_its_box():
    cut = Partition.subdomains((0.0, 0.0), (3.0, 2.0), (3, 2), 0.0)
    x = torch.tensor([[0.5, 0.5], [1.0, 0.2], [2.0, 1.0], [3.0, 2.0], [0.0, 1.7], [1.5, 2.0]], dtype=torch.float64)
    panels = together(3, lambda ranks: Panel(ranks, cut).points(x))
    assert torch.equal(panels[0], x[[0, 4]])
    assert torch.equal(panels[1], x[[1, 5]])  # at a cut the box above has it
    assert torch.equal(panels[2], x[[2, 3]])
    assert SOLE_JUDGE.points(x) is x
    assert panel_of(torch.nn.Linear(1, 1), ALONE) is SOLE_JUDGE


def test_triangles_of_all_rows_are_joined():
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cut = Partition.subdomains((0.0,), (1.0,), (4,), 0.0)
    parts = [rows[:1], rows[1:1], rows[1:7], rows[7:]]  # fewer rows than columns, and none
    alone = SOLE_JUDGE.triangle(rows)
    assert bool((alone.diagonal() > 0).all())
    torch.testing.assert_close(alone.mT @ alone, rows.mT @ rows, rtol=1e-13, atol=1e-13)
    for found in together(4, lambda ranks: Panel(ranks, cut).triangle(parts[ranks.rank])):
        torch.testing.assert_close(found, alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", [InputError, RuntimeError])
def test_what_one_process_cannot_do_all_refuse_alike(kind):
    def fails(ranks):
        def work():
            if ranks.rank == 1:
                raise kind("no value at x = 1")
            return 7

        with pytest.raises(kind, match=r"^no value at x = 1$"):
            Panel(ranks, Partition.subdomains((0.0,), (1.0,), (3,), 0.0)).agreed(work)
        return ranks.rank

    assert together(3, fails) == [0, 1, 2]

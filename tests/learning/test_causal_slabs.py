"""CausalSlabSampler: ratios of slabs by residuals and causality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.objective import make_objective
from cpikan.learning.samplers.causal_slab import CausalSlabSampler, causal_weights
from cpikan.learning.samplers.points import Points
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet, initial
from cpikan.physics.regions import box

RECTANGLE = box([-1, 3], [1, 5], ("x", "t"))
SLABS = 4


def posed(size):
    conditions = [initial(0.0), dirichlet(0.0, ["x=min", "x=max"])]
    return Problem("known", RECTANGLE, lambda u, x: size(x) + 0.0 * u.value[..., 0], conditions)


def in_slabs(values):
    """A residual with a value in each quarter of the time."""

    def size(x):
        return torch.tensor(values).to(x)[((x[..., 1] - 3) * 2).long().clamp(0, 3)]

    return size


def drawn(size, sampler, rounds=1):
    """The number of points in every slab after so many updates, the points, and the state."""
    one = posed(size)
    field = ScaledCPIKAN([2, 2, 1], 2, (RECTANGLE.lower, RECTANGLE.upper))
    sets, state = sampler.init(one)
    objective = make_objective(one, sets)
    for _ in range(rounds):
        objective, state = sampler.update(one, objective, field, state)
    points = objective.sets["equation"].points.numpy()
    return np.histogram(points[:, 1], SLABS, (3, 5))[0], points, state


def sampler(**more):
    return CausalSlabSampler(Points(400, 12, seed=1), 1, SLABS, **{"pool": 20_000, **more})


def test_weights_fall_with_the_residuals_of_earlier_slabs():
    slab = np.repeat(np.arange(4), [10, 20, 30, 40])
    found = causal_weights(slab, np.repeat([0.5, 2.0, 1.0, 7.0], [10, 20, 30, 40]), 4, 0.3)
    assert found == pytest.approx(np.exp(-0.3 * np.array([0, 0.5, 2.5, 3.5])), rel=1e-12)


def test_the_ratio_is_that_of_the_paper_without_a_floor():
    """Counts are w_i L_i / sum of 400, to one point; L relative to the mean of all at the first time, here 2.5."""
    means = np.array([1.0, 4.0, 2.0, 3.0])
    counts, _, _ = drawn(in_slabs(means), sampler(ladder=(0.5,), floor=0.0))
    weights = np.exp(-0.5 * (np.cumsum(means) - means) / means.mean())
    truth = 400 * weights * means / (weights @ means)
    assert counts.sum() == 400
    # slabs of the pool hold 5000 candidates, give or take four standard deviations, which the means inherit
    assert np.abs(counts - truth).max() < 1 + 4 * 400 * np.sqrt(3 / 16 / 20_000)


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_it_is_rad_where_all_slabs_count(floor):
    """eps 0: the counts of slabs are those of the density |r| / mean + c; and within one, chi-square."""
    size = lambda x: 2 + x[..., 0] + 2 * (x[..., 1] - 3)  # noqa: E731
    counts, points, _ = drawn(size, sampler(ladder=(0.0,), floor=floor))
    means = 2 + 2 * (np.arange(4) + 0.5) / 2
    density = means / means.mean() + floor
    assert np.abs(counts - 400 * density / density.sum()).max() < 1 + 4 * 400 * np.sqrt(3 / 16 / 20_000)
    across = np.histogram(points[:, 0], 8, (-1, 1))[0]
    middles = 4 + (np.arange(8) + 0.5) / 4 - 1
    truth = 400 * (middles / 4 + floor) / (middles / 4 + floor).sum()
    assert ((across - truth) ** 2 / truth).sum() < chi2.ppf(0.999, 7)


def test_early_slabs_that_have_converged_leave_the_ratio_of_rad():
    """Residuals 1e-9 in the first three slabs: causality is no reason any more to neglect the last."""
    size = in_slabs([1e-9, 1e-9, 1e-9, 1.0])
    counts, _, _ = drawn(size, sampler(ladder=(100.0,)))
    density = np.array([1.0, 1.0, 1.0, 5.0])  # 0 and 4 relative to the mean, and the floor
    assert np.abs(counts - 400 * density / density.sum()).max() < 1 + 4 * 400 * np.sqrt(3 / 16 / 20_000)


def test_a_large_residual_in_the_first_slab_takes_nearly_all_points():
    counts, _, _ = drawn(in_slabs([9.0, 1.0, 1.0, 1.0]), sampler(ladder=(10.0,)))
    assert counts[0] >= 399
    assert counts.sum() == 400


def test_the_ladder_is_climbed_when_all_slabs_count_and_not_before():
    weak = sampler(ladder=(1e-4, 1e-3, 5.0, 50.0))
    levels = [drawn(in_slabs([1.0, 1.0, 1.0, 1.0]), weak, rounds)[2]["level"] for rounds in range(5)]
    assert levels == [0, 1, 2, 2, 2]


def test_time_is_opened_span_by_span():
    """Residuals of 1: the first two slabs count at once at 1e-4, not so at 5; the span after the top begins at the foot."""
    marching = sampler(ladder=(1e-4, 1e-3), spans=(0.25, 0.5, 1.0))
    ends = [drawn(in_slabs([1.0] * 4), marching, rounds)[1][:, 1].max() for rounds in range(6)]
    assert np.abs(np.array(ends) - [3.5, 3.5, 3.5, 4, 4, 5]).max() < 0.02  # the last of 400 points
    assert [drawn(in_slabs([1.0] * 4), marching, rounds)[0].sum() for rounds in (0, 1, 3, 5)] == [400] * 4
    stuck = sampler(ladder=(1e-4, 5.0), spans=(0.5, 1.0))
    assert drawn(in_slabs([1.0] * 4), stuck, 6)[2]["span"] == 0


def test_the_size_of_an_equation_does_not_matter():
    one, same = (drawn(in_slabs([scale * v for v in (4.0, 1.0, 2.0, 1.0)]), sampler()) for scale in (1.0, 1e-7))
    assert np.array_equal(one[0], same[0])


def test_the_first_points_are_from_all_slabs():
    """Balancing looks at the first 256 points alone."""
    _, points, _ = drawn(in_slabs([1.0] * 4), sampler(ladder=(0.0,)))
    assert (np.histogram(points[:40, 1], SLABS, (3, 5))[0] >= 2).all()


@pytest.mark.parametrize("name", ["poisson-2d", "helmholtz-1d", "poisson-disc", "diffusion-inverse"])
def test_a_problem_without_time_is_refused(name):
    with pytest.raises(InputError, match=f"{name} has no axis of time for slabs: give"):
        sampler().init(problem(name))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"pool": 10}, "pool of 10 candidates for 400 points"),
        ({"ladder": ()}, "ladder of causality"),
        ({"ladder": (-1.0,)}, "ladder of causality"),
        ({"floor": -1.0}, "a floor of 0 or more"),
        ({"spans": (0.25, 0.5)}, "rising shares above 0, and 1 as the last"),
        ({"spans": (0.0, 1.0)}, "rising shares above 0"),
        ({"spans": (0.7, 0.3, 1.0)}, "rising shares above 0"),
    ],
)
def test_what_cannot_be_is_refused(more, says):
    with pytest.raises(InputError, match=says):
        sampler(**more)
    with pytest.raises(InputError, match="1 slabs of time: give at least 2"):
        CausalSlabSampler(Points(10, 2), slabs=1)

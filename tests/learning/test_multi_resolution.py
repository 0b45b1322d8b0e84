"""MultiResolution: few points first, more at given steps, and what goes on through the change."""

from __future__ import annotations

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.adaptive_residual import AdaptiveResidualSampler
from cpikan.learning.samplers.kinds import SAMPLERS, make_sampler
from cpikan.learning.samplers.multi_resolution import MultiResolution
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.volume_weighted import VolumeWeightedSampler
from cpikan.physics.catalogue import problem


def counts_after(sampler, steps):
    """The number of interior points after so many steps of Adam, and the run."""
    one = problem("helmholtz-1d")
    run = Runner(one, Budget(1e4, steps))
    run.place(ScaledCPIKAN([1, 4, 1], 4, ([-1], [1]), start=Start(1)), sampler)
    run.run(Adam(steps + 1, 1e-3))
    return len(run.iterate.objective.sets["equation"].points), run


def test_the_number_of_points_follows_the_schedule():
    sampler = MultiResolution(Points(1, 2, "sobol"), (20, 50, 200), (15, 24))
    assert sampler.every == 3
    assert [counts_after(sampler, steps)[0] for steps in (14, 15, 23, 24)] == [20, 50, 50, 200]


def test_few_points_are_part_of_many():
    sampler, one = MultiResolution(Points(1, 8), (32, 128), (5,)), problem("poisson-2d")
    few = sampler.init(one)[0]["equation"].points
    many = sampler.base.sized(128).init(one)[0]["equation"].points
    assert torch.equal(few, many[:32])


def test_the_weight_of_the_equation_against_the_conditions_stays():
    sampler = MultiResolution(Points(1, 2), (20, 80), (5,))
    before, after = (counts_after(sampler, steps)[1].iterate.objective.per_point() for steps in (4, 6))
    assert after == pytest.approx(before)


def test_points_that_move_go_on_moving_in_their_own_rhythm():
    """Every 6 steps, and when the number changes; the state of the base counts on."""
    sampler = MultiResolution(AdaptiveResidualSampler(Points(1, 2), "r3", 6, 400), (30, 90), (10,))
    assert sampler.every == 2
    seen = []
    for steps in (5, 9, 11, 13):
        count, run = counts_after(sampler, steps)
        seen.append((count, run._hooks["sampler"]["base"]["round"]))
    assert seen == [(30, 0), (30, 1), (90, 2), (90, 3)]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MultiResolution(Points(1, 2), (10, 20), (5, 6)), "one more count"),
        (lambda: MultiResolution(Points(1, 2), (10, 20, 30), (6, 5)), "give rising steps"),
        (lambda: MultiResolution(Points(1, 2), (0, 20), (5,)), "one more count"),
        (lambda: MultiResolution(Points(1, 2), (10, 20), (5.5,)), "count of MultiResolution is 5.5"),
        (lambda: MultiResolution(VolumeWeightedSampler(Points(9, 2))), "of VolumeWeightedSampler: .* wrap the whole"),
        (lambda: MultiResolution(AdaptiveResidualSampler(Points(9, 2), "rar-g")), "adds points by itself"),
        (lambda: MultiResolution(AdaptiveResidualSampler(Points(9, 2), pool=999)), "pool of 999 candidates for 2000"),
        (lambda: make_sampler("radd", Points(9, 2)), "sampler .*radd.*rad"),
        (lambda: make_sampler("volume", Points(9, 2), 5), "its points stay, leave the number of steps out"),
        (lambda: make_sampler("r3", Points(9, 2), 0), "every 0 steps: give 1 or more"),
        (lambda: make_sampler("multi-resolution", Points(9, 2), 0), "give rising steps"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, says):
    with pytest.raises(InputError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_every_sampler_of_the_table_can_be_made():
    for name in SAMPLERS:
        sampler = make_sampler(name, Points(30_000, 2))
        assert sampler.every == {"volume": 0, "fresh": 1}.get(name, 100)

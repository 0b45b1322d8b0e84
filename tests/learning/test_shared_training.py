"""Networks of subdomains trained by several processes (here threads): the steps of one process, and what is sent for them."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.learning.balancers.kinds import balancer_named
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import Sequential
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.gradient_descent import GradientDescent
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.kinds import make_sampler
from cpikan.learning.samplers.points import Points
from cpikan.learning.shared_objective import divided
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.subdomains import Subdomains
from cpikan.learning.unknowns import unknowns_of
from cpikan.physics.catalogue import problem as problem_named
from cpikan.streaming.ranks import ALONE
from cpikan.streaming.run_store import RunStore
from thread_ranks import together

ADAM = Adam(100, 5e-3)
POINTS = Points(60, 20)
SMALL = Recipe("small", "a few steps", (ADAM,), hidden=(3,), degree=3)


def trained(ranks, problem, cut, steps, method=ADAM, folder=None, points=POINTS, balancer=MEAN_SQUARES):
    """A run of some steps, from the state in a folder where there is one."""
    problem = problem_named(problem)
    posed = cut.coupled(problem)
    store = None if folder is None else RunStore(folder, {}, resume=True, reading=ranks.rank > 0)
    run = Runner(posed, Budget(1e4, steps), store=store, ranks=ranks)
    network = cut.network(problem, SMALL, 0)
    if not run.resume(network, points, balancer):
        run.place(network, points, balancer)
    run.run(Sequential((method,)))
    if store is not None:
        store.close()
    return run


@pytest.mark.parametrize(
    ("problem", "counts", "coupling", "method", "size"),
    [
        ("poisson-1d", 5, "xpinn", ADAM, 3),
        ("poisson-2d", (2, 2), "fbpinn", GradientDescent(100, 1e-3), 2),
        ("diffusion-inverse", (2, 1), "cpinn", ADAM, 2),  # a coefficient that all share
    ],
)
def test_steps_of_several_processes_are_those_of_one(problem, counts, coupling, method, size):
    cut = Subdomains(counts, coupling)
    alone = trained(ALONE, problem, cut, 8, method)
    wanted = parameter_vector(alone.iterate.field)
    begun = parameter_vector(cut.network(problem_named(problem), SMALL, 0))
    assert (wanted[-len(begun) :] - begun).norm() > 1e-4 * begun.norm()  # they go somewhere
    for run in together(size, lambda ranks: trained(ranks, problem, cut, 8, method)):
        assert run.iterations == alone.iterations
        torch.testing.assert_close(parameter_vector(run.iterate.field), wanted, rtol=1e-8, atol=1e-10)
        assert run.iterate.best_cost == pytest.approx(alone.iterate.best_cost, rel=1e-8)
        if unknowns_of(alone.iterate.field) is not None:
            torch.testing.assert_close(
                unknowns_of(run.iterate.field), unknowns_of(alone.iterate.field), rtol=1e-8, atol=0
            )


def test_points_that_move_and_weights_that_change_do_so_alike():
    """Sampler and balancer look at the whole field of all processes, which then share the new points."""
    cut, points = Subdomains(4, "xpinn"), make_sampler("rad", POINTS, 3)
    balancer = balancer_named("gradnorm", problem_named("poisson-1d"))
    balancer = dataclasses.replace(balancer, every=4)
    more = {"points": points, "balancer": balancer}
    alone = trained(ALONE, "poisson-1d", cut, 9, **more)
    still = trained(ALONE, "poisson-1d", cut, 9)
    wanted, moved = parameter_vector(alone.iterate.field), alone.iterate.objective.sets["equation"].points
    assert not torch.equal(moved, still.iterate.objective.sets["equation"].points)
    assert alone.iterate.objective.weights != still.iterate.objective.weights
    for run in together(3, lambda ranks: trained(ranks, "poisson-1d", cut, 9, **more)):
        assert torch.equal(run.iterate.objective.sets["equation"].points, moved)
        assert run.iterate.objective.weights == pytest.approx(alone.iterate.objective.weights, rel=1e-8)
        torch.testing.assert_close(parameter_vector(run.iterate.field), wanted, rtol=1e-8, atol=1e-10)
        assert run.iterate.best_cost == pytest.approx(alone.iterate.best_cost, rel=1e-8)


def test_the_gradient_is_that_of_the_whole_cost_and_bytes_go_with_the_points_that_two_hold():
    def asked(interior, on_faces):
        problem = problem_named("poisson-2d")
        cut = Subdomains((2, 2), "xpinn")
        posed = cut.coupled(problem)

        def work(ranks):
            run = Runner(posed)
            run.place(cut.network(problem, SMALL, 0), Points(interior, on_faces), MEAN_SQUARES)
            run.ranks = ranks
            whole = run.iterate.objective.gradient(run.iterate.field)
            run._divide()
            shared = run.iterate.objective
            assert type(shared) is type(divided(run.iterate.objective, run.iterate.field, run._share))
            before = ranks.sent
            value, gradient = shared.gradient(run.iterate.field)
            own = torch.cat(
                [
                    (run._share.owner == ranks.rank).expand(*p.shape[:0:-1], 4).movedim(-1, 0).flatten()
                    for p in run.iterate.field.parameters()
                ]
            )
            torch.testing.assert_close(value, whole[0], rtol=1e-12, atol=0)
            torch.testing.assert_close(gradient, whole[1] * own, rtol=1e-9, atol=1e-9 * float(whole[1].abs().max()))
            return ranks.sent - before

        return together(2, work)

    assert asked(60, 20) == asked(240, 20)  # points inside are nobody else's
    # 16 points on each of two faces, told by both sides: values, two slopes and two second derivatives where they are asked
    # for, and the cost
    wide = 2 * 16 * 8 * ((1 + 2 + 0) * 2 + (1 + 2 + 2)) + 8
    assert asked(60, 20) == [wide, wide]


def test_a_checkpoint_goes_on_with_another_number_of_processes(tmp_path):
    cut = Subdomains(4, "xpinn")
    wanted = parameter_vector(trained(ALONE, "poisson-1d", cut, 16).iterate.field)
    together(2, lambda ranks: trained(ranks, "poisson-1d", cut, 8, folder=tmp_path / "two"))
    for size in (1, 3):
        folder = tmp_path / f"{size}"
        shutil.copytree(tmp_path / "two", folder)
        runs = (
            together(size, lambda ranks, folder=folder: trained(ranks, "poisson-1d", cut, 16, folder=folder))
            if size > 1
            else [trained(ALONE, "poisson-1d", cut, 16, folder=folder)]
        )
        for run in runs:
            assert run.iterations == 16
            torch.testing.assert_close(parameter_vector(run.iterate.field), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("recipe", "more", "words"),
    [
        ("lbfgs", {}, "recipe lbfgs for 2 processes: give default"),
        ("adam", {"batch": 10}, "mini-batches for 2 processes"),
        ("adam", {"callback": print}, "a callback for 2 processes"),
        ("adam", {"loss_mode": "weak"}, "another loss mode for 2 processes"),
        ("adam", {"direction": "config"}, "a direction for 2 processes"),
    ],
)
def test_what_needs_more_than_the_neighbours_values_is_refused(recipe, more, words):
    class Two:
        rank, size = 0, 2

    with pytest.raises(InputError, match=words):
        solve(
            "poisson-1d", recipe=recipe, settings=SolveSettings(subdomains=Subdomains(4, "xpinn"), ranks=Two(), **more)
        )

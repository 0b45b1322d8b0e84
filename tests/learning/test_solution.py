"""A solution in a user's hands: values at any points, and two files that give it back to the last bit."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch

import cpikan
from cpikan.errors import InputError
from cpikan.fields.constrained import ConstrainedField
from cpikan.learning.losses.sobolev import Sobolev
from cpikan.learning.losses.weak import Weak
from cpikan.learning.objective import make_objective
from cpikan.learning.recipes import RECIPES
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem, dirichlet, neumann
from cpikan.physics.regions import box


def bar(on="x=min", value=0.0):
    def residual(jet, x):
        return jet.second[..., 0, 0] - torch.sin(3 * x[..., 0])

    return Problem("bar", box([0.0], [2.0]), residual, [dirichlet(value, on), dirichlet(1.0, ["x=max"])])


def exact(x):
    return -np.sin(3 * x) / 9 + x / 2 * (1 + np.sin(6) / 9)


@pytest.fixture(scope="module")
def found():
    return solve(bar(), settings=SolveSettings(1e4, steps=60))


@pytest.fixture(scope="module")
def trained():
    small = dataclasses.replace(RECIPES["trained"], hidden=(4, 4), degree=3)
    return solve("poisson-2d", recipe=small, settings=SolveSettings(1e4, steps=4))


def test_one_part_may_be_named_alone():
    assert bar("x=min").conditions[0].on == ("x=min",) == bar(["x=min"]).conditions[0].on
    with pytest.raises(InputError, match="'x=mid'"):
        bar("x=mid")


@pytest.mark.parametrize("x", [0.7, [0.2, 0.7], np.linspace(0, 2, 6).reshape(2, 3), np.array([[0.7], [1.1]])])
def test_values_in_one_dimension_at_numbers_lists_and_arrays(found, x):
    values = found(x)
    assert isinstance(values, np.ndarray)
    flat = np.asarray(x, float)
    flat = flat[..., 0] if flat.shape[-1:] == (1,) else flat
    assert values.shape == (*flat.shape, 1)
    np.testing.assert_allclose(values[..., 0], exact(flat), atol=1e-8)


def test_values_are_a_tensor_for_a_tensor_of_any_precision(found):
    x = torch.linspace(0, 2, 5, dtype=torch.float32)[:, None]
    values = found(x)
    assert isinstance(values, torch.Tensor)
    assert values.dtype is torch.float64
    assert not values.requires_grad
    assert torch.equal(values, found.field(x.double()))


def test_points_of_other_axes_are_refused(trained):
    assert trained(np.zeros((3, 5, 2))).shape == (3, 5, 1)
    with pytest.raises(InputError, match=r"points of shape \(4, 3\) for poisson-2d: give \(..., 2\)"):
        trained(np.zeros((4, 3)))


@pytest.mark.parametrize("name", ["mine", "mine.json", "mine.safetensors", "run.5"])
def test_a_saved_solution_is_the_same_to_the_last_bit(tmp_path, found, name):
    document = found.save(tmp_path / name)
    again = cpikan.load_solution(tmp_path / name, bar())
    assert document.suffix == ".json"
    x = np.linspace(0, 2, 40)
    assert np.array_equal(again(x), found(x))
    assert again.summary() == json.loads(json.dumps(found.summary()))
    assert again.history.ends == found.history.ends
    assert again.history.records == found.history.records
    assert again.warnings == found.warnings


def test_exact_walls_are_those_of_the_problem(tmp_path, trained):
    trained.save(tmp_path / "t")
    again = load_solution(tmp_path / "t")  # poisson-2d is in the catalogue
    assert isinstance(again.field, ConstrainedField)
    x = np.random.default_rng(1).uniform(0, 1, (30, 2))
    assert np.array_equal(again(x), trained(x))


def test_the_form_that_held_the_conditions_is_the_one_that_is_loaded(tmp_path):
    """A value and a slope at one end can be held both, or the value alone: by networks of the same shape."""

    def residual(jet, x):
        return jet.second[..., 0, 0] + jet.value[..., 0]

    slope = dataclasses.replace(neumann(1.0, "x=min"), name="slope")
    swing = Problem("swing", box([0.0], [2.0]), residual, [dirichlet(0.5, "x=min"), slope])
    small = dataclasses.replace(RECIPES["trained"], hidden=(4, 4), degree=3)
    x = np.linspace(0, 2, 9)
    for asked in (None, "exact"):
        one = solve(swing, recipe=small, settings=SolveSettings(1e4, steps=1, constraints=asked))
        assert len(one.metrics["conditions"]) == 2
        one.save(tmp_path / "s")
        assert np.array_equal(load_solution(tmp_path / "s", swing)(x), one(x))


def test_a_form_that_is_even_or_odd_is_saved_loaded_and_refused_where_it_does_not_fit(tmp_path):
    small = dataclasses.replace(RECIPES["trained"], hidden=(6, 6), degree=3, wider_s=None)
    given = SolveSettings(1e4, steps=12, constraints="symmetric")
    one = solve("helmholtz-2d-1-4", recipe=small, settings=given)
    one.save(tmp_path / "s")
    x = np.random.default_rng(1).uniform(-1, 1, (40, 2))
    assert np.array_equal(load_solution(tmp_path / "s")(x), one(x))
    assert np.allclose(one(x), -one(x * [1, -1]), atol=1e-12)
    # a quarter of the waves for the same network, so that the same steps get further
    other = solve("helmholtz-2d-1-4", recipe=small, settings=dataclasses.replace(given, constraints="exact"))
    assert one.metrics["relative_l2"] < 0.3 * other.metrics["relative_l2"]
    again = dataclasses.replace(given, steps=1, start_from=one)
    begun = solve("helmholtz-2d-1-4", recipe=dataclasses.replace(small, stages=()), settings=again)
    assert np.array_equal(begun(x), one(x))
    for posed, more, message in (
        ("poisson-2d", {"start_from": one}, "not even or odd alike by their forms: give constraints exact in both"),
        ("helmholtz-2d-1-4", {"constraints": "exact", "start_from": one}, "not even or odd alike"),
        ("helmholtz-2d-1-4", {"subdomains": "2x1"}, "constraints symmetric with subdomains"),
        ("bar", {}, "bar has nothing that is even or odd about the middle of a box"),
        ("helmholtz-2d-1-4", {"constraints": None, "correct": one}, "slopes, periods or symmetries by functions"),
    ):
        with pytest.raises(InputError, match=message):
            solve(bar() if posed == "bar" else posed, recipe=small, settings=dataclasses.replace(given, **more))
    field = cpikan.ScaledCPIKAN([2, 4, 1], 3, ([-1, -1], [1, 1]))
    with pytest.raises(InputError, match="constraints symmetric with a field of yours"):
        solve("helmholtz-2d-1-4", field, recipe=small, settings=given)


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


@pytest.mark.parametrize("asked", ["penalty", "exact"])
def test_a_solution_of_a_module_is_loaded_into_one_of_the_same_layers(tmp_path, asked):
    field = cpikan.ModuleField(module(), ((0.0,), (2.0,)))
    one = solve(bar(), field, "adam", settings=SolveSettings(1e4, steps=2, constraints=asked))
    one.save(tmp_path / "m")
    x = np.linspace(0, 2, 9)
    assert np.array_equal(load_solution(tmp_path / "m", bar(), module())(x), one(x))
    with pytest.raises(InputError, match="give one of the same layers by module="):
        load_solution(tmp_path / "m", bar())


@pytest.mark.parametrize("mode", [Weak(functions=2, elements=(2,)), Sobolev()], ids=lambda mode: mode.name)
def test_rows_of_a_module_are_those_of_reverse_passes(mode):
    """Those of a weak form's part that has the data alone, and of slopes behind a form of the solution, too."""
    field = cpikan.ModuleField(module(), ((0.0,), (2.0,)))
    posed = mode.pose(with_exact_conditions(bar())[0] if mode.name == "sobolev" else bar())
    sets, _ = Points(12, 2).init(posed)
    objective = make_objective(posed, sets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own
        found = objective.linearise(field)
    with torch.enable_grad():
        residuals = objective.residuals(field)
        rows = [torch.autograd.grad(one, list(field.parameters()), retain_graph=True) for one in residuals]
    wanted = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    # sums of some 100 products of numbers below 1e3
    assert torch.allclose(found.residuals, residuals.detach(), rtol=1e-12, atol=1e-11)
    assert torch.allclose(found.jacobian, wanted, rtol=1e-12, atol=1e-11)


def test_what_is_no_solution_is_told_in_one_line(tmp_path, found, trained):
    with pytest.raises(InputError, match="give the name that a solution was saved by"):
        load_solution(tmp_path / "none")
    found.save(tmp_path / "a")
    with pytest.raises(InputError, match="'bar'"):
        load_solution(tmp_path / "a")
    with pytest.raises(InputError, match="is a solution of 'bar', not of 'poisson-2d'"):
        load_solution(tmp_path / "a", "poisson-2d")
    (tmp_path / "a.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="describes no solution"):
        load_solution(tmp_path / "a", bar())
    found.save(tmp_path / "b")
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(InputError, match=r"b.json holds a solution of format 7, not 1: save it again$"):
        load_solution(tmp_path / "b", bar())
    trained.save(tmp_path / "t")
    free = dataclasses.replace(trained.problem, conditions=[])
    with pytest.raises(InputError, match="conditions that this problem 'poisson-2d' has not"):
        load_solution(tmp_path / "t", free)

"""Kinds of fields by name: their jets' Jacobians, what they are good at, what they refuse, and that solves run on them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from field_contract import TORCH_WARNS, same
from numpy.polynomial import chebyshev as npcheb
from torch.func import jacrev

import cpikan
from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.fields.functional import functional, named_parameters, parameter_vector, set_parameters
from cpikan.fields.higher import higher_derivatives
from cpikan.fields.jet_tape import JetTape
from cpikan.fields.kinds import FIELDS, make_field
from cpikan.fields.layered import Start
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

pytestmark = TORCH_WARNS
BOX = ([0.0, 0.0], [1.0, 1.5])


def points(count=7):
    return torch.from_numpy(np.random.default_rng(3).uniform(*BOX, (count, 2)))


@pytest.mark.parametrize("name", FIELDS)
def test_the_tape_gives_the_jacobian_that_autograd_finds(name):
    field, x = make_field(name, [2, 4, 4, 2], 3, BOX, 2), points()
    with torch.no_grad():  # away from the start, where gates are closed
        for parameter in field.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8)))

    def residual(jet):
        return jet.value[:, 0] * jet.gradient[:, 1, 0] + jet.second.flatten(1).sum(-1) + jet.value[:, 1] ** 2

    for kind in ("axes", "full", "none"):
        tape = JetTape(field, x, kind)
        set_parameters(field, parameter_vector(field))  # tried elsewhere and put back: the tape does not mind
        found = tape.rows(residual(tape.jet))

        def again(vector, kind=kind):
            return residual(functional(field, "jet")(named_parameters(field, vector), x, kind))

        truth = jacrev(again)(parameter_vector(field))
        size = float(truth.abs().max())
        assert float((found - truth).abs().max()) <= 1e-12 * size
        last = tape.rows(residual(tape.jet), last_only=True)
        coefficients = field.output_coefficients()
        assert last.shape == (len(x), coefficients.numel())
        layer = field.output_layer
        columns = torch.cat([(layer.weight, layer.bias)[i].flatten() for i in (0, 1)])
        where = [int((parameter_vector(field) == c).nonzero()[0]) for c in columns]
        assert float((last - truth[:, where]).abs().max()) <= 1e-12 * size


def test_the_tape_refuses_what_it_cannot_hold():
    with pytest.raises(InputError, match="tape of a ScaledCPIKAN: give a single field"):
        JetTape(cpikan.ScaledCPIKAN([2, 3, 1], networks=2), points())


def sines():
    """u'' = -pi^2 sin(pi x) on [0, 1]: a residual that a small network of any kind can meet to a few per cent."""

    def residual(u, x):
        return u.second[..., 0, 0] + math.pi**2 * torch.sin(math.pi * x[..., 0])

    return Problem("sines", box([0], [1]), residual, [dirichlet(0.0)], lambda x: torch.sin(math.pi * x[..., 0]))


# 60 steps, which no clock changes, bring every kind below 2 % (most below 0.3 %); u = 0 has 100 %
@pytest.mark.parametrize("name", FIELDS)
def test_a_solve_runs_on_every_kind(name):
    field = make_field(name, [1, 6, 1], 4, ([0.0], [1.0]), 1)
    recipe = Recipe("mine", "", (QuasiNewton("ssbroyden", 60),), balancer=MEAN_SQUARES)
    solution = solve(sines(), field, recipe, settings=SolveSettings(seconds=600, points=Points(60, 2)))
    assert solution.metrics["relative_l2"] <= 0.05
    assert solution.field is field


def test_the_command_line_names_the_field(capsys):
    arguments = ["solve", "poisson-1d", "--field", "mlp", "--recipe", "lbfgs", "--seconds", "1", "--json"]
    assert main(arguments) == 0
    assert '"field": "mlp"' in capsys.readouterr().out
    assert main(["solve", "poisson-1d", "--field", "sirene"]) == 2
    assert "unknown field 'sirene'" in capsys.readouterr().err


def test_the_command_line_sizes_the_network_and_puts_waves_before_it(capsys):
    arguments = ["solve", "advection", "--field", "residual", "--hidden", "4,4,4", "--degree", "3,2,2,3"]
    arguments += ["--embedding", "periodic", "--recipe", "adam", "--seconds", "0.01", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["hidden"], found["degree"], found["embedding"]) == ("4,4,4", "3,2,2,3", "periodic")
    # three nodes (x itself became two waves), first 3 x 3 x 4 + 4, twice 2 x 4 x 4 + 4 and a gate, last 3 x 4 + 1
    assert found["parameters"] == 40 + 2 * 37 + 13
    for more, text in (
        (["--field", "mlp", "--degree", "3,2"], "degrees [3, 2] for field mlp: give one number"),
        (["--field", "mlp", "--hidden", "4;4"], "--hidden 4;4: give whole numbers with commas between them"),
        (["--field", "mlp", "--embedding", "periodic"], "periodic embedding of a problem without periodic conditions"),
        (["--embedding", "fourier"], "--embedding without a network: name one with --field"),
    ):
        assert main(["solve", "poisson-1d", *more]) == 2
        assert text in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scaled-cpikan", "siren", "blend"])
def test_third_and_fourth_derivatives_are_those_autograd_finds(name):
    field, x = make_field(name, [2, 4, 1], 3, BOX, 3), points(4)
    third, fourth = higher_derivatives(field, x), higher_derivatives(field, x, 4)
    moving = x.clone().requires_grad_()
    bend = field.jet(moving, "full").second
    for a, b in ((0, 0), (0, 1), (1, 1)):
        truth = torch.autograd.grad(bend[:, 0, a, b].sum(), moving, create_graph=True)[0]
        assert same(third[:, 0, a, b], truth) <= 1e-11
        for c in range(2):
            again = torch.autograd.grad(truth[:, c].sum(), moving, retain_graph=True)[0]
            assert same(fourth[:, 0, a, b, c], again) <= 1e-11
    with pytest.raises(InputError, match="derivatives of order 2: give 3 or 4"):
        higher_derivatives(field, x, 2)


def test_third_and_fourth_derivatives_of_a_series_are_those_of_numpy_at_the_ends_too():
    field = cpikan.ScaledCPIKAN([1, 1], 7, ([0.0], [4.0]), start=Start(2))
    series = np.concatenate([[0.0], field.layers[0].weight.detach().numpy()[:, 0]])
    x = np.array([0.0, 4.0, 1.3])
    for order in (3, 4):
        found = higher_derivatives(field, torch.from_numpy(x)[:, None], order).detach().numpy().reshape(3)
        truth = npcheb.chebval(x / 2 - 1, npcheb.chebder(series, order)) / 2**order
        assert np.abs(found - truth).max() <= 1e-10 * np.abs(truth).max()


def test_products_of_functions_are_separable_to_rounding():
    field = cpikan.SeparableCKAN([2, 1], 12, ([0, 0], [1, 1]), rank=1)
    field.axes[0][0].draw(*_fit(np.exp, 12))
    field.axes[1][0].draw(*_fit(np.cos, 12))
    field.output.draw(np.ones((1, 1)), np.zeros(1))
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jet = field.jet(x, "full")
    e, c, s = torch.exp(x[:, 0]), torch.cos(x[:, 1]), torch.sin(x[:, 1])
    # Bernstein: degree 12 of exp and cos over a unit interval is right to 1e-17; second derivatives lose 4^2 12^4 / 3
    assert same(jet.value[:, 0], e * c) <= 1e-13
    assert same(jet.second[:, 0, 0, 1], -e * s) <= 1e-10
    assert same(jet.second[:, 0, 1, 1], -e * c) <= 1e-10


def _fit(function, degree):
    series = npcheb.chebinterpolate(lambda t: function((t + 1) / 2), degree)
    return series[1:, None], series[:1]


def test_a_random_field_has_its_last_layer_alone_as_parameters():
    field = cpikan.RandomFeatureCKAN([2, 30, 1], 4)
    assert [name for name, _ in field.named_parameters()] == ["layers.1.weight", "layers.1.bias"]
    x = points(400) * torch.tensor([2.0, 4 / 3]) - 1
    truth = torch.exp(x[:, :1] * x[:, 1:])
    field.set_output_coefficients(torch.linalg.lstsq(field.features(x).detach(), truth).solution)
    assert same(field(x), truth) <= 0.02  # 121 drawn functions, none of them made for this one
    spread = cpikan.RandomFeatureCKAN([2, 30, 1], 4, spread=0.1)
    assert same(spread.layers[0].weight, 0.1 * field.layers[0].weight) <= 1e-15


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: cpikan.Siren([2, 4, 1], 0.0), "frequency 0.0 of a SIREN"),
        (lambda: cpikan.FourierCKAN([2, 5, 1]), "give an even number of features second"),
        (lambda: cpikan.FourierCKAN([2, 1]), "give an even number of features second"),
        (lambda: cpikan.FourierCKAN([2, 4, 1], sigma=-1), "sigma -1 of Fourier features"),
        (lambda: cpikan.WaveletKAN([2, 4, 1], 0), "0 wavelets per edge: give at least 1"),
        (lambda: cpikan.WaveletKAN([2, 4, 1], mother="haar"), "unknown wavelet 'haar'"),
        (lambda: cpikan.SeparableCKAN([2, 4, 1], rank=0), "rank 0: give at least 1"),
        (lambda: cpikan.MLP([2, 4, 1], "relu"), "unknown activation 'relu'"),
        (lambda: cpikan.MLP([2]), r"widths \[2\] make no network"),
        (lambda: cpikan.BlendField([2, 4, 1], 0), "degree 0 makes every edge constant"),
        (lambda: make_field("sirn", [1, 4, 1], 3, ([0], [1])), "unknown field 'sirn'.*did you mean 'siren'"),
    ],
)
def test_bad_input_is_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()


def test_starts_keep_values_of_order_one_and_differ_by_seed():
    x = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 1.5])
    for name in FIELDS:
        one, other = (make_field(name, [2, 16, 8], 4, BOX, seed)(x).detach() for seed in (0, 1))
        # outputs of variance 1 (a blend, half of two, less); SIREN's last layer is by definition smaller, 1 / w^2 = 1 / 36.
        # Mean squares of sixteen draws lie within a factor of three of theirs
        assert (1 / 108 if name == "siren" else 1 / 12) < float(torch.cat([one, other]).square().mean()) < 3, name
        assert not torch.equal(one, other)

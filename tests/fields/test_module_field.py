"""Any torch module as a field: under the contract of fields, with rows of a Jacobian, solved with, saved, refused."""

from __future__ import annotations

import math

import pytest
import torch
from field_contract import LOWER, TORCH_WARNS, UPPER, FieldContract, same
from test_kinds import sines
from torch import nn

import cpikan
from cpikan.errors import InputError
from cpikan.fields.files import load_field, save_field
from cpikan.fields.module_field import ModuleField
from cpikan.fields.point_tape import PointTape
from cpikan.learning.objective import PointSet, Term, linearise_any, linearise_term

pytestmark = TORCH_WARNS
BOX = (LOWER, UPPER)


class Waves(nn.Module):
    """A module that this package knows nothing of: products of sines with their own frequencies."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.rate = nn.Parameter(torch.rand(2, 5, dtype=torch.float64))
        self.out = nn.Linear(5, 2).double()

    def forward(self, x):
        return self.out(torch.sin(x[..., None] * self.rate).prod(dim=-2))


class TestModuleField(FieldContract):
    batches, linear = False, False

    def make(self, networks=None):
        return ModuleField(Waves(), BOX)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_a_file_gives_the_field_back_bit_for_bit(self, points, tmp_path, dtype):
        field, path, x = self.make().to(dtype), tmp_path / "field.safetensors", points.to(dtype)
        save_field(field, path)
        other = Waves()
        nn.init.zeros_(other.rate)
        back = load_field(path, other)
        assert all(torch.equal(a, b) for a, b in zip(field.jet(x), back.jet(x), strict=True))
        with pytest.raises(InputError, match="made of a torch module: give one of the same layers by module="):
            load_field(path)
        with pytest.raises(InputError, match="describes no field"):
            load_field(path, nn.Sequential(nn.Linear(2, 2), nn.Tanh()))


def network(outputs=1, inside=nn.Tanh):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), inside(), nn.Linear(8, outputs))


def test_rows_are_those_of_a_pass_for_each_residual():
    field = ModuleField(network(2), BOX)
    x = torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def residual(jet, _, partner):
        return {"r": jet.value[:, 0] * jet.gradient[:, 1, 0] + jet.second.sum((-1, -2)) - partner.value[:, 1] ** 2}

    term, at = Term("r", residual, "axes"), PointSet(x, partner=x.flip(0))
    (values, rows), (truth, plain) = linearise_term(field, term, at, "all"), linearise_any(field, term, at)
    assert same(values, truth) <= 1e-14
    assert same(rows, plain) <= 1e-13
    tape = PointTape(field, x)
    assert same(tape.jet.gradient, field.jet(x).gradient) <= 1e-14


def test_a_module_solves_a_problem_by_levenberg_marquardt():
    torch.manual_seed(0)
    field = cpikan.ModuleField(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), ([0.0], [1.0]))
    settings = cpikan.SolveSettings(seconds=600, steps=40, points=cpikan.Points(60, 2))
    solution = cpikan.solve(sines(), field, "levenberg-marquardt", settings=settings)
    assert solution.metrics["relative_l2"] <= 1e-3  # 25 parameters; u = 0 has 1
    assert solution.field is field
    middle = field(torch.tensor([[0.5]], dtype=torch.float64))
    assert float(middle.detach()) == pytest.approx(math.sin(math.pi / 2), abs=1e-3)


class Alike(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.weight * (x * x).sum() * torch.ones(self.shape, dtype=x.dtype)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (network(inside=nn.ReLU), "Sequential has no second derivatives, as with relu: take tanh, silu"),
        (nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.BatchNorm1d(3)), "Sequential .*batch normalisation and dropout"),
        (
            nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Dropout(0.5)),
            "another value when other points are not there, or",
        ),
        (
            nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
            r"does not take points \(7, 2\) in float64 .* from \(B, 2\) to \(B, out",
        ),
        (nn.Tanh(), "Tanh has no parameters"),
        (Alike((7,)), r"gives \(7,\) for 7 points: give \(B, outputs\)"),
    ],
)
def test_what_is_no_field_is_refused(module, text):
    with pytest.raises(InputError, match=text):
        ModuleField(module, BOX)


def test_an_output_layer_of_zeros_is_a_start_like_others():
    module = network()
    nn.init.zeros_(module[2].weight)
    nn.init.zeros_(module[2].bias)
    assert ModuleField(module, BOX).outputs == 1


def test_boxes_of_several_fields_and_none_are_refused():
    with pytest.raises(InputError, match="give one box, one number per axis"):
        ModuleField(network(), ([[0.0, 0.0]] * 2, [[1.0, 1.0]] * 2))
    with pytest.raises(InputError, match=r"without a box: give domain=\(lower, upper\)"):
        ModuleField(network(), None)
    with pytest.raises(InputError, match="is empty"):
        ModuleField(network(), ([0.0, 1.0], [1.0, 1.0]))

"""What every field promises; a test class of a field inherits ``FieldContract`` and says how to make one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_formulas import DIGITS
from mpmath import mp
from torch.func import functional_call, hessian, jacrev, vmap

from cpikan.errors import InputError
from cpikan.fields.files import load_field, save_field
from cpikan.fields.functional import functional, named_parameters, parameter_vector, set_parameters
from cpikan.fields.protocol import Field, LinearOutput

LOWER, UPPER = (-1.0, 2.0), (1.5, 2.5)  # a physical box far from [-1, 1], narrow on one axis
KINDS = ("axes", "full", "laplacian", "none")
# The issue asks for 1e-10 in float64. Jets and autograd sum the same terms in other orders; second derivatives of the
# fields here are at most some 1e4 units, and each sum of some hundred terms is good to 1e-14 of its largest term.
AGREE = 1e-10


def same(one, other):
    """The largest difference, relative to the largest value or one."""
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1))


# torch warns about its own use of torch.jit when forward-mode derivatives are first asked for
TORCH_WARNS = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@TORCH_WARNS
class FieldContract:
    """Subclasses define ``make(networks)``; ``batches`` is False for fields that hold no batches of networks, ``linear`` for
    those that are linear in no parameters, ``compiled`` for those whose parts are all compiled inside other fields (seconds
    each). What a field does not promise is no test of its class."""

    batches = linear = compiled = True

    def __init_subclass__(cls):
        if cls.formula is FieldContract.formula:
            cls.test_jets_are_those_of_the_formula_in_sixty_digits = None
        if not cls.batches:
            cls.test_networks_in_a_batch_are_what_they_are_alone = None
            cls.test_a_file_gives_a_batch_back_bit_for_bit = None
        if not cls.linear:
            cls.test_features_carry_the_value = None
        if not cls.compiled:
            cls.test_it_compiles_to_one_graph = None

    def make(self, networks=None):
        raise AssertionError

    def reference(self, field):
        """The field as a function that autograd differentiates by x."""
        return field

    def prepared(self, field, x):
        """What the field is called with inside transforms and compiled code."""
        return (x,)

    def formula(self, field, point):
        """The outputs at a point of mpmath numbers, written independently, by fields that have a formula."""
        raise AssertionError

    @pytest.fixture
    def field(self):
        return self.make()

    @pytest.fixture
    def points(self):
        """Points inside, and the corners and middles of the sides exactly."""
        inside = np.random.default_rng(5).uniform(LOWER, UPPER, (23, 2))
        middle = (np.array(LOWER) + UPPER) / 2
        sides = np.array([[a, b] for a in (LOWER[0], middle[0], UPPER[0]) for b in (LOWER[1], middle[1], UPPER[1])])
        return torch.from_numpy(np.concatenate([inside, sides]))

    def test_it_is_a_field(self, field):
        assert isinstance(field, Field)
        assert isinstance(field, LinearOutput) is self.linear
        assert field.dimension == 2
        assert all(parameter.dtype == torch.float64 for parameter in field.parameters())

    def test_jets_are_the_derivatives_autograd_finds(self, field, points):
        function = self.reference(field)
        value, gradient, bend = (vmap(f)(points) for f in (function, jacrev(function), hessian(function)))
        assert same(field(points), value) <= AGREE
        for kind in KINDS:
            jet = field.jet(points, kind)
            assert same(jet.value, value) <= AGREE
            assert same(jet.gradient, gradient) <= AGREE
            if kind == "full":
                assert same(jet.second, bend) <= AGREE
            elif kind == "axes":
                assert same(jet.second, bend.diagonal(dim1=-2, dim2=-1)) <= AGREE
            elif kind == "laplacian":
                assert same(jet.second, bend.diagonal(dim1=-2, dim2=-1).sum(-1)) <= AGREE
            else:
                assert jet.second.shape == (*value.shape, 0)
        with pytest.raises(InputError, match=r"unknown second derivative 'axis'.*did you mean 'axes'"):
            field.jet(points, "axis")

    def test_jets_are_those_of_the_formula_in_sixty_digits(self, field):
        corner, inside = (LOWER[0], UPPER[1]), (0.3, 2.2)
        jet = field.jet(torch.tensor([corner, inside], dtype=torch.float64), "full")
        with mp.workdps(DIGITS):
            for number, point in enumerate((corner, inside)):
                for output in range(field.outputs):
                    for orders, found in (
                        ((0, 0), jet.value[number, output]),
                        ((0, 1), jet.gradient[number, output, 1]),
                        ((2, 0), jet.second[number, output, 0, 0]),
                        ((1, 1), jet.second[number, output, 0, 1]),
                        ((0, 2), jet.second[number, output, 1, 1]),
                    ):
                        truth = float(mp.diff(lambda *x, o=output: self.formula(field, x)[o], point, orders))
                        assert abs(float(found.detach()) - truth) <= AGREE * max(1, abs(truth)), (point, orders)

    @pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
    def test_points_come_in_any_shape(self, field, points, batch):
        x = points[: int(np.prod(batch))].reshape(*batch, 2)
        flat = x.reshape(-1, 2)
        for kind in KINDS:
            jet, plain = field.jet(x, kind), field.jet(flat, kind)
            for part, expected in zip(jet, plain, strict=True):
                assert part.shape == (*batch, *expected.shape[1:])
                assert torch.equal(part.reshape(expected.shape), expected)
        assert field(x).shape == (*batch, field.outputs)

    def test_jets_do_not_depend_on_a_graph_in_x(self, field, points):
        jet = field.jet(points)
        with torch.no_grad():
            plain = field.jet(points)
        assert all(torch.equal(a, b) for a, b in zip(jet, plain, strict=True))
        assert not points.requires_grad

    def test_precision_follows_the_module(self, field, points):
        exact = field.jet(points)
        field.float()
        single = field.jet(points.float())
        assert {part.dtype for part in single} == {torch.float32}
        # float32 carries 1.2e-7; the box [2, 2.5] loses a factor of 2 / 0.25 in the scaling, and second derivatives of
        # degree 5 amplify an error of the scaled coordinate by at most 25: 3e-5, with room for the sums
        for part, truth in zip(single, exact, strict=True):
            assert float(((part.double() - truth).abs().max() / truth.abs().max()).detach()) < 2e-4
        with pytest.raises(InputError, match=r"float64 and the field is torch\.float32"):
            field(points)

    def test_parameters_have_gradients_through_the_jet(self, field, points):
        names = [name for name, _ in field.named_parameters()]
        call = functional(field, "jet")
        leaves = [p.detach().clone().requires_grad_() for p in field.parameters()]
        x = points[::6]

        def residual(*tensors):
            jet = call(dict(zip(names, tensors, strict=True)), x, second="full")
            return (jet.value[..., None] * jet.gradient).sum(-1) + jet.second.sum((-1, -2))

        assert torch.autograd.gradcheck(residual, leaves, fast_mode=True, atol=1e-4, rtol=1e-5)

    def test_torch_func_sees_a_function_of_parameters(self, field, points):
        tensors = {name: p.detach() for name, p in field.named_parameters()}
        arguments = self.prepared(field, points)
        jacobian = jacrev(lambda t: functional_call(field, t, arguments))(tensors)
        scaled = {name: torch.stack([p, 2 * p]) for name, p in tensors.items()}
        both = vmap(lambda t: functional_call(field, t, arguments))(scaled)
        assert same(both[0], field(points)) <= 1e-12
        for name, p in tensors.items():
            assert jacobian[name].shape == (len(points), field.outputs, *p.shape)
        vector = parameter_vector(field)
        assert torch.equal(functional(field)(named_parameters(field, vector), points), field(points))
        before = field(points).detach()
        set_parameters(field, torch.zeros_like(vector))
        assert float(field(points).detach().abs().max()) == 0
        set_parameters(field, vector)
        assert torch.equal(field(points), before)

    def test_it_compiles_to_one_graph(self, field, points):
        torch._dynamo.reset()
        compiled = torch.compile(field, backend="eager", fullgraph=True)
        x, *rest = self.prepared(field, points)
        assert same(compiled(x, *rest), field(points)) <= 1e-12
        jet = torch.compile(lambda *given: field.jet(given[0], "full", *given[1:]), backend="eager", fullgraph=True)
        for found, truth in zip(jet(x, *rest), field.jet(points, "full"), strict=True):
            assert same(found, truth) <= 1e-12

    def test_features_carry_the_value(self, field, points):
        coefficients = field.output_coefficients()
        assert same(field.features(points) @ coefficients, field(points)) <= 1e-12
        basis, jet = field.features_jet(points, "full"), field.jet(points, "full")
        assert same(torch.einsum("bfd,fo->bod", basis.gradient, coefficients), jet.gradient) <= 1e-12
        assert same(torch.einsum("bfde,fo->bode", basis.second, coefficients), jet.second) <= 1e-12
        field.set_output_coefficients(2 * coefficients.detach())
        assert same(field(points), 2 * jet.value) <= 1e-12
        with pytest.raises(InputError, match="output coefficients of shape"):
            field.set_output_coefficients(coefficients[1:])

    def test_networks_in_a_batch_are_what_they_are_alone(self, points):
        field, alone = self.make(3), self.make()
        assert field.networks == 3
        assert alone.networks is None
        x = torch.stack([points, points.flip(0), points.roll(5, 0)])
        for kind in KINDS:
            jet, shared = field.jet(x, kind), field.jet(points[None], kind)
            for n in range(3):
                tensors = {name: p[n] for name, p in field.named_parameters()}
                single = functional(alone, "jet")(tensors, x[n], second=kind)
                once = functional(alone, "jet")(tensors, points, second=kind)
                for part, common, a, b in zip(jet, shared, single, once, strict=True):
                    if a.numel():
                        assert same(part[n], a) <= 1e-12
                        assert same(common[n], b) <= 1e-12
        if isinstance(field, LinearOutput):
            assert same(field.features(x) @ field.output_coefficients(), field(x)) <= 1e-12
        with pytest.raises(InputError, match=r"for 3 networks: give \(3 or 1"):
            field(points.expand(2, -1, -1))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_a_file_gives_the_field_back_bit_for_bit(self, points, tmp_path, dtype):
        self.comes_back(points, tmp_path, None, dtype)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_a_file_gives_a_batch_back_bit_for_bit(self, points, tmp_path, dtype):
        self.comes_back(points, tmp_path, 2, dtype)

    def comes_back(self, points, tmp_path, networks, dtype):
        """A field of so many networks is the same after it was saved and loaded."""
        field = self.make(networks).to(dtype)
        path = tmp_path / "field.safetensors"
        save_field(field, path)
        back = load_field(path)
        assert type(back) is type(field)
        assert back.networks == networks
        x = points.to(dtype) if networks is None else points.to(dtype)[None]
        assert all(torch.equal(a, b) for a, b in zip(field.jet(x), back.jet(x), strict=True))
        assert [p.requires_grad for p in back.parameters()] == [True] * len(list(field.parameters()))
        assert [p.name for p in tmp_path.iterdir()] == ["field.safetensors"]

"""Fields in windows of time: who owns a point, derivatives, what comes after the last one, and the file."""

from __future__ import annotations

import pytest
import torch
from torch.func import hessian, jacrev, vmap

from cpikan.errors import InputError
from cpikan.fields.end_distance import EndDistance
from cpikan.fields.files import load_field, save_field
from cpikan.fields.front_ckan import Front, FrontCKAN
from cpikan.fields.layered import Start
from cpikan.fields.lifted import LiftedField
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.time_windows import TimeWindows

# torch warns about its own use of torch.jit when forward-mode derivatives are first asked for
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def part(begin, end, seed):
    lower, upper = (-1.0, begin), (1.0, end)
    generator = torch.Generator().manual_seed(seed)
    boxes = ([[-1.0, begin], [0.2, begin]], [[0.2, end], [1.0, end]])
    series = ProductChebyshev([4, 2], boxes, networks=2)
    series.set_output_coefficients(torch.randn(2, 8, 1, generator=generator, dtype=torch.float64))
    network = FrontCKAN([2, 3, 1], 3, (lower, upper), fronts=[Front(0, 0.1, 0.3)], start=Start(seed))
    distance = EndDistance(lower, upper, (((0, False), (0, True), (1, False)),))
    return LiftedField(network, PiecewiseChebyshev(series), distance)


@pytest.fixture
def field():
    return TimeWindows(1, part(0.0, 0.5, 1), part(0.5, 2.0, 2))


@pytest.fixture
def points():
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x * torch.tensor([2.0, 2.0]) - torch.tensor([1.0, 0.0])


def test_a_point_belongs_to_its_window_and_an_edge_to_the_one_before(field, points):
    early = points[:, 1] <= 0.5
    assert torch.equal(field(points)[early], field.parts[0](points[early]))
    assert torch.equal(field(points)[~early], field.parts[1](points[~early]))
    edge = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    assert torch.equal(field(edge), field.parts[0](edge))


def test_jets_are_the_derivatives_autograd_finds(field, points):
    for one, begin, end in ((field.parts[0], 0.0, 0.5), (field.parts[1], 0.5, 2.0)):
        x = points[(points[:, 1] > begin) & (points[:, 1] < end)]
        gradient, bend = vmap(jacrev(one))(x), vmap(hessian(one))(x)
        jet = field.jet(x, "full")
        assert torch.allclose(jet.gradient, gradient, rtol=1e-10, atol=1e-10)
        assert torch.allclose(jet.second, bend, rtol=1e-9, atol=1e-9)
        assert torch.allclose(field.jet(x, "axes").second, bend.diagonal(dim1=-2, dim2=-1), rtol=1e-9, atol=1e-9)
    assert field.jet(points.reshape(4, 10, 2), "none").second.shape == (4, 10, 1, 0)
    assert field(points[:0]).shape == (0, 1)


def test_after_the_last_window_it_stands_still(field):
    late, last = (torch.tensor([[0.3, t], [0.6, t]], dtype=torch.float64) for t in (3.0, 2.0))
    assert torch.equal(field(late), field(last))
    for kind, still in (("axes", lambda s: s[..., 1]), ("full", lambda s: s[..., 1, :])):
        jet = field.jet(late, kind)
        assert not bool(jet.gradient[..., 1].any())
        assert not bool(still(jet.second).any())
    assert torch.equal(field.jet(late, "laplacian").second, field.jet(late, "axes").second[..., 0])
    assert torch.equal(field.jet(late).gradient[..., 0], field.jet(last).gradient[..., 0])


def test_the_ends_are_those_of_the_lift(field):
    one, x = field.parts[0], torch.rand(9, 2, dtype=torch.float64) / 2
    for axis, end in ((0, -1.0), (0, 1.0), (1, 0.0)):
        at = x.clone()
        at[:, axis] = end
        assert torch.equal(one(at), one.lift(at))
    assert not any(p.requires_grad for p in one.lift.parameters())
    assert all(p.requires_grad for p in one.network.parameters())


def test_the_file_gives_it_back_bit_for_bit(field, points, tmp_path):
    save_field(field, tmp_path / "w.safetensors")
    back = load_field(tmp_path / "w.safetensors")
    assert isinstance(back, TimeWindows)
    late = torch.cat([points, torch.tensor([[0.2, 5.0]], dtype=torch.float64)])
    for one, other in zip(field.jet(late), back.jet(late), strict=True):
        assert torch.equal(one, other)


def test_windows_that_do_not_follow_one_another_are_refused():
    with pytest.raises(InputError, match=r"windows of time .*: give at least one, each beginning where"):
        TimeWindows(1, part(0.0, 0.5, 1), part(0.6, 2.0, 2))
    with pytest.raises(InputError, match="give at least one"):
        TimeWindows(1)

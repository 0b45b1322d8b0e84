"""Fused jets: the plain path to 1e-12, gradients that differentiate again, what stays with the plain path, memory."""

from __future__ import annotations

import pytest
import torch
from field_contract import KINDS, TORCH_WARNS, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.func import jvp, vmap

from cpikan.fields import fused_jet
from cpikan.fields.layered import Start
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

pytestmark = TORCH_WARNS


@pytest.fixture
def always(monkeypatch):
    """The fused path from the first point on, in small chunks so that several are met."""
    monkeypatch.setattr(fused_jet, "WIDE", 1)
    monkeypatch.setattr(fused_jet, "LEAST", 1)
    monkeypatch.setattr(fused_jet, "CHUNK", 16)


def answers(field, x, kind, plain):
    """The jet and the gradients of a cost in which every part of it counts."""
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(fused_jet, "LEAST", 10**15)
        jet = field.jet(x, kind)
    cost = sum((part.square() * torch.cos(torch.arange(part.numel()).reshape(part.shape))).sum() for part in jet)
    return [*jet, *torch.autograd.grad(cost, list(field.parameters()))]


# sums of some hundred terms in another order: 1e-14 of the largest, and the issue asks for 1e-12
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=5),
    st.data(),
    st.sampled_from(KINDS),
    st.sampled_from([None, 1, 3]),
    st.integers(0, 40),
)
def test_fused_jets_are_the_plain_ones(always, widths, data, kind, networks, points):
    widths[0] = min(widths[0], 3)
    degrees = data.draw(st.lists(st.integers(1, 5), min_size=len(widths) - 1, max_size=len(widths) - 1))
    field = ScaledCPIKAN(widths, degrees, networks=networks, start=Start(data.draw(st.integers(0, 99))))
    shared = data.draw(st.booleans())
    lead = () if networks is None else (1 if shared else networks,)
    x = 2 * torch.rand(*lead, points, widths[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    for fused, plain in zip(answers(field, x, kind, False), answers(field, x, kind, True), strict=True):
        assert fused.shape == plain.shape
        assert not fused.numel() or same(fused, plain) <= 1e-12


def test_every_network_has_its_own_box_in_the_fused_path_too(always):
    boxes = ([[0.0, 0.0], [5.0, 1.0]], [[1.0, 2.0], [9.0, 2.0]])
    field = ScaledCPIKAN([2, 4, 3, 2], 3, boxes, networks=2)
    x = torch.tensor([[[0.2, 1.5], [1.0, 2.0]], [[5.0, 1.5], [7.0, 2.0]]], dtype=torch.float64)
    for kind in KINDS:
        for fused, plain in zip(answers(field, x, kind, False), answers(field, x, kind, True), strict=True):
            assert not fused.numel() or same(fused, plain) <= 1e-12


def test_single_precision_is_left_to_the_plain_path(always):
    field, x = ScaledCPIKAN([2, 6, 5, 1], 4), torch.rand(50, 2, dtype=torch.float64)
    assert fused_jet.wins(field.start_streams(x, "axes")[0], field.chebyshev_layers())
    field.float()
    assert not fused_jet.wins(field.start_streams(x.float(), "axes")[0], field.chebyshev_layers())
    for found, plain in zip(
        answers(field, x.float(), "axes", False), answers(field, x.float(), "axes", True), strict=True
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, plain)


def test_grad_mode_does_not_change_a_bit(always):
    field = ScaledCPIKAN([2, 6, 5, 1], 4)
    x = torch.rand(50, 2, dtype=torch.float64)
    with torch.no_grad():
        without = field.jet(x)
    assert all(torch.equal(a, b) for a, b in zip(field.jet(x), without, strict=True))


def test_gradients_can_be_differentiated_again(always):
    field = ScaledCPIKAN([2, 4, 3, 1], 3)
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    parameters = list(field.parameters())

    def curvature():
        cost = field.jet(x, "laplacian").second.square().mean()
        slopes = torch.autograd.grad(cost, parameters[:-1], create_graph=True)
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), parameters[:-1])

    fused = curvature()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_jet, "LEAST", 10**15)
        plain = curvature()
    assert all(same(a, b) <= 1e-11 for a, b in zip(fused, plain, strict=True))


def test_gradcheck(always):
    field = ScaledCPIKAN([2, 3, 3, 2], (2, 3, 2))
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    streams, _ = field.start_streams(x, "full")
    layers = field.chebyshev_layers()
    shape = fused_jet._Shape("full", 2, (2, 3, 2))
    leaves = [t.detach().requires_grad_() for layer in layers for t in (layer.weight, layer.bias)]
    assert torch.autograd.gradcheck(lambda *t: fused_jet._Fused.apply(streams.join(), shape, *t), leaves)


def test_who_differentiates_by_points_or_traces_gets_the_plain_path(always):
    field = ScaledCPIKAN([2, 4, 1], 3)
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    jet = field.jet(x, "full")
    moving = x.clone().requires_grad_()
    slope = torch.autograd.grad(field.jet(moving).value.sum(), moving)[0]
    assert same(slope, jet.gradient[:, 0]) <= 1e-12
    along = jvp(lambda p: field.jet(p).value, (x,), (torch.ones_like(x),))[1]
    assert same(along, jet.gradient.sum(-1)) <= 1e-12
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(field.jet(dual).value).tangent
    assert same(tangent, along) <= 1e-12
    assert same(vmap(lambda p: field.jet(p[None]).value[0])(x), jet.value) <= 1e-12


def test_little_work_stays_with_the_plain_path():
    field, x = ScaledCPIKAN([2, 64, 64, 1], 3), torch.rand(100, 2, dtype=torch.float64)
    streams, _ = field.start_streams(x, "axes")
    assert not fused_jet.wins(streams, field.chebyshev_layers())
    streams, _ = field.start_streams(x.repeat(20, 1), "axes")
    assert fused_jet.wins(streams, field.chebyshev_layers())


def test_little_is_kept_for_the_way_back():
    field, x = ScaledCPIKAN([2, 64, 64, 64, 1], 3), torch.rand(1024, 2, dtype=torch.float64)

    def kept():
        storages: dict[int, int] = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            jet = field.jet(x, "laplacian")
        assert jet.second.requires_grad
        return sum(storages.values())

    # four streams of 64 nodes in three layers, the points' streams, and the parameters
    least = 8 * (4 * 1024 * (3 * 64 + 2) + sum(p.numel() for p in field.parameters()))
    assert kept() <= 1.1 * least

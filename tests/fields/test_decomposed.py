"""Decomposed fields: the contract against windows written in torch, continuity, coverage and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_contract import LOWER, UPPER, FieldContract, same
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.fields.cover import cover
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.levelled import LevelledField
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.partition import Partition


def smooth(t):
    """The step 6 t^5 - 15 t^4 + 10 t^3, for autograd."""
    t = t.clamp(0, 1)
    return t * t * t * (10 + t * (6 * t - 15))


def window_by_torch(partition, box, x):
    """A window built from the partition's ramps alone, differentiable by autograd; x (2,)."""
    total = torch.ones((), dtype=x.dtype)
    for d, (axis, i) in enumerate(zip(partition.axes, box.position, strict=True)):
        up = smooth((x[d] - axis.ramps[i - 1]) / axis.ramp) if i else 1.0
        down = smooth((x[d] - axis.ramps[i]) / axis.ramp) if i < len(axis) - 1 else 0.0
        total = total * (up - down)
    return total


class DecomposedContract(FieldContract):
    batches = False
    partition = Partition.subdomains(LOWER, UPPER, [3, 2], 0.7)

    def parts(self):
        raise AssertionError

    def make(self, networks=None):
        return DecomposedField(self.partition, self.parts())

    def reference(self, field):
        def value(x):
            parts = field.parts(x.expand(1, 2))
            return sum(window_by_torch(self.partition, box, x) * parts[box.index] for box in self.partition)

        return value

    def prepared(self, field, x):
        return x, field.cover(x)


class TestDecomposedCPIKAN(DecomposedContract):
    def parts(self):
        return ScaledCPIKAN([2, 4, 2], 3, DecomposedField.boxes(self.partition), networks=6, start=Start(2))


class TestDecomposedTensor(DecomposedContract):
    def parts(self):
        field = TensorChebyshev((3, 4), DecomposedField.boxes(self.partition), networks=6)
        coefficients = torch.randn(6, 12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        field.set_output_coefficients(coefficients)
        return field


class TestLevelled(FieldContract):
    """Two levels: their sum."""

    batches, compiled = False, False

    def prepared(self, field, x):
        return x, field.cover(x)

    partitions = (Partition.subdomains(LOWER, UPPER, [2, 1], 0.5), Partition.subdomains(LOWER, UPPER, [3, 2], 0.7))

    def make(self, networks=None):
        levels = []
        for number, partition in enumerate(self.partitions):
            boxes = DecomposedField.boxes(partition)
            parts = ScaledCPIKAN([2, 3, 2], 2, boxes, networks=len(partition), start=Start(number))
            levels.append(DecomposedField(partition, parts))
        return LevelledField(*levels)

    def reference(self, field):
        def value(x):
            found = 0.0
            for level in field.levels:
                parts = level.parts(x.expand(1, 2))
                found = found + sum(
                    window_by_torch(level.partition, box, x) * parts[box.index] for box in level.partition
                )
            return found

        return value


class TestSharedDomain(DecomposedContract):
    """Parts that all see the whole box."""

    compiled = False

    def parts(self):
        return ScaledCPIKAN([2, 3, 1], 3, (LOWER, UPPER), networks=6, start=Start(2))


def test_one_subdomain_is_the_plain_network():
    partition = Partition.subdomains(LOWER, UPPER, [1, 1], 0.5)
    field = DecomposedField(partition, ScaledCPIKAN([2, 4, 1], 3, (LOWER, UPPER), networks=1))
    plain = ScaledCPIKAN([2, 4, 1], 3, (LOWER, UPPER))
    plain.load_state_dict({k: v if "scaling" in k else v[0] for k, v in field.parts.state_dict().items()})
    x = torch.from_numpy(np.random.default_rng(0).uniform(LOWER, UPPER, (20, 2)))
    for a, b in zip(field.jet(x, "full"), plain.jet(x, "full"), strict=True):
        assert same(a, b) <= 1e-14


def test_equal_parts_make_that_field():
    # All subdomains the same function: the windows sum to one and their derivatives to zero, so nothing is left of them.
    partition = Partition.subdomains(LOWER, UPPER, [4, 3], 1.0)
    parts = ScaledCPIKAN([2, 4, 1], 3, (LOWER, UPPER), networks=12)
    with torch.no_grad():
        for p in parts.parameters():
            p.copy_(p[:1].expand_as(p))
    x = torch.from_numpy(np.random.default_rng(0).uniform(LOWER, UPPER, (300, 2)))
    whole, one = DecomposedField(partition, parts).jet(x, "full"), parts.jet(x[None], "full")
    for a, b in zip(whole, one, strict=True):
        # second derivatives of windows reach 5.8 / width^2 with the narrowest ramp 1 / 6: some 200 times rounding
        assert same(a, b[0]) <= 1e-12


def test_second_derivatives_are_continuous_across_ramps():
    partition = Partition.subdomains([0.0, 0.0], [1.0, 1.0], [3, 1], 0.5)
    field = DecomposedField(partition, ScaledCPIKAN([2, 4, 1], 3, DecomposedField.boxes(partition), networks=3))
    for edge in (*partition.axes[0].ramps, *(start + partition.axes[0].ramp for start in partition.axes[0].ramps)):
        # Left and right of the edge: continuous means that the jump falls in proportion to the distance.
        jumps = []
        for h in (1e-5, 1e-6):
            x = torch.tensor([[edge - h, 0.4], [edge + h, 0.4]], dtype=torch.float64)
            bend = field.jet(x).second.detach()
            jumps.append(float((bend[0] - bend[1]).abs().max()))
        assert jumps[1] < 0.11 * jumps[0] + 1e-9
        assert jumps[1] > 0  # the third derivative does jump: the test sees something


def test_permuted_points_give_permuted_values_and_only_covering_parts_are_asked():
    partition = Partition.subdomains([0.0, 0.0], [1.0, 1.0], [8, 8], 0.25)
    field = DecomposedField(partition, ScaledCPIKAN([2, 3, 1], 3, DecomposedField.boxes(partition), networks=64))
    x = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(4))
    assert torch.equal(field(x)[order], field(x[order]))
    for a, b in zip(field.jet(x, "full"), field.jet(x[order], "full"), strict=True):
        assert torch.equal(a[order], b)
    corner = x / 16  # inside the first subdomain, before its ramp
    found = field.cover(corner)
    assert [group.boxes.tolist() for group in found.groups] == [[0]]
    with torch.no_grad():
        for p in field.parts.parameters():
            p[1:] = torch.nan
    assert bool(field(corner).isfinite().all())


@st.composite
def partitions(draw):
    axes = draw(st.integers(1, 3))
    lower = [draw(st.floats(-50, 50)) for _ in range(axes)]
    upper = [low + draw(st.floats(0.1, 100)) for low in lower]
    counts = [draw(st.integers(1, 4)) for _ in range(axes)]
    return Partition.subdomains(lower, upper, counts, draw(st.just(0.0) | st.floats(1e-3, 1))), lower, upper


@settings(max_examples=60, deadline=None)
@given(partitions(), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_a_cover_holds_every_window_that_is_not_zero(case, seed, dtype):
    partition, lower, upper = case
    points = np.random.default_rng(seed).uniform(lower, upper, (40, len(lower)))
    places = [[*axis.cuts, *axis.ramps, *(start + axis.ramp for start in axis.ramps)] for axis in partition.axes]
    for row in range(5):  # and exactly on the edges
        points[row] = [p[row % len(p)] if p else low for p, low in zip(places, lower, strict=True)]
    x = torch.from_numpy(points).to(dtype)
    found = cover(partition, x)
    table = np.zeros((len(partition), 40))
    slope = np.zeros((len(partition), 40, len(lower)))
    bend = np.zeros((len(partition), 40, len(lower)))
    for group in found.groups:
        assert group.window.dtype == dtype
        for g, box in enumerate(group.boxes.tolist()):
            np.add.at(table[box], group.index[g].numpy(), group.window[g].double().numpy())
            np.add.at(slope[box], group.index[g].numpy(), group.window_gradient[g].double().numpy())
            curve = group.window_hessian[g].diagonal(dim1=-2, dim2=-1).double().numpy()
            np.add.at(bend[box], group.index[g].numpy(), curve)
    # Both sides evaluate ramps in t = (x - start) / width, off by some units of x over the width, and the value, first
    # and second derivatives by t have slopes of at most 1.9, 5.8 and 60.
    width = np.array([axis.ramp or np.inf for axis in partition.axes])
    t = 4 * torch.finfo(dtype).eps * (1 + np.abs(points).max() / width.min())
    for box in partition:
        truth = partition.window(box.index, x.numpy())
        assert np.abs(table[box.index] - truth.value).max() <= 2 * len(lower) * t
        assert (np.abs(slope[box.index] - truth.d1).max(axis=0) <= 6 * len(lower) * t / width).all()
        assert (np.abs(bend[box.index] - truth.d2).max(axis=0) <= 60 * len(lower) * t / width**2).all()


def test_bad_input_is_refused():
    partition = Partition.subdomains([0.0, 0.0], [1.0, 1.0], [2, 2], 0.5)
    with pytest.raises(InputError, match="3 networks for 4 subdomains: give one each"):
        DecomposedField(partition, ScaledCPIKAN([2, 1], networks=3))
    with pytest.raises(InputError, match="networks of 1 axes for a partition of 2"):
        DecomposedField(partition, ScaledCPIKAN([1, 1], networks=4))
    field = DecomposedField(partition, ScaledCPIKAN([2, 1], 2, DecomposedField.boxes(partition), networks=4))
    x = torch.rand(5, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="cover of 5 points for 4"):
        field(x[:4], field.cover(x))
    with pytest.raises(InputError, match=r"1 of 5 points lie outside the subdomains, .* the first is \(1.001, 0.5\)"):
        field(torch.cat([x[:4], torch.tensor([[1.001, 0.5]], dtype=torch.float64)]))
    with pytest.raises(InputError, match="not all finite"):
        field(torch.full((1, 2), torch.nan, dtype=torch.float64))
    with pytest.raises(InputError, match=r"give \(\.\.\., 2\)"):
        field(torch.zeros(3, 1, dtype=torch.float64))
    with pytest.raises(InputError, match=r"call \.cover\(x\) before"):
        torch.func.vmap(field)(x)

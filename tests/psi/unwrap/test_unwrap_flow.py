"""The flow that balances the loops of a tile, against the linear program; the guide; hard maps where trees fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.optimize import linprog

from cpikan.psi.unwrap.edges import edge_costs
from cpikan.psi.unwrap.faces import edge_ends, follow_steps, number_faces, windings
from cpikan.psi.unwrap.flow import balance
from cpikan.psi.unwrap.guide import guide_phasors, patched_phase
from cpikan.psi.unwrap.merger import unwrap_tile
from cpikan.psi.unwrap.phasor import box_sum, relative_quality
from cpikan.psi.unwrap.residues import count_residues
from cpikan.psi.unwrap.unwrap import unwrap

TURN = 2 * np.pi


def wrap(phase: np.ndarray) -> np.ndarray:
    return phase - TURN * np.rint(phase / TURN)


def wrong_fraction(orders: np.ndarray, surface: np.ndarray, wrapped: np.ndarray) -> float:
    """Share of the pixels of a connected map off the commonest difference from the truth."""
    difference = (orders - np.rint((surface - wrapped) / TURN))[np.isfinite(wrapped)].astype(np.int64)
    return 1 - np.bincount(difference - difference.min()).max() / difference.size


# --- the flow is exact


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9), st.floats(0, 0.4))
def test_balanced_at_the_cost_of_the_linear_program(seed: int, height: int, width: int, holes: float) -> None:
    random = np.random.default_rng(seed)
    valid = random.random((height, width)) >= holes
    node, nodes = number_faces(valid)
    gain, loss = edge_ends(node, valid)
    steps = np.where(gain >= 0, random.integers(-2, 3, gain.size), 0).astype(np.int32)
    rise, fall = random.integers(0, 50, (2, gain.size)).astype(np.int32)
    balanced = steps.copy()
    balance(balanced, rise, fall, gain, loss, nodes)
    assert not windings(balanced, gain, loss, nodes)[1:].any()
    change = balanced - steps
    cost = np.sum(np.where(change > 0, rise * change, -fall * change))
    used = np.flatnonzero(gain >= 0)
    incidence = sparse.coo_array(
        (
            np.repeat([1.0, -1.0], used.size),
            (np.concatenate((gain[used], loss[used])), np.tile(np.arange(used.size), 2)),
        ),
        shape=(nodes, used.size),
    ).tocsr()[1:]  # the outside takes what it is given
    best = 0.0
    if used.size and nodes > 1:
        excess = windings(steps, gain, loss, nodes)[1:]
        both = sparse.hstack((incidence, -incidence))
        found = linprog(np.concatenate((rise[used], fall[used])), A_eq=both, b_eq=-excess)
        assert found.status == 0
        best = found.fun
    assert cost == pytest.approx(best, abs=1e-6)  # whole numbers; the program is solved in floats


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(0, 0.6))
def test_holes_are_one_node_and_components_those_of_the_mask(seed: int, height: int, width: int, holes: float) -> None:
    valid = np.random.default_rng(seed).random((height, width)) >= holes
    node, nodes = number_faces(valid)
    outside = np.pad(valid, 1, constant_values=False)  # holes that touch the border are part of the outside
    _, count = ndimage.label(~outside, structure=np.ones((3, 3)))
    whole = sum(valid[y, x] and valid[y, x + 1] and valid[y + 1, x] and valid[y + 1, x + 1]
                for y in range(height - 1) for x in range(width - 1))  # fmt: skip
    assert nodes == count + whole
    for y, x in np.argwhere(~valid):
        assert len({node[y, x], node[y, x + 1], node[y + 1, x], node[y + 1, x + 1]}) == 1
    orders, found = np.empty(valid.shape, np.int32), np.empty(valid.shape, np.int32)
    expected, parts = ndimage.label(valid)
    assert follow_steps(valid, np.zeros(2 * valid.size, np.int32), orders, found) == parts
    assert np.array_equal(found, expected)  # both count by the first pixel
    assert not orders.any()


def test_steps_without_noise_are_those_of_the_surface() -> None:
    y, x = np.mgrid[:40, :60]
    surface = 2.5 * x + 0.4 * y
    phasor = np.exp(1j * surface)
    valid = np.ones(x.shape, bool)
    steps, rise, fall = edge_costs(phasor.real.astype(np.float32), phasor.imag.astype(np.float32), valid)
    wrapped = wrap(surface)
    order = np.rint((surface - wrapped) / TURN)
    pixels = x.size
    assert np.array_equal(steps[:pixels].reshape(x.shape)[:, :-1], np.diff(order, axis=1))
    assert np.array_equal(steps[pixels:].reshape(x.shape)[:-1], np.diff(order, axis=0))
    inside = rise[:pixels].reshape(x.shape)[:, :-1]
    np.testing.assert_allclose(inside, 1020, atol=2)  # all agree: the dearest and the floor, truncated to integers
    np.testing.assert_allclose(fall[:pixels].reshape(x.shape)[:, :-1], 1020, atol=2)


# --- the guide


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 2, 4]))
def test_box_sum_is_the_sum_over_spaced_pixels(seed: int, height: int, width: int, spacing: int) -> None:
    plane = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    kernel = np.zeros((4 * spacing + 1,) * 2)
    kernel[::spacing, ::spacing] = 1
    expected = ndimage.convolve(plane.astype(float), kernel, mode="constant")
    np.testing.assert_allclose(box_sum(plane, spacing), expected, atol=25 * 6 * 6e-8 * 5)  # 25 terms, float32


def test_guide_of_a_dense_plane_is_that_plane() -> None:
    """Compensated by the slope, 0.4 cycles per pixel survive the averaging; noise falls by more than half."""
    y, x = np.mgrid[:200, :200]
    surface = TURN * 0.4 * x + 0.3 * y
    noisy = wrap(surface + 0.5 * np.random.default_rng(0).normal(size=x.shape)).astype(np.float32)
    weight = np.ones(x.shape, np.float32)
    real, imag = guide_phasors(noisy, weight)
    error = wrap(np.arctan2(imag, real) - surface)
    assert np.std(error) < 0.25
    assert np.all(np.hypot(real, imag) <= 1 + 1e-5)
    assert np.mean(np.hypot(real, imag)) == pytest.approx(np.exp(-0.125), abs=0.03)  # the coherence exp(-sigma^2 / 2)


def test_only_the_surroundings_of_residues_are_touched() -> None:
    y, x = np.mgrid[:300, :300]
    wrapped = wrap(0.2 * x + 0.1 * y).astype(np.float32)
    wrapped[150, 150] += 3.05  # more than pi from some of its neighbours
    wrapped = wrap(wrapped).astype(np.float32)
    assert count_residues(wrapped, 300, 300) > 0
    patched, few = patched_phase(wrapped, relative_quality(wrapped, np.ones_like(wrapped)))
    assert few
    far = (np.abs(y - 150) > 20) | (np.abs(x - 150) > 20)
    assert np.array_equal(patched[far], wrapped[far])
    assert count_residues(patched, 300, 300) == 0
    assert unwrap_tile(wrapped).method == "smoothed"


# --- hard maps


def test_fault_that_opens_to_both_ends() -> None:
    """Two planes of opposite slope, 2.4 turns apart at the ends: each place along the fault looks alike, so only the
    sum of all cuts tells (a tree takes one place and is wrong on half the map)."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    surface = 1.2 * TURN * np.where(x > 0, y, -y) + 10 * x
    wrapped = wrap(surface + 0.1 * np.random.default_rng(1).normal(size=x.shape)).astype(np.float32)
    result = unwrap(wrapped)
    assert wrong_fraction(result.orders, surface, wrapped) < 1e-3
    assert result.report.tiles_by_method == {"flow": 1}
    assert result.ambiguous.any()


def test_fault_inside_the_map() -> None:
    y, x = np.mgrid[-1:1:400j, -1:1:400j]
    step = 2.5 * TURN * np.clip(1 - np.abs(x) / 0.3, 0, None)
    surface = 30 * (x * x + y * y) + np.where(y > 0, step * np.exp(-2 * y), 0)
    wrapped = wrap(surface + 0.2 * np.random.default_rng(2).normal(size=x.shape)).astype(np.float32)
    result = unwrap(wrapped)
    assert wrong_fraction(result.orders, surface, wrapped) < 1e-3
    cut = np.abs(np.diff(wrapped + TURN * result.orders, axis=0)) > np.pi + 1e-4
    assert result.ambiguous[:-1][cut].all()  # steps beyond a quarter of a wavelength are flagged


@pytest.mark.parametrize("with_quality", [False, True])
def test_decorrelated_patches(with_quality: bool) -> None:
    """Speckle whose coherence falls to 0.4 in patches, the fringes below 0.1 cycles per pixel."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    surface = 40 * (x * x + 0.5 * x * y) + 10 * np.sin(4 * y)
    texture = ndimage.gaussian_filter(random.normal(size=x.shape), 15)
    coherence = np.clip(0.7 + 0.15 * texture / texture.std(), 0.4, 0.95)
    one, other = random.normal(size=(2, *x.shape)) + 1j * random.normal(size=(2, *x.shape))
    speckled = one.conj() * (coherence * one + np.sqrt(1 - coherence**2) * other)
    wrapped = np.angle(speckled * np.exp(1j * surface)).astype(np.float32)
    quality = (coherence**2 / (1 - coherence**2)).astype(np.float32) if with_quality else None
    result = unwrap(wrapped, quality)
    # The share of single pixels that noise puts about pi from the surface is 0.4 % here; regions would be far more.
    assert wrong_fraction(result.orders, surface, wrapped) < 0.02


@pytest.mark.parametrize("size", [64, 200])
def test_pure_noise_ends_and_repeats(size: int) -> None:
    noise = np.random.default_rng(4).uniform(-np.pi, np.pi, (size, size)).astype(np.float32)
    first, second = unwrap_tile(noise), unwrap_tile(noise)
    assert first.method == "flow"
    assert np.array_equal(first.orders, second.orders)

"""Patches with coarser views: what each view shows, that cutting and stitching give the image back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.models.multigrid import MultigridTFNO, context_patches, patch_multiple, stitch


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    levels=st.integers(0, 3),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    margin=st.integers(0, 9),
    periodic=st.booleans(),
)
def test_cutting_and_stitching_give_the_image_back(levels, rows, columns, margin, periodic):
    multiple = patch_multiple(levels)
    image = noise(2, 3, rows * multiple, columns * multiple)
    patches = context_patches(image, levels, margin, periodic)
    sides = [side // 2**levels + 2 * margin for side in image.shape[2:]]
    assert patches.shape == (2 * 4**levels, 3 * (levels + 1), *sides)
    assert torch.equal(stitch(patches[:, :3], levels, margin), image)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("margin", [0, 3])
def test_a_view_is_the_means_over_blocks_around_the_centre_of_its_patch(periodic, margin):
    levels, (height, width) = 2, (32, 64)
    image = noise(1, 1, height, width)
    patches = context_patches(image, levels, margin, periodic)
    sides = (height >> levels, width >> levels)
    for row in range(4):
        for column in range(4):
            for level in range(levels + 1):
                block = 2**level
                view = patches[4 * row + column, level]
                for y, x in ((0, 0), (2, 5), (view.shape[0] - 1, view.shape[1] - 1)):
                    # first pixel of the block, from the centre of the patch outwards
                    top, left = (
                        at * side + side // 2 + (place - side // 2 - margin) * block
                        for at, side, place in zip((row, column), sides, (y, x), strict=True)
                    )
                    if periodic:
                        top, left = top % height, left % width
                    else:
                        top, left = min(max(top, 0), height - block), min(max(left, 0), width - block)
                    expected = image[0, 0, top : top + block, left : left + block].mean()
                    torch.testing.assert_close(view[y, x], expected, rtol=0, atol=1e-14)


def test_the_coarsest_view_of_a_patch_sees_the_whole_image_from_the_middle():
    """A far corner changes every patch of one level: a patch alone would not know of it."""
    torch.manual_seed(0)
    network = MultigridTFNO(1, 1, width=4, modes=4, depth=2, levels=1, margin_px=4).double()
    for weights in network.parameters():
        weights.data += 0.2 * noise(*weights.shape)
    image = noise(1, 1, 32, 32)
    lifted = image.clone()
    lifted[..., 20:22, 20:22] += 1.0  # inside the last patch, seen by the views of all four
    with torch.no_grad():
        change = (network(lifted) - network(image)).abs()
    assert change.shape == image.shape
    assert all(change[..., y : y + 16, x : x + 16].max() > 1e-9 for y in (0, 16) for x in (0, 16))


def test_shifts_by_a_patch_shift_the_patches():
    image = noise(1, 2, 32, 32)
    levels = 1
    side = 16
    patches = context_patches(image, levels, 2, periodic=True).unflatten(0, (1, 2, 2))
    moved = context_patches(image.roll((side, side), (-2, -1)), levels, 2, periodic=True).unflatten(0, (1, 2, 2))
    torch.testing.assert_close(moved, patches.roll((1, 1), (1, 2)), rtol=0, atol=1e-14)


def test_no_levels_and_no_margin_is_the_operator_itself():
    network = MultigridTFNO(2, 3, width=4, modes=4, depth=2, levels=0, margin_px=0)
    image = torch.randn(2, 2, 9, 12)
    assert torch.equal(network(image), network.operator(image))
    assert network.multiple_px == 1
    assert MultigridTFNO.from_config(network.config()).config() == network.config()


def test_checkpointing_reaches_the_operator():
    network = MultigridTFNO(2, 3, width=4, modes=4, depth=2)
    network.checkpointing = True
    assert network.operator.checkpointing
    assert network.checkpointing


def test_sides_that_cannot_be_cut_are_refused():
    with pytest.raises(InputError, match="give multiples of 32"):
        context_patches(torch.zeros(1, 1, 32, 48), 2)
    with pytest.raises(InputError, match="0 or more"):
        MultigridTFNO(1, 1, levels=-1)

"""The U-Net: what a pixel sees, what a tile changes, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cpikan.errors import InputError
from cpikan.images.models.unet import UNet
from cpikan.streaming.tiling.infer import infer_tiled
from cpikan.streaming.tiling.torch_model import TorchTiles

FORMS = [((2,), 1), ((2,), 2), ((2, 2), 1), ((2, 2), 2), ((2, 3, 2), 1)]


def positive(network: nn.Module) -> nn.Module:
    """All weights positive: no path from input to output cancels another, so a gradient of zero is no connection."""
    generator = torch.Generator().manual_seed(0)
    for weights in network.parameters():
        weights.data = 0.01 + 0.1 * torch.rand(weights.shape, generator=generator, dtype=torch.float64)
    return network.double()


def random(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for weights in network.parameters():
        weights.data = 0.3 * torch.randn(weights.shape, generator=generator)
    return network


@pytest.mark.parametrize(("widths", "depth"), FORMS)
def test_the_receptive_field_bounds_what_a_pixel_sees_and_is_not_much_too_large(widths, depth):
    network = positive(UNet(1, 1, widths, depth))
    multiple, reach = network.multiple_px, network.receptive_field_px // 2
    start = (reach // multiple + 1) * multiple  # the network's steps start at multiples: so does the pixel's place
    side = 2 * start + multiple
    farthest = 0
    for offset in range(multiple):  # every place in the coarsest cell, rows and columns at once
        image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        network(image)[0, 0, start + offset, start + offset].backward()
        seen = image.grad[0, 0] > 0
        for axis in (0, 1):
            places = seen.any(dim=axis).nonzero().flatten()
            farthest = max(farthest, int((places - (start + offset)).abs().max()))
    assert reach - 2 <= farthest <= reach  # two: where in its fold a pixel lies is counted from either side


def test_tiles_with_the_overlap_of_the_receptive_field_give_the_untiled_answer():
    network = random(UNet(2, 3, (4, 6), 1))
    field, multiple = network.receptive_field_px, network.multiple_px
    image = np.random.default_rng(1).normal(size=(2, 96, 160)).astype(np.float32)
    model = TorchTiles(network, receptive_field_px=field, channels=(2, 3), multiple_px=multiple, batch=2)
    overlap = -(-field // multiple) * multiple
    tiled = infer_tiled(model, image, tile=overlap + 5 * multiple, overlap=overlap).values
    with torch.inference_mode():
        whole = network(torch.from_numpy(image)[None])[0].numpy()
    # the same sums of float32 numbers, in another order where the convolution picks another blocking
    assert np.abs(tiled - whole).max() <= 1e-6 * np.abs(whole).max()


def test_a_pixel_does_not_depend_on_the_other_patches_of_a_batch():
    network = random(UNet(2, 3, (4, 6), 1)).eval()
    batch = torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]), rtol=1e-5, atol=1e-5)


def test_checkpointing_changes_no_gradient():
    network = random(UNet(2, 3, (4, 6), 2))
    image = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(3))
    gradients = []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        network.zero_grad()
        network(image).square().sum().backward()
        gradients.append(torch.cat([weights.grad.flatten() for weights in network.parameters()]))
    assert (gradients[1] - gradients[0]).norm() <= 1e-6 * gradients[0].norm()


def test_the_first_answer_is_no_correction():
    assert not UNet(6, 3)(torch.randn(1, 6, 16, 24)).any()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="multiples of 8"):
        UNet(6, 3)(torch.zeros(1, 6, 20, 24))
    with pytest.raises(InputError, match="counts of one or more"):
        UNet(6, 3, (32, 0))

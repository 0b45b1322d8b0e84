"""Fourier layers against direct sums, shifts, resolutions, precision, and another implementation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cpikan.errors import InputError
from cpikan.images.models.fno import FNO, SpectralConv
from cpikan.images.models.multigrid import MultigridTFNO
from cpikan.images.models.tucker import TFNO
from cpikan.streaming.tiling.torch_model import TorchTiles


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """An answer that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    for weights in network.parameters():
        weights.data += 0.2 * torch.randn(weights.shape, generator=generator)
    return network


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(8, 8), (8, 11), (13, 10)])
def test_the_layer_is_the_sum_over_waves_that_it_says(shape):
    """Against numpy's full complex transform: each kept wave times its kernel, back, real part of what rfft2 stands for."""
    layer = SpectralConv(2, 3, 4).double()
    image = noise(1, 2, *shape, dtype=torch.float64)
    kernel = layer.dense().detach().numpy()
    spectrum = np.fft.rfft2(image[0].numpy())
    mixed = np.zeros((3, *spectrum.shape[1:]), complex)
    for row in (*range(4), *range(-4, 0)):
        for column in range(4):
            mixed[:, row, column] = spectrum[:, row, column] @ kernel[:, :, row, column]
    expected = np.fft.irfft2(mixed, s=shape)
    np.testing.assert_allclose(layer(image)[0].detach().numpy(), expected, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(down=st.integers(-20, 20), right=st.integers(-20, 20), height=st.integers(8, 21), width=st.integers(8, 21))
def test_a_shift_of_a_periodic_image_shifts_the_answer(down, right, height, width):
    network = shaken(FNO(2, 3, width=4, modes=4, depth=2)).double()
    image = noise(1, 2, height, width, dtype=torch.float64)
    moved = network(image.roll((down, right), (-2, -1)))
    torch.testing.assert_close(moved, network(image).roll((down, right), (-2, -1)), rtol=0, atol=1e-11)


def low_pass(padding_px: int) -> nn.Module:
    """A network of one channel that keeps the frequencies -11 to 11 of columns and rows, as they are."""
    network = FNO(1, 1, width=1, modes=12, depth=1, padding_px=padding_px).double()
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        network.lift.weight.fill_(1)
        kernel = network.layers[0].spectral.kernel.unflatten(-1, (24, 12, 2))
        kernel[..., 0] = 1
        kernel[:, :, 12] = 0  # -12 has no partner
        for layer in (network.widen, network.project):  # gelu(x) - gelu(-x) = x
            layer.weight.copy_(torch.tensor([1.0, -1.0]).reshape(layer.weight.shape))
    return network


def test_padding_ends_the_wrap():
    """A line at the end of an image rings at its start where the image is periodic: there they are neighbours."""
    image = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    image[..., -1, :] = 1.0
    for padding, apart, period in ((0, 1, 32), (32, 33, 64)):
        with torch.no_grad():
            answer = low_pass(padding)(image)[0, 0, :, 5]
        # Dirichlet's kernel of 23 frequencies
        angle = math.pi * apart / period
        expected = math.sin(23 * angle) / (23 * math.sin(angle))
        assert math.isclose(float(answer[0] / answer[-1]), expected, abs_tol=1e-12)
        assert (abs(expected) > 0.25) == (padding == 0)


def waves(samples: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Smooth periodic images a and u = (1 - 0.01 laplace)^-1 a^2, both sampled from a grid that resolves them."""
    fine = 128
    k = np.fft.fftfreq(fine, 1 / fine)
    ky, kx = k[:, None], k[None, :]
    rng = np.random.default_rng(seed)
    shape = np.exp(-(ky**2 + kx**2) / 18) * (np.abs(ky) < 12) * (np.abs(kx) < 12)
    a = np.fft.ifft2(np.fft.fft2(rng.normal(size=(samples, fine, fine))) * shape).real
    a /= a.std()
    u = np.fft.ifft2(np.fft.fft2(a**2) / (1 + 0.01 * (2 * np.pi) ** 2 * (ky**2 + kx**2))).real
    step = fine // side
    return tuple(torch.from_numpy(each[:, None, ::step, ::step].copy()).float() for each in (a, u))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors: threads that wait for each other on a busy machine cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [FNO, TFNO])
@pytest.mark.usefixtures("one_thread")
def test_what_is_learnt_at_one_resolution_holds_at_another(kind):
    torch.manual_seed(0)
    network = kind(1, 1, width=10, modes=8, depth=2, **({"rank": 0.3} if kind is TFNO else {}))
    given, wanted = waves(24, 32, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        functional.mse_loss(network(given), wanted).backward()
        optimizer.step()
    errors = []
    for side in (32, 64, 128):
        given, wanted = waves(8, side, seed=2)
        with torch.inference_mode():
            errors.append(float((network(given) - wanted).norm() / wanted.norm()))
    assert errors[0] < 0.25  # it has learnt: the mean alone leaves the relative deviation, near 0.5
    assert max(abs(error / errors[0] - 1) for error in errors) < 0.1


@pytest.mark.parametrize("kind", [FNO, TFNO, MultigridTFNO])
def test_half_precision_leaves_the_spectrum_in_float32(kind):
    network = shaken(kind(2, 3, width=6, modes=4, depth=2))
    image = noise(1, 2, 16, 16)
    seen = []
    for module in network.modules():
        if isinstance(module, SpectralConv):
            module.register_forward_hook(lambda _m, _given, answer: seen.append(answer.dtype))
    exact = network(image)
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(image)
    assert seen
    assert set(seen) == {torch.float32}
    # 1 x 1 convolutions in bfloat16, 2^-9 of each number, a few of them in a row
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_memory_formats_and_checkpointing_change_nothing():
    network = shaken(TFNO(2, 3, width=6, modes=4, depth=3, rank=0.5))
    image = noise(2, 2, 16, 16)
    plain = network(image)
    network.checkpointing = True
    again = network(image)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    gradients = []
    for answer in (plain, again):
        network.zero_grad()
        answer.square().sum().backward()
        gradients.append(torch.cat([weights.grad.flatten() for weights in network.parameters()]))
    assert (gradients[1] - gradients[0]).norm() <= 1e-6 * gradients[0].norm()
    tiles = TorchTiles(network, receptive_field_px="global", channels=(2, 3))
    np.testing.assert_allclose(tiles(image.numpy()), plain.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_sizes_that_do_not_fit_are_refused():
    network = FNO(1, 1, width=4, modes=8)
    assert network(torch.zeros(1, 1, 16, 17)).shape == (1, 1, 16, 17)
    with pytest.raises(InputError, match="give patches of 16 or more, or a network of 7 modes"):
        network(torch.zeros(1, 1, 15, 64))
    with pytest.raises(InputError, match="counts of one or more"):
        FNO(1, 1, modes=0)


class OnceGelu:
    """GELU at every second call: the other package applies its activation twice in a layer without channel MLP."""

    calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return functional.gelu(x) if self.calls % 2 else x


def as_theirs(kernel: Tensor) -> Tensor:
    """Rows 0..m-1, -m..-1 to -m..m-1: the other package keeps kernels with frequency zero in the middle."""
    return kernel.roll(kernel.shape[-2] // 2, -2)


if find_spec("neuralop") is not None:  # no dependency of the tests: the layer has its direct sum above

    @pytest.mark.parametrize("rank", [None, 0.3])
    def test_numbers_against_neuraloperator(rank):
        from neuralop import models

        modes, width, depth = 6, 8, 3
        ours = FNO(2, 3, width, modes, depth) if rank is None else TFNO(2, 3, width, modes, depth, rank=rank)
        ours = shaken(ours)
        theirs = models.FNO(
            (2 * modes, 2 * modes - 2),  # of the last axis it keeps half and one more
            in_channels=2,
            out_channels=3,
            hidden_channels=width,
            n_layers=depth,
            lifting_channel_ratio=0,
            projection_channel_ratio=2,
            positional_embedding=None,
            non_linearity=OnceGelu(),
            use_channel_mlp=False,
            factorization=None if rank is None else "Tucker",
            rank=1.0 if rank is None else ours.layers[0].spectral.ranks,
        )
        copy_weights(ours, theirs)
        assert sum(w.numel() * (1 + w.is_complex()) for w in theirs.parameters()) == sum(
            w.numel() for w in ours.parameters()
        )
        image = noise(2, 2, 16, 22)
        with torch.no_grad():
            # both in float32: sums of a few hundred terms of order one, rounded at 6e-8 each
            torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-5)


def copy_weights(ours: FNO, theirs: nn.Module) -> None:
    with torch.no_grad():
        pairs = [(theirs.lifting.fcs[0], ours.lift), (theirs.projection.fcs[0], ours.widen)]
        pairs.append((theirs.projection.fcs[1], ours.project))
        for target, source in pairs:
            target.weight.copy_(source.weight.flatten(2))
            target.bias.copy_(source.bias)
        for layer, conv, skip in zip(ours.layers, theirs.fno_blocks.convs, theirs.fno_blocks.fno_skips, strict=True):
            skip.conv.weight.copy_(layer.local.weight.flatten(2))
            conv.bias.copy_(layer.local.bias[:, None, None])
            if hasattr(layer.spectral, "core"):
                core, factors = layer.spectral._parts()
                conv.weight.core.copy_(core)
                for target, source in zip(conv.weight.factors, factors, strict=True):
                    target.copy_(source)
                rows = conv.weight.factors[2]
                rows.copy_(rows.roll(len(rows) // 2, 0))
            else:
                conv.weight.tensor.copy_(as_theirs(layer.spectral.dense()))


def test_the_kernel_starts_with_a_gain_of_one():
    """Smooth noise keeps its size: each output channel sums ``in`` channels with complex weights of variance 1 / in."""
    torch.manual_seed(3)
    layer = SpectralConv(32, 32, 8)
    gain = float(layer.dense().detach().abs().square().mean()) * 32
    assert math.isclose(gain, 1.0, rel_tol=6 / math.sqrt(32 * 32 * 128))  # mean of exponentials: one over the root

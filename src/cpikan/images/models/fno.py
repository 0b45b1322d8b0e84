"""Fourier neural operators: layers that mix the lowest frequencies of the whole image, at any resolution.

Z. Li et al., "Fourier neural operator for parametric partial differential equations", ICLR 2021. No coordinates are fed in,
so a network is equivariant under periodic shifts and does not know where a tile lies.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpikan.errors import InputError
from cpikan.images.models.network import ImageNetwork


class SpectralConv(nn.Module):
    """F^-1(R . F v) with a dense complex kernel R (in, out, 2 modes, modes): rows 0 to modes - 1, then -modes to -1.

    Images are (N, in, h, w) with h and w of 2 ``modes`` or more. Computed in float32 at least, whatever autocast says: half
    precision has no complex numbers on the CPU and no range for sums over an image.
    """

    def __init__(self, width_in: int, width_out: int, modes: int) -> None:
        super().__init__()
        self.width_in, self.width_out, self.modes = width_in, width_out, modes
        self._make_weights(1 / math.sqrt(2 * width_in))

    def _make_weights(self, spread: float) -> None:
        """Make parameters of a kernel whose real and imaginary parts have the standard deviation ``spread``."""
        # real numbers of three dimensions: optimizers and files know no complex ones, and a change of memory format
        # restrides tensors of four dimensions and refuses those of five
        self.kernel = nn.Parameter(spread * torch.randn(self.width_in, self.width_out, 4 * self.modes**2))

    def dense(self) -> Tensor:
        """Build the kernel (in, out, 2 modes, modes), complex."""
        return as_complex(self.kernel, (2 * self.modes, self.modes))

    def mix(self, spectrum: Tensor) -> Tensor:
        """Apply the kernel to (N, in, 2 modes, modes) complex coefficients."""
        return torch.einsum("nixy,ioxy->noxy", spectrum, self.dense())

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < 2 * self.modes:
            raise InputError(
                f"a patch of {height} x {width} pixels has no {self.modes} modes to either side: give patches of "
                f"{2 * self.modes} or more, or a network of {min(height, width) // 2} modes"
            )
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            # only the kept columns are transformed along the other axis
            spectrum = torch.fft.fft(torch.fft.rfft(x, norm="forward")[..., : self.modes], dim=-2, norm="forward")
            low = torch.cat([spectrum[..., : self.modes, :], spectrum[..., -self.modes :, :]], dim=-2)
            mixed = self.mix(low)
            gap = mixed.new_zeros((*mixed.shape[:-2], height - 2 * self.modes, self.modes))
            rows = torch.cat([mixed[..., : self.modes, :], gap, mixed[..., self.modes :, :]], dim=-2)
            return torch.fft.irfft(torch.fft.ifft(rows, dim=-2, norm="forward"), n=width, norm="forward")


def as_complex(numbers: Tensor, last: tuple[int, ...]) -> Tensor:
    """Read real parameters as complex ones: the last axis holds an array of shape ``last``, real and imaginary parts by
    turns."""
    numbers = numbers if numbers.dtype == torch.float64 else numbers.float()
    return torch.view_as_complex(numbers.unflatten(-1, (*last, 2)).contiguous())


class FourierLayer(nn.Module):
    """GELU(W v + F^-1(R . F v)); the last layer of a network goes without the GELU."""

    def __init__(self, spectral: SpectralConv, last: bool) -> None:
        super().__init__()
        self.spectral, self.last = spectral, last
        self.local = nn.Conv2d(spectral.width_in, spectral.width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.local(x) + self.spectral(x)
        return mixed if self.last else functional.gelu(mixed)


class FNO(ImageNetwork):
    """(N, channels_in, h, w) to (N, channels_out, h, w), h and w of 2 ``modes`` or more, any resolution.

    Lifting (1 x 1), ``depth`` Fourier layers of ``width`` channels, projection (1 x 1, GELU, 1 x 1). The image is taken as
    periodic unless ``padding_px`` rows and columns of zeros are put behind it for the layers. The answer starts at zero.
    Raises InputError for sizes that are no counts.
    """

    kind = "fno"
    ranges: ClassVar = {**ImageNetwork.ranges, "modes": (1, 1024), "padding_px": (0, 1024)}
    multiple_px = 1
    receptive_field_px: int | Literal["global"] = "global"

    def __init__(
        self, channels_in: int, channels_out: int, width: int = 24, modes: int = 12, depth: int = 4, padding_px: int = 0
    ) -> None:
        super().__init__()
        if min(channels_in, channels_out, width, modes, depth) < 1 or padding_px < 0:
            raise InputError(
                f"{self.kind} of {channels_in} to {channels_out} channels, width {width}, modes {modes}, depth {depth}, "
                f"padding_px {padding_px}: give counts of one or more (padding_px 0 or more), such as width 24, modes 12"
            )
        self.channels_in, self.channels_out, self.width, self.modes = channels_in, channels_out, width, modes
        self.depth, self.padding_px = depth, padding_px
        self.lift = nn.Conv2d(channels_in, width, 1)
        self.layers = nn.ModuleList(
            FourierLayer(self._spectral(width, modes), last=layer == depth - 1) for layer in range(depth)
        )
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, channels_out, 1)
        nn.init.zeros_(self.project.weight)  # the first answer is none: no correction
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)

    def _spectral(self, width: int, modes: int) -> SpectralConv:
        return SpectralConv(width, width, modes)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.lift(x.contiguous())  # transforms run along rows: channels come first
        if self.padding_px:
            x = functional.pad(x, (0, self.padding_px, 0, self.padding_px))
        for layer in self.layers:
            x = self.run(layer, x)
        x = x[..., :height, :width]
        return self.project(functional.gelu(self.widen(x)))

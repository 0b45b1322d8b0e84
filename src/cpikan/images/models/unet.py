"""A U-Net whose answer at a pixel depends on its surroundings alone: no statistics of batch or tile.

The image is folded once (2 x 2 pixels become channels) so that the widest layers run on a quarter of the pixels, as in
FFDNet (Zhang, Zuo & Zhang, IEEE TIP 27, 4608 (2018)). Layers are residual pairs of 3 x 3 convolutions with a learnt scale
per channel, no normalisation: padding with zeros is the only thing a tile's rim changes, and it reaches as far as the
receptive field.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpikan.errors import InputError
from cpikan.images.models.network import ImageNetwork


class Residual(nn.Module):
    """x + scale * conv(gelu(conv(x))), 3 x 3 both; the scale starts small, so the layer starts near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.second(functional.gelu(self.first(x), approximate="tanh"))


class UNet(ImageNetwork):
    """(N, channels_in, h, w) to (N, channels_out, h, w); h and w are multiples of ``multiple_px``.

    ``widths`` are the channels at 1/2, 1/4, 1/8, ... of the resolution, ``depth`` the residual layers at each of them on
    the way down and again on the way up. ``receptive_field_px`` bounds the side of the square of input pixels an output
    pixel sees. Raises InputError for sizes that are no counts.
    """

    kind = "unet"

    def __init__(
        self, channels_in: int, channels_out: int, widths: tuple[int, ...] = (32, 48, 64), depth: int = 1
    ) -> None:
        super().__init__()
        self.widths, self.depth = tuple(widths), depth
        if not self.widths or min(channels_in, channels_out, depth, *self.widths) < 1:
            raise InputError(
                f"unet of {channels_in} to {channels_out} channels, widths {list(widths)}, depth {depth}: give counts "
                "of one or more, such as widths [32, 48, 64]"
            )
        self.channels_in, self.channels_out = channels_in, channels_out
        self.fold = nn.Conv2d(4 * channels_in, self.widths[0], 1)
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        self.down = nn.ModuleList(self._layers(width) for width in self.widths)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.up = nn.ModuleList(self._layers(fine) for fine, _ in pairs)
        self.unfold = nn.Conv2d(self.widths[0], 4 * channels_out, 3, padding=1)
        nn.init.zeros_(self.unfold.weight)  # the first answer is none: no correction
        assert self.unfold.bias is not None
        nn.init.zeros_(self.unfold.bias)

    def _layers(self, width: int) -> nn.Sequential:
        return nn.Sequential(*(Residual(width) for _ in range(self.depth)))

    @property
    def multiple_px(self) -> int:
        """Return the number of pixels that tiles start and end at multiples of."""
        return 2 ** len(self.widths)

    @property
    def receptive_field_px(self) -> int:
        """Compute the side of the square of input pixels that one output pixel sees, at most."""
        reach = 0  # to either side, in pixels of the image
        for level in range(len(self.widths)):
            side = 2 ** (level + 1)  # of a folded pixel
            passes = 1 if level == len(self.widths) - 1 else 2
            reach += side * (2 * self.depth * passes)
        return 2 * (reach + 2 + 2 ** len(self.widths)) + 1  # the last convolution, and where in its fold a pixel lies

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.multiple_px or width % self.multiple_px:
            raise InputError(
                f"a patch of {height} x {width} pixels does not fit this network: give multiples of {self.multiple_px}"
            )
        x = self.fold(functional.pixel_unshuffle(x, 2))
        kept: list[Tensor] = []
        for level, layers in enumerate(self.down):
            x = self.run(layers, x)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.shrink))):
            x = kept[level] + functional.pixel_shuffle(self.grow[level](x), 2)
            x = self.run(self.up[level], x)
        return functional.pixel_shuffle(self.unfold(x), 2)

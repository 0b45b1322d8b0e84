"""Multi-grid context: patches that also see coarser and coarser views of what lies around them.

J. Kossaifi et al., "Multi-grid tensorized Fourier neural operator for high-resolution PDEs", TMLR 2024. An image is cut into
2^L x 2^L patches. View l of a patch shows 2^l times its side, centred on it, as means over blocks of 2^l pixels, so all views
have one size and stack as channels. (Published code takes every 2^l-th pixel, which aliases; block means do not.)
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cpikan.errors import InputError
from cpikan.images.models.network import ImageNetwork
from cpikan.images.models.tucker import TFNO


def patch_multiple(levels: int) -> int:
    """Compute what sides of images cut with ``levels`` are multiples of: views start at whole coarse pixels.

    >>> [patch_multiple(levels) for levels in (0, 1, 2)]
    [1, 8, 32]
    """
    return 2 ** (2 * levels + 1) if levels else 1


def context_patches(image: Tensor, levels: int, margin_px: int = 0, periodic: bool = False) -> Tensor:
    """Cut images (N, C, h, w) into 2^levels x 2^levels patches each, with coarser views as further channels.

    Returns (N 4^levels, (levels + 1) C, h / 2^levels + 2 margin, w / 2^levels + 2 margin). Patches run along rows, then
    columns, within each image; view 0 comes first. ``margin_px`` pixels of each view are shown around the patch. Beyond
    the image its rim is repeated, or the image itself where it is ``periodic``. Raises InputError for sides that are no
    multiple of `patch_multiple`.
    """
    height, width = image.shape[-2:]
    multiple = patch_multiple(levels)
    if height % multiple or width % multiple:
        raise InputError(
            f"a patch of {height} x {width} pixels cannot be cut with {levels} levels: give multiples of {multiple}"
        )
    views = []
    for level in range(levels + 1):
        coarse = functional.avg_pool2d(image, 2**level) if level else image
        rows = _window_index(height, levels, level, margin_px, periodic, image.device)
        columns = _window_index(width, levels, level, margin_px, periodic, image.device)
        cut = coarse.index_select(-2, rows.flatten()).index_select(-1, columns.flatten())
        # (N, C, patches, h, patches, w) -> (N, patches, patches, C, h, w)
        views.append(cut.unflatten(-1, columns.shape).unflatten(-3, rows.shape).permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
    return torch.cat(views, dim=1)


def _window_index(size: int, levels: int, level: int, margin: int, periodic: bool, device: torch.device) -> Tensor:
    """List the coarse pixels (patches, side) that the patches' windows show at ``level``, along one axis of ``size`` pixels."""
    side, length = size >> levels, size >> level
    # half of a patch lies to either side of its centre, in pixels of the image or in coarse ones
    centres = (torch.arange(2**levels, device=device) * 2 + 1) * side // 2 >> level
    starts = centres - side // 2 - margin
    index = starts[:, None] + torch.arange(side + 2 * margin, device=device)
    return index % length if periodic else index.clamp(0, length - 1)


def stitch(patches: Tensor, levels: int, margin_px: int = 0) -> Tensor:
    """Put patches (N 4^levels, C, h + 2 margin, w + 2 margin) of `context_patches` together, margins cut: (N, C, H, W)."""
    count = 2**levels
    if margin_px:
        patches = patches[..., margin_px:-margin_px, margin_px:-margin_px]
    return patches.unflatten(0, (-1, count, count)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class MultigridTFNO(ImageNetwork):
    """(N, channels_in, h, w) to (N, channels_out, h, w): a TFNO over the patches of an image or tile, with their context.

    ``levels`` cuts it in 2^levels x 2^levels patches of levels + 1 views; ``margin_px`` pixels around each patch are
    computed and thrown away; the rest are settings of the TFNO. A patch and its margins have 2 ``modes`` pixels or more.
    Raises InputError for sizes that are no counts and for sides that are no multiple of ``multiple_px``.
    """

    kind = "mg-tfno"
    ranges: ClassVar = {**TFNO.ranges, "levels": (0, 4), "margin_px": (0, 1024)}
    receptive_field_px: int | Literal["global"] = "global"

    def __init__(
        self, channels_in: int, channels_out: int, *, levels: int = 1, margin_px: int = 8, **operator: Any
    ) -> None:
        super().__init__()
        if levels < 0 or margin_px < 0:
            raise InputError(f"mg-tfno of {levels} levels and margin_px {margin_px}: give 0 or more of each")
        self.levels, self.margin_px = levels, margin_px
        self.operator = TFNO((levels + 1) * channels_in, channels_out, **operator)
        self.channels_in, self.channels_out = channels_in, channels_out

    @property
    def multiple_px(self) -> int:
        """Return the number of pixels that sides of images are multiples of."""
        return patch_multiple(self.levels)

    @property
    def checkpointing(self) -> bool:
        """Tell whether the operator computes activations again in the backward pass instead of keeping them."""
        return self.operator.checkpointing

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        self.operator.checkpointing = value

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """List the settings of the operator, without its padding, then those of the views."""
        own = {name: default for name, default in super().settings().items() if name != "operator"}
        inner = TFNO.settings()
        del inner["padding_px"]
        return {**inner, **own}

    def config(self) -> dict[str, Any]:
        """Write the settings down, JSON-able."""
        inner = self.operator.config()
        return {name: getattr(self, name, inner.get(name)) for name in self.settings()}

    def forward(self, x: Tensor) -> Tensor:
        patches = context_patches(x, self.levels, self.margin_px)
        return stitch(self.operator(patches), self.levels, self.margin_px)

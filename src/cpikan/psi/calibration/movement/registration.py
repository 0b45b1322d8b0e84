"""Registration: whether the images of the wavelengths lie on each other, seen where the phases jump, and on slopes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cpikan.psi.calibration.movement.frame_drift import FrameDrift, frame_drift
from cpikan.psi.calibration.movement.slope_shifts import slope_shifts
from cpikan.psi.calibration.picture import Picture
from cpikan.psi.kernels.model import OrderSearch
from cpikan.psi.model.caution import Caution

_REACH_PX = 4  # of shifts that are looked for
_BLOCKS = 8  # of lines, whose shifts tell the standard error
_FEWEST = 50  # pairs of jumps
_LEAST_PX, _CERTAIN = 0.15, 5.0  # the smallest shift that is told, and its standard errors
_SIDES = ("down", "right")


@dataclass(frozen=True)
class ImageShift:
    """The image of wavelength ``number`` (from 0) lies ``pixels`` down and right of that of the first."""

    number: int
    pixels: tuple[float, float]

    @property
    def size(self) -> float:
        """Give the length of the shift in pixels."""
        return float(np.hypot(*self.pixels))

    def caution(self) -> Caution:
        """Say that the images do not lie on each other."""
        way = " and ".join(
            f"{abs(d):.2g} px {side if d > 0 else {'down': 'up', 'right': 'left'}[side]}"
            for d, side in zip(self.pixels, _SIDES, strict=True)
            if abs(d) >= _LEAST_PX
        )
        text = (
            f"the image of wavelength {self.number + 1} lies {way} from that of wavelength 1: their phases belong to different "
            "places, for which sigma allows on slopes; pixels beside steps and at the rim of the image are flagged as "
            "doubtful; register the frames, or find what moved"
        )
        return Caution("images-moved", text)


class EdgeReach(NamedTuple):
    """How far from steps, from the border of the image (rows, columns) and from what has no fringes pixels are in doubt."""

    step_px: int
    border_px: tuple[int, int]
    rim_px: int


@dataclass(frozen=True)
class Registration:
    """The images of ``waves`` wavelengths that lie elsewhere than the first, and frames that lie apart."""

    waves: int
    shifts: tuple[ImageShift, ...] = ()
    drift: FrameDrift | None = None

    def cautions(self) -> tuple[Caution, ...]:
        """Say what does not lie on each other."""
        return (*(one.caution() for one in self.shifts), *(() if self.drift is None else (self.drift.caution(),)))

    @property
    def reach(self) -> EdgeReach | None:
        """Give how far from edges the samples of a pixel may be those of different places; None where all lie on each other."""
        if not self.shifts and self.drift is None:
            return None
        farthest = max((one.size for one in self.shifts), default=0.0)
        border = [max((_border(one.pixels[axis]) for one in self.shifts), default=0) for axis in (0, 1)]
        drift = 0 if self.drift is None else self.drift.reach_px
        step = max(math.ceil(farthest), drift) + 1
        return EdgeReach(step, (max(border[0], drift), max(border[1], drift)), drift)

    @property
    def displacement_px(self) -> tuple[float, float]:
        """Give by how much the mean of the images lies down and right of the first: what the heights are those of."""
        down, right = (sum(one.pixels[axis] for one in self.shifts) / self.waves for axis in (0, 1))
        return down, right


def _border(pixels: float) -> int:
    return math.ceil(abs(pixels)) if abs(pixels) >= _LEAST_PX else 0


def registration(
    pictures: Sequence[Picture],
    search: OrderSearch,
    sigma_rad: Sequence[float],
    share: Callable[..., Iterable[Any]] = map,
) -> Registration:
    """Find what does not lie on each other in windows of the image; ``sigma_rad`` is the phase noise by wavelength.

    ``share`` maps over the pictures, on threads if it likes.
    """
    return Registration(len(sigma_rad), image_shifts(pictures, search, sigma_rad, share), frame_drift(pictures))


def image_shifts(
    pictures: Sequence[Picture],
    search: OrderSearch,
    sigma_rad: Sequence[float],
    share: Callable[..., Iterable[Any]] = map,
) -> tuple[ImageShift, ...]:
    """Find the wavelengths whose image lies elsewhere than that of the first, by windows of the image.

    Pairs of neighbours whose phases differ by far more than those of most are steps of the surface, which every wavelength
    must show at the same place: the mean distance of the jumps of one from those of the first, up to four pixels, is the
    shift. Where nothing jumps, slopes show it as what the wavelengths, whose phase noise is ``sigma_rad``, disagree by.
    """
    pixels = np.zeros((len(sigma_rad), 2))
    for picture in pictures:
        for number, other in enumerate(picture.jumps[1:], start=1):
            for axis, one, two in zip((0, 1), picture.jumps[0], other, strict=True):
                if _may_tell(one):
                    shift = _told(*mean_shift(one, two, axis))
                    pixels[number, axis] = max(pixels[number, axis], shift, key=abs)
    for number, (by_slopes, error) in enumerate(slope_shifts(pictures, search, sigma_rad, share), start=1):
        if not pixels[number].any() and np.hypot(*by_slopes) > max(_LEAST_PX, _CERTAIN * error):
            pixels[number] = by_slopes
    return tuple(ImageShift(number, (float(y), float(x))) for number, (y, x) in enumerate(pixels) if y or x)


def _may_tell(marks: np.ndarray) -> bool:
    """Tell whether so many marks could have enough pairs: each has one at every distance at most."""
    return int(marks.sum()) * (2 * _REACH_PX + 1) >= _FEWEST


def mean_shift(one: np.ndarray, other: np.ndarray, axis: int) -> tuple[float, float, int]:
    """Compute by how much marks of ``other`` lie behind those of ``one`` along ``axis``: pixels, standard error, pairs.

    Every pair of marks within four pixels counts, unless one of them is nearer to the rim: chance pairs, as those of two steps
    four pixels apart, then lie on both sides alike, and marks that are the same are never apart.
    """
    one, other = (np.moveaxis(marks, axis, 1).astype(np.float64) for marks in (one, other))
    middle = one[:, _REACH_PX:-_REACH_PX]
    if not middle.size:
        return 0.0, np.inf, 0
    other[:, :_REACH_PX] = other[:, -_REACH_PX:] = 0.0
    reach = np.arange(-_REACH_PX, _REACH_PX + 1)
    pairs = np.stack([(middle * other[:, _REACH_PX + s : _REACH_PX + s + middle.shape[1]]).sum(axis=1) for s in reach])
    count, moment = pairs.sum(axis=0), reach @ pairs
    total = count.sum()
    if total == 0:
        return 0.0, np.inf, 0
    shift = moment.sum() / total
    left = np.array([block.sum() for block in np.array_split(moment - shift * count, _BLOCKS)])
    error = np.sqrt((left**2).sum() * _BLOCKS / (_BLOCKS - 1)) / total
    return float(shift), float(error), int(total)


def _told(shift: float, error: float, pairs: int) -> float:
    """Keep a shift that is certain and large enough to matter; else 0."""
    return shift if pairs >= _FEWEST and abs(shift) > max(_LEAST_PX, _CERTAIN * error) else 0.0

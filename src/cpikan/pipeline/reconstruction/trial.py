"""A trial of a network on some places of the map before the pass: does it help here, and is its sigma right?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cpikan.images.stein import STEP, NoiseLeft, Place, noise_left
from cpikan.images.tiles import LearnedTiles
from cpikan.pipeline.reconstruction.shown_map import ShownMap

_SIDE_PX = 384
_INSIDE_PX = 128  # at least, of a network that sees far
_PER_AXIS = 3
_SEED = 1981


def tried(tiles: LearnedTiles, shown: ShownMap, *, systematic: float, phase_noise_rad: float) -> NoiseLeft | None:
    """Run the network twice on at most nine places, with and without a probe, and estimate the noise that it leaves.

    ``tiles`` state the sigma of the noise alone. Places and probes depend on the image and on what the network sees, not on
    the tiles of the run. None where too little of them is measured.
    """
    places: list[Place] = []
    across = _windows(shown.shape[1], tiles)
    for rows in _windows(shown.shape[0], tiles):
        planes = np.empty((shown.planes[0], rows.stop - rows.start, shown.shape[1]), np.float32)
        shown.fill(rows.start, rows.stop, planes)
        places += _places(tiles, planes, rows, across)
    return noise_left(places, systematic=systematic, phase_noise_rad=phase_noise_rad)


class _Window(NamedTuple):
    """Pixels [start, stop) of an axis, the ``side`` that a network takes, and [first, last) of them that it sees whole."""

    start: int
    stop: int
    side: int
    first: int
    last: int

    @property
    def inner(self) -> slice:
        return slice(self.first - self.start, self.last - self.start)


def _windows(length: int, tiles: LearnedTiles) -> list[_Window]:
    """Spread windows over an axis that do not overlap, at steps of the network."""
    step, field = tiles.multiple_px, tiles.receptive_field_px
    wide = -(-length // step) * step
    reach = _SIDE_PX // 4 if isinstance(field, str) else field // 2
    side = min(-(-max(_SIDE_PX, 2 * reach + _INSIDE_PX) // step) * step, wide)
    count = max(1, min(_PER_AXIS, length // side))
    starts = [((2 * i + 1) * length // count - side) // 2 for i in range(count)]
    found = []
    for start in (min(max(at, 0) // step * step, wide - side) for at in starts):
        stop = min(start + side, length)
        first, last = start + reach * (start > 0), stop - reach * (stop < length)
        found.append(_Window(start, stop, side, first, last))
    return found


def _places(tiles: LearnedTiles, planes: np.ndarray, rows: _Window, across: list[_Window]) -> list[Place]:
    """Run the network on the windows of some rows, ``planes`` (C, rows, W), all at once."""
    shown = [planes[:, :, window.start : window.stop] for window in across]
    probes = [_probe(part.shape[1:], rows.start, window.start) for part, window in zip(shown, across, strict=True)]
    stack = []
    for part, probe, window in zip(shown, probes, across, strict=True):
        moved = part.copy()
        moved[0] += np.float32(STEP) * part[1] * probe  # sigma is 0 where nothing is measured
        # beyond the image its last rows and columns come again, as in the tiles of a run
        ends = ((0, 0), (0, rows.side - part.shape[1]), (0, window.side - part.shape[2]))
        stack += [np.pad(one, ends, mode="edge") for one in (part, moved)]
    answers = tiles(np.stack(stack))
    found = []
    for i, (part, probe, window) in enumerate(zip(shown, probes, across, strict=True)):
        inner = (rows.inner, window.inner)
        once, twice = (answer[:, : part.shape[1], : part.shape[2]] for answer in answers[2 * i : 2 * i + 2])
        found.append(
            _place(part[(slice(None), *inner)], probe[inner], once[(slice(None), *inner)], twice[(slice(None), *inner)])
        )
    return found


def _probe(shape: tuple[int, ...], row: int, column: int) -> np.ndarray:
    """Draw signs for a place, the same ones whenever it is tried."""
    rng = np.random.default_rng((_SEED, row, column))
    return np.where(rng.integers(0, 2, shape) > 0, np.float32(1), np.float32(-1))


def _place(shown: np.ndarray, probe: np.ndarray, once: np.ndarray, moved: np.ndarray) -> Place:
    """Put two answers (correction, sigma, flags) in units of the pixels' sigma.

    A pixel is used where both make a correction without a flag: where none is made, or the order is doubted, the map keeps
    what it was.
    """
    used = (shown[2] > 0.5) & (shown[1] > 0)
    for correction, _, flags in (once, moved):
        used &= (correction != 0) & (flags == 0)
    sigma = np.where(used, shown[1], 1.0).astype(np.float64)
    correction = once[0] / sigma
    return Place(correction, moved[0] / sigma - correction, probe, once[1] / sigma, used)

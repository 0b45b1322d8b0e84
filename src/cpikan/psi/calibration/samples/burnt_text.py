"""Text that was burnt into frames and changes from one to the next, a counter or a clock: three frames do not betray it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SIDE = 8  # pixels of a block
_EVERY = 4  # rows: a closer look is taken
_EDGES = 2  # where so many of these edges are
_SHARP = 2.0  # times the usual difference of neighbours: more than even fringes have
_CLOSE = 0.05  # of the range of the samples, and two steps of the camera at least
_JUMPS = 0.5  # of the edges of text; noise that is clipped at black has lesser ones
_REACH = 4  # blocks around text in which more of it may be
_MOVED = 0.3  # of the text's samples that are twice as far off in another frame; a rim and still text stay as they are


@dataclass(frozen=True)
class Least:
    """What text shows at least: ``samples`` of a block with its value, and neighbours of which one has it; how many times those
    that are close to the value they are; and the share of ``others``, hardly any where flat light gathers in the same way."""

    samples: int
    gather: float
    others: float


_SURE, _HINT = Least(10, 4.0, 0.3), Least(3, 1.0, 0.1)


@dataclass(frozen=True)
class Usual:
    """Of frames as a whole: a difference of neighbours that is ``sharp_dn``, and one of values that are ``close_dn``."""

    sharp_dn: float
    close_dn: float

    @classmethod
    def of(cls, rows: np.ndarray) -> Usual:
        """Measure some rows (..., W) from all over the frames."""
        values = np.asarray(rows, np.float64)
        usual, span = np.nanmedian(np.abs(np.diff(values))), np.nanmax(values) - np.nanmin(values)
        return cls(_SHARP * float(usual), max(_CLOSE * float(span), 2.0))


def burnt_blocks(frames: np.ndarray, usual: Usual) -> np.ndarray:
    """Find blocks (H // SIDE, W // SIDE) of frames (K, H, W) in which something is written that changes from frame to frame.

    What a program writes has one exact value and is thin: many samples of a block have the same value in one frame, few have
    values close to it, and in another frame the same pixels have others. Fringes have none of that: where many samples are
    the same, others are nearly so.
    """
    count, (high, wide) = len(frames), (side // SIDE for side in frames.shape[1:])
    whole = frames[:, : high * SIDE, : wide * SIDE]
    cut = whole.reshape(count, high, SIDE, wide, SIDE).transpose(1, 3, 0, 2, 4)
    found = np.zeros((high, wide), bool)
    for k, one in enumerate(whole):
        where = np.nonzero(_is_likely(one, usual.sharp_dn))
        if where[0].size:
            found[where] |= _is_written(cut[where].astype(np.float64), k, usual, _SURE)
    if not found.any():
        return found
    # parts of letters next to what is found are thin, or few
    near = ndimage.binary_dilation(found, np.ones((3, 3), bool), iterations=_REACH)
    where, hint = np.nonzero(near), found.copy()
    for k in range(count):
        hint[where] |= _is_written(cut[where].astype(np.float64), k, usual, _HINT)
    return np.asarray(ndimage.binary_propagation(found, np.ones((3, 3), bool), hint))


def _is_likely(frame: np.ndarray, sharp_dn: float) -> np.ndarray:
    """Tell in which blocks of a frame (H, W) a quarter of the rows shows sharp edges with two like samples behind them."""
    rows = frame[::_EVERY]
    rows = rows if rows.dtype.kind == "f" else rows.astype(np.int32)
    step = np.diff(rows, axis=-1)
    edge = np.zeros(rows.shape, bool)
    edge[:, 1:-1] = (np.abs(step[:, :-1]) > sharp_dn) & (step[:, 1:] == 0)
    high, wide = frame.shape[0] // SIDE, frame.shape[1] // SIDE
    return np.asarray(edge.reshape(high, SIDE // _EVERY, wide, SIDE).sum(axis=(1, 3)) >= _EDGES)


def _is_written(blocks: np.ndarray, k: int, usual: Usual, least: Least) -> np.ndarray:
    """Tell in which blocks (N, K, SIDE, SIDE) frame ``k`` holds what no fringe does."""
    frame = blocks[:, k]
    value, many = _most_frequent(frame.reshape(len(frame), -1))
    off = np.abs(blocks - value[:, None, None, None])
    text, close = off[:, k] == 0, off[:, k] <= usual.close_dn
    near = close.sum(axis=(1, 2)) - many
    edge = text[..., 1:] != text[..., :-1]
    edges = edge.sum(axis=(1, 2))
    sharp = (edge & (np.abs(np.diff(frame, axis=-1)) > usual.sharp_dn)).sum(axis=(1, 2))
    moved = (np.delete(off, k, axis=1) > 2 * usual.close_dn).any(axis=1) & text
    return (
        (np.minimum(many, edges) >= least.samples)
        & (sharp > _JUMPS * edges)
        & (many > least.gather * near)
        & (close.mean(axis=(1, 2)) < 1 - least.others)
        & (moved.sum(axis=(1, 2)) > _MOVED * many)
    )


def _most_frequent(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the value that occurs most often in each row of values (N, M), and how often."""
    ordered = np.sort(values, axis=1)
    run = np.ones(len(ordered), int)
    best, most = ordered[:, 0].copy(), run.copy()
    for column in range(1, ordered.shape[1]):
        run = np.where(ordered[:, column] == ordered[:, column - 1], run + 1, 1)
        better = run > most
        best[better], most[better] = ordered[better, column], run[better]
    return best, most

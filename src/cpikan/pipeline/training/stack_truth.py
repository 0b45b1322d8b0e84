"""A truth laid on the height map of its stack: sign and piston, which fringes leave open, found from a sample of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.images.patches.source import TruthFile
from cpikan.pipeline.maps.evaluate import open_truth
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.psi.model.flags import Flag
from cpikan.storage.writers.layout import npy_path

_SAMPLED_PIXELS = 2**20
_FEWEST = 16  # sampled pixels of a component that its piston is read from
_NOT_SURE = int(Flag.INVALID | Flag.AMBIGUOUS | Flag.INPAINTED)


def align_truth(path: Path, guide: HeightMap) -> TruthFile:
    """Find how the heights of a .npy stand to ``guide``: the median difference of about a million pixels, per component.

    Where the sign of the guide was assumed, the truth takes the sign that fits it better. Components of fewer than 16
    sampled pixels get NaN: nothing is known there. Raises InputError for a truth of another shape or kind, and for
    one without heights where the guide has some.
    """
    truth = open_truth(path, guide.shape)
    assert guide.flags is not None
    step = max(1, round((guide.shape[0] * guide.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    # whole rows are read, a few at a time: the maps are files
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    highest = 0
    for row in range(step // 2, guide.shape[0], step):
        one = slice(row, row + 1)
        height, true = (np.asarray(values[one], np.float64)[0, ::step] for values in (guide.height_nm, truth))
        sure = (np.asarray(guide.flags[one])[0, ::step] & _NOT_SURE) == 0
        label = np.zeros(height.shape, np.int64)
        if guide.component is not None:
            whole = np.asarray(guide.component[one])[0]
            highest, label = max(highest, int(whole.max())), whole[::step].astype(np.int64)
        keep = sure & np.isfinite(height) & np.isfinite(true)
        parts.append((height[keep], true[keep], label[keep]))
    height, true, label = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(height) < _FEWEST:
        raise InputError(
            f"truth {path} has heights at fewer than {_FEWEST} measured pixels, else no numbers; give the truth of "
            "this stack, in nm"
        )
    signs = (1, -1) if guide.summary.get("sign") == "assumed" else (1,)
    laid = [(sign, *_offsets(height - sign * true, label, highest + 1)) for sign in signs]
    sign, offset, _ = min(laid, key=lambda found: found[2])
    component = None if guide.component is None else npy_path(guide.path, "component")
    return TruthFile(path, sign, offset, component)


def _offsets(difference: np.ndarray, label: np.ndarray, labels: int) -> tuple[np.ndarray, float]:
    """Compute the median difference of each label, NaN for few pixels, and the mean absolute departure from it."""
    offset = np.full(labels, np.nan)
    order = np.argsort(label, kind="stable")
    present, firsts = np.unique(label[order], return_index=True)
    spread, count = 0.0, 0
    for one, values in zip(present, np.split(difference[order], firsts[1:]), strict=True):
        if len(values) >= _FEWEST:
            offset[one] = np.median(values)
            spread += float(np.abs(values - offset[one]).sum())
            count += len(values)
    return offset, spread / max(count, 1)

"""Components anywhere in a frame joined by the smooth background of all of it: all whole turns between them found jointly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from cpikan.psi.refine.background import DEGREE, Levels, fit_levels
from cpikan.psi.refine.background_cells import LEAST_SIGMA, Parts, cut_cells
from cpikan.psi.refine.joining import AGREE, EXACT, FAR, FEWEST, MARGIN, SIGMA_MAX, Joined, named
from cpikan.psi.refine.unwrapped import UnwrappedBlocks

_CELLS = 48  # along the longer side of the frame
_PARTS = 2000  # the largest: their covariances are 32 MB
_WHOLE_PX = 0.4  # off the centre of a block: others lack pixels on one side
_SYSTEMATIC = 5e-3  # turns: what a side may lie off for reasons that no noise tells


def join_over_frame(blocks: UnwrappedBlocks, joined: Joined) -> Joined:
    """Join what is left in parts by the background of the whole frame, however far apart the parts lie.

    Polynomials of a total degree up to 20 and the levels of all parts are fitted together; how smooth the background is,
    the parts say. Then the part whose level is best known against the largest is fixed, if it is known to 0.06 turns and is a
    whole number, and what it says about the others is used before the next is looked at (integer bootstrapping, Teunissen
    1998); what cannot be joined to the largest may still be joined among itself.
    """
    parts, names = _parts(blocks, joined)
    if len(names) < 2:
        return joined
    side = max(1, -(-max(blocks.label.shape) // _CELLS))
    levels = fit_levels(cut_cells(parts, side, DEGREE, LEAST_SIGMA))
    if levels is None or levels.unresolved > SIGMA_MAX:
        return joined
    number = np.full(joined.components + 1, -1)
    number[names] = np.arange(len(names))
    stepped = np.zeros((len(names), len(names)), bool)
    for pair in joined.parted:
        one, other = number[joined.label[list(pair)]]
        if one >= 0 and other >= 0:
            stepped[one, other] = stepped[other, one] = True
    decided = decide(levels, stepped)
    return _merged(blocks, joined, names, decided)


def _parts(blocks: UnwrappedBlocks, joined: Joined) -> tuple[Parts, list[int]]:
    """Number the groups with at least 24 whole blocks by falling size, at most 2000; their turns, and the groups' names."""
    whole = np.hypot(*blocks.offset_px) <= _WHOLE_PX
    group = np.where(whole, joined.label[blocks.label], 0)
    count = np.bincount(group.ravel(), minlength=joined.components + 1)
    names = [name for name in range(1, joined.components + 1) if count[name] >= FEWEST][:_PARTS]
    number = np.zeros(joined.components + 1, np.int32)
    number[names] = np.arange(1, len(names) + 1)
    value = blocks.turns + joined.level[blocks.label]
    return Parts(value, np.hypot(blocks.sigma_turns, LEAST_SIGMA), number[group]), names


@dataclass(frozen=True)
class Decided:
    """For every part the one that it was joined to (itself: to none), the whole turns to add, and how many were refused
    because their level is known and is no whole number of turns."""

    anchor: np.ndarray
    whole: np.ndarray
    refused: int


def decide(levels: Levels, stepped: np.ndarray) -> Decided:
    """Decide the whole turns between parts, the surest first; pairs that are ``stepped`` (K + 1, K + 1) are not joined."""
    state = _State.of(levels)
    count = state.mean.shape[1]
    anchor, whole, refused = np.arange(count), np.zeros(count, np.int64), set()
    loose = set(range(1, count))
    for root in range(count):
        if anchor[root] != root:
            continue
        loose.discard(root)
        left = {one for one in loose if not stepped[root, one]}
        while left:
            part, sigma = state.surest(root, sorted(left))
            if sigma > SIGMA_MAX:
                break
            left.discard(part)
            level = state.level(root, part, sigma)
            if level is None:
                refused.add(part)
                continue
            state = state.fixed(root, part, level)
            anchor[part], whole[part] = root, -level
            loose.discard(part)
            left -= {one for one in left if stepped[part, one]}
    return Decided(anchor, whole, sum(int(anchor[part] == part) for part in refused))


@dataclass(frozen=True)
class _State:
    """Levels of all parts, the first included, under every prior, after what was decided; ``more`` is the variance of what
    neither noise nor the prior accounts for."""

    mean: np.ndarray
    covariance: np.ndarray
    log_share: np.ndarray
    more: float

    @classmethod
    def of(cls, levels: Levels) -> _State:
        mean = np.pad(levels.mean, ((0, 0), (1, 0)))
        covariance = np.pad(levels.covariance, ((0, 0), (1, 0), (1, 0)))
        return cls(mean, covariance, levels.log_share, levels.unresolved**2 + _SYSTEMATIC**2)

    def _between(self, root: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute levels of all parts above the root, and their variances, under every prior."""
        diagonal = np.diagonal(self.covariance, axis1=1, axis2=2)
        variance = diagonal + diagonal[:, [root]] - 2 * self.covariance[:, root]
        return self.mean - self.mean[:, [root]], np.maximum(variance, 0.0) + self.more

    def surest(self, root: int, parts: list[int]) -> tuple[int, float]:
        """Find the part whose level above the root is best known, and its sigma."""
        mean, variance = (found[:, parts] for found in self._between(root))
        share = np.exp(self.log_share)
        middle = share @ mean
        total = share @ (variance + (mean - middle) ** 2)
        best = int(np.argmin(total))
        return parts[best], float(np.sqrt(total[best]))

    def level(self, root: int, part: int, sigma: float) -> int | None:
        """Decide the whole number that the level of a part above the root is; None where it is none."""
        mean, variance = (found[:, part] for found in self._between(root))
        middle = float(np.exp(self.log_share) @ mean)
        nearest = np.rint(middle)
        if abs(middle - nearest) > min(max(AGREE * sigma, EXACT), FAR):
            return None
        logs = [
            float(logsumexp(self.log_share - 0.5 * ((k - mean) ** 2 / variance + np.log(variance))))
            for k in (nearest - 1, nearest, nearest + 1)
        ]
        return int(nearest) if 2 * (logs[1] - max(logs[0], logs[2])) >= MARGIN else None

    def fixed(self, root: int, part: int, level: int) -> _State:
        """Condition on the level of a part above the root."""
        mean, variance = (found[:, part] for found in self._between(root))
        across = self.covariance[:, :, part] - self.covariance[:, :, root]
        gain = across / variance[:, None]
        miss = level - mean
        log = self.log_share - 0.5 * (miss**2 / variance + np.log(variance))
        return replace(
            self,
            mean=self.mean + gain * miss[:, None],
            covariance=self.covariance - gain[:, :, None] * across[:, None, :],
            log_share=log - logsumexp(log),
        )


def _merged(blocks: UnwrappedBlocks, joined: Joined, names: list[int], decided: Decided) -> Joined:
    """Put together what neighbours and what the whole frame joined."""
    anchor, whole = np.arange(joined.components + 1), np.zeros(joined.components + 1, np.int64)
    anchor[names], whole[names] = np.asarray(names)[decided.anchor], decided.whole
    group = anchor[joined.label]
    first = np.full(joined.components + 1, len(group))
    np.minimum.at(first, group, np.arange(len(group)))
    return replace(
        named(
            blocks, first[group], joined.level + whole[joined.label], (joined.pairs, joined.refused + decided.refused)
        ),
        over_frame=int((decided.anchor != np.arange(len(names))).sum()),
        parted=joined.parted,
    )

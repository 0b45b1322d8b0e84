"""Kinds of samplers by the names that the command line knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cpikan.errors import InputError, unknown_name
from cpikan.learning.samplers.adaptive_residual import AdaptiveResidualSampler
from cpikan.learning.samplers.causal_slab import CausalSlabSampler
from cpikan.learning.samplers.fresh import FreshPoints
from cpikan.learning.samplers.multi_resolution import MultiResolution
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.sampler import Sampler
from cpikan.learning.samplers.volume_weighted import VolumeWeightedSampler

EVERY = 100  # steps
_OTHERS = {"fresh": 1}
_CANDIDATES = 10  # per point, at least


def _pool(base: Points) -> int:
    return max(20_000, _CANDIDATES * base.interior)


def _adaptive(rule: str, unbiased: bool = False) -> Callable[[Points, int], Sampler]:
    return lambda base, every: AdaptiveResidualSampler(base, rule, every, _pool(base), unbiased)


def _rising(base: Points, every: int) -> Sampler:
    counts = (max(1, base.interior // 20), max(1, base.interior // 4), base.interior)
    return MultiResolution(base, counts, (every, 2 * every))


SAMPLERS: dict[str, Callable[[Points, int], Sampler]] = {
    "causal-slabs": lambda base, every: CausalSlabSampler(base, every, pool=_pool(base)),
    "fresh": lambda base, every: FreshPoints(replace(base, rule="random"), every),
    "multi-resolution": _rising,
    "quantile": _adaptive("quantile"),
    "r3": _adaptive("r3"),
    "rad": _adaptive("rad"),
    "rad-unbiased": _adaptive("rad", unbiased=True),
    "rar-d": _adaptive("rar-d"),
    "rar-g": _adaptive("rar-g"),
    "volume": lambda base, every: VolumeWeightedSampler(base),
}


def make_sampler(name: str, base: Points, every: int | None = None) -> Sampler:
    """Make a sampler by its name, that begins with ``base`` and acts every ``every`` steps (None: 100, of fresh 1).

    Raises InputError for an unknown name, and for ``every`` where the points stay.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    found = SAMPLERS[name](base, _OTHERS.get(name, EVERY) if every is None else every)
    if every is not None and found.every == 0:
        raise InputError(f"sampler {name} every {every} steps: its points stay, leave the number of steps out")
    return found

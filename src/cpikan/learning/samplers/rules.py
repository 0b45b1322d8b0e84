"""Rules of refinement: which points stay and which candidates come, by the residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.learning.samplers.draw import Array, Numbers, draw, inclusion
from cpikan.learning.samplers.residual_pool import ResidualPool
from cpikan.learning.samplers.sampler import check_whole


class Choice(NamedTuple):
    """Numbers of the present points that stay and of the candidates that come, with the probabilities of these."""

    kept: Numbers
    drawn: Numbers
    probabilities: Array | None = None


class Rule(Protocol):
    """Chooses ``count`` points; ``known`` where every point comes from the pool with a known probability."""

    @property
    def known(self) -> bool: ...

    @property
    def adds(self) -> bool:
        """Tell whether the number of points rises by itself."""
        ...

    def choose(self, pool: ResidualPool, count: int, random: np.random.Generator) -> Choice: ...


@dataclass(frozen=True)
class Rad:
    """Draw all points with the density |r|^k / mean |r|^k + c (RAD; Wu et al. 2023), k ``power`` and c ``floor``."""

    power: float = 1.0
    floor: float = 1.0
    known = True
    adds = False

    def __post_init__(self) -> None:
        check_density(self.power, self.floor)

    def choose(self, pool: ResidualPool, count: int, random: np.random.Generator) -> Choice:
        """Draw all points from the pool."""
        probabilities = inclusion(residual_density(pool.residuals, self.power, self.floor), count)
        drawn = draw(probabilities, random)
        return Choice(_NONE, drawn, probabilities[drawn])


@dataclass(frozen=True)
class RarG:
    """Add the candidates of the largest residuals (RAR-G; Lu et al. 2021): ``added`` at a time, until there are ``most``.

    0 stands for a tenth of the points at the start, and for twice as many.
    """

    added: int = 0
    most: int = 0
    known = False
    adds = True

    def __post_init__(self) -> None:
        check_whole(type(self).__name__, added=self.added, most=self.most)
        if self.added < 0 or self.most < 0:
            raise InputError(f"{self.added} points added until there are {self.most}: give 0 (the default) or more")

    def choose(self, pool: ResidualPool, count: int, random: np.random.Generator) -> Choice:
        """Keep all points, and add the worst candidates."""
        number = self.number(pool, count)
        worst = np.argsort(-pool.residuals, kind="stable")[:number]
        return Choice(np.arange(len(pool.present)), worst)

    def number(self, pool: ResidualPool, count: int) -> int:
        """Count how many points are to be added."""
        room = (self.most or 2 * count) - len(pool.present)
        return max(0, min(self.added or max(1, count // 10), room, len(pool.candidates)))


@dataclass(frozen=True)
class RarD(RarG):
    """Add candidates drawn with the density of `Rad` (RAR-D; Wu et al. 2023)."""

    power: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_density(self.power, self.floor)

    def choose(self, pool: ResidualPool, count: int, random: np.random.Generator) -> Choice:
        """Keep all points, and draw some from the pool."""
        number = self.number(pool, count)
        if number == 0:
            return Choice(np.arange(len(pool.present)), _NONE)
        density = residual_density(pool.residuals, self.power, self.floor)
        return Choice(np.arange(len(pool.present)), draw(inclusion(density, number), random))


@dataclass(frozen=True)
class R3:
    """Retain the points whose residual is above the mean of all, release and resample the rest evenly (Daw et al. 2023)."""

    known = False
    adds = False

    def choose(self, pool: ResidualPool, count: int, random: np.random.Generator) -> Choice:
        """Keep points of large residuals, at most ``count``, and fill up with even ones."""
        sizes = pool.present_residuals
        kept = np.flatnonzero(sizes > sizes.mean())
        if len(kept) > count:
            kept = np.sort(kept[np.argsort(-sizes[kept], kind="stable")[:count]])
        return Choice(kept, np.arange(count - len(kept)))  # the pool is even, and in random order


@dataclass(frozen=True)
class Quantile:
    """Take the worst candidates as a ``share`` of the points, and the others evenly from the rest of the pool."""

    share: float = 0.5
    known = True
    adds = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"a share of {self.share} of the points for the worst: give a number between 0 and 1")

    def choose(self, pool: ResidualPool, count: int, random: np.random.Generator) -> Choice:
        """Take all points from the pool."""
        worst = round(self.share * count)
        order = np.argsort(-pool.residuals, kind="stable")
        rest = random.permutation(order[worst:])[: count - worst]
        evenly = np.full(len(rest), (count - worst) / max(1, len(order) - worst))
        drawn, probabilities = np.concatenate([order[:worst], rest]), np.concatenate([np.ones(worst), evenly])
        mixed = random.permutation(count)  # balancing looks at the first points
        return Choice(_NONE, drawn[mixed], probabilities[mixed])


_NONE: Numbers = np.arange(0)
RULES: dict[str, Callable[[], Rule]] = {"rad": Rad, "rar-g": RarG, "rar-d": RarD, "r3": R3, "quantile": Quantile}


def rule_named(name: Any) -> Rule:
    """Make a rule with its defaults; raises InputError for an unknown name."""
    if name not in RULES:
        raise unknown_name("rule of refinement", str(name), RULES)
    return RULES[name]()


def residual_density(sizes: Array, power: float, floor: float) -> Array:
    """Compute |r|^k / mean |r|^k + c of residuals (n,), not normalised; even where all of them vanish."""
    largest = sizes.max()
    if not largest > 0:
        return np.ones(len(sizes))
    powers = (sizes / largest) ** power
    return np.asarray(powers / powers.mean() + floor)


def check_density(power: float, floor: float) -> None:
    """Raise InputError for a power or a floor below 0."""
    if not power >= 0 or not floor >= 0:
        raise InputError(f"density |r|^{power} / mean + {floor}: give a power and a floor of 0 or more")

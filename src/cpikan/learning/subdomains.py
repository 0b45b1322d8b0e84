"""Subdomains: how the region of a problem is cut, and how the fields of the parts are coupled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cpikan.errors import WHOLE, InputError, check_type, unknown_name
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.levelled import LevelledField
from cpikan.learning.local import Local, check_local, local_networks, numbered
from cpikan.learning.samplers.local_points import LocalPoints
from cpikan.learning.samplers.points import Points
from cpikan.learning.schwarz import VARIANTS
from cpikan.partition import Partition
from cpikan.physics.interfaces import INTERFACES, Flux, with_interfaces
from cpikan.physics.problem import Problem
from cpikan.physics.regions import inner_parts

if TYPE_CHECKING:
    from cpikan.learning.recipes import Recipe

COUPLINGS = ("fbpinn", *INTERFACES)
_OVERLAP = 0.5  # of a core, where none is given
_LEAST_OVERLAP = 0.05  # second derivatives of a window grow with its inverse square
_MOST = 100_000  # subdomains
_MOST_MODES = 60


@dataclass(frozen=True)
class Subdomains:
    """A grid of subdomains and the way in which their fields make one.

    ``counts`` are those of every axis, one number for all of them; ``knots`` instead are the places where every axis is cut,
    ends included. ``coupling`` is "fbpinn", a sum under overlapping windows, whose ramps are ``overlap`` times a subdomain's
    length (Moseley, Markham and Nissen-Meyer 2023), "xpinn", equal values and residuals where subdomains meet, or "cpinn",
    equal values and fluxes, ``flux(jet, x) -> (B, d)`` or else slopes (see ``with_interfaces``). ``levels`` of fbpinn add
    coarser grids, each of half as many subdomains per axis as the next, rounded up (Dolean et al. 2024). ``weight``
    multiplies what balances the interface conditions. ``modes`` are the polynomials per axis where series are solved for;
    without it there are more until they converge. With ``refine`` they stay, and subdomains are halved where series do not
    converge, as at layers and corners. ``schwarz``, one of `VARIANTS` of the Schwarz method with a coarse level, steers a
    Krylov method in place of the elimination of all interfaces. ``local`` is what single subdomains of the finest grid have of
    their own, by their place in it: networks, points, weights of the equation; all are then trained. Raises InputError for
    numbers, overlaps and names that cannot be.
    """

    counts: int | Sequence[int] = ()
    coupling: str = "fbpinn"
    levels: int = 1
    overlap: float | None = None
    knots: Sequence[Sequence[float]] | None = None
    flux: Flux | None = None
    weight: float = 1.0
    modes: int | None = None
    refine: bool = False
    schwarz: str | None = None
    local: Mapping[tuple[int, ...], Local] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = (self.counts,) if isinstance(self.counts, int) else tuple(self.counts)
        for count in counts:
            check_type("subdomains", count, WHOLE, "whole numbers from 1, one per axis, as 4x4")
        object.__setattr__(self, "counts", counts)
        if (self.knots is None) == (not counts):
            raise InputError("subdomains: give their number per axis, as (4, 4), or knots=, where every axis is cut")
        if counts and not (min(counts) >= 1 and math.prod(counts) <= _MOST):
            raise InputError(
                f"subdomains {'x'.join(map(str, counts))}: give at least 1 per axis and at most {_MOST} in all"
            )
        if self.coupling not in COUPLINGS:
            raise unknown_name("coupling", str(self.coupling), COUPLINGS)
        check_local(self.local)
        check_type("levels", self.levels, WHOLE, "a whole number from 1")
        self._check_windows()
        if self.refine and not self.sharp:
            raise InputError(
                "refine halves single intervals, whose windows would be as short as the shortest: give xpinn or cpinn"
            )
        if self.schwarz is not None:
            if self.schwarz not in VARIANTS:
                raise unknown_name("Schwarz method", str(self.schwarz), VARIANTS)
            if not self.sharp:
                raise InputError(
                    f"{self.schwarz} Schwarz for fbpinn, whose windows say some things twice: give coupling xpinn or cpinn"
                )
        if self.flux is not None and self.coupling != "cpinn":
            raise InputError(f"a flux for {self.coupling}, which couples no fluxes: give coupling='cpinn'")
        if self.modes is not None and not 2 <= self.modes <= _MOST_MODES:
            raise InputError(f"{self.modes} modes per axis of a subdomain: give 2 to {_MOST_MODES}")
        if not self.weight > 0:
            raise InputError(f"interface weight {self.weight}: give more than 0")

    def _check_windows(self) -> None:
        """Raise InputError for levels and overlaps that the coupling does not have, or that are out of range."""
        if self.levels < 1:
            raise InputError(f"{self.levels} levels of subdomains: give at least 1")
        if self.coupling != "fbpinn":
            if self.levels > 1 or self.overlap:
                what = f"{self.levels} levels" if self.levels > 1 else f"an overlap of {self.overlap}"
                raise InputError(f"{what} for {self.coupling}, whose subdomains meet and do not overlap: give fbpinn")
        elif self.overlap is not None and not _LEAST_OVERLAP <= self.overlap <= 1:
            raise InputError(
                f"an overlap of {self.overlap} for fbpinn, whose windows need room for two derivatives: give "
                f"{_LEAST_OVERLAP} to 1 of a subdomain"
            )

    @staticmethod
    def read(
        text: str,
        coupling: str | None = None,
        levels: int | None = None,
        refine: bool = False,
        schwarz: str | None = None,
    ) -> Subdomains:
        """Read "4x4"; raises InputError for other text.

        Those that are refined, or solved for by a Schwarz method, meet (cpinn), where nothing else is said.
        """
        try:
            counts = tuple(int(part) for part in text.lower().split("x"))
        except ValueError:
            raise InputError(f"subdomains {text!r}: give a number per axis with x between them, as 4x4") from None
        default = "cpinn" if refine or schwarz else "fbpinn"
        return Subdomains(counts, coupling or default, 1 if levels is None else levels, refine=refine, schwarz=schwarz)

    @property
    def sharp(self) -> bool:
        """Tell whether subdomains meet without an overlap."""
        return self.coupling != "fbpinn"

    def partitions(self, problem: Problem) -> tuple[Partition[float], ...]:
        """Cut the box around a region, the coarsest level first; raises InputError for another number of axes, or gaps."""
        knots = self._knots(problem)
        overlap = 0.0 if self.sharp else _OVERLAP if self.overlap is None else self.overlap
        found = [Partition.between(knots, overlap)]
        for _ in range(self.levels - 1):
            if max(len(places) for places in knots) == 2:
                raise InputError(
                    f"{self.levels} levels of {'x'.join(map(str, found[-1].counts))} subdomains, of which the coarsest is one "
                    f"alone after {len(found)}: give fewer levels"
                )
            knots = [[*places[:-1:2], places[-1]] for places in knots]
            found.insert(0, Partition.between(knots, overlap))
        return tuple(found)

    def partition(self, problem: Problem) -> Partition[float]:
        """Cut the box around a region into the finest subdomains."""
        return self.partitions(problem)[-1]

    def coupled(self, problem: Problem) -> Problem:
        """Add the conditions at the interfaces, where subdomains meet."""
        if not self.sharp:
            return problem
        return with_interfaces(problem, self.partition(problem), self.coupling, flux=self.flux, weight=self.weight)

    def network(self, problem: Problem, recipe: Recipe, seed: int) -> DecomposedField | LevelledField:
        """Make a fresh network of the recipe's size for every subdomain, each with its own affine scaling.

        Raises InputError for a form of the equation that windows do not have the derivatives for.
        """
        if not self.sharp and problem.form is not None and any(problem.form.slopes):
            raise InputError(
                "slopes of residuals take third derivatives, of which windows have none: give coupling xpinn or cpinn"
            )
        *coarse, finest = self.partitions(problem)
        levels = []
        for number, partition in enumerate((*coarse, finest)):
            local = self._local(problem) if partition is finest else {}
            shape = (recipe.hidden, recipe.degree, problem.outputs)
            levels += local_networks(partition, local, *shape, seed + 104729 * number)
        return levels[0] if len(levels) == 1 else LevelledField(*levels)

    def placing(self, problem: Problem, points: Points) -> Points:
        """Place points as the subdomains ask for their own: the points themselves where none does."""
        if all(own.points == 1 and own.weight == 1 for own in self.local.values()):
            return points
        rule = (points.interior, points.boundary, points.rule, points.seed, points.held_out)
        return LocalPoints(*rule, partition=self.partition(problem), local=self._local(problem))

    def _local(self, problem: Problem) -> dict[int, Local]:
        return numbered(self.local, self.partition(problem).counts)

    def _knots(self, problem: Problem) -> list[list[float]]:
        """Place the cuts on every axis: the given ones, or even ones with those of breaks among them."""
        low, high, d = problem.region.lower, problem.region.upper, problem.dimension
        breaks = inner_parts(problem.region)
        if breaks and not self.sharp:
            raise InputError(
                f"windows are smooth and {problem.name} has breaks, {', '.join(breaks)}, where slopes jump: give coupling "
                "xpinn or cpinn"
            )
        if self.knots is not None:
            knots = [[float(place) for place in places] for places in self.knots]
            self._check_cover(problem, knots)
        else:
            assert isinstance(self.counts, tuple)
            counts = self.counts * d if len(self.counts) == 1 else self.counts
            if len(counts) != d:
                raise InputError(
                    f"subdomains {'x'.join(map(str, counts))} for {problem.name}, which has {d} axes: give one number per axis"
                )
            fixed = [[place for axis, place in breaks.values() if axis == number] for number in range(d)]
            knots = [even_knots(low[a], high[a], fixed[a], counts[a]) for a in range(d)]
        above = {(axis, place): math.nextafter(place, math.inf) for axis, place in breaks.values()}
        return [[above.get((axis, place), place) for place in places] for axis, places in enumerate(knots)]

    def _check_cover(self, problem: Problem, knots: Sequence[Sequence[float]]) -> None:
        """Raise InputError for knots that do not cover the region."""
        low, high = problem.region.lower, problem.region.upper
        if len(knots) != len(low):
            raise InputError(f"knots of {len(knots)} axes for {problem.name}, which has {len(low)}: give those of each")
        for number, places in enumerate(knots):
            if not places or places[0] > low[number] or places[-1] < high[number]:
                ends = (places[0], places[-1]) if places else ()
                raise InputError(
                    f"subdomains from {ends} on axis {number} do not cover {problem.name}, which reaches from {low[number]} to "
                    f"{high[number]}: give knots that do"
                )


def even_knots(low: float, high: float, fixed: Sequence[float], count: int) -> list[float]:
    """Cut an axis at the ``fixed`` places, and between them as evenly as ``count`` parts allow."""
    ends, knots = [low, *sorted(fixed), high], [low]
    for a, b in itertools.pairwise(ends):
        parts = max(1, round(count * (b - a) / (high - low)))
        knots += [a + (b - a) * n / parts for n in range(1, parts)] + [b]
    return knots


def subdomains_of(given: Subdomains | str | int | Sequence[int]) -> Subdomains:
    """Take subdomains by themselves, as "4x4", or as numbers per axis."""
    if isinstance(given, Subdomains):
        return given
    return Subdomains.read(given) if isinstance(given, str) else Subdomains(given)

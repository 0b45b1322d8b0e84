"""Slabs: how one begins, in what units it counts, and how several make one field."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.learning.strategies.slab import Place, Slab

_LEAST_UNIT = 1e-3  # size of an output, of that of the largest, where rows are weighed


def first_knots(low: float, high: float, fixed: Sequence[float], intervals: int) -> Tensor:
    """Place the ends of intervals: the fixed ones, and between them as evenly as so many intervals allow."""
    ends = [low, *fixed, high]
    knots = [low]
    for a, b in itertools.pairwise(ends):
        count = max(1, round(intervals * (b - a) / (high - low)))
        knots += [a + (b - a) * n / count for n in range(1, count)] + [b]
    return torch.tensor(knots, dtype=torch.float64)


def lifted(place: Place, tolerance: float) -> Slab:
    """Make a slab at the start of time that begins with what the conditions say, counted in the sizes it has there."""
    first = Slab(place, torch.ones(place.outputs, dtype=torch.float64))
    first.lift(tolerance)
    slab = Slab(place, unit_of(first.largest()))
    slab.series.set_output_coefficients(first.series.coefficients)
    return slab


def unit_of(size: Tensor) -> Tensor:
    """Choose the unit of every output by the sizes seen; 1 where nothing is known."""
    largest = float(size.max())
    if not (0 < largest < math.inf):
        return torch.ones_like(size)
    return size.clamp_min(_LEAST_UNIT * largest)


def joined_field(slabs: list[Slab]) -> PiecewiseChebyshev:
    """Join all slabs into one field; those with fewer modes along an axis get coefficients of zero."""
    series = [slab.series for slab in slabs]
    modes = [max(one.modes[axis] for one in series) for axis in range(series[0].dimension)]
    lower, upper = (torch.cat([getattr(one.scaling, name) for one in series]) for name in ("lower", "upper"))
    whole = ProductChebyshev(modes, (lower, upper), outputs=series[0].outputs, networks=len(lower))
    tables = []
    for one in series:
        table = torch.zeros(len(one.coefficients), *modes, one.outputs, dtype=torch.float64)
        table[(slice(None), *(slice(0, m) for m in one.modes))] = one.coefficients.detach().unflatten(1, one.modes)
        tables.append(table.flatten(1, -2))
    whole.set_output_coefficients(torch.cat(tables))
    return PiecewiseChebyshev(whole)

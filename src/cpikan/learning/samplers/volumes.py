"""Volumes of points: the share of a region that each stands for, so that weighted means are integrals over it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError, unknown_name
from cpikan.learning.objective import PointSet
from cpikan.learning.samplers.draw import Array
from cpikan.learning.samplers.points import unit_points
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box, Region

ESTIMATES = ("neighbours", "kernel")
_PROBES = 50  # per point, that volumes of neighbours are counted by
_ROWS = 512  # of the table of kernels at once


def volumes(region: Region, points: Array, estimate: str = "neighbours") -> Array:
    """Estimate the shares (n,) of the region's volume, with sum 1, that points (n, d) stand for.

    "neighbours" is the part of the region that is nearer to a point than to all others, counted by even probes: it knows
    the region's boundary whatever its shape. "kernel" is 1 / (n p), p a Gaussian density estimate in the unit cube, each
    point with its images reflected at the faces (Schuster 1985), where it would fall to a half otherwise; of boxes only.
    Raises InputError for an unknown estimate, and for "kernel" of another region.
    """
    if estimate not in ESTIMATES:
        raise unknown_name("estimate of volumes", estimate, ESTIMATES)
    low, high = np.asarray(region.lower), np.asarray(region.upper)
    unit = (points - low) / (high - low)
    if estimate == "neighbours":
        probes = region.inside(unit_points(_PROBES * len(points), points.shape[1], "sobol", 0), clustered=False)
        return _neighbours(unit, (probes - low) / (high - low))
    if not isinstance(region, Box):
        raise InputError(f"volumes by kernels in {type(region).__name__}, which is no box: give estimate='neighbours'")
    found = 1 / _reflected_density(unit)
    return np.asarray(found / found.sum())


def weighted(problem: Problem, at: PointSet, shares: Array) -> PointSet:
    """Weigh the interior points of a problem by their shares of the volume (n,), with sum 1.

    The squares of residuals are weighed with mean 1; the densities of an energy by the shares themselves.
    """
    weight: Tensor = torch.from_numpy(shares if problem.energy is not None else np.sqrt(len(shares) * shares)).clone()
    return at._replace(weight=weight)


def _neighbours(unit: Array, probes: Array) -> Array:
    from scipy.spatial import cKDTree

    nearest = cKDTree(unit).query(probes)[1]
    return np.asarray(np.bincount(nearest, minlength=len(unit)) / len(probes))


def _reflected_density(unit: Array) -> Array:
    """Estimate the density of points (n, d) of the unit cube at themselves; the bandwidth is Scott's (1992)."""
    count, axes = unit.shape
    width = np.maximum(unit.std(axis=0), 1e-9) * count ** (-1 / (axes + 4))
    found = np.empty(count)
    for start in range(0, count, _ROWS):
        rows, table = unit[start : start + _ROWS], 1.0
        for axis in range(axes):
            x, y = rows[:, axis, None], unit[None, :, axis]
            kernels = sum(np.exp(-0.5 * ((x - image) / width[axis]) ** 2) for image in (y, -y, 2 - y))
            table = table * kernels / (width[axis] * math.sqrt(2 * math.pi))
        found[start : start + _ROWS] = np.mean(table, axis=1)
    return found

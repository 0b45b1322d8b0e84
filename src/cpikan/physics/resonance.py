"""Resonance: linear problems whose data do not determine a solution, told by the eigenvalue that is nearly zero."""

from __future__ import annotations

import numpy as np
import torch

from cpikan.physics.collocation import Basis, linearise, linearise_equation, on_side
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box

_NODES = {1: 65, 2: 25}  # so many resolve six half waves per axis to 1e-8
_BLOCK, _STEPS = 6, 12
_NEAR = 1e-6  # relative to the sixth eigenvalue from zero: up to five modes may be resonant together


def near_resonance(problem: Problem) -> str | None:
    """Warn of the eigenvalue nearest to zero, where it is so near that another solution may be found; else None.

    The equation is collocated at Chebyshev nodes with its conditions at zero; eigenvalues by inverse iteration on a block.
    None for linear problems that are not resonant and for those that are not tried: other regions than boxes in space of
    one or two axes, several outputs, measured data.
    """
    found = nearest_eigenvalues(problem)
    if found is None or not abs(found[0]) <= _NEAR * abs(found[-1]):
        return None
    value = f"{found[0].real:.1e}" if abs(found[0].imag) <= abs(found[0].real) else f"{abs(found[0]):.1e} in size"
    return (
        f"{problem.name} is resonant: its eigenvalue nearest to zero is {value} (the sixth is {abs(found[-1]):.3g}), so that "
        "other functions satisfy equation and conditions too; change the region, the wave number or a condition"
    )


def nearest_eigenvalues(problem: Problem, nodes: int | None = None) -> np.ndarray | None:
    """Find the six eigenvalues of the linear operator nearest to zero, nearest first; None where not tried."""
    region = problem.region
    if (
        not isinstance(region, Box)
        or region.breaks
        or "t" in region.axes
        or problem.dimension not in _NODES
        or problem.outputs != 1
    ):
        return None
    if (
        problem.second not in ("axes", "none")
        or problem.constants
        or problem.unknowns
        or any(c.at is not None for c in problem.conditions)
    ):
        return None
    basis = Basis(region, nodes or _NODES[problem.dimension])
    operator, conditions = _parts(problem, region, basis)
    free = _null_space(conditions)
    inside, mass = operator[0] @ free, operator[1] @ free
    if inside.shape[0] != inside.shape[1]:
        return None
    return _nearest(inside, mass)


def _parts(problem: Problem, region: Box, basis: Basis) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Linearise the equation at open nodes, with the identity's rows there, and the conditions."""
    closed = torch.zeros(len(basis.points), dtype=torch.bool)
    for condition in problem.conditions:
        for part in condition.on or region.walls:
            closed |= on_side(region, basis, part)
    unknown = torch.zeros(len(basis.points), 1, dtype=torch.float64)
    keep = torch.nonzero(~closed).flatten()
    rows = linearise_equation(problem, basis, unknown, keep)[1]
    everything = linearise(problem, region, basis, unknown)[1]
    return (rows.numpy(), basis.at(keep).value.numpy()), everything[len(keep) :].numpy()


def _null_space(rows: np.ndarray) -> np.ndarray:
    """Compute an orthonormal basis (N, N - rank) of the vectors that meet all conditions."""
    _, size, right = np.linalg.svd(rows)
    rank = int((size > 1e-10 * size[0]).sum())
    return np.ascontiguousarray(right[rank:].T)


def _nearest(operator: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Compute Ritz values of inverse iteration on A x = lambda M x."""
    from scipy.linalg import lu_factor, lu_solve

    # a shift far below the eigenvalues that matter keeps an operator with an eigenvalue of zero from being singular
    shift = 1e-13 * np.abs(operator).max()
    factor = lu_factor(operator + shift * mass)
    block = np.random.default_rng(0).standard_normal((len(operator), _BLOCK + 4))
    for _ in range(_STEPS):
        block = np.linalg.qr(lu_solve(factor, mass @ block))[0]
    inverse = np.linalg.lstsq(block, lu_solve(factor, mass @ block), rcond=None)[0]
    values = 1 / np.linalg.eigvals(inverse) - shift
    return np.asarray(values[np.argsort(np.abs(values))][:_BLOCK])

"""Weak forms: the equation against bubbles on the elements of a box, integrated by parts up to twice (hp-VPINN).

With residuals r = sum a_i u_ii + g, where a depends on x alone and g on u, its slopes and x, and bubbles phi, which vanish on
the boundary of their element,

    integral of r phi = integral of g phi - sum (a_i phi)_i u_i                                            (by parts once)
                      = integral of g phi + sum (a_i phi)_ii u, less a_i phi_i u n_i over the faces          (twice)

Kharazmi, Zhang and Karniadakis, arXiv 1912.00873 and CMAME 374, 113547 (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.partition import Partition
from cpikan.physics.bubbles import BubbleJet, bubbles, faces
from cpikan.physics.form import Form, Places
from cpikan.physics.leading import Leading, bare, check_leading, leading
from cpikan.physics.problem import Problem
from cpikan.physics.quadrature import Rule, over_box, rule
from cpikan.physics.regions import Box


@dataclass(frozen=True)
class Mesh:
    """Elements of a box with their test functions: ``counts`` boxes per axis that ``overlap`` by a share of their core,
    ``functions`` bubbles per axis of each, integrated by ``nodes`` of a ``quadrature`` per axis."""

    counts: tuple[int, ...]
    functions: int
    nodes: int
    overlap: float = 0.0
    quadrature: str = "gauss-legendre"

    def boxes(self, region: Box) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """List lower and upper corners of the elements."""
        partition = Partition.subdomains(region.lower, region.upper, self.counts, self.overlap)
        return [(tuple(a for a, _ in box.extent), tuple(b for _, b in box.extent)) for box in partition]


@dataclass(frozen=True)
class _Element:
    """One element at work: the problem, its corners, and how its integrals are taken."""

    problem: Problem
    lower: Sequence[float]
    upper: Sequence[float]
    mesh: Mesh
    by_parts: int

    def places(self) -> tuple[Tensor, Tensor]:
        """Give points (n, d) and tests (n, S, T) of the element."""
        one = rule(self.mesh.quadrature, self.mesh.nodes)
        inside = self._inside(over_box(one, self.lower, self.upper))
        if self.by_parts < 2:
            return inside
        parts = [inside, *(self._on_face(one, *face) for face in faces(self.lower, self.upper))]
        return torch.cat([points for points, _ in parts]), torch.cat([tests for _, tests in parts])

    def _at(self, nodes: np.ndarray) -> tuple[BubbleJet, Leading, Tensor]:
        points = torch.from_numpy(nodes)
        return bubbles(nodes, self.lower, self.upper, self.mesh.functions), leading(self.problem, points), points

    def _inside(self, quadrature: Rule) -> tuple[Tensor, Tensor]:
        phi, a, points = self._at(quadrature.nodes)
        value, gradient, second = (torch.from_numpy(np.ascontiguousarray(part)) for part in phi)
        streams = [torch.einsum("bk,qr->bqrk", value, torch.eye(a.value.shape[1], dtype=value.dtype))]
        if self.by_parts == 1:  # by output and axis
            slopes = torch.einsum("bqoi,bki->boiqk", a.value, gradient) + torch.einsum("bqoi,bk->boiqk", a.slope, value)
            streams.append(-slopes.flatten(1, 2))
        elif self.by_parts == 2:  # by output
            bends = torch.einsum("bqoi,bki->boqk", a.value, second) + torch.einsum("bqoi,bk->boqk", a.bend, value)
            streams.append(bends + 2 * torch.einsum("bqoi,bki->boqk", a.slope, gradient))
        tests = torch.cat(streams, dim=1).flatten(2)
        return points, torch.from_numpy(quadrature.weights)[:, None, None] * tests

    def _on_face(self, one: Rule, axis: int, place: float, sign: float) -> tuple[Tensor, Tensor]:
        others = [other for other in range(len(self.lower)) if other != axis]
        if others:
            flat = over_box(one, [self.lower[o] for o in others], [self.upper[o] for o in others])
        else:
            flat = Rule(np.zeros((1, 0)), np.ones(1))
        phi, a, points = self._at(np.insert(flat.nodes, axis, place, axis=1))
        gradient = torch.from_numpy(np.ascontiguousarray(phi.gradient[..., axis]))
        outward = -sign * torch.einsum("bqo,bk->boqk", a.value[..., axis], gradient)
        rest = outward.new_zeros(len(points), outward.shape[2], *outward.shape[2:])
        tests = torch.cat([rest, outward], dim=1).flatten(2)
        return points, torch.from_numpy(flat.weights)[:, None, None] * tests


def weak_form(problem: Problem, mesh: Callable[[int, bool], Mesh], by_parts: int = 1) -> Form:
    """Make the weak form of a problem on a box; ``mesh(rows, held_out)`` gives elements for about so many residuals.

    Squares of its residuals have the mean over the region of the squared dual norm. Raises InputError for other regions and
    for second derivatives that cannot be integrated by parts.
    """
    check_box(problem, "weak form")
    if by_parts not in (0, 1, 2):
        raise InputError(f"weak form integrated by parts {by_parts!r} times: give 0, 1 or 2")
    if by_parts:
        check_leading(problem, "weak form")

    def values(jet: Jet, x: Tensor) -> dict[str, Tensor]:
        if not by_parts:
            return problem.interior(jet, x)
        found = problem.interior(bare(jet, problem), x)
        for output in range(problem.outputs):
            if by_parts == 2:
                found[f"value of {output}"] = jet.value[:, output]
            else:
                found |= {
                    f"slope of {output} by {axis}": jet.gradient[:, output, axis] for axis in range(problem.dimension)
                }
        return found

    def place(count: int, seed: int, held_out: bool) -> Places:
        return _placed(problem, mesh(count, held_out), by_parts)

    form = Form(values, problem.second if by_parts == 0 else "none", place=place)
    return replace(form, judge=form)


def check_box(problem: Problem, what: str) -> None:
    """Raise InputError for a region that has no elements here."""
    if not isinstance(problem.region, Box) or problem.region.breaks:
        kind = "a box with breaks" if isinstance(problem.region, Box) else f"a {type(problem.region).__name__}"
        raise InputError(f"{what} of {problem.name}: its region is {kind}, give a box, or use --loss-mode strong")


def counts_for(problem: Problem, rows: int, functions: int) -> tuple[int, ...]:
    """Choose as many elements per axis as give about ``rows`` test functions, each as cubic as that allows."""
    d = problem.dimension
    lengths = np.subtract(problem.region.upper, problem.region.lower)
    elements = max(1.0, rows / functions**d)
    ideal = lengths / np.prod(lengths) ** (1 / d) * elements ** (1 / d) if d > 1 else np.array([elements])
    best = np.maximum(1, np.round(ideal)).astype(int)
    while math.prod(best) < elements:
        best[int(np.argmax(ideal / best))] += 1
    return tuple(int(n) for n in best)


def _placed(problem: Problem, mesh: Mesh, by_parts: int) -> Places:
    assert isinstance(problem.region, Box)
    parts = [_Element(problem, low, high, mesh, by_parts).places() for low, high in mesh.boxes(problem.region)]
    volume = float(np.prod(np.subtract(problem.region.upper, problem.region.lower)))
    scale = (len(parts) * parts[0][1].shape[2] / volume) ** 0.5
    numbers = [torch.full((len(points),), number) for number, (points, _) in enumerate(parts)]
    points, tests = (torch.cat([part[n] for part in parts]) for n in (0, 1))
    return Places(points, None, scale * tests, torch.cat(numbers))

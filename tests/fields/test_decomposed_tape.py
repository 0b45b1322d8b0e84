"""The tape of networks on subdomains: the rows that a pass back per residual gives, in one pass."""

from __future__ import annotations

import pytest
import torch

from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.iterate import placed
from cpikan.learning.linearise_term import linearise_term
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem as problem_named

SMALL = Recipe("small", "a few functions", (), hidden=(3,), degree=3)


@pytest.mark.parametrize(
    ("problem", "cut"),
    [
        ("poisson-2d", Subdomains((3, 2), "fbpinn")),  # windows: up to four boxes hold a point
        ("diffusion-inverse", Subdomains((2, 2), "cpinn")),  # partners across faces, two outputs, data
    ],
)
def test_rows_are_those_of_a_pass_per_residual(problem, cut):
    problem = problem_named(problem)
    iterate = placed(cut.coupled(problem), cut.network(problem, SMALL, 2), Points(16, 4), MEAN_SQUARES)[0]
    field, objective = iterate.field, iterate.objective
    for term in objective.terms:
        at = objective.sets[term.name]
        residuals, rows = linearise_term(field, term, at, "all")
        values = torch.cat(term.at(field, at))
        parameters = list(field.parameters())
        wanted = torch.stack(
            [
                torch.cat(
                    [
                        part.flatten()
                        for part in torch.autograd.grad(
                            value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                        )
                    ]
                )
                for value in values
            ]
        )
        scale = float(wanted.abs().max())
        assert scale > 0
        # both sum the same products in another order
        torch.testing.assert_close(residuals, values.detach(), rtol=1e-12, atol=1e-12 * float(residuals.abs().max()))
        torch.testing.assert_close(rows, wanted, rtol=1e-10, atol=1e-12 * scale)

"""Recipes: named lists of stages, with the network and the points they start from."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cpikan.errors import WHOLE, InputError, check_type, unknown_name
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import WaveEmbedding
from cpikan.fields.layered import LayeredField
from cpikan.fields.mapped import MappedCPIKAN, PointMap
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.augmented_lagrangian import AugmentedLagrangian
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import BestSoFar, Strategy
from cpikan.learning.directions.direction import Direction
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.gradient_descent import GradientDescent
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.method import Method
from cpikan.learning.methods.muon import Muon
from cpikan.learning.methods.natural_gradient import GaussNewtonCG, NaturalGradient
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.methods.schwarz_quasi_newton import SchwarzQuasiNewton
from cpikan.learning.methods.soap import Soap
from cpikan.learning.methods.spring import Spring
from cpikan.learning.methods.variable_projection import VariableProjection
from cpikan.learning.samplers.points import MIN_ROWS_PER_PARAMETER, RULES, Points
from cpikan.learning.strategies.auto import AutoStrategy
from cpikan.learning.strategies.grow import Grow
from cpikan.learning.strategies.march import March
from cpikan.learning.strategies.pieces import Pieces
from cpikan.learning.strategies.windows import Windows
from cpikan.learning.trained import OUTPUT_SHARE, widened
from cpikan.physics.problem import Problem
from cpikan.physics.waves import Wave, known_waves


@dataclass(frozen=True)
class Recipe:
    """``stages`` in turn, ending early when the residual is at the goal.

    Without a field from the user, ``own`` (where there is one) finds the network and nothing follows, and ``evolving`` does so
    for what evolves along one axis of space (`can_window`); else the network has
    the ``hidden`` widths and ``degree``. Points follow ``rule``, ``rows`` of residuals for each parameter, and ``balancer``
    weighs the terms. With ``exact_values`` a network that the recipe draws stands behind an ansatz that holds conditions
    (`with_exact_conditions`). Hidden layers but the last are wider where several outputs would have more than ``output_share``
    of the parameters. A network that ends stuck far from the goal while time is left is drawn anew up to ``restarts``
    times, and the best of all stays. ``hidden`` are for limits of time up to ``wider_s``, where that is given, and longer
    ones have more nodes (`within`). Beside the coordinates a network takes the ``waves`` of the data (`WaveEmbedding`), which
    are looked for where ``wave_degree`` is given: that of its first layer then.
    """

    name: str
    summary: str
    stages: tuple[Method | Strategy, ...]
    own: Strategy | None = None
    evolving: Windows | None = None
    hidden: tuple[int, ...] = (12,)
    degree: int = 8
    rule: str = "chebyshev"
    balancer: Balancer = KERNEL_TRACES
    restarts: int = 0
    rows: float = MIN_ROWS_PER_PARAMETER
    exact_values: bool = False
    wider_s: float | None = None
    output_share: float = 1.0
    wave_degree: int | None = None
    waves: tuple[Wave, ...] = ()

    def __post_init__(self) -> None:
        check_type("name of a recipe", self.name, str, "text")
        check_type(f"stages of recipe {self.name}", self.stages, Sequence, "methods and strategies, as (Adam(300),)")
        for stage in self.stages:
            check_type(
                f"a stage of recipe {self.name}", stage, (Method, Strategy), "a method or strategy, as Adam(300)"
            )
        for width in self.hidden:
            check_type(f"hidden widths of recipe {self.name}", width, WHOLE, "whole numbers, as (16, 16)")
        if min((self.degree, *self.hidden)) < 1:
            raise InputError(
                f"hidden widths {self.hidden} of degree {self.degree} of recipe {self.name}: give widths, if any, "
                "and a degree, from 1 on"
            )
        if self.rule not in RULES:
            raise unknown_name("rule of points", str(self.rule), RULES)

    def along(self, direction: Direction) -> Recipe:
        """Let the stages that follow a gradient follow a direction instead; raises InputError where there is none."""
        if not any(method.follows_gradient for method in self.methods()):
            raise InputError(
                f"recipe {self.name} takes no direction, as none of its methods follows a gradient: give adam, soap, "
                "muon or gradient-descent"
            )
        return replace(self, stages=tuple(_along(stage, direction) for stage in self.stages))

    def holding(self, constraints: str) -> Recipe:
        """Let conditions be held in one of the ways of `CONSTRAINTS`; raises InputError for an unknown one."""
        if constraints not in CONSTRAINTS:
            raise unknown_name("way to hold conditions", constraints, CONSTRAINTS)
        recipe = replace(self, exact_values=constraints in BY_FORM)
        if constraints not in _MULTIPLIERS:
            return recipe
        return replace(
            recipe, stages=tuple(_with_multipliers(stage, **_MULTIPLIERS[constraints]) for stage in self.stages)
        )

    def batched(self, size: int) -> Recipe:
        """Let the stages that take mini-batches draw ``size`` interior points a step; raises InputError where there is none."""
        if not any(method.takes_batches for method in self.methods()):
            raise InputError(
                f"recipe {self.name} takes no mini-batches, as its methods compare the costs of steps: give adam, soap, muon, "
                "gradient-descent or spring"
            )
        return replace(self, stages=tuple(_batched(stage, size) for stage in self.stages))

    def within(self, seconds: float) -> Recipe:
        """Widen the hidden layers for a limit of more seconds than ``wider_s``, by four nodes at a time.

        A step takes the cube of the parameters, which go by the square of the nodes: their sixth root leaves the steps as many.
        """
        if self.wider_s is None or seconds <= self.wider_s:
            return self
        factor = min(seconds / self.wider_s, _LONGEST) ** (1 / 6)
        hidden = tuple(max(n, 4 * round(n * factor / 4)) for n in self.hidden)
        evolving = self.evolving and replace(self.evolving, hidden=hidden, hidden_s=seconds)
        return replace(self, hidden=hidden, evolving=evolving)

    def seeing(self, problem: Problem) -> Recipe:
        """Look for the waves in the data of a problem, where the recipe wants them."""
        return self if self.wave_degree is None else replace(self, waves=known_waves(problem))

    def methods(self) -> Iterator[Method]:
        """List the methods among the stages, those whose best state is kept or that have multipliers around them too."""
        for stage in self.stages:
            if isinstance(stage, Method | _Around):
                yield stage.method if isinstance(stage, _Around) else stage

    def check(self) -> None:
        """Raise InputError for what is no balancer, and for one that a method of the recipe cannot use."""
        parts = ("ascends", "every", "init", "update", "lifted", "moved")
        if isinstance(self.balancer, type) or not all(hasattr(self.balancer, part) for part in parts):
            raise InputError(
                f"balancer {self.balancer!r} of recipe {self.name}: give a Balancer, as GradNorm(), or derive one from "
                "MeanSquares"
            )
        if self.balancer.every and any(isinstance(stage, AugmentedLagrangian) for stage in self.stages):
            raise InputError(
                f"{type(self.balancer).__name__} with an augmented Lagrangian, whose penalties are the conditions' weights: "
                "give mean-squares or kernel-traces, which weigh once"
            )
        for method in self.methods():
            if self.balancer.ascends and not method.follows_gradient:
                raise InputError(
                    f"{type(self.balancer).__name__} with {method.name}: weights that climb while parameters descend need a "
                    "method that follows the gradient; give recipe adam, gradient-descent, or residual-attention"
                )

    def network(self, problem: Problem, seed: int, point_map: PointMap | None = None) -> LayeredField:
        """Make a fresh network on the box around the problem's region: of a ``point_map`` of it, or of waves too."""
        box, start = (problem.region.lower, problem.region.upper), Start(seed)
        degrees = [self.degree] * (len(self.hidden) + 1)
        embedding = WaveEmbedding(problem.dimension, self.waves) if self.waves and point_map is None else None
        if embedding is not None and self.wave_degree is not None:
            degrees[0] = self.wave_degree
        inputs = problem.dimension if embedding is None else embedding.width
        inputs = inputs if point_map is None else len(point_map.lower)
        widths = widened([inputs, *self.hidden, problem.outputs], degrees, self.output_share)
        if point_map is not None:
            return MappedCPIKAN(widths, self.degree, point_map, start=start)
        if embedding is not None:
            return EmbeddedField(ScaledCPIKAN(widths, degrees, start=start), embedding, box)
        return ScaledCPIKAN(widths, self.degree, box, start=start)

    def points(self, problem: Problem, parameters: int, seed: int) -> Points:
        """Choose points for so many parameters: at least ``rows`` times as many residuals."""
        boundary = len(problem.region.parts) * {1: 1, 2: 60}.get(problem.dimension, 150)
        interior = max(400 if problem.dimension == 1 else 1000, int(self.rows * parameters / problem.outputs) + 1)
        return Points(interior, boundary, self.rule, seed)


_Around = BestSoFar | AugmentedLagrangian
_LONGEST = 60.0  # times ``wider_s``: beyond, nodes are as many as for that
_MULTIPLIERS: dict[str, dict[str, float]] = {"augmented-lagrangian": {}, "al-pinn": {"ascent": 5e-4}}
BY_FORM = ("exact", "symmetric")
CONSTRAINTS = (*BY_FORM, "penalty", *_MULTIPLIERS)


def _with_multipliers(stage: Method | Strategy, **settings: float) -> Method | Strategy:
    method = stage.method if isinstance(stage, BestSoFar) else stage
    return AugmentedLagrangian(method, **settings) if isinstance(method, Method) else stage  # type: ignore[arg-type]


def _along(stage: Method | Strategy, direction: Direction) -> Method | Strategy:
    if isinstance(stage, _Around):
        return replace(stage, method=stage.method.along(direction)) if stage.method.follows_gradient else stage
    return stage.along(direction) if isinstance(stage, Method) and stage.follows_gradient else stage


def _batched(stage: Method | Strategy, size: int) -> Method | Strategy:
    if isinstance(stage, _Around):
        return replace(stage, method=stage.method.batched(size)) if stage.method.takes_batches else stage
    return stage.batched(size) if isinstance(stage, Method) and stage.takes_batches else stage


_small = functools.partial(Recipe, hidden=(8,), degree=12, restarts=3)  # cheap, so drawn anew where it is stuck
_deep = functools.partial(Recipe, hidden=(12, 12), degree=5, rows=2.5, balancer=MEAN_SQUARES, exact_values=True)
_LINEAR_START = "output layer by least squares"
RECIPES = {
    one.name: one
    for one in (
        Recipe(
            "default",
            f"{_LINEAR_START} on networks of rising degree, or slabs of time where an evolution is sharp; on a network that "
            "is given, least squares, then Levenberg-Marquardt",
            (LastLayer(), Levenberg(), LastLayer(name="last layer again")),
            own=AutoStrategy(),
        ),
        Recipe("grow", f"{_LINEAR_START} on networks of rising degree", (LastLayer(), Levenberg()), own=Grow()),
        Recipe(
            "march", "slabs of time with a product series per interval, by Gauss-Newton", (Levenberg(),), own=March()
        ),
        Recipe(
            "pieces",
            "intervals of one axis with a product series each, by Gauss-Newton, halved where the solution is sharp",
            (Levenberg(),),
            own=Pieces(),
        ),
        Recipe("last-layer", f"{_LINEAR_START} behind a drawn hidden layer, once", (LastLayer(),), hidden=(60,)),
        _small("levenberg-marquardt", "all parameters by Levenberg-Marquardt", (Levenberg(2000),)),
        _small(
            "varpro",
            "inner parameters by Levenberg-Marquardt, those of the output eliminated (variable projection)",
            (VariableProjection(1000),),
        ),
        _deep(
            "trained",
            "all parameters of two hidden layers by Levenberg-Marquardt with geodesic acceleration, the output layer solved "
            "for after every step, values at the ends of a box held exactly; wider where there is more than a minute, in "
            "windows of time where one network does not get far; the waves of sources and values beside the coordinates",
            (GeodesicLevenberg(),),
            evolving=Windows(goal=1e-10, crawl=1.0, whole=1e-3, method=GeodesicLevenberg(patience=60)),
            wider_s=60.0,
            output_share=OUTPUT_SHARE,
            wave_degree=2,
        ),
        replace(
            _deep(
                "windows",
                "as trained, in one window of time after the other, with stretched coordinates for fronts",
                (GeodesicLevenberg(),),
            ),
            own=Windows(),
        ),
        _deep(
            "natural-gradient",
            "natural gradient in the space of residuals or of parameters, by products of the Jacobian where it is large",
            (NaturalGradient(),),
        ),
        _deep(
            "gauss-newton-cg",
            "Gauss-Newton by conjugate gradients, whose Jacobian is never stored",
            (GaussNewtonCG(),),
        ),
        _deep("spring", "natural gradient steps that keep a share of the last one (SPRING)", (Spring(),)),
        Recipe("adam", "Adam alone", (Adam(50_000, 5e-3, decay=0.95),)),
        Recipe("gradient-descent", "steps against a direction", (GradientDescent(50_000, 5e-3, decay=0.95),)),
        Recipe("muon", "Muon, then self-scaled Broyden", (Muon(300, 1e-2), QuasiNewton("ssbroyden", 20_000))),
        Recipe("soap", "SOAP, then self-scaled Broyden", (Soap(300, 1e-2), QuasiNewton("ssbroyden", 20_000))),
        Recipe("ssbroyden", "Adam, then self-scaled Broyden", (Adam(300, 5e-3), QuasiNewton("ssbroyden", 20_000))),
        Recipe("ssbfgs", "Adam, then self-scaled BFGS", (Adam(300, 5e-3), QuasiNewton("ssbfgs", 20_000))),
        Recipe("bfgs", "Adam, then BFGS", (Adam(300, 5e-3), QuasiNewton("bfgs", 20_000))),
        Recipe("lbfgs", "Adam, then L-BFGS", (Adam(300, 5e-3), QuasiNewton("lbfgs", 20_000))),
        Recipe(
            "aspqn",
            "Adam, then L-BFGS behind L-BFGS steps of every layer by itself, added up",
            (Adam(300, 5e-3), SchwarzQuasiNewton("additive", 20_000)),
        ),
        Recipe(
            "mspqn",
            "Adam, then L-BFGS behind L-BFGS steps of one layer after the other",
            (Adam(300, 5e-3), SchwarzQuasiNewton("multiplicative", 20_000)),
        ),
        Recipe(
            "paper",
            "as the paper: [8, 8] nodes of degree 5, random even points, Adam, then L-BFGS",
            (Adam(10_000, 1e-3, decay=1.0, clip=None), QuasiNewton("lbfgs", 10_000)),
            hidden=(8, 8),
            degree=5,
            rule="random",
            balancer=MEAN_SQUARES,
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """Look up a recipe; raises InputError for an unknown name, suggesting the nearest."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]

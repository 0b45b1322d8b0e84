"""The verb ``solve``: the problem ``source`` of the catalogue, for one or more seeds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.option import option
from cpikan.pipeline.jobs.job import Job, Verb
from cpikan.storage.formats import picture
from cpikan.streaming.events import Events
from cpikan.streaming.ranks import Ranks


@dataclass(frozen=True)
class SolveOptions:
    """How the problem is solved, and what else is written; ``baseline`` adds what a plain polynomial reaches."""

    recipe: str = option("default", "default, levenberg-marquardt, varpro, muon, soap, ssbroyden, lbfgs, paper, ...")
    field: str | None = option(
        None,
        "train a scaled-cpikan, adaptive, residual, gated, mlp, adaptive-mlp, siren, fourier, wavelet, random-feature, "
        "separable, blend or deep-galerkin network of the recipe's size, instead of the network that the recipe finds",
        metavar="NAME",
    )
    hidden: str | None = option(None, "nodes of the hidden layers of --field, as 12,12,12", metavar="NODES")
    degree: str | None = option(None, "degree of --field, or one for each layer, as 5,3,3,5", metavar="DEGREES")
    embedding: str | None = option(
        None, "put periodic, fourier or trained-fourier waves of the coordinates in front of --field", metavar="NAME"
    )
    balancer: str | None = option(
        None,
        "weigh terms by mean-squares, kernel-traces, annealing, gradnorm, relobralo, softadapt or boundary-first, or points by "
        "self-adaptive, residual-attention, variational-attention or causal, while a network is trained",
        metavar="NAME",
    )
    direction: str | None = option(
        None,
        "let adam, soap, muon and gradient-descent follow sum, config, m-config, dcgd, dcgd-projection, dcgd-average or pcgrad "
        "of the terms' gradients",
        metavar="NAME",
    )
    sampler: str | None = option(
        None,
        "let points follow the residuals by rad, rad-unbiased, rar-g, rar-d, r3, quantile or causal-slabs, take few first by "
        "multi-resolution, be drawn anew (fresh), or be weighed by volume, while a network is trained",
        metavar="NAME",
    )
    sampler_every: int | None = option(None, "steps from one choice of points to the next (100, fresh 1)", metavar="N")
    loss_mode: str = option(
        "strong",
        "train a network by the equation's residuals (strong or residual), its energy (ritz), integrals against test functions "
        "(weak), or residuals with their slopes (sobolev)",
        metavar="NAME",
    )
    batch: int | None = option(
        None,
        "interior points that adam, soap, muon, gradient-descent or spring draw anew for every step (all)",
        metavar="N",
    )
    constraints: str | None = option(
        None,
        "hold conditions by the form of the solution (exact, or with its symmetries: symmetric), by squares (penalty), or by "
        "multipliers too (augmented-lagrangian, al-pinn), while a network is trained",
        metavar="NAME",
    )
    start_from: str | None = option(
        None,
        "begin with the network of a saved solution (of this or another problem) on the region of this one",
        metavar="SOLUTION",
    )
    correct: str | None = option(
        None,
        "train a network on top of a saved solution of this problem, which stays as it is",
        metavar="SOLUTION",
    )
    curriculum: str | None = option(
        None,
        "solve with a parameter of the problem at one value after the other, each from the network before: k=pi,2pi,4pi",
        metavar="NAME=VALUES",
    )
    subdomains: str | None = option(
        None, "cut the region into so many boxes per axis, each with a field of its own: 4x4", metavar="NxN"
    )
    coupling: str | None = option(
        None,
        "how the fields of subdomains make one: under overlapping windows (fbpinn), by equal values and residuals where they "
        "meet (xpinn), or by equal values and fluxes (cpinn)",
        metavar="NAME",
    )
    levels: int | None = option(None, "levels of subdomains of fbpinn, each half as fine as the next", metavar="N")
    refine: bool = option(False, "halve subdomains where their series do not converge (layers, corners, jumps)")
    schwarz: str | None = option(
        None,
        "solve for series on subdomains by GMRES with the additive, multiplicative or restricted Schwarz method and its coarse "
        "level, instead of eliminating their interfaces",
        metavar="NAME",
    )
    seed: int = option(0, "of points and starts")
    seeds: int = option(1, "solve for N seeds from --seed on", metavar="N")
    seconds: float = option(60.0, "time limit of a solve")
    steps: int | None = option(None, "at most N steps of a solve", metavar="N")
    clock: str = option("wall", "what seconds are: wall, or processor (of all threads together)")
    restarts: int | None = option(None, "new starts for a solve that ends stuck far from the goal", metavar="N")
    checkpoint: str | None = option(None, "keep the state there, every few seconds, to go on from", metavar="DIR")
    resume: bool = option(False, "go on from --checkpoint, or begin where nothing is there")
    history: str | None = option(None, "also write what happened, one JSON object per line", metavar="FILE.jsonl")
    plot: str | None = option(None, "also draw solution, error, residual and history", metavar="FILE.png")
    baseline: bool = False

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"{self.seeds} seeds: give at least 1")
        for flag in ("hidden", "degree", "embedding"):
            if getattr(self, flag) is not None and self.field is None:
                raise InputError(f"--{flag} without a network: name one with --field")
        for flag in ("coupling", "levels", "refine", "schwarz"):
            if getattr(self, flag) and self.subdomains is None:
                raise InputError(f"--{flag} without subdomains: give their number per axis, as --subdomains 4x4")
        if self.subdomains is not None and (self.field is not None or self.curriculum is not None):
            what = "--field" if self.field is not None else "--curriculum"
            raise InputError(f"--subdomains and {what}: give one of them")
        if self.start_from is not None and self.field is not None:
            raise InputError("--field and --start-from: give one of them, whose network is the start")
        if self.plot:
            picture(self.plot)


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Solve for every seed, write history and plot of the first, and return the figures of the median run.

    Raises InputError for an unknown problem or recipe, and for a checkpoint of another run.
    """
    from cpikan.streaming.ranks import ranks_here

    with ranks_here() as ranks:
        found = _solved(job, events, ranks)
        return {**found, "rank": ranks.rank} if ranks.rank else found


def _solved(job: Job, events: Events, ranks: Ranks) -> dict[str, Any]:
    from cpikan.learning.curriculum import Curriculum, solve_curriculum
    from cpikan.learning.solver import SolveSettings, solve

    problem, options = job.source, job.part(SolveOptions)
    curriculum = None if options.curriculum is None else Curriculum.read(problem, options.curriculum)
    solutions = []
    for seed in range(options.seed, options.seed + options.seeds):
        settings = SolveSettings(
            seconds=options.seconds,
            steps=options.steps,
            clock=options.clock,
            events=events,
            checkpoint=_folder(options, seed),
            resume=options.resume,
            restarts=options.restarts,
            balancer=options.balancer,
            direction=options.direction,
            points=options.sampler,
            sampler_every=options.sampler_every,
            loss_mode=options.loss_mode,
            batch=options.batch,
            constraints=options.constraints,
            start_from=options.start_from,
            correct=options.correct,
            subdomains=_subdomains(options),
            ranks=ranks,
        )
        if curriculum is None:
            found = solve(problem, _field(problem, options, seed), options.recipe, seed=seed, settings=settings)
        else:
            field = _field(curriculum.problems[0].name, options, seed)
            found = solve_curriculum(curriculum, field, options.recipe, seed=seed, settings=settings)
        solutions.append(found)
    for warning in dict.fromkeys(text for solution in solutions for text in solution.warnings):
        events.warning(warning)
    first = solutions[0]
    if options.history and ranks.rank == 0:
        first.history.save(options.history)
    if options.plot and ranks.rank == 0:
        first.plot(options.plot)
    return {
        **_median(solutions),
        "recipe": options.recipe,
        "clock": options.clock,
        "field": options.field,
        "hidden": options.hidden,
        "degree": options.degree,
        "embedding": options.embedding,
        "balancer": options.balancer,
        "direction": options.direction,
        "sampler": options.sampler,
        "sampler_every": options.sampler_every,
        "loss_mode": options.loss_mode,
        "batch": options.batch,
        "constraints": options.constraints,
        "start_from": options.start_from,
        "correct": options.correct,
        "subdomains": options.subdomains,
        "coupling": options.coupling,
        "levels": options.levels,
        "refine": options.refine,
        "schwarz": options.schwarz,
        "reason_text": first.stop_reason.text,
        **(_baseline(first) if options.baseline else {}),
    }


def _subdomains(options: SolveOptions) -> Any:
    """Read how the region is cut; None leaves it whole."""
    if options.subdomains is None:
        return None
    from cpikan.learning.subdomains import Subdomains

    return Subdomains.read(options.subdomains, options.coupling, options.levels, options.refine, options.schwarz)


def _folder(options: SolveOptions, seed: int) -> Path | None:
    """Name the folder of one seed's state: inside the folder given where there are several seeds."""
    if options.checkpoint is None:
        return None
    return Path(options.checkpoint, f"seed-{seed}") if options.seeds > 1 else Path(options.checkpoint)


def _field(problem: str, options: SolveOptions, seed: int) -> Any:
    """Make a fresh network of the kind asked for, of the recipe's size; None leaves the network to the recipe."""
    if options.field is None:
        return None
    from cpikan.fields.embeddings import embedding_named
    from cpikan.fields.kinds import make_field
    from cpikan.learning.recipes import recipe_named
    from cpikan.physics.catalogue import problem as problem_named
    from cpikan.physics.regions import Box

    posed, size = problem_named(problem), recipe_named(options.recipe)
    box = (posed.region.lower, posed.region.upper)
    hidden = size.hidden if options.hidden is None else _whole(options.hidden, "--hidden")
    degrees = (size.degree,) if options.degree is None else _whole(options.degree, "--degree")
    degree = degrees[0] if len(degrees) == 1 else degrees
    embedding = None
    if options.embedding is not None:
        axes = posed.region.axes if isinstance(posed.region, Box) else ()
        periods = sorted({axes.index(c.period) for c in posed.conditions if c.period is not None})
        embedding = embedding_named(options.embedding, posed.dimension, periods, hidden[0], seed)
    widths = [posed.dimension, *hidden, posed.outputs]
    return make_field(options.field, widths, degree, box, seed, embedding=embedding)


def _whole(text: str, flag: str) -> tuple[int, ...]:
    """Read whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag} {text}: give whole numbers with commas between them, as 12,12,12") from None


def _median(solutions: list[Any]) -> dict[str, Any]:
    """Summarise the run of median error; with several runs, list the summaries of all beside it."""
    runs = [solution.summary() for solution in solutions]
    if len(runs) == 1:
        return dict(runs[0])
    key = "heldout_residual" if runs[0]["relative_l2"] is None else "relative_l2"
    middle = sorted(runs, key=lambda run: run[key])[(len(runs) - 1) // 2]
    return {**middle, "seeds": len(runs), "runs": runs}


def _baseline(solution: Any) -> dict[str, Any]:
    """Compute the errors of plain Chebyshev collocation; empty where collocation does not serve the problem."""
    from cpikan.learning.baseline import collocation_baseline

    started = time.perf_counter()
    found = collocation_baseline(solution.problem)
    return {} if found is None else {"collocation": {**found, "seconds": time.perf_counter() - started}}


VERB = Verb((SolveOptions,), ("source",), run)

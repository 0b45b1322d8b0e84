"""The verb ``solve``: a problem of the catalogue by a recipe."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from cpikan.errors import InputError


def add(parser: argparse.ArgumentParser) -> None:
    """solve a differential equation of the catalogue with a Chebyshev network"""
    parser.add_argument("problem", metavar="PROBLEM", nargs="?", help="a name, see --list")
    parser.add_argument("--list", action="store_true", help="list the problems and stop")
    parser.add_argument(
        "--recipe", default="default", help="default, levenberg-marquardt, varpro, soap, ssbroyden, lbfgs, paper, ..."
    )
    parser.add_argument(
        "--field",
        metavar="NAME",
        help="train a scaled-cpikan, mlp, siren, fourier, wavelet, random-feature, separable or blend network of the "
        "recipe's size, instead of the network that the recipe finds",
    )
    parser.add_argument("--seed", type=int, default=0, help="of points and starts (default: 0)")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="solve for N seeds from --seed on (default: 1)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of a solve (default: 60)")
    parser.add_argument(
        "--restarts", type=int, metavar="N", help="new starts for a solve that ends stuck far from the goal"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="keep the state there, every few seconds, to go on from")
    parser.add_argument(
        "--resume", action="store_true", help="go on from --checkpoint, or begin where nothing is there"
    )
    parser.add_argument("--history", metavar="FILE.jsonl", help="also write what happened, one JSON object per line")
    parser.add_argument("--plot", metavar="FILE.png", help="also draw solution, error and history")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.set_defaults(run=_run, tell=_tell)


def _run(given: argparse.Namespace) -> Any:
    if given.list:
        from cpikan.physics.catalogue import describe_problems

        return describe_problems()
    if given.problem is None:
        raise InputError("no problem given: name one, or see cpikan solve --list")
    if given.seeds < 1:
        raise InputError(f"{given.seeds} seeds: give at least 1")
    from cpikan.learning.solver import SolveSettings, solve

    solutions = []
    for seed in range(given.seed, given.seed + given.seeds):
        told = _Told(f"seed {seed}" if given.seeds > 1 else given.problem)
        settings = SolveSettings(
            seconds=given.seconds,
            told=told,
            checkpoint=_folder(given, seed),
            resume=given.resume,
            restarts=given.restarts,
        )
        solutions.append(solve(given.problem, _field(given, seed), given.recipe, seed=seed, settings=settings))
        told.close()
    for warning in dict.fromkeys(text for solution in solutions for text in solution.warnings):
        print(f"cpikan: warning: {warning}", file=sys.stderr)
    if given.history:
        solutions[0].history.save(given.history)
    if given.plot:
        from cpikan.report.solution_figures import save_solution_figures

        save_solution_figures(solutions[0], given.plot)
    result = {
        **_median(solutions),
        "recipe": given.recipe,
        "field": given.field,
        "reason_text": solutions[0].stop_reason.text,
    }
    return result if given.json else {**result, **_collocated(solutions[0])}


def _folder(given: argparse.Namespace, seed: int) -> Path | None:
    """Where the state of one seed's solve is kept: a folder in the folder where there are several."""
    if given.checkpoint is None:
        return None
    return Path(given.checkpoint, f"seed-{seed}") if given.seeds > 1 else Path(given.checkpoint)


def _field(given: argparse.Namespace, seed: int) -> Any:
    """A fresh network of the kind that was asked for, of the recipe's size; None leaves the network to the recipe."""
    if given.field is None:
        return None
    from cpikan.fields.kinds import make_field
    from cpikan.learning.recipes import recipe_named
    from cpikan.physics.catalogue import problem

    one, size = problem(given.problem), recipe_named(given.recipe)
    box = (one.region.lower, one.region.upper)
    return make_field(given.field, [one.dimension, *size.hidden, one.outputs], size.degree, box, seed)


def _median(solutions: list[Any]) -> dict[str, Any]:
    """The run of median error, and with several the errors of all."""
    runs = [solution.summary() for solution in solutions]
    if len(runs) == 1:
        return dict(runs[0])
    key = "heldout_residual" if runs[0]["relative_l2"] is None else "relative_l2"
    middle = sorted(runs, key=lambda run: run[key])[(len(runs) - 1) // 2]
    return {**middle, "seeds": len(runs), "runs": runs}


def _collocated(solution: Any) -> dict[str, Any]:
    """What a plain polynomial reaches, to be printed beside the network; nothing where it cannot be had."""
    from cpikan.learning.baseline import collocation_baseline

    started = time.perf_counter()
    found = collocation_baseline(solution.problem)
    if found is None:
        return {}
    return {"collocation": {**found, "seconds": time.perf_counter() - started}}


def _tell(result: Any) -> str:
    if isinstance(result, list):
        width = max(len(row["name"]) for row in result)
        return "\n".join(f"{row['name']:<{width}}  {row['dimension']}D  {row['summary']}" for row in result)
    error = "-" if result["relative_l2"] is None else f"{result['relative_l2']:.2e} relative L2"
    lines = [f"problem     {result['problem']}", f"error       {error}, largest {_number(result['max_error'])}"]
    if "runs" in result:
        every = ", ".join(_number(run["relative_l2"]) for run in result["runs"])
        lines.append(f"seeds       {result['seeds']}; relative L2 {every}; the median run is shown")
    if "coefficients" in result:
        pairs = zip(result["coefficients"], result["coefficients_true"], strict=True)
        lines.append("found       " + ", ".join(f"{found:.6g} (true {true:g})" for found, true in pairs))
    lines += [
        f"held out    {result['heldout_residual']:.2e} residual, {result['boundary_violation']:.2e} at the boundary",
        f"network     {result['parameters']} parameters, {result['collocation_points']} points, "
        f"{result['iterations']} iterations, {result['seconds']:.2f} s",
        f"stopped     {result['reason_text']}",
    ]
    if "collocation" in result:
        plain = result["collocation"]
        lines.append(
            f"plain       {plain['relative_l2']:.2e} by Chebyshev collocation of {plain['unknowns']} values "
            f"in {plain['seconds']:.2f} s"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


class _Told:
    """One line of progress on stderr after two seconds: rewritten in a terminal, else every five seconds."""

    def __init__(self, label: str) -> None:
        self._label, self._started, self._shown = label, time.perf_counter(), time.perf_counter()
        self._terminal, self._open = sys.stderr.isatty(), False

    def __call__(self, text: str) -> None:
        now = time.perf_counter()
        if now - self._started < 2 or now - self._shown < (0.2 if self._terminal else 5):
            return
        self._shown, self._open = now, self._terminal
        line = f"{self._label}: {text}"
        print(
            f"\r{line}\x1b[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """End the line."""
        if self._open:
            print(file=sys.stderr)

"""Is affine scaling worth what is said of it? Networks with it and without, by each method, on wider and wider boxes.

    python benchmarks/affine_scaling.py [--seconds 10] [--seeds 3] [--widths 1 12 50 200 1000] [--resume]

Diffusion u_t = D u_xx on [-W/2, W/2] x [0, 1], u = sin(12 pi x / W) exp(-0.1 pi^2 t): W = 12 is the problem of Mostajeran and
Faroughi (arXiv 2501.02762), the others are the same one stretched. Networks of some 500 parameters: [2, 8, 8, 1] of degree 5
behind the affine map (scaled-cpikan), behind tanh of the coordinates as they are (cpikan), tanh networks [2, 19, 19, 1] of
scaled (scaled-mlp) and of plain coordinates (mlp), with equal points and processor seconds on one core, weights by the recipe.
results/affine_scaling.csv has the relative L2 error of each.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from torch import Tensor, nn

import cpikan
from cpikan.fields.mapped import MappedCPIKAN, PointMap
from cpikan.fields.scaling import AffineScaling
from cpikan.fields.start import Start
from cpikan.physics.problem import Problem, dirichlet, initial
from cpikan.physics.regions import Region, box

RESULTS = Path(__file__).parent / "results" / "affine_scaling.csv"
METHODS = ("adam", "soap", "ssbroyden", "levenberg-marquardt")
FIELDS = ("width", "network", "method", "seed", "relative_l2", "processor_s", "stop_reason")
DIFFUSIVITY, PAPER_WIDTH = 0.1, 12.0


def diffusion(width: float) -> Problem:
    """Pose the diffusion of six waves on a box of a width."""
    wave, diffusivity = 12 * math.pi / width, DIFFUSIVITY * (width / PAPER_WIDTH) ** 2

    def exact(x: Tensor) -> Tensor:
        return (torch.sin(wave * x[..., 0]) * torch.exp(-DIFFUSIVITY * math.pi**2 * x[..., 1]))[..., None]

    def residual(u: cpikan.Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] - diffusivity * u.second[..., 0, 0]

    ends = dirichlet(0.0, ["x=min", "x=max"])
    start = initial(lambda x: torch.sin(wave * x[..., 0]))
    region = box([-width / 2, 0], [width / 2, 1], ["x", "t"])
    return Problem(f"diffusion-{width:g}", region, residual, [ends, start], exact)


class Unscaled(nn.Module):
    """A module of plain coordinates, given scaled ones."""

    def __init__(self, scaling: nn.Module, module: nn.Module) -> None:
        super().__init__()
        self.scaling, self.module = scaling, module

    def forward(self, scaled: Tensor) -> Tensor:
        """Evaluate the module where the point is."""
        return self.module(self.scaling.inverse(scaled))


def scaled_cpikan(region: Region, start: Start) -> nn.Module:
    return cpikan.ScaledCPIKAN([2, 8, 8, 1], 5, (region.lower, region.upper), start=start)


def cpikan_of_tanh(region: Region, start: Start) -> nn.Module:
    return MappedCPIKAN([2, 8, 8, 1], 5, PointMap(torch.tanh, 2, (-1.0, -1.0), (1.0, 1.0)), start=start)


def scaled_mlp(region: Region, start: Start) -> nn.Module:
    return cpikan.MLP([2, 19, 19, 1], domain=(region.lower, region.upper), start=start)


def mlp(region: Region, start: Start) -> nn.Module:
    domain = (region.lower, region.upper)
    plain = cpikan.MLP([2, 19, 19, 1], start=start)  # of [-1, 1]: coordinates as they are
    return cpikan.ModuleField(Unscaled(AffineScaling(*domain), plain), domain)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "scaled-cpikan": scaled_cpikan,
    "cpikan": cpikan_of_tanh,
    "scaled-mlp": scaled_mlp,
    "mlp": mlp,
}


def line(width: float, network: str, method: str, seed: int, seconds: float) -> dict[str, object]:
    """Train one network once."""
    problem = diffusion(width)
    field = NETWORKS[network](problem.region, Start(seed)).double()
    settings = cpikan.SolveSettings(seconds=seconds, clock="processor")
    found = cpikan.solve(problem, field, method, seed=seed, settings=settings)
    figures = {"relative_l2": f"{found.metrics['relative_l2']:.3g}", "processor_s": f"{found.metrics['seconds']:.3g}"}
    return {"width": f"{width:g}", "network": network, "method": method, "seed": seed, **figures} | {
        "stop_reason": found.stop_reason.name.lower()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--widths", type=float, nargs="+", default=[1, 12, 50, 200, 1000])
    parser.add_argument("--resume", action="store_true", help="keep the lines that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    if given.resume and RESULTS.exists():
        rows = list(csv.DictReader(RESULTS.open(encoding="utf-8")))
    there = {tuple(str(row[key]) for key in FIELDS[:4]) for row in rows}
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        for seed in range(given.seeds):
            for width in given.widths:
                for network in NETWORKS:
                    for method in METHODS:
                        if (f"{width:g}", network, method, str(seed)) in there:
                            continue
                        row = line(width, network, method, seed, given.seconds)
                        writer.writerow(row)
                        file.flush()
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()

"""What noisy data can tell of a coefficient: ``python benchmarks/inverse_bounds.py``, results/inverse_bounds.csv.

The Cramer-Rao bound of k in reaction-diffusion-inverse-noise5. The state is expanded in product Chebyshev series about the
truth; the linearised equation holds exactly, by a weight that makes no difference any more; the data that are fitted (three of
four) are independent with their noise. The bound is what is left for k. Start and ends of the wave, which the problem also
gives, are not used: series that meet them and the equation exactly are too few, and the bound would grow with the modes.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.learning.samplers.points import Points, measured_part
from cpikan.physics.catalogue import problem
from cpikan.physics.catalogue.reaction import fisher_wave

RESULTS = Path(__file__).resolve().parent / "results" / "inverse_bounds.csv"
NAME, NOISE, K = "reaction-diffusion-inverse-noise5", 0.05, 1.0
MODES = ((22, 11), (26, 13), (30, 15))
EXACT = 1e5  # weight of what holds, beside data over their noise


def bound(modes: tuple[int, int]) -> float:
    """The least standard error of k that any unbiased estimate can have."""
    one = problem(NAME)
    box = (one.region.lower, one.region.upper)
    field = TensorChebyshev(modes, box)
    data = next(c for c in one.conditions if c.at is not None)
    assert data.at is not None
    at = data.at[measured_part(len(data.at), Points(1, 1))]
    sigma = NOISE * float(fisher_wave(data.at).square().mean().sqrt())
    with torch.no_grad():
        x = Points(3000, 400).init(one)[0]["equation"].points
        u, jet = fisher_wave(x)[:, None], field.features_jet(x)
        state = jet.gradient[..., 1] - jet.second[..., 0] - K * (1 - 2 * u) * jet.value
        blocks = [EXACT * torch.cat([state, -u * (1 - u)], dim=1), _plain(field, at) / sigma]
    rows = torch.cat(blocks).numpy()
    # the last diagonal entry of R is what k's column has beyond all others
    return float(1 / abs(np.linalg.qr(rows, mode="r")[-1, -1]))


def _plain(field: TensorChebyshev, x: torch.Tensor) -> torch.Tensor:
    """Values of the state's modes, nothing of k."""
    features = field.features(x)
    return torch.cat([features, features.new_zeros(len(features), 1)], dim=1)


def main() -> None:
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["problem", "modes_x", "modes_t", "bound_of_k"])
        for modes in MODES:
            row = [NAME, *modes, f"{bound(modes):.3g}"]
            writer.writerow(row)
            print(*row)


if __name__ == "__main__":
    main()

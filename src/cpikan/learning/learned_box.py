"""LearnedBox: a network that maps the values on the edge of a small box to those inside, trained on exact answers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.mosaic_flow import HarmonicBox, check_cells

_WAVES = 12  # around the edge of a box
_ROUGH = (0.5, 3.0)  # powers by which their size falls
_BATCH, _RATE = 256, 3e-3
_ANSWERS = 20  # for each coefficient of an output, in the last step, least squares for the output layer


class LearnedBox:
    """Answer with a network for boxes of ``cells`` x ``cells``, in place of `HarmonicBox`.

    The network sees the values on the edge without their mean and as a share of the largest of what is left, since the
    equation is linear and constants solve it.
    """

    def __init__(self, network: ScaledCPIKAN, cells: int) -> None:
        check_cells(cells)
        self.network, self.cells = network, cells

    def __call__(self, edges: np.ndarray) -> np.ndarray:
        """Find the values inside, (B, cells - 1, cells - 1), for those on the edges (B, 4 cells)."""
        shares, mean, size = _shares(edges)
        with torch.no_grad():
            found = self.network(torch.from_numpy(shares)).numpy()
        return (found * size + mean).reshape(len(edges), self.cells - 1, self.cells - 1)


def train_box(cells: int, hidden: int = 64, degree: int = 3, steps: int = 300, seed: int = 0) -> LearnedBox:
    """Train a network on random edges and their exact answers: Adam on all parameters, then least squares for the output."""
    exact, draw = HarmonicBox(cells), np.random.default_rng(seed)
    inputs = 4 * cells
    network = ScaledCPIKAN(
        [inputs, hidden, (cells - 1) ** 2], degree, ([-1.0] * inputs, [1.0] * inputs), start=Start(seed)
    )
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    for _ in range(steps):
        x, wanted = _drawn(exact, cells, _BATCH, draw)
        optimizer.zero_grad()
        (network(x) - wanted).square().mean().backward()
        optimizer.step()
    x, wanted = _drawn(exact, cells, _ANSWERS * (hidden * degree + 1), draw)
    with torch.no_grad():
        network.set_output_coefficients(torch.linalg.lstsq(network.features(x), wanted, driver="gelsd").solution)
    return LearnedBox(network, cells)


def random_edges(cells: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """Draw values around the edges of boxes (count, 4 cells): waves whose size falls by a random power of their number."""
    waves, way = np.arange(1, _WAVES + 1), 2 * np.pi * np.arange(4 * cells) / (4 * cells)
    power = draw.uniform(*_ROUGH, (count, 1))
    parts = draw.standard_normal((2, count, _WAVES)) * waves**-power
    return np.asarray(parts[0] @ np.cos(np.outer(waves, way)) + parts[1] @ np.sin(np.outer(waves, way)))


def _drawn(exact: HarmonicBox, cells: int, count: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    shares, _, _ = _shares(random_edges(cells, count, draw))
    return torch.from_numpy(shares), torch.from_numpy(exact(shares).reshape(count, -1))


def _shares(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the mean off edges and divide by the largest that is left; constants are zero."""
    mean = edges.mean(axis=1, keepdims=True)
    size = np.abs(edges - mean).max(axis=1, keepdims=True)
    return (edges - mean) / np.where(size > 0, size, 1.0), mean, size

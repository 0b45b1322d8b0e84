"""FourierCKAN: random Fourier features of the scaled coordinates, then Chebyshev layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.layered import ChainField, Degrees, Held, Through, Widths, checked_degrees
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Inputs, Start
from cpikan.fields.streams import Streams

Scales = float | Sequence[float]


class FourierCKAN(ChainField):
    """u(x) = layers([cos 2 pi B'x^, sin 2 pi B'x^]) with x^ the scaled coordinates, so that sigma means the same on any box.

    ``widths`` are [d, features, ..., outputs], ``features`` even: half cosines, half sines, already in [-1, 1], so the
    first Chebyshev layer takes them as they are, and T_k of cos t is cos kt. The columns of B (d, features / 2) are normal
    with deviation ``sigma``, or with several, in turn; they are a buffer, drawn from the start's seed, common to all
    ``networks``. The frequencies reach 2 pi sigma degree, and second derivatives their square. Raises InputError for an
    odd number of features and a sigma that is not positive. Tancik et al. (2020); Wang, Wang and Perdikaris (2021).
    """

    settings = ("degree", "sigma")
    # cosines of phases spread evenly
    entry = Inputs(lambda degree: np.full(degree, 0.5), lambda degree: 0.5 * np.arange(1, degree + 1) ** 2)
    frequencies: Tensor

    def __init__(
        self, widths: Widths, degree: Degrees = 3, domain: Domain = None, *, sigma: Scales = 0.5, **held: Unpack[Held]
    ) -> None:
        self.sigma = tuple(float(s) for s in sigma) if isinstance(sigma, Sequence) else (float(sigma),)
        if not self.sigma or not all(s > 0 and math.isfinite(s) for s in self.sigma):
            raise InputError(f"sigma {sigma} of Fourier features: give positive numbers, such as 0.5 or [0.3, 3]")
        self.degree = checked_degrees(degree, len(widths) - 2)
        super().__init__(widths, domain, **held)

    def build(self, networks: int | None) -> None:
        """Make the frequencies, zero, and the Chebyshev layers behind them."""
        if len(self.widths) < 3 or self.widths[1] % 2:
            raise InputError(f"widths {list(self.widths)}: give an even number of features second, as [2, 16, 8, 1]")
        # three axes: rows of a table would be taken for one box per network
        self.register_buffer("frequencies", torch.zeros(1, self.widths[0], self.widths[1] // 2, dtype=torch.float64))
        pairs = zip(itertools.pairwise(self.widths[1:]), self.degree, strict=True)
        self.layers = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)

    def restart(self, start: Start) -> None:
        """Draw frequencies and coefficients anew."""
        generator = np.random.default_rng([start.seed, 1])
        shape = tuple(self.frequencies.shape)
        deviation = np.resize(np.asarray(self.sigma), shape[-1])
        self.frequencies.copy_(torch.from_numpy(generator.standard_normal(shape) * deviation))
        super().restart(start)

    def _body(self, scaled: Tensor) -> Tensor:
        phase = self._phase(scaled)
        return super()._body(torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1))

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        phase = scaled.mapped(self._phase)
        c, s = torch.cos(phase.value), torch.sin(phase.value)
        waves = [torch.cat(pair, dim=-1) for pair in ((c, s), (-s, c), (-c, -s))]
        doubled = phase.mapped(lambda part: torch.cat([part, part], dim=-1))
        return super()._body_streams(doubled.through(*waves), through)

    def _phase(self, scaled: Tensor) -> Tensor:
        return 2 * math.pi * (scaled @ self.frequencies[0])

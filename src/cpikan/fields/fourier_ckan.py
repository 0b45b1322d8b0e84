"""FourierCKAN: random Fourier features of the scaled coordinates, then Chebyshev layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.embeddings import FourierEmbedding
from cpikan.fields.layered import ChainField, Degrees, Held, Through, Widths, checked_degrees
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Inputs, Start
from cpikan.fields.streams import Streams

Scales = float | Sequence[float]
_IN_FILES = "frequencies"  # of the embedding: its name in a file


class FourierCKAN(ChainField):
    """u(x) = layers(FourierEmbedding(x^)) with x^ the scaled coordinates, so that sigma means the same on any box.

    ``widths`` are [d, features, ..., outputs]. The features are in [-1, 1] already, so the first Chebyshev layer takes them as
    they are, and T_k of cos t is cos kt: frequencies reach 2 pi sigma degree, and second derivatives their square. They are
    common to all ``networks``. Raises InputError for an odd number of features and a sigma that is not positive.
    """

    settings = ("degree", "sigma")
    # cosines of phases spread evenly
    entry = Inputs(lambda degree: np.full(degree, 0.5), lambda degree: 0.5 * np.arange(1, degree + 1) ** 2)

    def __init__(
        self, widths: Widths, degree: Degrees = 3, domain: Domain = None, *, sigma: Scales = 0.5, **held: Unpack[Held]
    ) -> None:
        self.sigma = sigma
        self.degree = checked_degrees(degree, len(widths) - 2)
        super().__init__(widths, domain, **held)
        self.register_state_dict_post_hook(_renamed("embedding.phases.frequencies", _IN_FILES))
        self.register_load_state_dict_pre_hook(_renamed(_IN_FILES, "embedding.phases.frequencies"))

    def build(self, networks: int | None) -> None:
        """Make the embedding, frequencies zero, and the Chebyshev layers behind it."""
        if len(self.widths) < 3 or self.widths[1] % 2:
            raise InputError(f"widths {list(self.widths)}: give an even number of features second, as [2, 16, 8, 1]")
        self.embedding = FourierEmbedding(self.widths[0], self.widths[1], self.sigma, start=None)
        self.sigma = self.embedding.sigma
        pairs = zip(itertools.pairwise(self.widths[1:]), self.degree, strict=True)
        self.layers = nn.ModuleList(ChebyshevLayer(a, b, k, networks) for (a, b), k in pairs)

    def restart(self, start: Start) -> None:
        """Draw frequencies and coefficients anew."""
        self.embedding.restart(start)
        super().restart(start)

    def _body(self, scaled: Tensor) -> Tensor:
        return super()._body(self.embedding(scaled))

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        return super()._body_streams(self.embedding.streams(scaled, through), through)


def _renamed(old: str, new: str) -> Any:
    """Make a hook of a state that calls one of its tensors otherwise."""

    def hook(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        del module, rest
        if prefix + old in state:
            state[prefix + new] = state.pop(prefix + old)

    return hook

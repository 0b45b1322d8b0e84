"""Kinds of fields by name, each made from the widths and the degree of a Chebyshev network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cpikan.errors import InputError, unknown_name
from cpikan.fields.adaptive import AdaptiveCKAN, AdaptiveMLP
from cpikan.fields.blend import BlendField
from cpikan.fields.deep_galerkin import DeepGalerkinField
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import Embedding
from cpikan.fields.fourier_ckan import FourierCKAN
from cpikan.fields.gated_ckan import GatedCKAN
from cpikan.fields.layered import Degrees, LayeredField, Start, checked_widths
from cpikan.fields.mlp import MLP
from cpikan.fields.random_feature import RandomFeatureCKAN
from cpikan.fields.residual_ckan import ResidualCKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.scaling import Domain
from cpikan.fields.separable import SeparableCKAN
from cpikan.fields.siren import Siren
from cpikan.fields.wavelet_kan import WaveletKAN

Maker = Callable[[Sequence[int], Any, Domain, int], LayeredField]


class FieldKind(NamedTuple):
    """A class of fields, and how one is made from the widths and the degree of a Chebyshev network, a box and a seed.

    With ``each`` there may be a degree for each layer.
    """

    field: type[LayeredField]
    make: Maker
    each: bool = False


def _alike(field: Any, **settings: Any) -> FieldKind:
    """Make a kind that takes widths and degree as they are."""
    return FieldKind(
        field, lambda widths, degree, domain, seed: field(widths, degree, domain, start=Start(seed), **settings), True
    )


def _dense(field: Any) -> FieldKind:
    """Make a kind without a degree: hidden nodes times its root make about as many parameters."""

    def make(widths: Sequence[int], degree: int, domain: Domain, seed: int) -> LayeredField:
        hidden = (math.ceil(n * math.sqrt(degree)) for n in widths[1:-1])
        made: LayeredField = field([widths[0], *hidden, widths[-1]], domain=domain, start=Start(seed))
        return made

    return FieldKind(field, make)


def _fourier(widths: Sequence[int], degree: int, domain: Domain, seed: int) -> FourierCKAN:
    """Turn the first hidden nodes into Fourier features: an even number, at least two for every axis."""
    first = max(widths[1] if len(widths) > 2 else 0, 2 * widths[0])
    return FourierCKAN([widths[0], first + first % 2, *widths[2:-1], widths[-1]], degree, domain, start=Start(seed))


def _separable(widths: Sequence[int], degree: int, domain: Domain, seed: int) -> SeparableCKAN:
    """Multiply plain series of twice the degree: factors with hidden layers stall near zero in second-order
    methods."""
    rank = max(2, widths[1] // 3 if len(widths) > 2 else 2)
    return SeparableCKAN([widths[0], widths[-1]], 2 * degree, domain, rank=rank, start=Start(seed))


def _random(widths: Sequence[int], degree: int, domain: Domain, seed: int) -> RandomFeatureCKAN:
    """Draw many nodes of moderate degree: what is drawn and stays must span the solution."""
    wide = [widths[0], *(_RANDOM_NODES * n for n in widths[1:-1]), widths[-1]]
    return RandomFeatureCKAN(wide, degree, domain, start=Start(seed))


def _deep(field: Any, layers: int, degree: int) -> FieldKind:
    """Make a kind that needs depth: one hidden layer becomes ``layers``; one degree is that of the ends, inner ones lower."""

    def make(widths: Sequence[int], outer: Degrees, domain: Domain, seed: int) -> LayeredField:
        hidden = list(widths[1:-1]) or [_FEWEST]
        hidden = hidden * layers if len(hidden) == 1 else hidden
        inner = outer if isinstance(outer, Sequence) else min(outer, degree)
        degrees = inner if isinstance(inner, Sequence) else (outer, *[inner] * (len(hidden) - 1), outer)
        made: LayeredField = field([widths[0], *hidden, widths[-1]], degrees, domain, start=Start(seed))
        return made

    return FieldKind(field, make, True)


def _galerkin(widths: Sequence[int], degree: int, domain: Domain, seed: int) -> DeepGalerkinField:
    """Make two hidden widths at least, one block of four dense layers: half the nodes of a dense network."""
    hidden = widths[1:-1] or [_FEWEST]
    width = math.ceil(0.5 * max(hidden) * math.sqrt(degree)) + 1
    return DeepGalerkinField([widths[0], *[width] * max(2, len(hidden)), widths[-1]], domain=domain, start=Start(seed))


_RANDOM_NODES = 5
_FEWEST = 8
FIELDS: dict[str, FieldKind] = {
    "scaled-cpikan": _alike(ScaledCPIKAN),
    "mlp": _dense(MLP),
    "siren": _dense(Siren),
    "fourier": FieldKind(FourierCKAN, _fourier),
    "wavelet": _alike(WaveletKAN),
    "wavelet-morlet": _alike(WaveletKAN, mother="morlet"),
    "wavelet-dog": _alike(WaveletKAN, mother="dog"),
    "wavelet-shannon": _alike(WaveletKAN, mother="shannon"),
    "random-feature": FieldKind(RandomFeatureCKAN, _random),
    "separable": FieldKind(SeparableCKAN, _separable),
    "blend": _alike(BlendField),
    "residual": _deep(ResidualCKAN, 4, 3),
    "gated": _deep(GatedCKAN, 3, 3),
    "adaptive": _alike(AdaptiveCKAN),
    "adaptive-mlp": _dense(AdaptiveMLP),
    "deep-galerkin": FieldKind(DeepGalerkinField, _galerkin),
}


def make_field(
    name: str,
    widths: Sequence[int],
    degree: Degrees,
    domain: Domain,
    seed: int = 0,
    *,
    embedding: Embedding | None = None,
) -> LayeredField:
    """Make a fresh field of a kind on a box, of about the size of a Chebyshev network with these widths and this degree.

    With an ``embedding`` the field stands behind it. Kinds of Chebyshev layers and of wavelets take a degree for each layer
    as well. Raises InputError for a kind that is not there, suggesting the nearest, for sizes the kind does not take, and
    for an embedding of other axes.
    """
    if name not in FIELDS:
        raise unknown_name("field", name, FIELDS)
    widths = checked_widths(widths)
    if isinstance(degree, Sequence) and not FIELDS[name].each:
        raise InputError(f"degrees {list(degree)} for field {name}: give one number")
    if embedding is None:
        return FIELDS[name].make(widths, degree, domain, seed)
    if embedding.dimension != widths[0]:
        raise InputError(f"embedding of {embedding.dimension} axes for widths {list(widths)}: make them equal")
    inner = FIELDS[name].make([embedding.width, *widths[1:]], degree, None, seed)
    return EmbeddedField(inner, embedding, domain)

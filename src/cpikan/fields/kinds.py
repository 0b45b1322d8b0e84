"""Kinds of fields by name, each made from the widths and the degree of a Chebyshev network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cpikan.errors import unknown_name
from cpikan.fields.blend import BlendField
from cpikan.fields.fourier_ckan import FourierCKAN
from cpikan.fields.layered import Domain, LayeredField, Start
from cpikan.fields.mlp import MLP
from cpikan.fields.random_feature import RandomFeatureCKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.separable import SeparableCKAN
from cpikan.fields.siren import Siren
from cpikan.fields.wavelet_kan import WaveletKAN

Maker = Callable[[Sequence[int], int, Domain, int], LayeredField]


def _denser(widths: Sequence[int], degree: int) -> list[int]:
    """Hidden nodes times the root of the degree: a dense network with about as many parameters."""
    return [widths[0], *(math.ceil(n * math.sqrt(degree)) for n in widths[1:-1]), widths[-1]]


def _waves_first(widths: Sequence[int]) -> list[int]:
    """The first hidden nodes become Fourier features: an even number, at least two for every axis."""
    first = max(widths[1] if len(widths) > 2 else 0, 2 * widths[0])
    return [widths[0], first + first % 2, *widths[2:-1], widths[-1]]


def _separable(widths: Sequence[int], degree: int, domain: Domain, seed: int) -> SeparableCKAN:
    """Products of plain series of twice the degree: factors with hidden layers stall near zero in second-order methods."""
    rank = max(2, widths[1] // 3 if len(widths) > 2 else 2)
    return SeparableCKAN([widths[0], widths[-1]], 2 * degree, domain, rank=rank, start=Start(seed))


def _wavelets(mother: str) -> Maker:
    return lambda widths, degree, domain, seed: WaveletKAN(widths, degree, domain, mother=mother, start=Start(seed))


# many nodes of moderate degree: what is drawn and stays must span the solution
_RANDOM_NODES = 5

FIELDS: dict[str, Maker] = {
    "scaled-cpikan": lambda widths, degree, domain, seed: ScaledCPIKAN(widths, degree, domain, start=Start(seed)),
    "mlp": lambda widths, degree, domain, seed: MLP(_denser(widths, degree), domain=domain, start=Start(seed)),
    "siren": lambda widths, degree, domain, seed: Siren(_denser(widths, degree), domain=domain, start=Start(seed)),
    "fourier": lambda widths, degree, domain, seed: FourierCKAN(
        _waves_first(widths), degree, domain, start=Start(seed)
    ),
    "wavelet": _wavelets("mexican-hat"),
    "wavelet-morlet": _wavelets("morlet"),
    "wavelet-dog": _wavelets("dog"),
    "wavelet-shannon": _wavelets("shannon"),
    "random-feature": lambda widths, degree, domain, seed: RandomFeatureCKAN(
        [widths[0], *(_RANDOM_NODES * n for n in widths[1:-1]), widths[-1]], degree, domain, start=Start(seed)
    ),
    "separable": _separable,
    "blend": lambda widths, degree, domain, seed: BlendField(widths, degree, domain, start=Start(seed)),
}


def make_field(name: str, widths: Sequence[int], degree: int, domain: Domain, seed: int = 0) -> LayeredField:
    """A fresh field of a kind on a box, of about the size of a Chebyshev network with these widths and this degree.

    Raises InputError for a kind that is not there, suggesting the nearest, and for sizes the kind does not take.
    """
    if name not in FIELDS:
        raise unknown_name("field", name, FIELDS)
    return FIELDS[name](widths, degree, domain, seed)

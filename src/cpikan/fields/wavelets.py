"""Mother wavelets of unit length and zero mean, with first and second derivatives in closed form.

As written in several Wav-KAN codes these are not wavelets: Morlet without its correction has a mean, and Shannon is
multiplied with a window over the nodes' numbers instead of over x. Here all four have mean 0 and integral of psi^2 one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cpikan.errors import unknown_name

Wavelet = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
_NEAR = 0.5  # below it sinc's derivatives, differences of equal terms over x^3, come from the series


def mexican_hat(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute 2 / (sqrt 3 pi^(1/4)) (1 - x^2) exp(-x^2 / 2), the second derivative of a Gaussian (Ricker)."""
    s = x * x
    g = 2 / (math.sqrt(3) * math.pi**0.25) * torch.exp(-0.5 * s)
    return g * (1 - s), g * x * (s - 3), g * (-3 + 6 * s - s * s)


def derivative_of_gaussian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute -sqrt 2 / pi^(1/4) x exp(-x^2 / 2), the first derivative of a Gaussian."""
    s = x * x
    g = math.sqrt(2) / math.pi**0.25 * torch.exp(-0.5 * s)
    return -g * x, g * (s - 1), g * x * (3 - s)


def morlet(x: Tensor, frequency: float = 5.0) -> tuple[Tensor, Tensor, Tensor]:
    """Compute c (cos w x - k) exp(-x^2 / 2) with k = exp(-w^2 / 2), which takes its mean off, and w = 5 as is usual."""
    w, k = frequency, math.exp(-0.5 * frequency**2)
    square = math.sqrt(math.pi) * (0.5 * (1 + math.exp(-w * w)) - 2 * k * math.exp(-0.25 * w * w) + k * k)
    g = torch.exp(-0.5 * x * x) / math.sqrt(square)
    c, s = torch.cos(w * x), w * torch.sin(w * x)
    return g * (c - k), g * (-s - x * (c - k)), g * (-w * w * c + 2 * x * s + (x * x - 1) * (c - k))


def shannon(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute 2 sinc(2 x) - sinc(x), sinc(x) = sin(pi x) / (pi x): all frequencies from pi to 2 pi and no other."""
    wide, narrow = _sinc(2 * math.pi * x), _sinc(math.pi * x)
    scale = ((2.0, 1.0), (4 * math.pi, math.pi), (8 * math.pi**2, math.pi**2))
    value, first, second = (a * u - b * v for (a, b), u, v in zip(scale, wide, narrow, strict=True))
    return value, first, second


def _sinc(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute sin(y) / y and its first two derivatives by y; near 0 by series, twelve terms to rounding."""
    near = y.abs() < _NEAR
    far = torch.where(near, torch.ones_like(y), y)
    s, c = torch.sin(far), torch.cos(far)
    value = s / far
    first = (c - value) / far
    second = -value - 2 * first / far
    small = torch.where(near, y, torch.zeros_like(y))
    q = small * small
    # sinc = sum (-1)^n y^(2n) / (2n + 1)!, and its derivatives term by term
    terms = [(-1) ** n / math.factorial(2 * n + 1) for n in range(10)]
    series = _horner(q, terms)
    series1 = small * _horner(q, [2 * n * terms[n] for n in range(1, 10)])
    series2 = _horner(q, [2 * n * (2 * n - 1) * terms[n] for n in range(1, 10)])
    return torch.where(near, series, value), torch.where(near, series1, first), torch.where(near, series2, second)


def _horner(q: Tensor, terms: list[float]) -> Tensor:
    total = torch.full_like(q, terms[-1])
    for term in reversed(terms[:-1]):
        total = total * q + term
    return total


WAVELETS: dict[str, Wavelet] = {
    "mexican-hat": mexican_hat,
    "morlet": morlet,
    "dog": derivative_of_gaussian,
    "shannon": shannon,
}

# angular frequencies at which they are strongest; Shannon's is the middle of its band
PEAKS = {"mexican-hat": math.sqrt(2), "morlet": 5.0, "dog": 1.0, "shannon": 1.5 * math.pi}


def wavelet_named(name: str) -> Wavelet:
    """Look up a mother wavelet; raises InputError for a name that is not there."""
    if name not in WAVELETS:
        raise unknown_name("wavelet", name, WAVELETS)
    return WAVELETS[name]

"""Chebyshev polynomials of the first kind by recurrence, with first and second derivatives, and their moments."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# The trapezoidal rule on the whole line converges like exp(-2 pi a / step) for functions analytic within a of it; tanh
# is within pi / 2. (Gauss-Hermite converges slowly on it.) Past nine deviations the density is below 1e-17.
_STEP, _REACH = 1 / 32, 9


def polynomials(x: Float[Tensor, "*points n"], degree: int) -> Float[Tensor, "*points {degree} n"]:
    """Compute T_1 ... T_degree at x (..., n), shape (..., degree, n); exact at -1 and 1, no graph of arccos anywhere."""
    terms = [torch.ones_like(x), x]
    for _ in range(degree - 1):
        terms.append(2 * x * terms[-1] - terms[-2])
    return torch.stack(terms[1:], dim=-2)


def polynomials_jet(
    x: Float[Tensor, "*points n"], degree: int, second: bool = True
) -> tuple[
    Float[Tensor, "*points {degree} n"], Float[Tensor, "*points {degree} n"], Float[Tensor, "*points {degree} _"]
]:
    """Compute T_k, T_k' and T_k'' for k = 1 ... degree at x (..., n), each (..., degree, n).

    Differentiating T_(k+1) = 2 x T_k - T_(k-1) gives T_(k+1)' = 2 T_k + 2 x T_k' - T_(k-1)' and
    T_(k+1)'' = 4 T_k' + 2 x T_k'' - T_(k-1)''; the closed forms with U_k divide by 1 - x^2 and fail at the ends.
    Without ``second`` the third is empty, (..., degree, 0).
    """
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    value, first, curve = [one, x], [zero, one], [zero, zero]
    twice = 2 * x
    for _ in range(degree - 1):
        if second:
            curve.append(4 * first[-1] + twice * curve[-1] - curve[-2])
        first.append(2 * value[-1] + twice * first[-1] - first[-2])
        value.append(twice * value[-1] - value[-2])
    values, firsts = torch.stack(value[1:], dim=-2), torch.stack(first[1:], dim=-2)
    return values, firsts, torch.stack(curve[1:], dim=-2) if second else values[..., :0]


def mean_squares_uniform(degree: int) -> np.ndarray:
    """Compute E[T_k(x)^2] for k = 1 ... degree and x uniform on [-1, 1]: (1 - 1 / (4 k^2 - 1)) / 2.

    T_k^2 = (1 + T_2k) / 2, and the mean of T_2k is -1 / (4 k^2 - 1). Under the arcsine law every mean is 1 / 2.
    """
    k = np.arange(1, degree + 1)
    return 0.5 * (1 - 1 / (4.0 * k * k - 1))


def mean_squares_after_tanh(degree: int, deviation: float = 1.0) -> np.ndarray:
    """Compute E[T_k(tanh z)^2] for k = 1 ... degree and z normal with this standard deviation, by quadrature.

    Were the density of z sech(z) / pi (deviation pi / 2), tanh z would follow the arcsine law and every mean be 1 / 2.
    """
    angle, weight = _angles_after_tanh(deviation)
    waves = np.cos(np.arange(1, degree + 1)[:, None] * angle)
    return np.asarray((waves * waves) @ weight)


def mean_slopes_uniform(degree: int) -> np.ndarray:
    """Compute E[T_k'(x)^2] for k = 1 ... degree and x uniform on [-1, 1]: k^2 (1 + 1/3 + ... + 1 / (2 k - 1)).

    T_k' = k sin(k t) / sin t with x = cos t, and the integral of sin^2(k t) / sin t is twice that sum.
    """
    k = np.arange(1, degree + 1)
    return np.asarray(k * k * np.cumsum(1 / (2.0 * k - 1)))


def mean_slopes_after_tanh(degree: int, deviation: float = 1.0) -> np.ndarray:
    """Compute E[(d/dz T_k(tanh z))^2] for k = 1 ... degree and z normal with this standard deviation, by quadrature.

    With tanh z = cos t the derivative is k sin t sin(k t): under the arcsine law its mean square is k^2 / 4, for k = 1 3/8.
    """
    angle, weight = _angles_after_tanh(deviation)
    k = np.arange(1, degree + 1)[:, None]
    return np.asarray((k * np.sin(angle) * np.sin(k * angle)) ** 2 @ weight)


def _angles_after_tanh(deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Place t with tanh z = cos t, and the weights of a mean over z."""
    z = np.arange(-_REACH, _REACH + _STEP, _STEP)
    weight = np.exp(-0.5 * z * z)
    return np.arccos(np.tanh(deviation * z)), weight / weight.sum()

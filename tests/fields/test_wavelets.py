"""Mother wavelets and activations: mean, length, support in frequency, derivatives by autograd and from sympy."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import sympy
import torch
from scipy.integrate import quad

from cpikan.errors import InputError
from cpikan.fields.activations import ACTIVATIONS, activation_named, sine
from cpikan.fields.wavelets import WAVELETS, shannon, wavelet_named

X = torch.from_numpy(np.concatenate([np.linspace(-6, 6, 241), [1e-9, 1e-4, 0.15, 0.16, 0.3184, 40.0]]))


def number(function, x):
    return float(function(torch.tensor(x, dtype=torch.float64))[0])


@pytest.mark.parametrize("name", ["mexican-hat", "morlet", "dog"])
def test_a_wavelet_has_mean_zero_and_length_one(name):
    psi = WAVELETS[name]
    # beyond 12 the Gaussians are below 1e-31
    assert quad(lambda x: number(psi, x), -12, 12, limit=400)[0] == pytest.approx(0, abs=1e-10)
    assert quad(lambda x: number(psi, x) ** 2, -12, 12, limit=400)[0] == pytest.approx(1, abs=1e-9)


def test_shannon_has_the_frequencies_from_pi_to_two_pi_alone():
    # samples at spacing 1/4 alias at 8 pi, beyond 2 pi: the sum over them is the integral, up to its slow tail (1 / reach)
    n = np.arange(-40_000, 40_000) / 4
    psi = shannon(torch.from_numpy(n))[0].numpy()
    for frequency, share in ((0.0, 0.0), (0.5, 0.0), (1.5, 1.0), (1.8, 1.0), (2.5, 0.0)):
        assert np.sum(psi * np.cos(math.pi * frequency * n)) / 4 == pytest.approx(share, abs=2e-3)
    assert np.sum(psi**2) / 4 == pytest.approx(1, abs=1e-3)


def formulas():
    x = sympy.Symbol("x", real=True)
    gauss = sympy.exp(-x * x / 2)
    k = sympy.exp(-sympy.Rational(25, 2))
    raw = (sympy.cos(5 * x) - k) * gauss
    with mpmath.workdps(50):
        squared = mpmath.quad(sympy.lambdify(x, raw**2, "mpmath"), mpmath.linspace(-13, 13, 27))  # e^-169 is left out
        length = sympy.Float(mpmath.sqrt(squared), 40)
    root = sympy.pi ** sympy.Rational(1, 4)
    return x, {
        "mexican-hat": 2 / (sympy.sqrt(3) * root) * (1 - x * x) * gauss,
        "dog": -sympy.sqrt(2) / root * x * gauss,
        "morlet": raw / length,
        "shannon": sympy.sin(2 * sympy.pi * x) / (sympy.pi * x) - sympy.sin(sympy.pi * x) / (sympy.pi * x),
    }


def test_wavelets_and_their_derivatives_are_those_of_sympy():
    x, table = formulas()
    points = [-2.7, -0.1585, 1e-7, 0.05, 0.32, 1.9]
    for name, expression in table.items():
        found = WAVELETS[name](torch.tensor(points, dtype=torch.float64))
        for order in range(3):
            derivative = sympy.lambdify(x, sympy.diff(expression, x, order), "mpmath")
            for point, value in zip(points, found[order].tolist(), strict=True):
                with mpmath.workdps(80):  # (1e-7)^5 cancels 35 of them
                    truth = float(derivative(mpmath.mpf(str(point))))
                # 1e-16 of terms below some 50 (8 pi^2 for Shannon), divided by x^2 > 0.025 where it is not the series
                assert value == pytest.approx(truth, abs=2e-12), (name, order, point)


@pytest.mark.parametrize("function", [*WAVELETS.values()], ids=[*WAVELETS])
def test_derivatives_of_wavelets_are_those_of_autograd(function):
    _chain_of_derivatives(lambda x: function(x)[0], function)


@pytest.mark.parametrize("one", [*ACTIVATIONS.values(), sine(3.0)], ids=lambda one: one.name)
def test_derivatives_of_activations_are_those_of_autograd(one):
    _chain_of_derivatives(one.value, one.derivatives)


def _chain_of_derivatives(value, derivatives):
    """Each order against autograd's derivative of the one before."""
    x = X.clone().requires_grad_()
    found = derivatives(x)
    assert torch.equal(value(x), found[0])
    for lower, higher in ((found[0], found[1]), (found[1], found[2])):
        slope = torch.autograd.grad(lower.sum(), x, retain_graph=True)[0]
        assert float((slope - higher).abs().max().detach()) <= 1e-10


def test_names_that_are_not_there_are_refused():
    with pytest.raises(InputError, match=r"unknown wavelet 'mexican hat'.*did you mean 'mexican-hat'"):
        wavelet_named("mexican hat")
    with pytest.raises(InputError, match="unknown activation 'relu'"):
        activation_named("relu")

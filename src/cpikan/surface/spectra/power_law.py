"""The power law of ISO 10110-8, PSD = A / f^B, fitted to a spectrum by the likelihood of its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.surface.spectra.psd import Spectrum

_STEPS = 60


@dataclass(frozen=True)
class PowerLaw:
    """PSD = ``amplitude`` / f^``exponent``, f in 1/mm, in the units of the spectrum's density at 1/mm.

    ``exponent_sigma`` is the standard deviation of the exponent, by the counts of the spectrum.
    """

    amplitude: float
    exponent: float
    exponent_sigma: float

    def rms_nm(self, longest_mm: float, shortest_mm: float) -> float:
        """Integrate the law of a spectrum along an axis from 1 / longest to 1 / shortest: RMS in nm."""
        if not 0 < shortest_mm < longest_mm:
            raise InputError(f"a band from {shortest_mm} to {longest_mm} mm is empty: give the longer wave first")
        low, high, power = 1 / longest_mm, 1 / shortest_mm, 1 - self.exponent
        square = math.log(high / low) if power == 0 else (high**power - low**power) / power
        return math.sqrt(self.amplitude * square)


def fit_power_law(spectrum: Spectrum, longest_mm: float = math.inf, shortest_mm: float = 0.0) -> PowerLaw:
    """Fit A / f^B over waves from ``shortest_mm`` to ``longest_mm`` by maximum likelihood (Whittle 1953).

    The density of a random surface scatters about the law by its own size, so that least squares of logarithms would find
    A too small, and B off where counts differ; the likelihood of the scatter itself finds both without bias. The exponent
    solves one equation that rises with it. Raises InputError for fewer than two frequencies with power in the band.
    """
    frequency = spectrum.frequency_per_mm
    within = (frequency > 0) & (frequency * shortest_mm <= 1)
    if longest_mm < math.inf:
        within &= frequency * longest_mm >= 1
    counts, density = spectrum.counts[within], spectrum.density[within]
    if np.count_nonzero(density > 0) < 2:
        raise InputError(
            f"{np.count_nonzero(density > 0)} frequencies of waves from {shortest_mm} to {longest_mm} mm have power: "
            "give a band with two at least"
        )
    middle = float(np.average(np.log(frequency[within]), weights=counts))
    logs = np.log(frequency[within]) - middle
    low, high = -20.0, 20.0
    for _ in range(_STEPS):
        exponent = (low + high) / 2
        weights = counts * density * np.exp(exponent * logs)
        if weights @ logs > 0:  # power rises too steeply once it is multiplied by f^B
            high = exponent
        else:
            low = exponent
    amplitude = float(np.average(density * np.exp(exponent * logs), weights=counts)) * math.exp(exponent * middle)
    return PowerLaw(amplitude, exponent, 1 / math.sqrt(float(counts @ logs**2)))

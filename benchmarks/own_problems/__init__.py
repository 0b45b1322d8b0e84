"""Forty problems outside the catalogue, by class: names and makers, called with the name."""

from __future__ import annotations

from collections.abc import Callable

from cpikan.physics.problem import Problem
from own_problems import complex_valued, inverse, jumps, layers, long_times, orders, systems, three_axes

CLASSES: dict[str, dict[str, Callable[[str], Problem]]] = {
    "ODE systems": systems.PROBLEMS,
    "long times": long_times.PROBLEMS,
    "layers": layers.PROBLEMS,
    "jumps": jumps.PROBLEMS,
    "inverse": inverse.PROBLEMS,
    "complex-valued": complex_valued.PROBLEMS,
    "third and fourth order": orders.PROBLEMS,
    "three axes": three_axes.PROBLEMS,
}

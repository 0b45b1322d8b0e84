"""Scaled-cPIKAN: phase-shifting interferometry at camera speed, and the Chebyshev networks behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.errors import InputError as InputError
    from cpikan.fields.scaled_cpikan import ScaledCPIKAN as ScaledCPIKAN
    from cpikan.learning.solver import Solution as Solution
    from cpikan.learning.solver import SolveSettings as SolveSettings
    from cpikan.learning.solver import solve as solve
    from cpikan.physics.catalogue import problem as problem
    from cpikan.physics.catalogue import problems as problems
    from cpikan.physics.problem import Problem as Problem
    from cpikan.pipeline.height_map import HeightMap as HeightMap
    from cpikan.pipeline.height_map import open_height_map as open_height_map
    from cpikan.pipeline.reconstruct import reconstruct as reconstruct
    from cpikan.pipeline.stack import FrameStack as FrameStack
    from cpikan.pipeline.stack import open_stack as open_stack
    from cpikan.psi.acquisition import Acquisition as Acquisition

__version__ = VERSION

_HOMES = {
    "Acquisition": "cpikan.psi.acquisition",
    "FrameStack": "cpikan.pipeline.stack",
    "HeightMap": "cpikan.pipeline.height_map",
    "InputError": "cpikan.errors",
    "Problem": "cpikan.physics.problem",
    "ScaledCPIKAN": "cpikan.fields.scaled_cpikan",
    "Solution": "cpikan.learning.solver",
    "SolveSettings": "cpikan.learning.solver",
    "open_height_map": "cpikan.pipeline.height_map",
    "open_stack": "cpikan.pipeline.stack",
    "problem": "cpikan.physics.catalogue",
    "problems": "cpikan.physics.catalogue",
    "reconstruct": "cpikan.pipeline.reconstruct",
    "solve": "cpikan.learning.solver",
}

__all__ = [
    "Acquisition",
    "FrameStack",
    "HeightMap",
    "InputError",
    "Problem",
    "ScaledCPIKAN",
    "Solution",
    "SolveSettings",
    "__version__",
    "open_height_map",
    "open_stack",
    "problem",
    "problems",
    "reconstruct",
    "solve",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing the package stays fast, and the pixel path never imports torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cpikan' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Scaled-cPIKAN: phase-shifting interferometry at camera speed, and the Chebyshev networks behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.errors import InputError as InputError
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
    "open_height_map": "cpikan.pipeline.height_map",
    "open_stack": "cpikan.pipeline.stack",
    "reconstruct": "cpikan.pipeline.reconstruct",
}

__all__ = [
    "Acquisition",
    "FrameStack",
    "HeightMap",
    "InputError",
    "__version__",
    "open_height_map",
    "open_stack",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing the package stays fast, and the pixel path never imports torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cpikan' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""A height map in memory with the attributes of the real one: shared by the tests of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MemoryMap:
    height_nm: Any
    sigma_nm: Any = None
    modulation: Any = None
    flags: Any = None
    component: Any = None
    path: Path = Path("wafer.zarr")
    document: dict[str, Any] = field(default_factory=dict)
    slope_y_nm_per_px: np.ndarray | None = None
    slope_x_nm_per_px: np.ndarray | None = None

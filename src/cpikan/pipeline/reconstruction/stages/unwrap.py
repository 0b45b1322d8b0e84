"""Unwrapping of one wavelength, and the ripple of fringes that is left in the unwrapped phases."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage
from cpikan.pipeline.reconstruction.summary import told
from cpikan.psi.model.caution import Caution

_RIPPLE_PIXELS = 250_000  # enough for a form of order 10 and a hundredth of a milliradian
_RIPPLE_LEAST = 1000
_LOOKED_ROWS, _LOOKS = 9, 24  # rows of a band in which the density of fringes is looked at, and how many bands


@dataclass(frozen=True)
class Unwrap(Stage):
    """Orders and connected components of wrapped phases."""

    name: ClassVar[str] = "unwrap"
    clock: ClassVar[str] = "orders"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("phase_rad", "modulation")
    writes: tuple[str, ...] = ("order", "component", "ambiguous")

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Unwrap by tiles."""
        from cpikan.psi.unwrap.report import in_pieces
        from cpikan.psi.unwrap.unwrap import unwrap

        with context.progress(self.name) as progress:
            result = unwrap(
                arrays.current("phase_rad"),
                arrays.current("modulation"),
                tile=context.settings.unwrap_tile,
                overlap=context.settings.unwrap_overlap,
                threads=context.pool.threads,
                out={
                    "orders": arrays.of(self, "order"),
                    "component": arrays.of(self, "component"),
                    "ambiguous": arrays.of(self, "ambiguous"),
                },
                progress=progress,
            )
        report = {k: v for k, v in asdict(result.report).items() if k != "component_sizes"}
        cautions = told(one for one in (in_pieces(result.report), _dense(arrays)) if one is not None)
        return {
            "unwrapping": report,
            "components": int(result.report.components),
            "methods_used": ["unwrap"],
            **cautions,
        }


def _dense(arrays: Arrays) -> Caution | None:
    """Look for fringes as dense as pixels in bands spread over the wrapped phases."""
    from cpikan.psi.unwrap.report import dense_fringes

    phase = arrays.current("phase_rad")
    last = phase.shape[0] - _LOOKED_ROWS
    if last < 0:
        return None
    starts = np.unique(np.linspace(0, last, min(_LOOKS, last + 1)).astype(int))
    return dense_fringes(np.stack([phase[start : start + _LOOKED_ROWS] for start in starts]))


@dataclass(frozen=True)
class Ripple(Stage):
    """Fringe ripple of the largest component, 1 to 4 times the fringe, in mrad (interferometric print-through)."""

    name: ClassVar[str] = "ripple"
    clock: ClassVar[str] = "orders"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("phase_rad", "order", "component")

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Measure the ripple on pixels spread over the map; empty where they are too few."""
        from cpikan.surface.spectra.ripple import fringe_ripple

        step = max(1, round((context.shape[0] * context.shape[1] / _RIPPLE_PIXELS) ** 0.5))
        part = (slice(None, None, step), slice(None, None, step))
        phase, order, component = (np.array(arrays.current(name)[part]) for name in self.reads)
        wrapped = np.array(phase, np.float64)
        mask = (component == 1) & np.isfinite(wrapped)
        if mask.sum() < _RIPPLE_LEAST:
            return {"ripple_mrad": {}}
        found = fringe_ripple(wrapped + 2 * np.pi * order, wrapped, mask)
        return {"ripple_mrad": {str(k): float(v) for k, v in found.items()}}

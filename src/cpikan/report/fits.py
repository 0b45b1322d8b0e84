"""What a run fitted to its frames, read from the document: absent or odd entries become None, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

RESPONSE = "response curve"
_EFFECT_NAMES = {"harmonic2": "2nd harmonic", "harmonic3": "3rd harmonic", "response": RESPONSE}


@dataclass(frozen=True)
class FrameFacts:
    """Frames k = 0..K-1 of one wavelength as an entry of ``frames_fit`` tells them.

    ``step_deg`` (K,) cumulative; ``error_deg``, ``gain``, ``offset_dn``, ``defocus_rad_px2`` (K,) and ``tilt_rad_px`` (K, 2),
    rows then columns, about ``pivot_px`` (y, x), are None where the document does not hold them. ``entry`` is the rest.
    """

    step_deg: FloatArray
    error_deg: FloatArray | None
    tilt_rad_px: FloatArray | None
    pivot_px: tuple[float, float] | None
    defocus_rad_px2: FloatArray | None
    gain: FloatArray | None
    offset_dn: FloatArray | None
    entry: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Any) -> FrameFacts | None:
        """Read the facts of an entry; None where it has no steps."""
        if not isinstance(entry, Mapping):
            return None
        steps = array(entry.get("phase_steps_deg"), (None,))
        if steps is None or not steps.size:
            return None
        each = (steps.size,)
        pivot = array(entry.get("tilt_pivot_px"), (2,))
        return cls(
            steps,
            array(entry.get("step_error_deg"), each),
            array(entry.get("tilt_rad_px"), (steps.size, 2)),
            None if pivot is None else (float(pivot[0]), float(pivot[1])),
            array(entry.get("defocus_rad_px2"), each),
            array(entry.get("gain"), each),
            array(entry.get("offset_dn"), each),
            entry,
        )

    def number(self, name: str) -> float | None:
        """Read a finite number of the entry, None where the entry has none."""
        return finite(self.entry.get(name))

    def part(self, name: str) -> Mapping[str, Any]:
        """Return a mapping of the entry, empty when the entry lacks it."""
        found = self.entry.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def effects(self) -> list[str]:
        """Name the effects that were fitted beside the steps, in words."""
        found = self.entry.get("effects")
        names = (
            [effect_name(name) for name in found if isinstance(name, str)] if isinstance(found, list | tuple) else []
        )
        if self.part("response") and RESPONSE not in names:
            names.append(RESPONSE)
        return names

    @property
    def tilt_size_rad_px(self) -> FloatArray | None:
        """Compute the length of each frame's tilt in rad per pixel."""
        return None if self.tilt_rad_px is None else np.hypot(*self.tilt_rad_px.T)

    @property
    def sign(self) -> str | None:
        """Tell how the sign of the height was fixed, None where the entry does not say."""
        found = self.entry.get("sign")
        return None if not isinstance(found, str) else "assumed" if found == "assumed" else "from the steps"

    @property
    def undetermined(self) -> bool:
        """Tell whether the fit says that the frames do not settle the steps."""
        return self.entry.get("determined") is False


def fits_of(*parts: Mapping[str, Any]) -> list[FrameFacts | None]:
    """Read one entry per wavelength from the first part that has ``frames_fit``; [] where steps were trusted."""
    for part in parts:
        found = part.get("frames_fit")
        if isinstance(found, list | tuple) and found:
            facts = [FrameFacts.of(entry) for entry in found]
            if any(one is not None for one in facts):
                return facts
    return []


def effect_name(name: object) -> str:
    """Name an effect in words."""
    return _EFFECT_NAMES.get(str(name), str(name))


def array(value: Any, shape: tuple[int | None, ...]) -> FloatArray | None:
    """Read an array of ``shape`` (None: any size) from a document; None when not all finite or of another shape."""
    if not isinstance(value, list | tuple):
        return None
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    fits = found.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, found.shape, strict=True))
    return found if fits and np.isfinite(found).all() else None


def finite(value: Any) -> float | None:
    """Convert a finite number of a document to float, anything else to None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)

"""What a run fitted to its frames, read from the document: absent or odd entries become None, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


_WIDTH = 110
_LABEL = 11  # characters before the first word, as in the other lines


def step_lines(summary: Mapping[str, Any]) -> list[str]:
    """Format steps in degrees with largest error, other fitted effects, fringes, sign; [] where steps were trusted."""
    fits = fits_of(summary)
    several = len(fits) > 1
    return [
        _line(f"steps {i}" if several else "steps", facts) for i, facts in enumerate(fits, start=1) if facts is not None
    ]


def _line(label: str, facts: FrameFacts) -> str:
    steps = [f"{step:.1f}" for step in facts.step_deg]
    error = None if facts.error_deg is None else float(facts.error_deg.max())
    unit = "deg" if error is None else f"deg (+- {error:.2g})"
    effects = _effects(facts)
    ending = _ending(facts)
    for told in range(len(effects), -1, -1):
        rest = [f"+{len(effects) - told} effects"] if told < len(effects) else []
        tail = ", ".join([unit, *effects[:told], *rest, *ending])
        room = _WIDTH - _LABEL - 1 - len(tail)
        if told == 0 or len(_elided(steps, 0)) <= room:
            break
    return f"{label:<{_LABEL}}{_elided(steps, room)} {tail}"


def _effects(facts: FrameFacts) -> list[str]:
    names = list(facts.effects)
    tilts = facts.tilt_size_rad_px
    if "tilt" in names and tilts is not None:
        names[names.index("tilt")] = f"tilt to {1e3 * float(tilts.max()):.2g} mrad/px"
    return names


def _ending(facts: FrameFacts) -> list[str]:
    fringes = facts.number("fringes")
    ending = [] if fringes is None else [f"{fringes:.1f} fringes"]
    if facts.sign is not None:
        ending.append(f"sign {facts.sign}")
    return [*ending, "not determined"] if facts.undetermined else ending


def _elided(steps: Sequence[str], room: int) -> str:
    """Shorten steps to ``room`` characters, the middle left out; at least the first two and the last remain."""
    whole = " ".join(steps)
    if len(whole) <= room or len(steps) <= 4:
        return whole
    last = steps[-1]
    for first in range(len(steps) - 2, 2, -1):
        told = " ".join([*steps[:first], "...", last])
        if len(told) <= room:
            return told
    return " ".join([*steps[:2], "...", last])

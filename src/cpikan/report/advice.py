"""What to do about a caution, by its short name: said below each warning of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# a key for every caution of cpikan.psi.model.caution that is no note
ADVICE: Mapping[str, str] = {
    "carrier-contradicts": "Give the steps as nominal or unknown (--steps), and look at the order of the frames.",
    "fit-leaves-detail": "Take more frames, or more fringes: the fitted surface is smoother than the part.",
    "frames-identical": "Take the stack again, and look at how it was stored.",
    "frames-step-major": "Say --order step-major, or sort the frames.",
    "frames-unexplained": "Look at the frames for vibration, drift, stray light and saturation before heights are used.",
    "fringes-dense": "Tilt the part back, or take more pixels per fringe.",
    "fringes-faint": "Give more light or a longer exposure, or take more frames.",
    "images-moved": "Register the frames, or find what moved between the wavelengths; do not trust flagged pixels.",
    "light-uneven": "Even the illumination, or take more frames.",
    "lossy-video": "Store frames without loss: TIFF, PNG, HDF5 or raw.",
    "map-in-pieces": "Compare heights within a part only, or measure with a second wavelength.",
    "no-surface": "Use --method pixel or auto, or a larger mask.",
    "orientation-unsaid": "Compare with a known mark, and give --flip or --rotate where it is upside down.",
    "orders-apart": "Leave out pixels with flag 8 where parts are compared.",
    "range-filled": "Give --range, or take less noisy frames: heights beyond the range come out folded.",
    "reference-without-sigma": "Give the reference with its sigma, or allow for it beside the sigma of the map.",
    "rows-adrift": "Damp vibrations, take frames faster, or take more of them.",
    "saturated": "Lower the exposure where these pixels matter.",
    "sign-assumed": "Give at least one step that is known to about 90 degrees, or turn the sign of the map.",
    "smooth-errors-removed": "Do not read waves across the whole field as surface: a part of them was taken off.",
    "stacks-drifted": "Take the stacks faster after each other, or average maps in place of frames.",
    "steps-coincide": "Give other steps, or more of them.",
    "steps-not-settled": "Take more frames, or give nominal steps.",
    "steps-off": "Check the phase shifter, or let the steps be fitted: --steps nominal.",
    "steps-replaced": "Check the phase shifter; --steps trusted keeps the given steps.",
    "steps-reversed": "Sort the frames of this wavelength, or give its steps in reverse.",
    "steps-uncertain": "Take more frames, or tilt the part for more fringes.",
    "steps-undetermined": "Take more frames or more fringes, or measure the steps.",
    "text-in-frames": "Switch the overlay of the camera program off.",
    "wavelength-off": "Measure the wavelength, and give it with more digits.",
    "wavelengths-disagree": "Check wavelengths, their order, and that nothing moved between them.",
    "wavelengths-exchanged": "Give the wavelengths in the order of the frames.",
    "wrong-orders": "Leave out pixels with flag 8, give --range, or take less noisy frames.",
}


class Told(NamedTuple):
    """A warning, and what to do about it where that is known."""

    text: str
    do: str = ""


def advised(texts: Sequence[str], names: object) -> list[Told]:
    """Add to each warning what to do, by the ``names`` of a summary; nothing where these are not as many."""
    known = list(names) if isinstance(names, list | tuple) and len(names) == len(texts) else [""] * len(texts)
    return [Told(text, ADVICE.get(str(name), "")) for text, name in zip(texts, known, strict=True)]

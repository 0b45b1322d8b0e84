"""Cautions: what a user must doubt in a measurement, each with a short name that programs can ask for."""

from __future__ import annotations

from dataclasses import dataclass

# every name that a run may give, and what it says of the map; docs/explanation/trust.md shows this table
CAUTIONS: dict[str, str] = {
    "carrier-contradicts": "the carrier of the fringes shows other steps than the fit",
    "fit-leaves-detail": "the surface fitted to raw frames leaves more than noise",
    "frames-identical": "frames are the same picture: one was stored or taken twice",
    "frames-step-major": "the frames follow each other step by step and not wavelength by wavelength",
    "frames-unexplained": "what the model leaves of the frames is no noise",
    "fringes-dense": "fringes above 0.4 cycles per pixel in places",
    "fringes-faint": "fringes are only a few steps of the camera high",
    "images-moved": "the image of one wavelength lies elsewhere than that of another, or frames of one lie apart",
    "light-uneven": "the background that was fitted to raw frames varies as much as fringes do",
    "lossy-video": "the codec of a video changes pixel values",
    "map-in-pieces": "the map falls into many parts, whose relative heights are not known",
    "network-not-used": "the network of `learned` would not lessen the noise: the map is that of hybrid",
    "noise-shared": "neighbouring pixels share noise: averages are less certain than their number says",
    "no-surface": "a refiner was asked for and had too little data to fit a surface",
    "orientation-unsaid": "the file does not say whether its first row is on top or at the bottom",
    "orders-apart": "parts of the map, whose whole orders against each other no surface decides, are flagged ambiguous",
    "range-filled": "the heights fill the range that the noise allows",
    "reference-without-sigma": "the reference that was taken off says no uncertainty: sigma does not count it",
    "rows-adrift": "noise that neighbours share, as rows that shake together do, leaves orders between them in doubt",
    "saturated": "pixels are saturated, or clipped at black, and left out",
    "sign-assumed": "the sign of the height is a guess",
    "smooth-errors-removed": "smooth phase errors between the wavelengths were taken off",
    "stacks-drifted": "phases moved between stacks whose frames were averaged",
    "steps-coincide": "frames coincide in a part of the field: steps were taken as the same everywhere",
    "steps-few-frames": "steps were fitted to so few frames that they rest on smooth light",
    "steps-not-settled": "the estimate of the steps had not settled",
    "steps-off": "the frames contradict trusted steps",
    "steps-replaced": "the frames contradict the given steps: fitted ones are used",
    "steps-reversed": "the frames of one wavelength are in reverse",
    "steps-uncertain": "fitted steps are uncertain by more than two degrees",
    "steps-undetermined": "the frames do not determine their steps: nominal ones are used",
    "surface-fitted": "the map is a smooth surface fitted to few or bad raw frames",
    "text-in-frames": "something was written into the frames and changes from one to the next: left out",
    "wavelength-off": "a wavelength was fitted to the phases",
    "wavelengths-disagree": "the wavelengths disagree by more than noise",
    "wavelengths-exchanged": "the wavelengths were given in another order than the frames have",
    "wrong-orders": "the phases leave fringe orders undecided",
}
# names that say how the map was made: nothing to doubt, so they are no warnings
NOTES = frozenset({"network-not-used", "noise-shared", "steps-few-frames", "surface-fitted"})


@dataclass(frozen=True)
class Caution:
    """A sentence to the user, with its short ``name``: a key of `CAUTIONS` (KeyError for another)."""

    name: str
    text: str

    def __post_init__(self) -> None:
        CAUTIONS[self.name]

    @property
    def is_note(self) -> bool:
        """Tell whether this only says how the map was made."""
        return self.name in NOTES

    def __str__(self) -> str:
        return self.text

    def of_wavelength(self, number: int, count: int) -> Caution:
        """Say which wavelength is meant, where there are several."""
        return Caution(self.name, f"wavelength {number + 1}: {self.text}") if count > 1 else self

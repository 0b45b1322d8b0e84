"""Settings that several verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpikan.errors import InputError
from cpikan.option import option

if TYPE_CHECKING:
    from cpikan.surface.aperture import Aperture

_MASK = "pixels that count are nonzero: .npy or a grey image"
_CIRCLE = "pixels that count lie in this circle or annulus (pixels)"


@dataclass(frozen=True)
class RunOptions:
    """What may become of an output that exists, finished or not."""

    resume: bool = option(False, "go on with a run that was stopped")
    overwrite: bool = option(False, "replace an output that exists")


@dataclass(frozen=True)
class AreaOptions:
    """Which pixels count: those of a mask, within a circle, or both."""

    mask: str | None = option(None, _MASK, metavar="FILE")
    circle: str | None = option(None, _CIRCLE, metavar="X,Y,R[,INNER]")

    def open(self) -> Aperture | None:
        """Open the aperture of a circle and of a mask file; InputError where either cannot be read."""
        from cpikan.surface.aperture import aperture_of  # NumPy: help must not wait for it

        return aperture_of(self.circle, self.mask)


@dataclass(frozen=True)
class OneAreaOptions(AreaOptions):
    """Which pixels count: those of a mask, or within a circle."""

    mask: str | None = option(None, _MASK, metavar="FILE", group="area")
    circle: str | None = option(None, _CIRCLE, metavar="X,Y,R[,INNER]", group="area")

    def __post_init__(self) -> None:
        if self.mask and self.circle:
            raise InputError("mask and circle exclude each other: give one of them")

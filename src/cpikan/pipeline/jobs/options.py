"""Settings that several verbs share."""

from __future__ import annotations

from dataclasses import dataclass

from cpikan.errors import InputError
from cpikan.surface.aperture import Aperture, aperture_of


@dataclass(frozen=True)
class RunOptions:
    """What may become of an output that exists, finished or not."""

    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class AreaOptions:
    """Which pixels count: those of ``mask`` (a .npy or grey image), or within ``circle`` ("X,Y,R" or "X,Y,R,INNER")."""

    mask: str | None = None
    circle: str | None = None

    def __post_init__(self) -> None:
        if self.mask and self.circle:
            raise InputError("mask and circle exclude each other: give one of them")

    def open(self) -> Aperture | None:
        """The circle, or the mask read from its file; InputError where they cannot be read."""
        return aperture_of(self.circle, self.mask)

"""What a user says of how the frames lie in their files, for the readers that need to be told."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cpikan.storage.readers.name_pattern import NamePattern
from cpikan.storage.readers.raw_layout import RawLayout


@dataclass(frozen=True)
class ReadAs:
    """``dataset`` is the name of an array in a file of several, ``axes`` the letters of its axes (`axes.parse_axes`), ``raw``
    what a file without a header holds, ``pattern`` how the names of files tell the frames apart.

    ``wavelengths_nm`` are those of the acquisition, in its order: folders and files that are named after a wavelength are
    put into that order. ``single`` allows files that hold one frame, (H, W).
    """

    dataset: str = ""
    axes: str | None = None
    raw: RawLayout | None = None
    pattern: NamePattern | None = None
    wavelengths_nm: tuple[float, ...] = ()
    single: bool = False

    def one_file(self) -> ReadAs:
        """Give what holds for one of several files: it may hold one frame, and its name says no more."""
        return replace(self, single=True, pattern=None)

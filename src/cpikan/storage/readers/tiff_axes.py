"""What the axes that a TIFF file names (ImageJ hyperstacks, OME-TIFF) say about the order of its frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cpikan.errors import InputError
from cpikan.storage.readers.axes import STEPS, WAVELENGTH


@dataclass(frozen=True)
class PageOrder:
    """The pages of a file as frames, wavelength by wavelength: ``pages`` are their numbers in the file.

    ``groups`` is the number of wavelengths where the file says so, ``axes`` its letters where they decided.
    """

    pages: tuple[int, ...]
    groups: int | None = None
    axes: str | None = None


def page_order(label: str, file: Any, count: int) -> PageOrder:
    """Order the ``count`` frames of an open tifffile.TiffFile by the axes that it names.

    C is the wavelength and Z or T the step, whichever comes first. Axes without these names are taken as they lie,
    wavelength-major. Raises InputError for Z and T side by side, for more than two axes of frames, and for frames that
    the file looks for in other files.
    """
    stored = tuple(range(count))
    if len(file.series) != 1:
        return PageOrder(stored)
    series = file.series[0]
    if file.is_ome and count > 1:
        stored = _listed(label, series, count)
    axes, shape = series.axes, tuple(series.shape)
    leading = [(name, size) for name, size in zip(axes, shape, strict=True) if name not in "YXS" and size > 1]
    names = [name for name, _ in leading]
    if math.prod(size for _, size in leading) != count or not set(names) & set(WAVELENGTH + STEPS):
        groups = shape[0] if file.is_shaped and len(shape) == 4 and shape[0] * shape[1] == count else None
        return PageOrder(stored, groups)
    if len(leading) < 2:
        return PageOrder(stored)
    if len(leading) > 2 or WAVELENGTH not in names:
        raise InputError(
            f"{label} has frames along {' and '.join(names)} (axes {axes}): a stack has one axis of wavelengths, called "
            "C, and one of steps, Z or T; write it so"
        )
    first, second = (size for _, size in leading)
    if names[0] == WAVELENGTH:
        return PageOrder(stored, first, axes)
    return PageOrder(
        tuple(stored[step * second + wave] for wave in range(second) for step in range(first)), second, axes
    )


def _listed(label: str, series: Any, count: int) -> tuple[int, ...]:
    """List the pages in the order that OME metadata give them."""
    if series.is_multifile or any(page is None for page in series.pages) or len(series.pages) != count:
        raise InputError(
            f"{label} names frames that are not in it (OME-TIFF of several files, or a part of one): write all frames "
            "into one file"
        )
    return tuple(int(page.index) for page in series.pages)

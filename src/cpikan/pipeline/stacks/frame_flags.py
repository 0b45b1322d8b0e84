"""What is said of how the frames lie in their files, and of what is done to them and to their map."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from cpikan.option import option

PATH_KEYS = ("dark", "flat", "average", "reference")


@dataclass(frozen=True)
class FrameFlags:
    """Keys of acquisition.toml, in its own form; None means not said."""

    raw: Any = option(
        None,
        "what a file without a header holds, such as pixel=Mono12Packed,width=9344,height=7000",
        metavar="KEY=VALUE,...",
    )
    pattern: Any = option(None, "names of the files in a folder, such as w{wavelength}_s{step}.png", metavar="NAME")
    axes: Any = option(
        None,
        "axes of an array, slowest first: w wavelengths, s steps, y rows, x columns, such as yxs",
        metavar="LETTERS",
    )
    rotate: Any = option(None, "turn the frames counter-clockwise by 90, 180 or 270 degrees", metavar="DEG")
    flip: Any = option(
        None, "then mirror them: vertical (upside down), horizontal (left and right), or none", metavar="HOW"
    )
    dark: Any = option(
        None,
        "frame or frames without light, of which the mean is taken off; one for all or one per wavelength",
        metavar="FILE",
        many=True,
    )
    flat: Any = option(
        None,
        "frame or frames of even light, by whose mean the frames are divided; one for all or one per wavelength",
        metavar="FILE",
        many=True,
    )
    average: Any = option(
        None, "further stacks of the same frames, which are averaged with these", metavar="STACK", many=True
    )

    reference: Any = option(
        None,
        "map of the reference surface, taken off the heights of the result; it lies as the result does",
        metavar="MAP",
    )

    def given(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in FRAME_KEYS if getattr(self, key) is not None}


FRAME_KEYS = tuple(field.name for field in fields(FrameFlags))

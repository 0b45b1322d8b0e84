"""Opens one file of frames by its suffix, as it is told to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.storage.formats import door_of, format_of, suffixes_of
from cpikan.storage.readers.read_as import ReadAs


def forms() -> str:
    """List for people what frames are read from."""
    return f"a folder of images, {', '.join(suffixes_of('frames'))}, or file.h5::/dataset"


def form_of(path: Path, how: ReadAs) -> str:
    """Name the form of a file for people."""
    known = format_of(path)
    if how.raw is not None:
        return f"raw file of {how.raw.pixel}"
    if how.dataset and (known is None or not known.told):
        return "HDF5 dataset"
    return "file" if known is None else known.name


def open_file(path: Path, how: ReadAs) -> Any:
    """Open one file of frames; InputError where its format does not take what is said of it, or holds no frames."""
    if how.raw is not None:
        from cpikan.storage.readers.raw import RawReader

        return RawReader(path, how.raw, how.single)
    known = format_of(path)
    if how.dataset and (known is None or not known.told):
        from cpikan.storage.readers.hdf5 import open_hdf5

        return open_hdf5(path, how)
    if known is None:
        raise InputError(f"{path} is in none of the supported forms: give {forms()}")
    if known.frames is None and known.image is not None:
        return _one_image(path, how)
    opener = door_of(path, "frames", str(path))
    if known.told:
        return opener(path, how)
    if how.axes is not None:
        raise InputError(f"{path} is a {known.name}, which says itself what its axes are: leave axes out")
    return opener(path)


def _one_image(path: Path, how: ReadAs) -> Any:
    if not how.single:
        raise InputError(f"{path} is a single image: a stack has two frames or more, give the folder that holds them")
    from cpikan.storage.readers.images import open_images

    return open_images([path])[0]

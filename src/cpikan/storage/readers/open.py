"""Chooses the reader: a folder of images, a folder that holds ``frames.npy``, or one file in any supported form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpikan.errors import InputError
from cpikan.storage import formats
from cpikan.storage.atomic import refuse_special
from cpikan.storage.formats import IMAGE_SUFFIXES, door_of, format_of, suffixes_of
from cpikan.storage.protocols import FrameReader


@dataclass(frozen=True)
class OpenedFrames:
    """A reader, the form it was found in (for people), and the file or folder whose metadata is looked for."""

    reader: FrameReader
    form: str
    path: Path


def open_frames(source: str | Path) -> OpenedFrames:
    """Open frames from headers only.

    Raises InputError when the path does not exist, is none of the supported forms, or does not hold what its header
    claims.
    """
    text, separator, dataset = str(source).partition("::")
    path = Path(text)
    if not text or "\0" in text or not path.exists():
        raise InputError(f"{text!r} does not exist: give {_forms()}")
    refuse_special(path)
    if separator:
        from cpikan.storage.readers.hdf5 import Hdf5Reader

        return OpenedFrames(Hdf5Reader(path, dataset), "HDF5 dataset", path)
    return _open_folder(path) if path.is_dir() else _open_file(path)


def _open_folder(path: Path) -> OpenedFrames:
    for known in formats.FORMATS:
        if known.sniff is not None and known.frames is not None and known.sniff(path):
            return OpenedFrames(known.frames(path), known.name, path)
    if (path / "frames.npy").is_file():
        return _open_file(path / "frames.npy")
    from cpikan.storage.readers.images import image_files, open_images

    files = image_files(path)
    if not files:
        raise InputError(f"{path} holds neither images ({', '.join(IMAGE_SUFFIXES)}) nor frames.npy: give {_forms()}")
    reader, kind = open_images(files)
    return OpenedFrames(reader, f"folder of {kind} images", path)


def _open_file(path: Path) -> OpenedFrames:
    known = format_of(path)
    if known is not None and known.frames is None and known.image is not None:
        raise InputError(f"{path} is a single image: a stack has two frames or more, give the folder that holds them")
    if known is None:
        raise InputError(f"{path} is in none of the supported forms: give {_forms()}")
    return OpenedFrames(door_of(path, "frames", str(path))(path), known.name, path)


def _forms() -> str:
    """List for people what frames are read from."""
    return f"a folder of images, {', '.join(suffixes_of('frames'))}, or file.h5::/dataset"

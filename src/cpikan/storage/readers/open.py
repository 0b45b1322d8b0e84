"""Chooses the reader: a folder of images, a folder that holds ``frames.npy``, or one file in any supported form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpikan.errors import InputError
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.images import IMAGE_SUFFIXES, image_files, open_images

_TIFF = (".tif", ".tiff", ".btf", ".tf8")
_HDF5 = (".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".datx")
FORMS = "a folder of images, .npy, a multi-page .tif, a Zarr array, or file.h5::/dataset"


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
        raise InputError(f"{text!r} does not exist: give {FORMS}")
    if separator or path.suffix.lower() in _HDF5:
        return _open_hdf5(path, dataset)
    return _open_folder(path) if path.is_dir() else _open_file(path)


def _open_hdf5(path: Path, dataset: str) -> OpenedFrames:
    from cpikan.storage.readers.hdf5 import Hdf5Reader

    return OpenedFrames(Hdf5Reader(path, dataset), "HDF5 dataset", path)


def _open_folder(path: Path) -> OpenedFrames:
    from cpikan.storage.readers.zarr import ZarrReader, is_zarr

    if is_zarr(path):
        return OpenedFrames(ZarrReader(path), "Zarr array", path)
    if (path / "frames.npy").is_file():
        return _open_file(path / "frames.npy")
    files = image_files(path)
    if not files:
        raise InputError(f"{path} holds neither images ({', '.join(IMAGE_SUFFIXES)}) nor frames.npy: give {FORMS}")
    reader, kind = open_images(files)
    return OpenedFrames(reader, f"folder of {kind} images", path)


def _open_file(path: Path) -> OpenedFrames:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        from cpikan.storage.readers.npy import NpyReader

        return OpenedFrames(NpyReader(path), "NumPy file", path)
    if suffix in _TIFF:
        from cpikan.storage.readers.tiff import open_tiff

        return OpenedFrames(open_tiff(path), "TIFF file", path)
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{path} is a single image: a stack has three frames or more, give the folder that holds them")
    raise InputError(f"{path} is in none of the supported forms: give {FORMS}")

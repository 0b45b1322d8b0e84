"""Frames in a folder: a file each, a file per wavelength, or a sub-folder per wavelength."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cpikan.errors import InputError
from cpikan.storage.formats import IMAGE_SUFFIXES, format_of
from cpikan.storage.readers.base import BaseReader
from cpikan.storage.readers.files import open_file
from cpikan.storage.readers.joined import joined
from cpikan.storage.readers.name_pattern import in_order, natural_key
from cpikan.storage.readers.read_as import ReadAs

_BESIDE = ("truth.npy", "mask.npy", "mask.png")  # of simulate and of users: no frames


def open_folder(path: Path, how: ReadAs, forms: str) -> tuple[BaseReader, str]:
    """Open a folder of frames, and say its form.

    With a pattern the names say which file holds what; otherwise files follow each other in natural order, and
    sub-folders are wavelengths. ``forms`` is what to give instead of a folder that holds nothing. InputError for that, and
    where files differ.
    """
    if how.pattern is not None:
        groups = how.pattern.groups(path, how.wavelengths_nm)
        names = [str(files[0].relative_to(path)) for files in groups]
        reader, kind = _open_groups(names, groups, how)
        return reader, f"{kind} named {how.pattern.text}"
    files = frame_files(path, how)
    if files:
        reader, kind = _open_files(files, how)
        return reader, f"folder of {kind}"
    folders = wavelength_folders(path, how)
    if not folders:
        raise InputError(f"{path} holds neither images ({', '.join(IMAGE_SUFFIXES)}) nor frames.npy: give {forms}")
    inside = {folder.name: frame_files(folder, how) for folder in folders}
    names = in_order(list(inside), how.wavelengths_nm)
    reader, kind = _open_groups(names, [inside[name] for name in names], how)
    return reader, f"sub-folder per wavelength of {kind}"


def frame_files(folder: Path, how: ReadAs | None = None) -> list[Path]:
    """List the files of a folder that hold frames, in natural order: its images, else those of the format most of them have.

    Hidden files, and everything that is no frame, are left out.
    """
    files = sorted((path for path in folder.iterdir() if _is_plain(path)), key=lambda path: natural_key(path.name))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return images
    raw = how is not None and how.raw is not None
    kept = [path for path in files if path.name not in _BESIDE and not path.name.endswith(".truth.npy")]
    kept = [
        path for path in kept if not path.with_name(f"{path.name.partition('.')[0]}.json").is_file()
    ]  # outputs of ours
    kinds = [path.suffix.lower() for path in kept if _has_frames(path) or (raw and path.suffix.lower() != ".toml")]
    usual = max(kinds, key=kinds.count, default="")
    return [path for path in kept if kinds and path.suffix.lower() == usual]


def wavelength_folders(folder: Path, how: ReadAs | None = None) -> list[Path]:
    """List the sub-folders that hold frames, of one wavelength each; one with an acquisition.toml is a stack of its own."""
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    alone = [
        path for path in inside if not (path / "acquisition.toml").is_file() and not (path / "frames.npy").is_file()
    ]
    return sorted((path for path in alone if frame_files(path, how)), key=lambda path: natural_key(path.name))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _has_frames(path: Path) -> bool:
    known = format_of(path)
    return known is not None and known.frames is not None and not known.folder


def _open_groups(names: Sequence[str], groups: Sequence[Sequence[Path]], how: ReadAs) -> tuple[BaseReader, str]:
    """Open lists of files, one list a wavelength."""
    kinds: list[str] = []

    def open_one(files: Sequence[Path]) -> BaseReader:
        reader, kind = _open_files(files, how)
        kinds.append(kind)
        return reader

    parts = [(name, partial(open_one, files)) for name, files in zip(names, groups, strict=True)]
    return joined(parts, len(groups)), kinds[0]


def _open_files(files: Sequence[Path], how: ReadAs) -> tuple[BaseReader, str]:
    """Open files as frames in the order given."""
    if all(path.suffix.lower() in IMAGE_SUFFIXES for path in files) and how.raw is None:
        from cpikan.storage.readers.images import open_images

        reader, kind = open_images(files)
        return reader, f"{kind} images"
    single = how.one_file()
    known = format_of(files[0])
    kind = "raw files" if how.raw is not None or known is None else f"{files[0].suffix.lower()} files"
    return joined([(str(path), partial(open_file, path, single)) for path in files]), kind

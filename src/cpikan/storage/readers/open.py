"""Chooses the reader: a folder of images or other files, a folder that holds ``frames.npy``, or one file in any form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.storage import formats
from cpikan.storage.atomic import refuse_special
from cpikan.storage.readers.files import form_of, forms, open_file
from cpikan.storage.readers.read_as import ReadAs


@dataclass(frozen=True)
class OpenedFrames:
    """A reader, the form it was found in (for people), and the file or folder whose metadata is looked for."""

    reader: Any
    form: str
    path: Path


def frames_path(source: str | Path) -> Path:
    """Give the file or folder of frames that a text means, without the name of a dataset; InputError when it is not there."""
    text = str(source).partition("::")[0]
    path = Path(text)
    if not text or "\0" in text or not _exists(path):
        raise InputError(f"{text[:300]!r} does not exist: give {forms()}")
    refuse_special(path)
    return path


def _exists(path: Path) -> bool:
    """Tell whether there is such a path; one that no file system can hold is none."""
    try:
        return path.exists()
    except OSError:
        return False


def open_frames(source: str | Path, how: ReadAs | None = None) -> OpenedFrames:
    """Open frames from headers only, as ``how`` says.

    Raises InputError when the path does not exist, is none of the supported forms, or does not hold what its header
    claims.
    """
    path = frames_path(source)
    dataset = str(source).partition("::")[2] if "::" in str(source) else None
    how = how or ReadAs()
    if dataset is not None:
        how = replace(how, dataset=dataset or "/")
    if path.is_dir():
        return _open_folder(path, how)
    return _one_file(path, how)


def _open_folder(path: Path, how: ReadAs) -> OpenedFrames:
    for known in formats.FORMATS:
        if known.sniff is not None and known.frames is not None and known.sniff(path):
            return OpenedFrames(open_file_of(known, path, how), known.name, path)
    if (path / "frames.npy").is_file() and how.pattern is None:
        return _one_file(path / "frames.npy", how)
    from cpikan.storage.readers.folder import open_folder

    reader, form = open_folder(path, how, forms())
    return OpenedFrames(reader, form, path)


def open_file_of(known: formats.Format, path: Path, how: ReadAs) -> Any:
    """Open a folder that is one array."""
    if known.frames is None or how.axes or how.raw or how.pattern or how.dataset:
        raise InputError(f"{path} is a {known.name}, which says itself what it holds: leave axes, raw and pattern out")
    return known.frames(path)


def _one_file(path: Path, how: ReadAs) -> OpenedFrames:
    if how.pattern is not None:
        raise InputError(f"{path} is one file, but a pattern is for the names of files in a folder: give the folder")
    return OpenedFrames(open_file(path, how), form_of(path, how), path)

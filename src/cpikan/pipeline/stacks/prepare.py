"""Frames as they are measured: opened as told, averaged, corrected, and turned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.psi.model.acquisition import Acquisition
from cpikan.storage.formats import format_of
from cpikan.storage.readers.averaged import AveragedReader
from cpikan.storage.readers.axes import parse_axes
from cpikan.storage.readers.base import BaseReader
from cpikan.storage.readers.corrected import CorrectedReader
from cpikan.storage.readers.folder import frame_files
from cpikan.storage.readers.name_pattern import parse_pattern
from cpikan.storage.readers.open import frames_path, open_frames
from cpikan.storage.readers.raw_layout import parse_raw
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.turned import FLIPS, ROTATIONS, Turn, TurnedReader
from cpikan.units import pixel_pair


@dataclass(frozen=True)
class Prepared:
    """A reader of what is measured, its acquisition, a sentence for each thing that was done to the frames, and the stacks
    whose mean they are, as they were read (none: there is but one)."""

    reader: BaseReader
    acquisition: Acquisition
    done: tuple[str, ...]
    averaged: tuple[BaseReader, ...] = ()


def read_as(frames: Mapping[str, Any], wavelengths_nm: Sequence[float]) -> ReadAs:
    """Read how frames lie in their files from the keys of acquisition.toml; InputError for wrong values."""
    raw, pattern, axes = (frames.get(key) for key in ("raw", "pattern", "axes"))
    return ReadAs(
        raw=None if raw is None else parse_raw(raw),
        pattern=None if pattern is None else parse_pattern(pattern),
        axes=None if axes is None else parse_axes(axes),
        wavelengths_nm=tuple(wavelengths_nm),
    )


def turn_of(frames: Mapping[str, Any]) -> Turn:
    """Find the turn that is asked for: the rotation, then the mirror; InputError for any other than the known ones."""
    rotate, flip = frames.get("rotate", 0), frames.get("flip", "none")
    degrees = str(rotate).strip().removesuffix("deg").strip()
    if isinstance(rotate, bool) or degrees not in {str(angle) for angle in ROTATIONS}:
        raise InputError(f"rotate {rotate!r} is no quarter of a turn: give 0, 90, 180 or 270 (counter-clockwise)")
    check_name("flip", str(flip), FLIPS)
    return ROTATIONS[int(degrees)].then(FLIPS[str(flip)])


def prepare(reader: BaseReader, acquisition: Acquisition, frames: Mapping[str, Any], how: ReadAs) -> Prepared:
    """Do to frames what the keys of acquisition.toml ask for; what was opened is closed where it fails.

    The order is that in which light became numbers, backwards: the mean of stacks, dark and flat, then the orientation.
    """
    turn, done = turn_of(frames), []
    saturation_dn = _saturation_dn(reader, acquisition)
    with ExitStack() as opened:

        def open_all(key: str) -> list[BaseReader]:
            found = []
            for path in _paths(key, frames.get(key)):
                found.append(_named(key, path, how))
                opened.callback(found[-1].close)
            return found

        others = open_all("average")
        averaged = (reader, *others) if others else ()
        if others:
            reader = AveragedReader(averaged, saturation_dn)
            done.append(f"mean of {len(others) + 1} stacks")
        dark, flat = open_all("dark"), open_all("flat")
        if dark or flat:
            reader = CorrectedReader(reader, dark, flat, _waves(reader, acquisition), saturation_dn)
            done += [f"{key} {', '.join(_paths(key, frames.get(key)))}" for key in ("dark", "flat") if key in frames]
        opened.pop_all()
    if others or dark or flat:
        acquisition = replace(acquisition, bit_depth=None)
        reader.bits = None
        if math.isfinite(saturation_dn):
            done.append(f"saturated at {saturation_dn:g} DN before that")
    if turn:
        reader = TurnedReader(reader, turn)
        done.append(f"turned: {turn}")
        if turn.transpose:
            acquisition = replace(acquisition, pixel_um=_exchanged(acquisition.pixel_um))
    if "flip" in frames or "rotate" in frames:  # the orientation is said, and no longer a question
        reader.remarks = tuple(remark for remark in reader.remarks if remark[0] != "orientation-unsaid")
    return Prepared(reader, acquisition, tuple(done), averaged)


def _paths(key: str, value: Any) -> list[str]:
    paths = [value] if isinstance(value, str) or not isinstance(value or (), list | tuple) else list(value or ())
    if not all(isinstance(path, str) for path in paths):
        raise InputError(f'{key} {value!r} is no path or list of paths: write {key} = "{key}.tif"')
    return paths


def _of_one_frame(path: str, how: ReadAs) -> ReadAs:
    """Give how a dark or a flat is read: by its own form, and as the bare pixels of the stack only where it has none."""
    place = frames_path(path)
    first = next(iter(frame_files(place)), None) if place.is_dir() else place
    known = None if first is None else format_of(first)
    bare = known is None or ".raw" in known.suffixes
    return replace(how, single=True, pattern=None, axes=None, raw=how.raw if bare else None)


def _named(key: str, path: str, how: ReadAs) -> BaseReader:
    """Open what a key names; InputError that says which key it was."""
    try:
        one = how if key == "average" else _of_one_frame(path, how)
        reader: BaseReader = open_frames(path, one).reader
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    return reader


def _saturation_dn(reader: BaseReader, acquisition: Acquisition) -> float:
    bits = acquisition.bit_depth or reader.bits or (8 * reader.dtype.itemsize if reader.dtype.kind == "u" else None)
    return math.inf if bits is None else float(2**bits - 1)


def _waves(reader: BaseReader, acquisition: Acquisition) -> list[int]:
    """Number the wavelength of every frame as the reader has them."""
    frames, wavelengths = reader.shape[0], len(acquisition.wavelengths_nm)
    place = np.arange(frames)
    if acquisition.order == "step-major":
        return [int(k) for k in place % wavelengths]
    return [int(k) for k in place // max(1, frames // wavelengths)]


def _exchanged(pixel_um: Any) -> Any:
    """Exchange the distances of rows and columns, of frames that are turned on their side."""
    pair = pixel_pair(pixel_um)
    if pair is None or not isinstance(pixel_um, tuple):
        return pixel_um
    return pair[::-1]

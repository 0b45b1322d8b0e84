"""A stack: frames of an interferometer, read lazily, together with how they were taken."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from cpikan.errors import InputError, check_names, check_path
from cpikan.pipeline.stacks.acquisition_file import ACQUISITION_KEYS, acquisition_of, said_of_frames, wavelengths_said
from cpikan.pipeline.stacks.frame_flags import FRAME_KEYS
from cpikan.pipeline.stacks.prepare import prepare, read_as
from cpikan.pipeline.stacks.reference import Reference, open_reference, sampled_rows
from cpikan.psi.model.acquisition import Acquisition, FrameOrder, check_steps
from cpikan.psi.model.caution import Caution
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.array import ArrayReader
from cpikan.storage.readers.base import BaseReader
from cpikan.storage.readers.open import frames_path, open_frames
from cpikan.storage.readers.zarr import is_zarr
from cpikan.units import as_json, format_length, pixel_pair

_KEYS = (ACQUISITION_KEYS, FRAME_KEYS)
MIN_FRAMES = 3  # background, modulation and phase are three unknowns a pixel


class AcquisitionKeywords(TypedDict, total=False):
    """Keywords of `open_stack`: the keys of acquisition.toml."""

    wavelengths: str | Sequence[str] | None
    phase_steps: str | Sequence[Any] | None
    steps: str | None
    pixel_size: str | Sequence[str] | None
    bit_depth: int | str | None
    order: str | None
    pistons: str | Sequence[float] | None
    raw: str | Mapping[str, Any] | None
    pattern: str | None
    axes: str | None
    rotate: int | str | None
    flip: str | None
    dark: str | Sequence[str] | None
    flat: str | Sequence[str] | None
    average: str | Sequence[str] | None
    reference: str | None


def open_stack(path: str | Path, **given: Unpack[AcquisitionKeywords]) -> FrameStack:
    """Open a stack from its headers: a folder of images, .npy, .tif, a Zarr array, ``file.h5::/dataset``, and others.

    The keywords are the keys of acquisition.toml, in the same form, and override it: ``wavelengths`` with units
    (``["632.8 nm"]``), ``phase_steps`` in degrees, cumulative (one list, one per wavelength, or ``"unknown"``),
    ``steps`` trusted, nominal or unknown, ``pixel_size`` with a unit (two, (y, x), where pixels are not square),
    ``bit_depth``, ``order`` wavelength-major or step-major, ``pistons`` in degrees. How the frames lie in their files say
    ``raw``, ``pattern`` and ``axes``; ``average``, ``dark``, ``flat``, ``rotate`` and ``flip`` are done to them, in that
    order. ``reference`` is a map that `reconstruct` takes off the heights. Raises InputError when the frames
    cannot be read, are not as many as wavelengths x steps, or the metadata is missing or contradicts itself.
    """
    check_path("the stack", path)
    check_names("keyword", given, (*ACQUISITION_KEYS, *FRAME_KEYS))
    started = time.perf_counter()
    place = frames_path(path)
    acquisition, frames = ({k: v for k, v in given.items() if k in names and v is not None} for names in _KEYS)
    said = said_of_frames(_beside(place), acquisition, frames)
    how = read_as(said.frames, wavelengths_said(said))
    opened = open_frames(path, how)
    try:
        prepared = prepare(opened.reader, acquisition_of(said, opened.reader.told), said.frames, how)
        stack = FrameStack(prepared.reader, prepared.acquisition, source=str(path), form=opened.form)
        stack.prepared = prepared.done
        stack.averaged = tuple(
            FrameStack(one, prepared.acquisition, source=str(path), form=opened.form) for one in prepared.averaged
        )
        if "reference" in said.frames:
            pixel_um = stack.acquisition.pixel_um
            stack.reference = open_reference(said.frames["reference"], stack.shape[2:], pixel_um, stack.prepared)
            stack.prepared = (*stack.prepared, f"heights less those of {stack.reference.path}")
        stack.seconds_open = time.perf_counter() - started
        return stack
    except BaseException:
        opened.reader.close()
        raise


def _beside(place: Path) -> Path:
    """Find what the acquisition file lies beside: the file in a folder that is the stack, or the folder itself."""
    frames = place / "frames.npy"
    return frames if place.is_dir() and frames.is_file() and not is_zarr(place) else place


class FrameStack:
    """Frames (L wavelengths, K steps, H, W) read by rows or windows, and their ``acquisition``.

    Integers are DN of 8 to 16 bits; floats may hold NaN for dead pixels; signed integers and those of 32 bits are read as
    floats (``stored_dtype`` is the type in the file). One thread reads at a time. Raises InputError
    when the reader's frames do not fit the acquisition.
    """

    def __init__(self, reader: FrameReader, acquisition: Acquisition, *, source: str, form: str) -> None:
        check_steps(acquisition)
        self._reader = reader
        self.acquisition = acquisition
        self.source = source
        self.seconds_open = 0.0  # what opening took: part of the time of a run
        self.form = form
        self.shape = _stack_shape(reader, acquisition, source)
        self.dtype = reader.dtype
        self.stored_dtype = np.dtype(getattr(reader, "stored_dtype", reader.dtype))
        self.prepared: tuple[str, ...] = ()  # what was done to the frames of the file
        self.averaged: tuple[FrameStack, ...] = ()  # the stacks whose mean this is, as they were read
        self.reference: Reference | None = None  # what is taken off the heights
        told = acquisition.bit_depth or getattr(reader, "bits", None)
        self.bit_depth = _bit_depth(reader.dtype, told, source)

    @classmethod
    def from_array(cls, frames: np.ndarray, acquisition: Acquisition) -> FrameStack:
        """Make a stack of an array (L, K, H, W) or, with wavelengths one after the other, (L*K, H, W).

        What a NumPy masked array masks counts as dead: integers then become floats that keep their bit depth.
        """
        reader = ArrayReader(frames)
        if frames.dtype.kind == "u" and reader.dtype.kind == "f" and acquisition.bit_depth is None:
            acquisition = replace(acquisition, bit_depth=8 * frames.dtype.itemsize)
        return cls(reader, acquisition, source="array", form="array in memory")

    @property
    def labels(self) -> tuple[str, ...]:
        """Name each frame, steps of a wavelength one after the other: a file name, or ``frames.npy[0,3]``."""
        labels, (wavelengths, steps) = self._reader.labels, self.shape[:2]
        if not self._step_major:
            return labels
        return tuple(labels[k * wavelengths + i] for i in range(wavelengths) for k in range(steps))

    @property
    def _step_major(self) -> bool:
        return self.acquisition.order == "step-major"

    @property
    def stored_order(self) -> list[int] | None:
        """List the frames, counted wavelength by wavelength, as the file has them; None where that is their order."""
        wavelengths, steps = self.shape[:2]
        if not self._step_major:
            return None
        return [i * steps + k for k in range(steps) for i in range(wavelengths)]

    @property
    def may_be_step_major(self) -> bool:
        """Tell whether the file leaves open that its frames go step by step."""
        return self._reader.groups is None or self.shape[0] == self.shape[1]

    def in_order(self, order: FrameOrder) -> FrameStack:
        """Give the same frames taken to follow each other in another ``order``; both share one reader."""
        other = FrameStack(self._reader, replace(self.acquisition, order=order), source=self.source, form=self.form)
        other.seconds_open, other.prepared = self.seconds_open, self.prepared
        other.averaged, other.reference = tuple(one.in_order(order) for one in self.averaged), self.reference
        return other

    @property
    def orientation(self) -> str:
        """Say what was done to rows and columns as the file has them; empty where they are as stored."""
        return str(getattr(self._reader, "orientation", ""))

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """List what is to be doubted of the frames for the file that they came in."""
        return tuple(Caution(name, text) for name, text in getattr(self._reader, "remarks", ()))

    @property
    def saturation_dn(self) -> float:
        """Give the largest value of the detector in DN: 2**bit_depth - 1, or inf for floats without a bit depth."""
        return float("inf") if self.bit_depth is None else float(2**self.bit_depth - 1)

    @property
    def input_bytes(self) -> int:
        """Count the bytes of all pixels, uncompressed."""
        wavelengths, steps, height, width = self.shape
        return wavelengths * steps * height * width * self.dtype.itemsize

    def rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows [start, stop) in DN, (L, K, rows, W): into ``out`` if given, else maybe a read-only view."""
        wavelengths, steps, _, width = self.shape
        if self._step_major:
            stored = self._reader.read_rows(start, stop).reshape(steps, wavelengths, stop - start, width).swapaxes(0, 1)
            if out is None:
                return np.ascontiguousarray(stored)
            out[...] = stored
            return out
        if out is None:
            return self._reader.read_rows(start, stop).reshape(wavelengths, steps, stop - start, width)
        flat = out.reshape(wavelengths * steps, stop - start, width)
        self._reader.read_rows(start, stop, flat)
        if not np.may_share_memory(flat, out):
            out[...] = flat.reshape(out.shape)
        return out

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Read the part (L, K, rows, columns) of every frame; slices of step 1, open or negative as in NumPy."""
        row_start, row_stop, row_step = rows.indices(self.shape[2])
        column_start, column_stop, column_step = columns.indices(self.shape[3])
        if row_step != 1 or column_step != 1:
            raise ValueError("windows are contiguous: slice with step 1")
        band = self.rows(row_start, max(row_start, row_stop))
        return band[..., column_start : max(column_start, column_stop)]

    def fingerprint(self) -> str:
        """Hash the acquisition, the reference and a few whole rows of every frame: cheap, and the same for a copy of them.

        `cpikan.pipeline.stacks.frame_hash` hashes all of them.
        """
        digest = hashlib.sha256(f"{self.shape} {self.dtype.name} {self.acquisition}".encode())
        if self.reference is not None:
            digest.update(self.reference.fingerprint().encode())
        for row in sampled_rows(self.shape[2]):
            digest.update(np.ascontiguousarray(self.rows(row, row + 1)).data)
        return digest.hexdigest()

    def stamp(self) -> str | None:
        """Hash sizes and times of the files: where it is unchanged nobody has written to them; None without files."""
        files = self._reader.files() if isinstance(self._reader, BaseReader) else []
        stats = [path.stat() for path in files]
        facts = [(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]
        return hashlib.sha256(repr(facts).encode()).hexdigest() if facts else None

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> FrameStack:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _stack_shape(reader: FrameReader, acquisition: Acquisition, source: str) -> tuple[int, int, int, int]:
    """Find the shape (L, K, H, W) of the stack, or raise an InputError that says the numbers."""
    frames, height, width = reader.shape
    wavelengths, given = len(acquisition.wavelengths_nm), acquisition.frames_per_wavelength
    many = f"{wavelengths} wavelength{'s' if wavelengths > 1 else ''}"
    if acquisition.order == "step-major" and reader.groups is not None and frames != wavelengths * reader.groups:
        raise InputError(
            f"{source} holds {reader.groups} x {frames // reader.groups} frames but step-major order and {many} need "
            f"steps x {wavelengths}: correct the order or the wavelengths"
        )
    if acquisition.order != "step-major" and reader.groups is not None and reader.groups != wavelengths:
        axes = getattr(reader, "axes", None)
        named = f" (axes {axes}, of which C is the wavelength)" if axes else ""
        raise InputError(
            f"{source} holds {reader.groups} x {frames // reader.groups} frames{named} but its acquisition names "
            f"{many}: name {reader.groups}"
        )
    if given is not None and frames != wavelengths * given:
        raise InputError(
            f"{source} holds {frames} frames but {many} x {given} phase steps need {wavelengths * given}: correct the "
            f"wavelengths, the steps or the frames{_frames_last(reader.shape, wavelengths * given)}"
        )
    if frames % wavelengths:
        raise InputError(f"{source} holds {frames} frames, which cannot be shared evenly by {many}: check both")
    steps = frames // wavelengths
    fewest = MIN_FRAMES - (acquisition.steps != "trusted")  # two, where the step is fitted and the background is smooth
    if steps < fewest:
        raise InputError(f"{source} holds {frames} frame(s) for {many}: {fewest} or more per wavelength make a phase")
    return wavelengths, steps, height, width


def _frames_last(shape: tuple[int, int, int], wanted: int) -> str:
    return "; its last axis fits, so put the frames first" if shape[2] == wanted else ""


def _bit_depth(dtype: np.dtype, given: int | None, source: str) -> int | None:
    """Find the significant bits of the pixels; None for floats of unknown origin."""
    bits = 8 * dtype.itemsize if dtype.kind == "u" else None
    if given is None:
        return bits
    if given < 1 or (bits is not None and given > bits):
        raise InputError(f"bit_depth {given} for {source}, whose pixels are {dtype}: give 1 to {bits or 32}")
    return given


def describe_stack(stack: FrameStack) -> dict[str, Any]:
    """Describe a stack in JSON types only; what is unknown is None (``saturation_dn`` too, where nothing saturates)."""
    acquisition = stack.acquisition
    steps = acquisition.phase_steps_deg
    return {
        "source": stack.source,
        "form": stack.form,
        "shape": list(stack.shape),
        "dtype": str(stack.dtype),
        "first_frame": stack.labels[0],
        "last_frame": stack.labels[-1],
        "wavelengths_nm": list(acquisition.wavelengths_nm),
        "phase_steps_deg": None if steps is None else [list(row) for row in steps],
        "steps": acquisition.steps,
        "pixel_um": as_json(acquisition.pixel_um),
        "bit_depth": stack.bit_depth,
        "saturation_dn": stack.saturation_dn if math.isfinite(stack.saturation_dn) else None,
        "input_bytes": stack.input_bytes,
        "orientation": stack.orientation or None,
        "prepared": list(stack.prepared),
        "frame_cautions": [str(one) for one in stack.cautions],
    }


def format_description(description: dict[str, Any]) -> str:
    """Write what ``describe_stack`` gave as lines for people."""
    wavelengths, steps, height, width = description["shape"]
    pixel, bits = description["pixel_um"], description["bit_depth"]
    lines = {
        "stack": f"{description['source']} ({description['form']})",
        "frames": f"{wavelengths} wavelength{'s' if wavelengths > 1 else ''} x {steps} steps, {height} rows x {width} "
        f"columns, {description['first_frame']} to {description['last_frame']}",
        "wavelengths": ", ".join(format_length(value) for value in description["wavelengths_nm"]),
        "phase steps": _steps_line(description),
        "pixel": _pixel_line(pixel),
        "values": f"{description['dtype']}, {bits} bits" if bits else f"{description['dtype']}, nothing saturates",
        "input": f"{description['input_bytes'] / 2**20:.1f} MiB",
    }
    if description["orientation"]:
        lines["orientation"] = description["orientation"]
    if description["prepared"]:
        lines["prepared"] = "; ".join(description["prepared"])
    told = [f"{name:<12} {text}" for name, text in lines.items()]
    return "\n".join([*told, *(f"{'note':<12} {text}" for text in description["frame_cautions"])])


def _pixel_line(pixel_um: Any) -> str:
    pair = pixel_pair(pixel_um)
    if pair is None:
        return "unknown, lateral numbers are in pixels"
    y, x = (format_length(1000 * size) for size in pair)
    return x if y == x else f"{y} from row to row, {x} from column to column"


def _steps_line(description: dict[str, Any]) -> str:
    rows = description["phase_steps_deg"]
    if rows is None:
        return "unknown, to be found from the frames; the sign of the height will be assumed"
    distinct = list(dict.fromkeys(", ".join(f"{step:g}" for step in row) for row in rows))
    return f"{' | '.join(distinct)} deg ({description['steps']})"

"""acquisition.toml and the flags that override it, turned into an Acquisition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from cpikan.errors import InputError, check_name, check_names
from cpikan.option import option
from cpikan.pipeline.stacks.frame_flags import FRAME_KEYS, PATH_KEYS
from cpikan.psi.model.acquisition import STEP_STATES, Acquisition, FrameOrder, StepState, check_steps
from cpikan.storage.documents import parse_toml
from cpikan.storage.readers.zarr import is_zarr
from cpikan.units import parse_length_nm, parse_pixel_um

_MOST_DEGREES = 1e6
_MAX_FILE_BYTES = 2**20
_EXAMPLE = 'wavelengths = ["632.8 nm"]'


@dataclass(frozen=True)
class AcquisitionFlags:
    """What a user says beside the file, under the file's own keys and in its own form; None means not said.

    Lists may also be text: ``"632.8 nm, 532 nm"``, ``"0, 90, 180, 270"``, and ``;`` between the lists of wavelengths.
    """

    wavelengths: Any = option(None, "with unit, such as 632.8nm", flag="--wavelength", metavar="LENGTH", many=True)
    phase_steps: Any = option(None, "cumulative degrees, such as 0,90,180,270; or unknown", metavar="DEG,...")
    steps: Any = option(None, "what the steps are worth: trusted, nominal or unknown", metavar="STATE")
    pixel_size: Any = option(
        None, 'lateral sampling, such as "5 um", or "10 um, 5 um" (y, x) where pixels are not square', metavar="LENGTH"
    )
    bit_depth: int | str | None = option(None, "significant bits of a sample (default: the type's)")
    order: Any = option(None, "how frames follow: wavelength-major (default) or step-major", metavar="ORDER")
    pistons: Any = option(None, "known phases at height zero in degrees, one per wavelength", metavar="DEG,...")

    def given(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ACQUISITION_KEYS if getattr(self, key) is not None}


ACQUISITION_KEYS = tuple(field.name for field in fields(AcquisitionFlags))


@dataclass(frozen=True)
class SaidOfFrames:
    """What is said of a stack: ``acquisition`` by the keys of `AcquisitionFlags`, ``frames`` by those of `FrameFlags`.

    ``where`` says for people who said it; ``file`` is the acquisition file, where there is one that alone said something.
    """

    acquisition: dict[str, Any]
    frames: dict[str, Any]
    where: str
    file: Path | None


def find_acquisition_file(path: Path) -> Path | None:
    """Find the metadata of frames: ``acquisition.toml`` in a folder; ``NAME.toml`` or ``acquisition.toml`` by a file.

    A Zarr array is a folder and may have its metadata inside or beside it.
    """
    inside = [path / "acquisition.toml"] if path.is_dir() else []
    beside = [path.with_suffix(".toml"), path.parent / "acquisition.toml"]
    places = inside if path.is_dir() and not is_zarr(path) else inside + beside
    return next((place for place in places if place.is_file()), None)


def read_acquisition_file(path: Path) -> dict[str, Any]:
    """Read the keys of an acquisition file, as TOML gives them.

    Raises InputError for malformed TOML (with the line) and for unknown keys (with the nearest known one).
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes: an acquisition file has a few lines")
        values = parse_toml(path.read_bytes())
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not valid TOML: {error}; write lines such as {_EXAMPLE} in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    check_names(f"key in {path}", values, (*ACQUISITION_KEYS, *FRAME_KEYS))
    return values


def load_acquisition(path: Path, flags: AcquisitionFlags) -> Acquisition:
    """Load the acquisition of the frames at ``path``: what the file beside them says, overridden by the flags.

    Raises InputError for wrong values (naming the file when no flag is given), for steps that determine no phase, and
    when nobody says the wavelength.
    """
    return acquisition_of(said_of_frames(path, flags.given(), {}))


def said_of_frames(path: Path, acquisition: Mapping[str, Any], frames: Mapping[str, Any]) -> SaidOfFrames:
    """Collect what the file beside the frames says, overridden by what is given; paths in the file begin at its folder."""
    given = dict(acquisition)
    file = find_acquisition_file(path)
    values = read_acquisition_file(file) if file else {}
    values = {key: value for key, value in values.items() if key not in given}
    if "phase_steps" in given and "steps" not in given:
        wanted = "unknown" if _is_unknown(given["phase_steps"]) else "trusted"
        if "unknown" in (values.get("steps"), wanted):
            values.pop("steps", None)  # other steps than those the file's word was about
    own = {key: values.pop(key) for key in FRAME_KEYS if key in values}
    if file is not None:
        own.update({key: _from(file.parent, own[key]) for key in PATH_KEYS if key in own})
    said = {**values, **given}
    return SaidOfFrames(said, {**own, **frames}, _nowhere(path) if file is None else str(file), None if given else file)


def wavelengths_said(said: SaidOfFrames) -> tuple[float, ...]:
    """Read the wavelengths in nm, which may order folders and files; none where nobody says them, or not in due form."""
    try:
        return _wavelengths(said.acquisition["wavelengths"])
    except (InputError, KeyError):
        return ()


def acquisition_of(said: SaidOfFrames, told: Mapping[str, Any] | None = None) -> Acquisition:
    """Build the acquisition of what is said; where nobody says something, a container's own word (``told``) counts."""
    try:
        return build_acquisition({**(told or {}), **said.acquisition}, said.where)
    except InputError as error:
        if said.file is None:
            raise
        raise InputError(f"{error} (in {said.file})") from error


def _from(folder: Path, value: Any) -> Any:
    """Begin paths at a folder; what is no text stays, to be refused where it is read."""
    if isinstance(value, list):
        return [_from(folder, one) for one in value]
    return str(folder / value) if isinstance(value, str) else value


def build_acquisition(values: Mapping[str, Any], where: str = "the flags") -> Acquisition:
    """Turn the keys of an acquisition file into a checked Acquisition.

    ``steps = "unknown"`` drops the phase steps; given steps are trusted unless ``steps`` says otherwise.
    """
    if values.get("wavelengths") is None:
        raise InputError(
            f"no wavelength in {where}: write {_EXAMPLE} into acquisition.toml or give --wavelength 632.8nm"
        )
    wavelengths = _wavelengths(values["wavelengths"])
    steps_deg = _phase_steps(values.get("phase_steps"), len(wavelengths))
    said = values.get("steps") is not None
    state = values["steps"] if said else "unknown" if steps_deg is None else "trusted"
    check_name("state of the steps", str(state), STEP_STATES)
    if state == "unknown":
        steps_deg = None
    pixel = values.get("pixel_size")
    pixel_um = None if pixel is None else parse_pixel_um(pixel)
    bits = _bit_depth(values.get("bit_depth"))
    order = cast(FrameOrder, values.get("order") or "wavelength-major")
    pistons = _pistons(values.get("pistons"))
    acquisition = Acquisition(wavelengths, steps_deg, cast(StepState, state), pixel_um, bits, said, order, pistons)
    check_steps(acquisition)
    return acquisition


def _nowhere(path: Path) -> str:
    names = "acquisition.toml" if path.is_dir() else f"{path.stem}.toml or acquisition.toml"
    return f"the flags and no {names} {'in' if path.is_dir() else 'beside'} {path}"


def _is_unknown(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() == "unknown"


def _wavelengths(value: object) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise InputError(f"wavelengths {value!r} is not a list: write {_EXAMPLE}, with units")
    return tuple(parse_length_nm(part, "wavelength") for part in parts)


def _phase_steps(value: object, wavelengths: int) -> tuple[tuple[float, ...], ...] | None:
    """Read the steps in degrees: one list serves all wavelengths; a list of lists has one per wavelength."""
    if value is None or _is_unknown(value):
        return None
    if isinstance(value, str):
        value = [part.split(",") for part in value.split(";")]
        value = value[0] if len(value) == 1 else value
    if not isinstance(value, list | tuple) or len(value) == 0:
        raise InputError(
            f'phase_steps {value!r} is no list of steps: give degrees such as [0, 90, 180, 270], or "unknown"'
        )
    nested = [isinstance(part, list | tuple) for part in value]
    if any(nested) and not all(nested):
        raise InputError(f"phase_steps {value!r} mixes numbers and lists: give one list, or one list per wavelength")
    lists = list(value) if all(nested) else [value] * wavelengths
    if len(lists) == 1:
        lists = lists * wavelengths
    rows = tuple(tuple(_degrees(step) for step in row) for row in lists)
    if len({len(row) for row in rows}) > 1:
        counts = ", ".join(str(len(row)) for row in rows)
        raise InputError(f"phase_steps has lists of {counts} steps: every wavelength has the same number of frames")
    return rows


def _pistons(value: object) -> tuple[float, ...] | None:
    """Read the pistons in degrees, one per wavelength."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise InputError(f"pistons {value!r} is no list of degrees: give one per wavelength, such as [0, 12.5]")
    return tuple(_degrees(part, "piston", "0,12.5") for part in parts)


def _degrees(value: object, what: str = "phase step", example: str = "0,90,180,270") -> float:
    try:
        degrees = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        degrees = math.nan
    if not abs(degrees) <= _MOST_DEGREES:
        raise InputError(
            f"{what} {value!r} is not a number of degrees up to {_MOST_DEGREES:g}: write them such as {example}"
        )
    return degrees


def _bit_depth(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 32:
        raise InputError(f"bit_depth {value!r} is no number of bits: give the camera's, such as 8, 10, 12 or 16")
    return value

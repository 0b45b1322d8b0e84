"""Stacks to train on: found in folders, each with the height map that a model is to correct, made once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.images.patches.light import WaveLight
from cpikan.images.patches.source import StackFiles, StackSource, TruthFile
from cpikan.pipeline.maps.evaluate import open_truth
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.stack import FrameStack, open_stack
from cpikan.psi.model.flags import Flag
from cpikan.psi.model.frame_model import FrameModel, Response
from cpikan.storage.formats import format_of
from cpikan.storage.readers.folder import wavelength_folders
from cpikan.storage.readers.images import image_files
from cpikan.storage.readers.zarr import is_zarr
from cpikan.storage.writers.layout import npy_path
from cpikan.streaming.events import Events, as_events
from cpikan.version import VERSION

_SAMPLED_PIXELS = 2**20
_FEWEST = 16  # sampled pixels of a component that its piston is read from
_NOT_SURE = int(Flag.INVALID | Flag.AMBIGUOUS | Flag.INPAINTED)


def align_truth(path: Path, guide: HeightMap) -> TruthFile:
    """Find how the heights of a .npy stand to ``guide``: the median difference of about a million pixels, per component.

    Where the sign of the guide was assumed, the truth takes the sign that fits it better. Components of fewer than 16
    sampled pixels get NaN: nothing is known there. Raises InputError for a truth of another shape or kind, and for
    one without heights where the guide has some.
    """
    truth = open_truth(path, guide.shape)
    assert guide.flags is not None
    step = max(1, round((guide.shape[0] * guide.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    # whole rows are read, a few at a time: the maps are files
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    highest = 0
    for row in range(step // 2, guide.shape[0], step):
        one = slice(row, row + 1)
        height, true = (np.asarray(values[one], np.float64)[0, ::step] for values in (guide.height_nm, truth))
        sure = (np.asarray(guide.flags[one])[0, ::step] & _NOT_SURE) == 0
        label = np.zeros(height.shape, np.int64)
        if guide.component is not None:
            whole = np.asarray(guide.component[one])[0]
            highest, label = max(highest, int(whole.max())), whole[::step].astype(np.int64)
        keep = sure & np.isfinite(height) & np.isfinite(true)
        parts.append((height[keep], true[keep], label[keep]))
    height, true, label = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(height) < _FEWEST:
        raise InputError(
            f"truth {path} has heights at fewer than {_FEWEST} measured pixels, else no numbers; give the truth of "
            "this stack, in nm"
        )
    signs = (1, -1) if guide.summary.get("sign") == "assumed" else (1,)
    laid = [(sign, *_offsets(height - sign * true, label, highest + 1)) for sign in signs]
    sign, offset, _ = min(laid, key=lambda found: found[2])
    component = None if guide.component is None else npy_path(guide.path, "component")
    return TruthFile(path, sign, offset, component)


def _offsets(difference: np.ndarray, label: np.ndarray, labels: int) -> tuple[np.ndarray, float]:
    """Compute the median difference of each label, NaN for few pixels, and the mean absolute departure from it."""
    offset = np.full(labels, np.nan)
    order = np.argsort(label, kind="stable")
    present, firsts = np.unique(label[order], return_index=True)
    spread, count = 0.0, 0
    for one, values in zip(present, np.split(difference[order], firsts[1:]), strict=True):
        if len(values) >= _FEWEST:
            offset[one] = np.median(values)
            spread += float(np.abs(values - offset[one]).sum())
            count += len(values)
    return offset, spread / max(count, 1)


TRUTH = "truth.npy"


def open_training_stacks(
    folders: Sequence[str | Path],
    cache: str | Path,
    *,
    skip_corrupt: bool = False,
    progress: bool | Events = True,
    frames: bool = False,
    range_nm: float | None = None,
) -> list[StackSource]:
    """Open stacks for training: each of ``folders`` is a stack, as `open_stack` takes it, or a folder of stacks.

    The height map of each is made once, by ``reconstruct --method hybrid``, in ``cache``; one that was interrupted goes
    on. The truth of a stack is truth.npy (nm) in its folder, or NAME.truth.npy beside a file NAME.npy. ``frames`` also
    opens the frames, for losses and models that need them; ``range_nm`` is the height range of `reconstruct`, for stacks of
    several wavelengths. Raises InputError for a folder without stacks, a truth of another
    shape, and a stack that cannot be read or measured; with ``skip_corrupt`` such a stack is left out, with a warning.
    """
    events = as_events(progress)
    found = [path for folder in folders for path in find_stacks(folder)]
    if not found:
        raise InputError("no stacks to train on: give one or more folders of frames")
    sources, place = [], Path(cache)
    place.mkdir(parents=True, exist_ok=True)
    for path in found:
        try:
            sources.append(open_training_stack(path, place, progress=events, frames=frames, range_nm=range_nm))
        except InputError as error:
            if not skip_corrupt:
                reason = str(error) if path in str(error) else f"{path}: {error}"
                hint = f"; or leave such stacks out with skip_corrupt, of {len(found)}" if len(found) > 1 else ""
                raise InputError(reason + hint) from error
            events.warning(f"skipped {path}: {error}")
    if not sources:
        raise InputError(f"none of the {len(found)} stacks can be used: see what was said of each")
    return sources


def find_stacks(folder: str | Path) -> list[str]:
    """Find the stacks that a path means: the path itself, or those in it in the order of their names.

    Raises InputError when the path does not exist or holds no stacks.
    """
    text = str(folder)
    path = Path(text.partition("::")[0])
    if not path.exists():
        raise InputError(f"{text!r} does not exist: give a stack, or a folder of stacks")
    if path.is_file() or _is_stack(path):
        return [text]
    inside = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    found = [str(child) for child in inside if (_is_stack(child) if child.is_dir() else _is_stack_file(child))]
    if not found:
        raise InputError(
            f"{path} holds no stacks: give a folder with frames.npy or images, or a folder of such folders, or of files "
            "with an acquisition.toml"
        )
    return found


def frame_light(stack: FrameStack, document: dict[str, Any]) -> tuple[WaveLight, ...]:
    """Read what a reconstruction found out about the frames, one per wavelength.

    Steps, tilts, light, and how the phases of the wavelengths stand to the height; ``document`` is the JSON beside its
    output.
    """
    calibration = document["calibration"]
    waves, _, height, width = stack.shape
    fits = calibration["frames_fit"]
    pistons, tilts = np.zeros(waves), np.zeros((waves, 2))
    if calibration["relative_piston_turns"] is not None:
        by_length = np.argsort(stack.acquisition.wavelengths_nm, kind="stable")  # alignments begin with the shortest
        pistons[by_length] = calibration["relative_piston_turns"]
        tilts[by_length] = calibration["relative_tilt_turns_per_pixel"]
    found = []
    for i in range(waves):
        steps = calibration["phase_steps_deg"][i]
        model = FrameModel.plain(tuple(step - steps[0] for step in steps)) if fits is None else _fitted(fits[i])
        piston, (tilt_y, tilt_x) = 2 * np.pi * pistons[i], 2 * np.pi * tilts[i]
        found.append(
            WaveLight(model, float(piston), (float(tilt_y), float(tilt_x)), ((height - 1) / 2, (width - 1) / 2))
        )
    return tuple(found)


def _fitted(fit: dict[str, Any]) -> FrameModel:
    """Rebuild the frame model of one wavelength from what the JSON says of its fit."""
    response = fit["response"]
    if response is not None:
        response = Response(response["low_dn"], response["high_dn"], tuple(response["coefficients_dn"]))
    free = tuple(fit["harmonics_per_pixel"])
    shares = {int(order): float(share) for order, share in fit["harmonic_ratio"].items()}
    return FrameModel(
        steps_rad=np.radians(np.asarray(fit["phase_steps_deg"], np.float64)),
        tilt_rad_px=np.asarray(fit["tilt_rad_px"], np.float64),
        defocus_rad_px2=np.asarray(fit["defocus_rad_px2"], np.float64),
        gain=np.asarray(fit["gain"], np.float64),
        offset_dn=np.asarray(fit["offset_dn"], np.float64),
        pivot=(float(fit["tilt_pivot_px"][0]), float(fit["tilt_pivot_px"][1])),
        harmonics=free,
        response=response,
        locked=tuple((order, share) for order, share in shares.items() if order > 1 and order not in free),
    )


def open_training_stack(
    text: str | Path,
    cache: Path,
    *,
    progress: bool | Events = True,
    frames: bool = False,
    range_nm: float | None = None,
) -> StackSource:
    """Open one stack, as `open_training_stacks` opens many."""
    text = str(text)
    with open_stack(text) as stack:
        asked = None if stack.shape[0] == 1 else range_nm
        identity = hashlib.sha256(f"{stack.fingerprint()} {asked} {VERSION}".encode()).hexdigest()[:12]
        output = cache / f"{_name(text)}-{identity}.npy"
        settings = ReconstructSettings(method="hybrid", all_quantities=True, range_nm=asked)
        guide = reconstruct(stack, output, settings, resume=True, progress=progress)
        light = frame_light(stack, guide.document) if frames else ()
        wavelengths = stack.acquisition.wavelengths_nm
    return StackSource(
        StackFiles(
            name=text,
            guide=output,
            sigma=npy_path(output, "sigma_nm"),
            flags=npy_path(output, "flags"),
            wavelengths_nm=wavelengths,
            frames=text if frames else None,
            light=light,
            truth=_truth(text, guide),
        )
    )


def _truth(text: str, guide: HeightMap) -> Any:
    path = Path(text.partition("::")[0])
    if path.is_dir():
        file = path / TRUTH
    else:
        file = path.parent / TRUTH if path.name == "frames.npy" else path.with_name(f"{path.stem}.truth.npy")
    return align_truth(file, guide) if file.is_file() else None


def _name(text: str) -> str:
    path = Path(text.partition("::")[0]).resolve()
    name = path.parent.name if path.name == "frames.npy" else path.stem
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "stack"


def _is_stack(folder: Path) -> bool:
    """Tell whether a folder is meant to be a stack: one that lacks its frames too, so that it is named."""
    if is_zarr(folder) or (folder / "frames.npy").is_file():
        return True
    described, inside = (folder / "acquisition.toml").is_file(), list(folder.iterdir())
    if image_files(folder):
        return described or not any(child.is_dir() for child in inside)
    if described and wavelength_folders(folder):
        return True
    return described and not any(child.is_dir() or _holds_frames(child) for child in inside)


def _is_stack_file(file: Path) -> bool:
    """Tell whether a file is a stack: files beside others are where they have their metadata with them."""
    named = _holds_frames(file) and not file.name.endswith(".truth.npy") and file.name != TRUTH
    return named and (file.with_suffix(".toml").is_file() or (file.parent / "acquisition.toml").is_file())


def _holds_frames(file: Path) -> bool:
    known = format_of(file)
    return known is not None and known.frames is not None

"""Small stacks and what tests ask of outputs: shared by the tests of the pipeline and of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.acquisition import Acquisition

WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)
STEPS_DEG = (0.0, 90.0, 180.0, 270.0)
FIVE_DEG = (0.0, 90.0, 180.0, 270.0, 360.0)
INVALID, SATURATED, LOW_MODULATION, AMBIGUOUS = 1, 2, 4, 8


def stack_of(
    frames: np.ndarray,
    waves_nm: Sequence[float] = WAVES_NM,
    steps_deg: Sequence[float] | None = STEPS_DEG,
    steps: Any = "trusted",
    bit_depth: int | None = None,
) -> FrameStack:
    """A stack of frames (L, K, H, W) in memory; the first wavelengths of the list, the same steps for all."""
    waves = tuple(waves_nm[: len(frames)])
    rows = None if steps_deg is None else (tuple(steps_deg),) * len(waves)
    return FrameStack.from_array(frames, Acquisition(waves, rows, steps, None, bit_depth))


def folder_of(
    place: Path,
    frames: np.ndarray,
    waves_nm: Sequence[float] = WAVES_NM,
    steps_deg: Sequence[float] | None = STEPS_DEG,
    **more: object,
) -> Path:
    """``place`` with frames.npy and acquisition.toml, as the command line reads them."""
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "frames.npy", frames)
    lines = [f"wavelengths = {json.dumps([f'{wave} nm' for wave in waves_nm[: len(frames)]])}"]
    if steps_deg is not None:
        lines.append(f"phase_steps = {list(steps_deg)}")
    lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
    (place / "acquisition.toml").write_text("\n".join(lines) + "\n")
    return place


def contents(folder: Path, stem: str) -> dict[str, bytes]:
    """Every file of an output but its JSON document (which holds times), by its name in ``folder``."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {n: p.read_bytes() for n, p in sorted(names.items()) if n.startswith(stem) and n != f"{stem}.json"}


def leftovers(folder: Path) -> list[str]:
    """What only unfinished runs leave."""
    kinds = (".partial", ".journal", ".scratch", ".tmp")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(kinds))


def without_plane(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Values (H, W) without the least-squares plane of the pixels in ``keep``; NaN elsewhere."""
    y, x = np.nonzero(keep)
    matrix = np.column_stack([np.ones(y.size), y, x]) - [0, y.mean(), x.mean()]
    found = values[keep].astype(np.float64)
    result = np.full(values.shape, np.nan)
    result[keep] = found - matrix @ np.linalg.lstsq(matrix, found, rcond=None)[0]
    return result


def slopes(values: np.ndarray) -> np.ndarray:
    """Mean and slopes in y and x (per pixel) of the least-squares plane of the finite pixels."""
    y, x = np.nonzero(np.isfinite(values))
    matrix = np.column_stack([np.ones(y.size), y - y.mean(), x - x.mean()])
    return np.linalg.lstsq(matrix, values[y, x].astype(np.float64), rcond=None)[0]


def planes(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y and x of an image's pixels."""
    y, x = np.indices(shape)
    return y, x

"""Where patches come from: a stack whose height map lies on disk, read as windows of memory maps."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpikan.images.features import FeatureSpec, FramePatches, PatchBatch, Planes, noise_unit_nm
from cpikan.images.patches.light import WaveLight
from cpikan.psi.model.flags import Flag
from cpikan.storage.maps import open_npy
from cpikan.storage.protocols import FrameReader
from cpikan.storage.readers.array import NpyReader
from cpikan.storage.readers.open import open_frames

_SIDE = 8  # windows down and across
_WINDOW_PX = 96

MapWindow = Callable[[slice, slice], tuple[np.ndarray, np.ndarray, np.ndarray]]


def sample_windows(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Choose at most 8 x 8 windows of at most 96 x 96 pixels, evenly spread over an image (H, W): the memory of a sample
    does not depend on the image."""
    size = [min(_WINDOW_PX, length) for length in shape]
    axes = [
        [slice(start, start + n) for start in np.unique(np.linspace(0, length - n, _SIDE).astype(int)).tolist()]
        for length, n in zip(shape, size, strict=True)
    ]
    return [(rows, columns) for rows, columns in itertools.product(*axes)]


def map_unit_nm(window: MapWindow, shape: tuple[int, int], finest_period: float) -> float:
    """Compute `noise_unit_nm` of a map (H, W), from a sample; ``window(rows, columns)`` gives height_nm, sigma_nm and valid
    there.

    An empty row between the windows keeps rows that are no neighbours from being compared.
    """
    parts: list[list[np.ndarray]] = [[], [], []]
    for rows, columns in sample_windows(shape):
        for part, values in zip(parts, window(rows, columns), strict=True):
            part += [values, np.zeros_like(values[:1])]
    height_nm, sigma_nm, valid = (torch.from_numpy(np.concatenate(part)) for part in parts)
    return noise_unit_nm(height_nm, sigma_nm, valid, finest_period)


@dataclass(frozen=True)
class Wanted:
    """What a patch is to hold beside heights: raw ``frames``, wrapped ``phases``, ``modulation``; ``finest_period`` is the
    shortest period of the features (the unit is chosen so that slopes do not turn it too fast)."""

    frames: bool = False
    phases: bool = False
    modulation: bool = False
    finest_period: float = FeatureSpec().periods[0]

    @property
    def reads_frames(self) -> bool:
        return self.frames or self.phases or self.modulation


@dataclass(frozen=True)
class TruthFile:
    """A .npy of true heights in nm; ``sign`` and ``offset_nm`` (one per component number, NaN where it is not known how
    they stand) lay it on the guide. ``component`` is None where offset 0 serves all pixels."""

    path: Path
    sign: int
    offset_nm: np.ndarray
    component: Path | None = None


@dataclass(frozen=True)
class StackFiles:
    """The files of a stack and what is known of them: ``guide`` is the height map (.npy with sigma and flags beside it),
    ``frames`` what `open_frames` takes, ``light`` one per wavelength."""

    name: str
    guide: Path
    sigma: Path
    flags: Path
    wavelengths_nm: tuple[float, ...]
    frames: str | None = None
    light: tuple[WaveLight, ...] = ()
    truth: TruthFile | None = None


class _Opened:
    """Memory maps of one process; never pickled."""

    def __init__(self, files: StackFiles) -> None:
        self.process = os.getpid()
        self.height, self.sigma, self.flags = (open_npy(path) for path in (files.guide, files.sigma, files.flags))
        truth = files.truth
        self.truth = None if truth is None else open_npy(truth.path)
        self.component = None if truth is None or truth.component is None else open_npy(truth.component)
        self.reader: FrameReader | None = None if files.frames is None else open_frames(files.frames).reader
        self.lock = threading.Lock()


class StackSource:
    """A stack on disk that patches are cut from: opened when first read, again in every process, windows only.

    Of a .npy the pixels of a window are all that is copied; other files are read by image rows. Raises InputError for
    files that are missing or damaged, when they are opened.
    """

    def __init__(self, files: StackFiles) -> None:
        self.files = files
        self._opened: _Opened | None = None
        self._units: dict[float, float] = {}
        self._median: float | None = None
        height, width = self._maps().height.shape
        self.shape = (int(height), int(width))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        return f"StackSource({self.name}, {self.shape[0]} x {self.shape[1]})"

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def wavelengths_nm(self) -> tuple[float, ...]:
        return self.files.wavelengths_nm

    @property
    def half_wave_nm(self) -> float:
        return min(self.wavelengths_nm) / 2

    @property
    def frame_shape(self) -> tuple[int, int] | None:
        light = self.files.light
        return (len(light), light[0].model.frames) if light else None

    @property
    def has_truth(self) -> bool:
        return self.files.truth is not None

    def unit_nm(self, finest_period: float) -> float:
        """Compute the noise of the whole map that periods are counted in, read once."""
        if finest_period not in self._units:
            self._units[finest_period] = map_unit_nm(self._guide, self.shape, finest_period)
        return self._units[finest_period]

    def prepare(self, wanted: Wanted) -> None:
        """Read what all patches share (unit, median modulation), so that threads and workers find it."""
        self.unit_nm(wanted.finest_period)
        if wanted.modulation:
            self._median_modulation()

    def valid(self, rows: slice, columns: slice) -> np.ndarray:
        """Tell which pixels of a window were measured, bool."""
        return self._guide(rows, columns)[2]

    def patch(self, row: int, column: int, size: int, wanted: Wanted, number: int = 0) -> PatchBatch:
        """Cut the square patch whose first pixel is (row, column), as a batch of one; ``number`` goes into its place."""
        rows, columns = slice(row, row + size), slice(column, column + size)
        height, sigma, valid = self._guide(rows, columns)
        frames, phase, modulation = None, None, None
        if wanted.reads_frames:
            light = self._light(rows, columns)
            if wanted.phases or wanted.modulation:
                phasors = self._phasors(light, row, column)
                phase = _one(np.angle(phasors).astype(np.float32)) if wanted.phases else None
                if wanted.modulation:
                    share = np.abs(phasors).mean(axis=0) / self._median_modulation()
                    modulation = _one(share.astype(np.float32))
            frames = self._frame_patches(light, row, column, size) if wanted.frames else None
        return PatchBatch(
            planes=Planes(_one(height), _one(sigma), _one(valid), phase, modulation),
            unit_nm=torch.tensor([self.unit_nm(wanted.finest_period)], dtype=torch.float32),
            half_wave_nm=torch.tensor([self.half_wave_nm], dtype=torch.float32),
            place=torch.tensor([[number, row, column]]),
            truth_nm=self._truth(rows, columns),
            frames=frames,
        )

    def _maps(self) -> _Opened:
        # a forked process may share descriptors with its parent, whose readers keep a place in them
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = _Opened(self.files)
        return self._opened

    def _guide(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read height and sigma (float32, 0 and 1 where invalid) and validity of a window, copied out of the maps."""
        maps = self._maps()
        height = np.array(maps.height[rows, columns], np.float32)
        sigma = np.array(maps.sigma[rows, columns], np.float32)
        measured = (maps.flags[rows, columns] & int(Flag.INVALID)) == 0
        valid = np.asarray(measured & np.isfinite(height) & np.isfinite(sigma) & (sigma > 0))
        height[~valid], sigma[~valid] = 0.0, 1.0
        return height, sigma, valid

    def _light(self, rows: slice, columns: slice) -> np.ndarray:
        """Read light (L, K, h, w) of a window."""
        maps, light = self._maps(), self.files.light
        assert maps.reader is not None
        if isinstance(maps.reader, NpyReader):
            # rows of a .npy are a view, so only the columns asked for are touched; views need no lock
            band = maps.reader.read_rows(rows.start, rows.stop)[..., columns]
        else:
            with maps.lock:
                band = maps.reader.read_rows(rows.start, rows.stop)[..., columns].copy()
        samples = band.reshape(len(light), -1, *band.shape[1:])
        return np.stack([one.light_dn(part) for one, part in zip(light, samples, strict=True)])

    def _phasors(self, light: np.ndarray, row: int, column: int) -> np.ndarray:
        waves = zip(self.files.light, light, strict=True)
        return np.stack([one.phasor(part, row, column) for one, part in waves])

    def _frame_patches(self, light: np.ndarray, row: int, column: int, size: int) -> FramePatches:
        middle = (size - 1) / 2
        found = [one.linear_about(row + middle, column + middle) for one in self.files.light]
        waves = zip(self.files.light, light, strict=True)
        light = np.stack([one.fundamental(part, row, column) for one, part in waves])
        return FramePatches(
            frames_dn=_one(light),
            step_rad=_one(np.stack([steps for steps, _ in found]).astype(np.float32)),
            tilt_rad_px=_one(np.stack([slopes for _, slopes in found]).astype(np.float32)),
            pivot_px=torch.tensor([[middle, middle]], dtype=torch.float32),
            wavelengths_nm=torch.tensor([self.wavelengths_nm], dtype=torch.float32),
        )

    def _truth(self, rows: slice, columns: slice) -> torch.Tensor | None:
        maps, file = self._maps(), self.files.truth
        if file is None:
            return None
        assert maps.truth is not None
        offset = file.offset_nm[0] if maps.component is None else file.offset_nm[maps.component[rows, columns]]
        return _one((file.sign * maps.truth[rows, columns].astype(np.float64) + offset).astype(np.float32))

    def _median_modulation(self) -> float:
        """Compute the median over a few windows of the mean modulation of the wavelengths, over measured pixels; 1 where none
        is."""
        if self._median is None:
            seen = []
            for window in sample_windows(self.shape):
                rows, columns = window
                phasors = self._phasors(self._light(rows, columns), rows.start, columns.start)
                seen.append(np.abs(phasors).mean(axis=0)[self.valid(rows, columns)])
            values = np.concatenate(seen)
            self._median = float(np.median(values)) if values.size else 1.0
        return self._median


def _one(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))[None]

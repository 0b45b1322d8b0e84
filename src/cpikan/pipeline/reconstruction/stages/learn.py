"""The stage of a learned model: the map runs through the network in overlapping tiles, its corrections are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.pipeline.reconstruction.passes import wrapped_phases
from cpikan.pipeline.reconstruction.stage import Arrays, Context, FormedMap, Stage
from cpikan.pipeline.reconstruction.stages.demodulate import frame_source
from cpikan.psi.model.flags import Flag
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Progress

if TYPE_CHECKING:
    from cpikan.images.sigma_scale import SigmaScale
    from cpikan.pipeline.reconstruction.calibrate import StackCalibration
    from cpikan.pipeline.reconstruction.network import LearnedModel

_SAMPLED_ROWS = 128  # pairs of rows that the noise unit is estimated on
_INVALID = np.uint8(Flag.INVALID)
MapRows = Callable[[int, int], dict[str, np.ndarray]]  # rows [start, stop) by quantity
PhaseRows = Callable[[int, int], np.ndarray]  # rows [start, stop) as (L, stop - start, W), radians


@dataclass(frozen=True)
class Learn(Stage):
    """Corrections, sigmas and flags by a learned model, with the phases of the frames where it takes them."""

    name: ClassVar[str] = "learn"
    clock: ClassVar[str] = "refine"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("flags", "modulation")
    writes: tuple[str, ...] = ("correction_nm", "sigma_nm", "flags_learned")

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Run the network over the rows that an earlier run has not done."""
        from cpikan.images.tiles import MapUnits
        from cpikan.streaming.tiling.infer import run_tiles
        from cpikan.streaming.tiling.source import ImageSource

        model, settings = context.network, context.settings
        assert model is not None, "a model was read before the run began"
        formed = FormedMap.of(arrays, context)

        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            return formed.rows(Band(0, start, stop))

        unit, brightness = sampled_noise(rows, context.shape[0], model.features.periods[0])
        search, half_wave_nm = context.model.search, context.stack.acquisition.wavelengths_nm[0] / 2
        device = context.plan.network_device
        half_wave_nm = half_wave_nm if search is None else search.half_wave_nm
        units = MapUnits(unit, half_wave_nm, _scale(model, context.calibrated))
        tiles = model.tiles(units, threads=context.pool.threads, device=device)
        phases = wrapped_phases(frame_source(context)) if search is not None else _stored_phases(arrays)
        source = ImageSource(*_planes(model, rows, phases, brightness, context.shape), lambda: "", lambda: None)
        with context.progress(self.name) as progress:
            tiling = model.tiling(settings.tile, settings.overlap, context.shape)
            report = run_tiles(tiles, source, NetworkRows(self, arrays, context, progress), tiling)
        kept = {"model": model.name, "model_sha256": model.fingerprint, "unit_nm": unit, "device": device}
        return {"learned": {**kept, **report}, "methods_used": ["learned"]}


def _scale(model: LearnedModel, found: StackCalibration) -> SigmaScale:
    """Say how the network's sigma is scaled on a stack: by its noise, and by what of it neighbours share."""
    from cpikan.images.sigma_scale import SigmaScale

    noise_rad = float(np.mean(found.calibration.sigma_phase_rad))
    return SigmaScale.of(model.sigma_factors, noise_rad, found.calibration.systematic_share, found.average_factors)


def _stored_phases(arrays: Arrays) -> PhaseRows:
    """Make a reader of the wrapped phases (1, rows, W) of one wavelength."""
    return lambda start, stop: np.array(arrays.current("phase_rad")[None, start:stop])


def _planes(
    model: LearnedModel, rows: MapRows, phases: PhaseRows, brightness: float, shape: tuple[int, int]
) -> tuple[tuple[int, int, int], bool, Callable[[int, int, np.ndarray], None]]:
    """Describe what the network is shown: the shape of its planes, no batch, and what fills rows of them."""
    spec = model.features
    waves = len(spec.wavelengths_nm)

    def fill(start: int, stop: int, out: np.ndarray) -> None:
        part = rows(start, stop)
        valid = ((part["flags"] & _INVALID) == 0) & np.isfinite(part["height_nm"])
        out[0], out[1], out[2] = part["height_nm"], part["sigma_nm"], valid
        np.copyto(out[:2], 0, where=~valid)  # NaN would spread through the convolutions
        if waves:
            out[3 : 3 + waves] = np.nan_to_num(phases(start, stop))
        if spec.modulation:
            out[3 + waves] = part["modulation"] / np.float32(brightness)

    return (3 + waves + int(spec.modulation), *shape), False, fill


def sampled_noise(rows: MapRows, height: int, period: float) -> tuple[float, float]:
    """Estimate the noise unit in nm and the median modulation, from pairs of rows spread over the image."""
    import torch

    from cpikan.images.features import noise_unit_nm

    firsts = sorted({i * max(height - 2, 0) // max(_SAMPLED_ROWS - 1, 1) for i in range(_SAMPLED_ROWS)})
    parts = [rows(first, min(first + 2, height)) for first in firsts]
    heights, sigmas = (np.stack([part[n] for part in parts]) for n in ("height_nm", "sigma_nm"))
    valid = (np.stack([part["flags"] for part in parts]) & _INVALID) == 0
    valid &= np.isfinite(heights)
    power = np.stack([part["modulation"] for part in parts])[valid]
    # pairs of rows lie on each other: differences down the columns are those of neighbours within a pair
    pairs = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, 0, 1))) for a in (heights, sigmas, valid)]
    height_nm, sigma_nm, inside = (pair.reshape(pair.shape[0], -1) for pair in pairs)
    brightness = float(np.median(power)) if len(power) else 1.0
    return noise_unit_nm(height_nm, sigma_nm, inside, period), brightness


class NetworkRows:
    """Rows of the network's answer on their way into scratch arrays, journaled."""

    def __init__(self, stage: Learn, arrays: Arrays, context: Context, progress: Progress) -> None:
        self._progress = progress
        self._files = [arrays.file(stage, name) for name in stage.writes]
        label = f"{stage.name} rows"
        self._sink = RowSink(arrays.scratch, context.journal, label, arrays.shape, durable=False)

    @property
    def first_row(self) -> int:
        return self._sink.first_row

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows (3, n, W); those done before, which come again on the way to the next ones, are dropped."""
        skip = max(self.first_row - start, 0)
        if skip < rows.shape[1]:
            correction, sigma, flags = rows[:, skip:]
            parts = (correction, sigma, flags.astype(np.uint8))
            self._sink.write(start + skip, dict(zip(self._files, parts, strict=True)))
            self._progress.advance(correction.shape[0])

    def finish(self) -> None:
        self._sink.finish()

    def commit(self, report: dict[str, Any]) -> None:
        """Keep nothing: the report stays with the caller."""

    def release(self) -> None:
        """Release nothing: the scratch arrays are the caller's."""

"""The stage of a learned model: the map runs through the network in overlapping tiles, its corrections are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.pipeline.reconstruction.passes import wrapped_phases
from cpikan.pipeline.reconstruction.stage import Arrays, Context, FormedMap, Stage
from cpikan.pipeline.reconstruction.stages.demodulate import frame_source
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Progress

if TYPE_CHECKING:
    from cpikan.images.sigma_scale import SigmaScale
    from cpikan.pipeline.reconstruction.calibrate import StackCalibration
    from cpikan.pipeline.reconstruction.network import LearnedModel
    from cpikan.pipeline.reconstruction.shown_map import PhaseRows


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
        from cpikan.pipeline.reconstruction.shown_map import ShownMap
        from cpikan.streaming.tiling.infer import run_tiles
        from cpikan.streaming.tiling.source import ImageSource

        model, settings = context.network, context.settings
        assert model is not None, "a model was read before the run began"
        formed = FormedMap.of(arrays, context)

        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            return formed.rows(Band(0, start, stop))

        search, half_wave_nm = context.model.search, context.stack.acquisition.wavelengths_nm[0] / 2
        half_wave_nm = half_wave_nm if search is None else search.half_wave_nm
        phases = wrapped_phases(frame_source(context)) if search is not None else _stored_phases(arrays)
        shown = ShownMap.of(model.features, rows, phases, context.shape)
        device = context.plan.network_device
        units = MapUnits(shown.unit_nm, half_wave_nm, _scale(model, context.calibrated))
        tiles = model.tiles(units, threads=context.pool.threads, device=device)
        source = ImageSource(shown.planes, False, shown.fill, lambda: "", lambda: None)
        with context.progress(self.name) as progress:
            tiling = model.tiling(settings.tile, settings.overlap, context.shape)
            report = run_tiles(tiles, source, NetworkRows(self, arrays, context, progress), tiling)
        kept = {"model": model.name, "model_sha256": model.fingerprint, "unit_nm": shown.unit_nm, "device": device}
        kept |= {"form_slope_nm": None if shown.form is None else shown.form.slope_nm}
        return {"learned": {**kept, **report}, "methods_used": ["learned"]}


def _scale(model: LearnedModel, found: StackCalibration) -> SigmaScale:
    """Say how the network's sigma is scaled on a stack: by its noise, and by what of it neighbours share."""
    from cpikan.images.sigma_scale import SigmaScale

    noise_rad = float(np.mean(found.calibration.sigma_phase_rad))
    return SigmaScale.of(model.sigma_factors, noise_rad, found.calibration.systematic_share, found.average_factors)


def _stored_phases(arrays: Arrays) -> PhaseRows:
    """Make a reader of the wrapped phases (1, rows, W) of one wavelength."""
    return lambda start, stop: np.array(arrays.current("phase_rad")[None, start:stop])


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

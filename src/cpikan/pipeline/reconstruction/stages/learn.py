"""The stage of a learned model: the map runs through the network in overlapping tiles, its corrections are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.pipeline.reconstruction.passes import wrapped_phases
from cpikan.pipeline.reconstruction.stage import Arrays, Context, FormedMap, Stage
from cpikan.pipeline.reconstruction.stages.demodulate import frame_source
from cpikan.pipeline.reconstruction.summary import told
from cpikan.psi.model.caution import Caution
from cpikan.streaming.engine import Band
from cpikan.streaming.events import Progress
from cpikan.streaming.tiling.model import TileFunction, TileModel, as_model

if TYPE_CHECKING:
    from cpikan.images.stein import NoiseLeft
    from cpikan.images.tiles import LearnedTiles
    from cpikan.pipeline.reconstruction.network import LearnedModel
    from cpikan.pipeline.reconstruction.shown_map import PhaseRows, ShownMap


@dataclass(frozen=True)
class Learn(Stage):
    """Corrections, sigmas and flags by a learned model, with the phases of the frames where it takes them."""

    name: ClassVar[str] = "learn"
    clock: ClassVar[str] = "refine"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("flags", "modulation")
    writes: tuple[str, ...] = ("correction_nm", "sigma_nm", "flags_learned")

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Run the network over the rows that an earlier run has not done, where a trial says that it helps."""
        from cpikan.streaming.tiling.infer import run_tiles
        from cpikan.streaming.tiling.source import ImageSource

        model, settings = context.network, context.settings
        assert model is not None, "a model was read before the run began"
        shown = _shown(model, arrays, context)
        chosen = _chosen(model, context, shown)
        source = ImageSource(shown.planes, False, shown.fill, lambda: "", lambda: None)
        with context.progress(self.name) as progress:
            tiling = model.tiling(settings.tile, settings.overlap, context.shape)
            report = run_tiles(chosen.tiles, source, NetworkRows(self, arrays, context, progress), tiling)
        facts = {
            "model": model.name,
            "model_sha256": model.fingerprint,
            "unit_nm": shown.unit_nm,
            "device": context.plan.network_device,
            "form_slope_nm": None if shown.form is None else shown.form.slope_nm,
            **chosen.facts,
        }
        used = ["learned"] if chosen.facts["used"] else []
        return {"learned": {**facts, **report}, "methods_used": used, **told(chosen.cautions)}


class _Chosen(NamedTuple):
    """What runs over the map, the network or nothing, with the facts and cautions that go with it."""

    tiles: TileModel
    facts: dict[str, Any]
    cautions: tuple[Caution, ...] = ()


def _chosen(model: LearnedModel, context: Context, shown: ShownMap) -> _Chosen:
    """Try the network on some places: where it does not help the map stays, where its sigma is wrong that is scaled."""
    from cpikan.images.sigma_scale import SigmaScale
    from cpikan.images.tiles import MapUnits
    from cpikan.pipeline.reconstruction.trial import tried

    search, found = context.model.search, context.calibrated
    half_wave_nm = context.stack.acquisition.wavelengths_nm[0] / 2 if search is None else search.half_wave_nm
    noise_rad, systematic = float(np.mean(found.calibration.sigma_phase_rad)), found.calibration.systematic_share

    def tiles(scale: SigmaScale) -> LearnedTiles:
        units = MapUnits(shown.unit_nm, half_wave_nm, scale)
        return model.tiles(units, threads=context.pool.threads, device=context.plan.network_device)

    scale = SigmaScale.of(model.sigma_factors, noise_rad, systematic, found.average_factors)
    noise_alone = tiles(replace(scale, systematic=0.0))
    left = tried(noise_alone, shown, systematic=systematic, phase_noise_rad=noise_rad)
    facts = {"noise_left": None if left is None else asdict(left)}
    if left is not None and not left.helps:
        unchanged = as_model(TileFunction(_kept, 1, 1, shown.planes[0], len(Learn.writes)))
        return _Chosen(unchanged, {"used": False, "sigma_factor": None, **facts}, (_not_used(left),))
    if left is not None:
        scale = replace(scale, factor=scale.factor * left.factor(shared=bool(scale.averages)))
    return _Chosen(tiles(scale), {"used": True, "sigma_factor": scale.factor, **facts})


def _kept(planes: np.ndarray) -> np.ndarray:
    """Answer with no correction (N, 3, h, w), the sigma of the pixels and no flag."""
    answer = np.zeros((len(planes), 3, *planes.shape[2:]), np.float32)
    answer[:, 1] = planes[:, 1]
    return answer


def _not_used(left: NoiseLeft) -> Caution:
    """Say that the map stays as it was."""
    text = (
        f"the network was not used: on this map it leaves {left.found:.2f} +- {left.error:.2f} of the variance of the noise; "
        "heights and sigmas are those of hybrid"
    )
    return Caution("network-not-used", text)


def _shown(model: LearnedModel, arrays: Arrays, context: Context) -> ShownMap:
    """Say what the network is shown of the map that the stages before have made."""
    from cpikan.pipeline.reconstruction.shown_map import ShownMap

    formed = FormedMap.of(arrays, context)
    phases = _stored_phases(arrays) if context.model.search is None else wrapped_phases(frame_source(context))
    return ShownMap.of(model.features, lambda start, stop: formed.rows(Band(0, start, stop)), phases, context.shape)


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

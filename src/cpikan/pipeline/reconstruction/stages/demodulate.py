"""Demodulation: frames to wrapped phases, or with the orders of several wavelengths to heights."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cpikan.pipeline.reconstruction.band_shares import tell_rows
from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.pipeline.reconstruction.passes import (
    FrameSource,
    OrderGuide,
    fit_guide,
    frame_pass,
    guided_bands,
    guided_pass,
    pixel_bands,
    survey_pass,
)
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage, busy_seconds
from cpikan.pipeline.reconstruction.summary import added, map_figures
from cpikan.pipeline.stacks.frame_hash import FrameRecord
from cpikan.storage.scratch import Spill
from cpikan.storage.writers.layout import SLOPES

_PHASES = ("phase_rad", "sigma_rad", "modulation", "flags")
_HEIGHTS = ("height_nm", "sigma_nm", "modulation", "flags")


def frame_source(context: Context) -> FrameSource:
    """Make the source of a run's frames with its kernels."""
    settings = context.settings
    return FrameSource(
        context.stack,
        context.kernels,
        context.model.search,
        settings.mask,
        settings.band_rows,
        ranks=context.ranks,
    )


@dataclass(frozen=True)
class Demodulate(Stage):
    """One pass over all frames, into scratch arrays or, where nothing else is to be done, ``direct`` into the output."""

    name: ClassVar[str] = "demodulate"
    direct: bool = False
    method: str = ""  # what decides the orders of pixels where no neighbours are asked

    @classmethod
    def to_phases(cls) -> Demodulate:
        """Make the stage for one wavelength, which writes wrapped phases."""
        return cls(writes=_PHASES)

    @classmethod
    def to_heights(cls, slopes: tuple[str, ...], *, direct: bool) -> Demodulate:
        """Make the stage for several wavelengths: heights; a surface that is fitted on the way gives ``slopes``."""
        if direct:
            return cls(derives=(*_HEIGHTS, *slopes), direct=True, method="pixel")
        return cls(writes=_HEIGHTS, derives=slopes, method="pixel")

    def stored(self) -> Demodulate:
        """Make the stage for several wavelengths that leaves heights to later stages."""
        return self.to_heights(tuple(name for name in self.derives if name in SLOPES), direct=False)

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Demodulate the rows that an earlier run has not."""
        record = FrameRecord(context.stack, context.journal)
        source = replace(frame_source(context), hashed=record.hashed)
        if context.plan.neighbours == "always":
            guide, part = _survey(source, context)
        else:
            guide, part = None, {"methods_used": [self.method] if self.method else []}
        part["band_rows"] = (pixel_bands if guide is None else guided_bands)(source, 0)[0].rows
        if guide is not None and guide.slopes is not None:
            arrays.derive(SLOPES, guide.slopes)
        if not self.direct:
            sink = RowSink(arrays.scratch, context.journal, self.name, context.shape, durable=False)
            sink.notes = record.notes
            busy = self._pass(source, guide, sink, context)
            return added(part, {**busy, "frames_xxh3": record.hexdigest()})
        with context.output.rows(durable=True) as sink:
            sink.notes = record.notes
            busy = self._pass(source, guide, sink, context)
            part["frames_xxh3"] = record.hexdigest()
            finished = time.perf_counter()
        busy["seconds_write"] += time.perf_counter() - finished
        return added(part, {**busy, **map_figures(sink.statistics, context.shape, sink.sample.pv_nm())})

    def _pass(self, source: FrameSource, guide: OrderGuide | None, sink: RowSink, context: Context) -> dict[str, float]:
        assert source.hashed is not None, "the frames of a run are hashed"
        source.hashed.read(source.stack, sink.first_row)
        tell_rows(source.ranks, sink)
        label = self.name if guide is None else f"{self.name}, guided"
        with context.progress(label, context.shape[0] - sink.first_row) as progress:
            if guide is None:
                return busy_seconds(frame_pass(source, sink, progress))
            return busy_seconds(guided_pass(source, guide, sink, progress, context.pool))


def _survey(source: FrameSource, context: Context) -> tuple[OrderGuide, dict[str, Any]]:
    """Look at all frames once, and fit the surface that guides the orders."""
    method, spill = context.plan.method, Spill(context.output.space.output.parent)
    assert source.search is not None, "two or more wavelengths have an order search"
    with context.progress("survey") as progress:
        sums, timings = survey_pass(source, progress, spill.empty)
    started = time.perf_counter()
    guide, report = fit_guide(
        method, sums, source.search, slopes=context.plan.slopes, empty=spill.empty, ranks=source.ranks
    )
    refined, cells = report["cells_refined"], report["cells"]
    used = [name for name, cells_of in (("pixel", cells - refined), (method.refiner, refined)) if cells_of > 0]
    part = {"refining": report, "methods_used": used, "seconds_refine": time.perf_counter() - started}
    return guide, {**part, **busy_seconds(timings)}

"""Helper: what a process does for a map that another one writes: its bands of the frames, its tiles of the surface."""

from __future__ import annotations

from pathlib import Path

from cpikan.pipeline.reconstruction.band_shares import RowsElsewhere
from cpikan.pipeline.reconstruction.passes import FrameSource, fit_guide, frame_pass, guided_pass, survey_pass
from cpikan.pipeline.reconstruction.plan import Plan
from cpikan.storage.scratch import Spill
from cpikan.streaming.threads import RowPool


def help_demodulate(source: FrameSource, plan: Plan, folder: Path, pool: RowPool) -> None:
    """Do this process's share of the stage `Demodulate`; large arrays are spilled to ``folder``."""
    guide = None
    if plan.neighbours == "always":
        assert source.search is not None, "two or more wavelengths have an order search"
        spill = Spill(folder)
        sums, _ = survey_pass(source, None, spill.empty)
        guide, _ = fit_guide(
            plan.method, sums, source.search, slopes=plan.slopes, empty=spill.empty, ranks=source.ranks
        )
    sink = RowsElsewhere.told(source.ranks)
    if guide is None:
        frame_pass(source, sink, None)
    else:
        guided_pass(source, guide, sink, None, pool)

"""Runs that need the whole image before the output can be written: one wavelength, or a datum to remove."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cpikan.pipeline.passes import PassContext, flat_bands, height_pass, phase_pass
from cpikan.pipeline.row_sink import RowSink
from cpikan.pipeline.settings import ReconstructSettings
from cpikan.pipeline.stack import FrameStack
from cpikan.psi.kernels import form
from cpikan.psi.kernels.select import PixelKernels
from cpikan.psi.statistics import COLUMNS, row_sums
from cpikan.storage.scratch import ScratchArrays
from cpikan.streaming.bands import Band
from cpikan.streaming.engine import StreamTimings, stream
from cpikan.streaming.journal import Journal
from cpikan.streaming.progress import Progress
from cpikan.surface.grouped_plane import GroupedPlane, GroupedPlaneFit

_RIPPLE_PIXELS = 250_000  # enough for a form of order 10 and a hundredth of a milliradian
_RIPPLE_LEAST = 1000

SCRATCH_PHASE: dict[str, np.dtype] = {
    "phase_rad": np.dtype(np.float32),
    "sigma_rad": np.dtype(np.float32),
    "modulation": np.dtype(np.float32),
    "flags": np.dtype(np.uint8),
    "order": np.dtype(np.int32),
    "component": np.dtype(np.int32),
    "ambiguous": np.dtype(np.bool_),
}
SCRATCH_HEIGHT: dict[str, np.dtype] = {
    "height_nm": np.dtype(np.float32),
    "sigma_nm": np.dtype(np.float32),
    "modulation": np.dtype(np.float32),
    "flags": np.dtype(np.uint8),
}


@dataclass
class TwoPass:
    """The passes of such a run over its scratch arrays; each picks up where the journal says an earlier run stopped."""

    stack: FrameStack
    settings: ReconstructSettings
    scratch: ScratchArrays
    journal: Journal
    bar: Callable[[str, int], Progress]
    band_rows: int | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.scratch.shape

    @property
    def nm_per_rad(self) -> float:
        return self.stack.acquisition.wavelengths_nm[0] / (4 * np.pi)

    def phases(self, kernels: PixelKernels) -> StreamTimings:
        """One wavelength: frames to wrapped phases."""
        return self._frames("demodulate", kernels, phase_pass)

    def heights(self, kernels: PixelKernels) -> StreamTimings:
        """Several wavelengths: frames to heights, the datum still in them."""
        return self._frames("reconstruct", kernels, height_pass)

    def _frames(
        self, label: str, kernels: PixelKernels, run: Callable[[PassContext, RowSink], StreamTimings]
    ) -> StreamTimings:
        sink = RowSink(self.scratch, self.journal, label, self.shape, durable=False)
        with self.bar(label, self.shape[0] - sink.first_row) as bar:
            return run(PassContext(self.stack, kernels, self.settings.mask, self.band_rows, bar), sink)

    def unwrap(self) -> tuple[dict[str, Any], int]:
        """Orders and components of the scratch phases; returns the report and the number of components."""
        done = self.journal.last("unwrap")
        if done is not None:
            return done["report"], int(done["components"])
        from cpikan.psi.unwrap.unwrap import unwrap

        with self.bar("unwrap", self.shape[0]) as bar:
            result = unwrap(
                self.scratch.array("phase_rad"),
                self.scratch.array("modulation"),
                tile=self.settings.tile,
                overlap=self.settings.overlap,
                threads=self.settings.worker_threads,
                orders_out=self.scratch.array("order", writable=True),
                component_out=self.scratch.array("component", writable=True),
                ambiguous_out=self.scratch.array("ambiguous", writable=True),
                progress=bar,
            )
        report = {k: v for k, v in asdict(result.report).items() if k != "component_sizes"}
        components = int(result.report.components)
        self.journal.add({"stage": "unwrap", "report": report, "components": components})
        return report, components

    def ripple_mrad(self) -> dict[str, float]:
        """Fringe ripple of the largest component, k = 1..4 times the fringe, in mrad (interferometric print-through)."""
        from cpikan.surface.ripple import fringe_ripple

        step = max(1, round((self.shape[0] * self.shape[1] / _RIPPLE_PIXELS) ** 0.5))
        part = (slice(None, None, step), slice(None, None, step))
        wrapped = np.array(self.scratch.array("phase_rad")[part], np.float64)
        order = np.array(self.scratch.array("order")[part])
        mask = (np.array(self.scratch.array("component")[part]) == 1) & np.isfinite(wrapped)
        if mask.sum() < _RIPPLE_LEAST:
            return {}
        found = fringe_ripple(wrapped + 2 * np.pi * order, wrapped, mask)
        return {str(k): float(v) for k, v in found.items()}

    def form(self, sink: RowSink) -> float:
        """Write the output from the scratch arrays, the datum removed; returns the seconds it took."""
        started = time.perf_counter()
        plane = self._datum()
        names = ("phase_rad" if "phase_rad" in self.scratch.quantities else "height_nm",)
        phases = names[0] == "phase_rad"
        arrays = {name: self.scratch.array(name) for name in self.scratch.quantities}
        bands = flat_bands(self.shape, self.band_rows, sink.first_row)

        def read(band: Band) -> dict[str, np.ndarray]:
            return {name: np.array(array[band.start : band.stop]) for name, array in arrays.items()}

        def compute(band: Band, rows: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
            if phases:
                rows["height_nm"] = self._form(band, rows, plane)
                rows["sigma_nm"] = rows["sigma_rad"] * np.float32(self.nm_per_rad)
            else:
                rows["height_nm"] = plane.take_from(band.start, rows["height_nm"], None)
            table = np.empty((band.rows, COLUMNS))
            row_sums(rows["height_nm"], rows["flags"], table)
            return rows, table

        def write(band: Band, result: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
            sink.write(band.start, *result)

        with self.bar("write", self.shape[0] - sink.first_row) as bar:
            stream(bands, read, compute, write, progress=bar)
        sink.finish()
        return time.perf_counter() - started

    def _form(self, band: Band, rows: dict[str, np.ndarray], plane: GroupedPlane) -> np.ndarray:
        height = np.empty(rows["phase_rad"].shape, np.float32)
        centre = np.array([(n - 1) / 2 for n in self.shape])
        constants, slope = plane.constants_nm, np.array(plane.slope)
        form_rows: Any = form.form_rows

        def piece(start: int, stop: int) -> None:
            part = slice(start, stop)
            form_rows(
                *(rows[name][part] for name in ("phase_rad", "order", "component", "ambiguous", "flags")),
                self.nm_per_rad,
                constants,
                slope,
                band.start + start,
                centre,
                height[part],
            )

        threads = self.settings.worker_threads
        step = -(-band.rows // threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(piece, range(0, band.rows, step), range(step, band.rows + step, step)))
        return height

    def _datum(self) -> GroupedPlane:
        """The plane to take off, fitted to the whole map; nothing where nothing was asked."""
        groups = 1
        if "component" in self.scratch.quantities:
            component = self.scratch.array("component")
            groups = max(1, max(int(component[b.start : b.stop].max()) for b in flat_bands(self.shape, None, 0)))
        if not self.settings.remove:
            return GroupedPlane(self.shape, np.zeros(groups + 1), (0.0, 0.0))
        fit = GroupedPlaneFit(self.shape, groups, "tilt" in self.settings.remove)
        with self.bar("datum", self.shape[0]) as bar:
            for band in flat_bands(self.shape, None, 0):
                rows = slice(band.start, band.stop)
                if "component" in self.scratch.quantities:
                    component_rows = np.array(component[rows])
                    phase = self.scratch.array("phase_rad")[rows] + 2 * np.pi * self.scratch.array("order")[rows]
                    heights = np.where(component_rows > 0, phase * self.nm_per_rad, np.nan)
                    fit.add(band.start, heights, component_rows)
                else:
                    fit.add(band.start, np.array(self.scratch.array("height_nm")[rows]), None)
                bar.advance(band.rows)
        plane = fit.solve()
        if "piston" not in self.settings.remove:  # tilt alone: the slope goes, the mean stays
            return GroupedPlane(self.shape, np.zeros(groups + 1), plane.slope)
        return plane

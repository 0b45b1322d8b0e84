"""Runs that need the whole image before the output can be written: one wavelength, or a datum to remove."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.learned_scratch import CORRECTION, FLAGS, SCRATCH_LEARNED, SIGMA
from cpikan.pipeline.reconstruction.one_wave_refining import refined_names
from cpikan.pipeline.reconstruction.passes import HeightPass, PassContext, flat_bands, height_pass, phase_pass
from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.reconstruction.slope_rows import SlopeSource, levelled_slopes, put_slopes
from cpikan.pipeline.stacks.mask import Circle
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels import form
from cpikan.psi.kernels.select import PixelKernels, choose_device
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.model.flags import Flag
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import SLOPES
from cpikan.streaming.bands import Band
from cpikan.streaming.engine import StreamTimings, stream
from cpikan.streaming.journal import Journal
from cpikan.streaming.progress import Progress
from cpikan.surface.form import form_modes
from cpikan.surface.grouped_form import GroupedForm, GroupedFormFit, no_form
from cpikan.surface.measure import MeasureSettings, measure
from cpikan.surface.pupil import ExtentScan

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.learned import LearnedModel, PhaseRows

_RIPPLE_PIXELS = 250_000  # enough for a form of order 10 and a hundredth of a milliradian
_RIPPLE_LEAST = 1000
_SWEEP_PIXELS, _PIECE_PIXELS = 1 << 18, 1 << 17  # a band, or what a thread takes of one, and its form stay in the cache

SCRATCH_PHASE: dict[str, np.dtype] = {
    "phase_rad": np.dtype(np.float32),
    "sigma_rad": np.dtype(np.float32),
    "modulation": np.dtype(np.float32),
    "flags": np.dtype(np.uint8),
    "order": np.dtype(np.int32),
    "component": np.dtype(np.int32),
    "ambiguous": np.dtype(np.bool_),
}
_FORMED = ("height_nm", "phase_rad", "order", "component", "ambiguous", "flags")  # what a height is formed from
SCRATCH_HEIGHT: dict[str, np.dtype] = {
    "height_nm": np.dtype(np.float32),
    "sigma_nm": np.dtype(np.float32),
    "modulation": np.dtype(np.float32),
    "flags": np.dtype(np.uint8),
}
GUESS = "guess_nm"


def scratch_kinds(wavelengths: int, settings: ReconstructSettings) -> dict[str, np.dtype]:
    """The scratch arrays of a run."""
    kinds = dict(SCRATCH_PHASE if wavelengths == 1 else SCRATCH_HEIGHT)
    if wavelengths == 1:
        kinds |= {new: kinds[old] for old, new in refined_names(settings.orders_by).items()}
    if settings.method == "learned":
        kinds |= SCRATCH_LEARNED
    return {**kinds, GUESS: np.dtype(np.float32)} if settings.inpaint else kinds


def _put_in(guess: np.ndarray, rows: dict[str, np.ndarray]) -> None:
    """Guessed heights into rows of the output, with their flag; the pixels stay invalid, for nothing was measured there."""
    known = np.isfinite(guess)
    np.copyto(rows["height_nm"], guess, where=known)
    rows["flags"][known] |= np.uint8(Flag.INPAINTED)


@dataclass
class TwoPass:
    """The passes of such a run over its scratch arrays; each picks up where the journal says an earlier run stopped."""

    stack: FrameStack
    settings: ReconstructSettings
    scratch: ScratchArrays
    journal: Journal
    bar: Callable[[str, int], Progress]
    band_rows: int | None
    _datum: GroupedForm | None = field(default=None, init=False)
    _corrected: bool = field(default=False, init=False)  # a network has run over the heights
    _source: dict[str, str] = field(default_factory=dict, init=False)  # arrays that took the place of others

    @property
    def shape(self) -> tuple[int, int]:
        return self.scratch.shape

    @property
    def nm_per_rad(self) -> float:
        return self.stack.acquisition.wavelengths_nm[0] / (4 * np.pi)

    def phases(self, kernels: PixelKernels) -> StreamTimings:
        """One wavelength: frames to wrapped phases."""
        return self._frames("demodulate", kernels, phase_pass)

    def heights(self, kernels: PixelKernels, run: HeightPass = height_pass) -> StreamTimings:
        """Several wavelengths: frames to heights, the datum still in them."""
        return self._frames("reconstruct", kernels, run)

    def _frames(self, label: str, kernels: PixelKernels, run: HeightPass) -> StreamTimings:
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
                tile=self.settings.unwrap_tile,
                overlap=self.settings.unwrap_overlap,
                threads=self.settings.worker_threads,
                out={
                    "orders": self.scratch.array("order", writable=True),
                    "component": self.scratch.array("component", writable=True),
                    "ambiguous": self.scratch.array("ambiguous", writable=True),
                },
                progress=bar,
            )
        report = {k: v for k, v in asdict(result.report).items() if k != "component_sizes"}
        components = int(result.report.components)
        self.journal.add({"stage": "unwrap", "report": report, "components": components})
        return report, components

    def refine(
        self, components: int, *, slopes: bool = False, shared_nm: np.ndarray | None = None
    ) -> tuple[dict[str, Any], int, SlopeSource | None]:
        """Join components and set orders right, or draw the surface; the report, the number of components that are left, and
        ``slopes`` of the surface if they are asked for. ``shared_nm``: an uncertainty that all pixels of a cell share."""
        from cpikan.pipeline.reconstruction.one_wave_refining import OneWaveRefining

        done = self.journal.last("refine")
        with self.bar("refine", self.shape[0] if done is None else 0) as bar:
            threads = self.settings.worker_threads
            work = OneWaveRefining(self.scratch, self.settings.orders_by, self.nm_per_rad, threads, bar, shared_nm)
            # the surface is not stored: a run that goes on fits it again, to the same bits
            found = work.surfaces(components) if done is None or slopes else None
            if done is None:
                assert found is not None
                report, left = work.run(found)
                done = {"stage": "refine", "report": report, "components": left}
                self.journal.add(done)
        self._source = refined_names(self.settings.orders_by)
        maps = work.slopes(found) if slopes and found is not None else None
        return dict(done["report"]), int(done["components"]), maps

    def learn(
        self, model: LearnedModel, half_wave_nm: float, phases: PhaseRows | None, components: int
    ) -> dict[str, Any]:
        """Run a network over the heights; from here on they are those it corrected. Returns its report.

        ``phases`` gives rows of the frames' phases of several wavelengths; of one they are here.
        """
        from cpikan.pipeline.reconstruction.learned import LearnedPass

        done = self.journal.last("learn")
        if done is None:
            names = [name for name in self.scratch.quantities if name not in SCRATCH_LEARNED]
            names = [name for name in names if name not in self._source.values()]

            def rows(start: int, stop: int) -> dict[str, np.ndarray]:
                band = Band(0, start, stop)
                parts = self._rows(band, names)
                height = self._levelled(band, parts, no_form(components))
                if self._phases:
                    parts["sigma_nm"] = parts["sigma_rad"] * np.float32(self.nm_per_rad)
                return {**parts, "height_nm": height}

            settings = self.settings
            work = LearnedPass(model, self.scratch, self.journal, rows, phases or self._phase_rows, half_wave_nm)
            with self.bar("learned", self.shape[0]) as bar:
                tiling = model.tiling(settings.tile, settings.overlap, self.shape)
                report = work.run(tiling, settings.worker_threads, choose_device(settings.device), bar)
            done = {"stage": "learn", "report": report}
            self.journal.add(done)
        self._corrected = True
        return dict(done["report"])

    def _phase_rows(self, start: int, stop: int) -> np.ndarray:
        """One wavelength: its wrapped phases (1, rows, W)."""
        return np.array(self._array("phase_rad")[None, start:stop])

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

    def form(self, sink: RowSink, slopes: SlopeSource | None = None) -> float:
        """Write the output from the scratch arrays, and slopes if it takes them, the datum removed; returns the seconds it
        took."""
        started = time.perf_counter()
        datum = self.datum()
        bands = flat_bands(self.shape, self.band_rows, sink.first_row)
        guess = self.scratch.array(GUESS) if self.settings.inpaint else None
        names = [name for name in self.scratch.quantities if name not in self._source.values()]
        if self._corrected:
            names = [name for name in names if name != "sigma_rad"]
        derived = None if slopes is None else levelled_slopes(slopes, datum, self.shape)

        def compute(band: Band, rows: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
            rows["height_nm"] = self._levelled(band, rows, datum)
            if self._corrected:
                rows["sigma_nm"], rows["flags"] = rows[SIGMA], rows["flags"] | rows[FLAGS]
            elif self._phases:
                rows["sigma_nm"] = rows["sigma_rad"] * np.float32(self.nm_per_rad)
            table = np.empty((band.rows, COLUMNS))
            row_sums(rows["height_nm"], rows["flags"], table)
            if derived is not None:
                rows.update(self._slopes(band, derived, rows["flags"]))
            if guess is not None:  # after the sums: a guess is no measurement
                _put_in(guess[band.start : band.stop], rows)
            return rows, table

        def write(band: Band, result: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
            sink.write(band.start, *result)

        with self.bar("write", self.shape[0] - sink.first_row) as bar:
            stream(bands, lambda band: self._rows(band, names), compute, write, progress=bar)
        sink.finish()
        return time.perf_counter() - started

    def inpaint(self) -> dict[str, Any]:
        """Guess what fills the holes of the output; returns how many there were."""
        done = self.journal.last("inpaint")
        if done is not None:
            return dict(done["report"])
        from cpikan.pipeline.reconstruction.inpainting import fill_holes

        datum, names = self.datum(), self._formed

        def rows(band: Band) -> tuple[np.ndarray, np.ndarray | None]:
            parts = self._rows(band, names)
            return self._levelled(band, parts, datum), parts.get("component")

        report = fill_holes(rows, self._sweep_bands(), self.scratch.array(GUESS, writable=True))
        self.journal.add({"stage": "inpaint", "report": report})
        return report

    def datum(self) -> GroupedForm:
        """The form to take off, fitted to the whole map; nothing where nothing was asked."""
        if self._datum is None:
            self._datum = self._fitted()
        return self._datum

    def surface(self) -> dict[str, Any]:
        """Surface numbers of the output, its form removed."""
        datum, names = self.datum(), self._formed

        def sweep() -> Iterator[tuple[int, np.ndarray]]:
            with self.bar("numbers", self.shape[0]) as bar:
                for band in self._sweep_bands():
                    yield band.start, self._levelled(band, self._rows(band, names), datum)[None]
                    bar.advance(band.rows)

        return (
            measure(sweep, MeasureSettings((), datum.pupil, pixel_um=self.stack.acquisition.pixel_um))
            .surfaces[0]
            .summary()
        )

    @property
    def _formed(self) -> list[str]:
        """What heights are formed from."""
        names = [name for name in _FORMED if name in self.scratch.quantities]
        return [*names, CORRECTION] if self._corrected else names

    @property
    def _phases(self) -> bool:
        return "phase_rad" in self.scratch.quantities

    def _sweep_bands(self) -> list[Band]:
        """Bands of sums over the whole map: not the user's, so that sums of floats come out the same."""
        return flat_bands(self.shape, max(1, _SWEEP_PIXELS // self.shape[1]), 0)

    def _rows(self, band: Band, names: Iterable[str]) -> dict[str, np.ndarray]:
        return {name: np.array(self._array(name)[band.start : band.stop]) for name in names}

    def _array(self, name: str) -> np.ndarray:
        """A scratch array, or what refining put in its place."""
        return self.scratch.array(self._source.get(name, name))

    def _levelled(self, band: Band, rows: dict[str, np.ndarray], datum: GroupedForm) -> np.ndarray:
        """Heights of a band without the datum, float32, on all threads; flags of phases are completed in place."""
        height = np.empty((band.rows, self.shape[1]), np.float32)
        correction = rows[CORRECTION] if self._corrected else None
        form_rows: Any = form.form_rows

        def piece(start: int, stop: int) -> None:
            part = slice(start, stop)
            if not self._phases:
                height[part] = datum.remove(band.start + start, rows["height_nm"][part])
            else:
                shared = np.empty((0, 0))
                if datum.basis.modes:
                    shared = datum.rows(band.start + start, rows["component"][part] > 0)
                form_rows(
                    *(rows[name][part] for name in _FORMED[1:]),
                    self.nm_per_rad,
                    datum.constants_nm,
                    shared,
                    height[part],
                )
            if correction is not None:
                height[part] += correction[part]

        threads = self.settings.worker_threads
        step = min(-(-band.rows // threads), max(1, _PIECE_PIXELS // self.shape[1]))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(piece, range(0, band.rows, step), range(step, band.rows + step, step)))
        return height

    def _slopes(self, band: Band, source: SlopeSource, flags: np.ndarray) -> dict[str, np.ndarray]:
        """Slopes of a band by quantity, on all threads."""
        out = {name: np.empty((band.rows, self.shape[1]), np.float32) for name in SLOPES}

        def piece(start: int, stop: int) -> None:
            part = slice(start, min(stop, band.rows))
            found = source(band.start + part.start, band.start + part.stop)
            put_slopes(found, flags[part], {name: rows[part] for name, rows in out.items()})

        step = -(-band.rows // self.settings.worker_threads)
        with ThreadPoolExecutor(self.settings.worker_threads) as pool:
            list(pool.map(piece, range(0, band.rows, step), range(step, band.rows + step, step)))
        return out

    def _fitted(self) -> GroupedForm:
        terms, groups = self.settings.remove, 1
        extent = None if not terms or isinstance(self.settings.mask, Circle) else ExtentScan()
        valid = "component" if self._phases else "height_nm"
        for band in self._sweep_bands() if extent is not None or self._phases else ():
            rows = self._array(valid)[band.start : band.stop]
            if self._phases:
                groups = max(groups, int(rows.max()))
            if extent is not None:
                extent.add(band.start, rows > 0 if self._phases else np.isfinite(rows))
        if not terms or (extent is not None and not extent.pixels):
            return no_form(groups)
        pupil = extent.pupil() if extent is not None else cast(Circle, self.settings.mask).pupil
        modes = form_modes(terms)
        fit = GroupedFormFit(modes, pupil, groups)
        with self.bar("datum", self.shape[0]) as bar:
            for band in self._sweep_bands():
                fit.add(band.start, *self._heights(band))
                bar.advance(band.rows)
        if 0 < fit.pixels < fit.fewest:
            raise InputError(
                f"{fit.pixels} valid pixels are too few to remove {','.join(terms)} ({fit.fewest} numbers): remove fewer "
                "terms, or check the mask"
            )
        found = fit.solve()
        return found if (0, 0) in modes else found.without_piston()  # tilt alone: the mean stays

    def _heights(self, band: Band) -> tuple[np.ndarray, np.ndarray | None]:
        """Heights of a band with the datum in them, NaN where there is none, and their components."""
        more = self._rows(band, [CORRECTION])[CORRECTION] if self._corrected else np.float32(0)
        if not self._phases:
            return self._rows(band, ["height_nm"])["height_nm"] + more, None
        rows = self._rows(band, ("phase_rad", "order", "component"))
        phase = rows["phase_rad"] + 2 * np.pi * rows["order"]
        return np.where(rows["component"] > 0, phase * self.nm_per_rad + more, np.nan), rows["component"]

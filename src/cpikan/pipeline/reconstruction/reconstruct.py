"""Frames to a height map on disk: streamed in bands, resumable, with an uncertainty for every pixel."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from cpikan.errors import InputError, unknown_name
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.pyramid import HasPyramid, build_pyramid, pyramid_rows
from cpikan.pipeline.reconstruction.frame_fitting import FramesFit, calibrate_stack
from cpikan.pipeline.reconstruction.passes import HeightPass, PassContext, frame_bands, height_pass
from cpikan.pipeline.reconstruction.refining import (
    RefineContext,
    phases_of,
    plan_refining,
    refine_pass,
    survey_pass,
    wants_refining,
    warm_refining,
)
from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.reconstruction.slope_rows import SlopeSource
from cpikan.pipeline.reconstruction.summary import RunFacts, Timings, document, summarize
from cpikan.pipeline.reconstruction.two_pass import TwoPass, scratch_kinds
from cpikan.pipeline.reconstruction.workspace import Workspace
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import PixelModel
from cpikan.psi.kernels.select import PixelKernels, choose_device, make_kernels
from cpikan.psi.kernels.statistics import MapStatistics
from cpikan.psi.warm import warm_up
from cpikan.storage.atomic import check_disk_space
from cpikan.storage.protocols import MapWriter
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import QUANTITIES, SLOPES
from cpikan.storage.writers.open import open_writer, output_format, required_bytes
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.progress import Progress
from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.learned import LearnedModel


def reconstruct(
    stack: FrameStack,
    output: str | Path,
    settings: ReconstructSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    seconds_before: float = 0.0,
    **options: Any,
) -> HeightMap:
    """Turn a stack of frames into a height map at ``output`` (.npy, .tif or .zarr) and open it.

    Settings are given as `ReconstructSettings` or as its fields (``range_nm=27e3``, ``combine="finest"``, ...). Memory is
    bounded by a few bands of rows, whatever the size of the image. ``seconds_before`` is what the process spent before
    the stack was opened; it only counts in ``seconds_start``. A run that was stopped goes on with ``resume``; its
    arrays are those of an uninterrupted run, byte for byte. The figures are in ``.summary`` of the result. Raises
    InputError for input that cannot be measured, an output that exists, too little disk; ResumeError for other settings.
    """
    if settings is not None and options:
        raise InputError(f"give settings or {', '.join(options)}, not both")
    asked = settings or _settings(options)
    run = _Run(stack, Path(output), asked, progress, seconds_before)
    return run.go(resume=resume, overwrite=overwrite)


def _settings(options: dict[str, Any]) -> ReconstructSettings:
    known = ReconstructSettings.__dataclass_fields__
    for name in options:
        if name not in known:
            raise unknown_name("setting", name, known)
    for name in ("remove", "fit"):
        if isinstance(options.get(name), str):
            terms = (term.strip() for term in options[name].split(","))
            options = {**options, name: tuple(term for term in terms if term)}
    return ReconstructSettings(**options)


@dataclass
class _Run:
    """One reconstruction from claim to commit."""

    stack: FrameStack
    output: Path
    settings: ReconstructSettings
    progress: bool
    seconds_before: float
    timings: Timings = field(default_factory=Timings)
    slopes: SlopeSource | None = None
    frames_fit: FramesFit | None = None
    model: LearnedModel | None = None

    def go(self, *, resume: bool, overwrite: bool) -> HeightMap:
        settings, stack = self.settings, self.stack
        device = choose_device(settings.device)
        self._check(device)
        if settings.method == "learned":
            from cpikan.pipeline.reconstruction.learned import LearnedModel

            self.model = LearnedModel.open(settings.model, stack)
            self.model.tiling(settings.tile, settings.overlap, self._shape)
        space = Workspace.open(self.output, self._quantities(), self._plan(device), resume=resume, overwrite=overwrite)
        if space.state == "finished":
            return self._opened(already_finished=True)
        try:
            self._check_disk(space)
            begun = time.perf_counter()
            fitted = stack.acquisition.steps != "trusted"
            warm_up(stack.shape[0], stack.shape[1], stack.dtype, settings.scheme, device, fitted=fitted)
            warm_refining(stack, settings.orders_by, settings.scheme, slopes=SLOPES[0] in self._quantities())
            self.timings.start = self.seconds_before + time.perf_counter() - begun
            started = time.perf_counter()
            with PeakMemory() as memory:
                facts = RunFacts(settings.method, device)
                calibration, statistics = self._measure(space, device, facts)
                facts.peak_anonymous_mib = memory.peak()
            self.timings.total = time.perf_counter() - started + stack.seconds_open
            summary = summarize(stack, calibration, statistics, self.timings, facts, str(self.output))
            space.commit(document(stack, self._plan(device), calibration, summary))
        finally:
            space.release()
        return self._opened(already_finished=False)

    def _opened(self, *, already_finished: bool) -> HeightMap:
        height_map = open_height_map(self.output)
        height_map.summary["already_finished"] = already_finished
        return height_map

    def _measure(self, space: Workspace, device: str, facts: RunFacts) -> tuple[Calibration, MapStatistics]:
        """Calibrate, run the passes, put the output in place."""
        calibration, refining = self._calibrate(facts)
        facts.sigma_nm_median = calibration.sigma_nm_median
        facts.methods_used = ["unwrap"] if self.stack.shape[0] == 1 else ["pixel"]
        if self.settings.device == "auto" and calibration.model.demodulation.models is not None:
            facts.device = device = "cpu"  # steps that vary over the image run there only
        if refining:
            facts.device = device = "cpu"
        threads = self.settings.worker_threads
        kernels = (
            DemodulationKernels(calibration.model, threads)
            if refining
            else make_kernels(calibration.model, device, threads)
        )
        try:
            facts.band_rows = frame_bands(self.stack, self._band_rows, 0, kernels.band_bytes)[0].rows
            run = (
                self._refined(kernels, calibration.model, facts)
                if isinstance(kernels, DemodulationKernels)
                else height_pass
            )
            if self._two_passes():
                statistics = self._by_two_passes(space, kernels, calibration.model, facts, run)
            else:
                statistics = self._directly(space, kernels, run)
            facts.peak_device_mib = kernels.peak_device_mib()
        finally:
            kernels.close()
        return calibration, statistics

    def _refined(self, kernels: DemodulationKernels, model: PixelModel, facts: RunFacts) -> HeightPass:
        """Survey the frames and fit a surface; the pass that uses it."""
        assert model.search is not None, "two or more wavelengths have an order search"
        settings = self.settings
        context = RefineContext(
            self.stack, kernels, model.search, settings.mask, settings.band_rows, settings.worker_threads
        )
        facts.band_rows = context.bands(0)[0].rows
        with self._bar("survey", self._shape[0]) as bar:
            sums, timings = survey_pass(context, bar)
        self._count(timings)
        started = time.perf_counter()
        asked = bool(set(SLOPES) & set(self._quantities()))
        plan, facts.refining = plan_refining(settings.orders_by, sums, model.search, slopes=asked)
        self.slopes = plan.slopes
        self.timings.refine = time.perf_counter() - started
        refined, cells = facts.refining["cells_refined"], facts.refining["cells"]
        name = "field" if settings.method == "field" else "hybrid"
        facts.methods_used = [n for n, used in (("pixel", refined < cells), (name, refined > 0)) if used]
        return lambda pixels, sink: refine_pass(context, plan, pixels, sink)

    def _calibrate(self, facts: RunFacts) -> tuple[Calibration, bool]:
        """The model of the pixels, and whether they need their neighbours."""
        started = time.perf_counter()
        sample = take_subsample(self.stack, self.settings.mask)
        self.timings.read += time.perf_counter() - started
        asked = self.settings
        settings = CalibrationSettings(asked.scheme, asked.range_nm, asked.combine == "finest", asked.fit)
        # small products: BLAS threads that wait for each other on a busy machine take ten times as long
        with threadpool_limits(limits=1, user_api="blas"):
            calibration, self.frames_fit = calibrate_stack(
                sample, self.stack.acquisition, self.stack.saturation_dn, settings, asked.orders_by
            )
        facts.field_fit = None if self.frames_fit is None else self.frames_fit.summary
        refining = wants_refining(asked.orders_by, calibration, sample)
        self.timings.calibrate = time.perf_counter() - started
        return calibration, refining

    def _directly(self, space: Workspace, kernels: PixelKernels, run: HeightPass) -> MapStatistics:
        """Two or more wavelengths: one pass writes the output."""
        assert space.journal is not None
        writer = self._writer(space)
        try:
            sink = RowSink(_Selected(writer, writer.quantities), space.journal, "pixels", self._shape)
            with self._bar("reconstruct", self._shape[0] - sink.first_row) as bar:
                self._count(run(PassContext(self.stack, kernels, self.settings.mask, self._band_rows, bar), sink))
            self._finish(space, writer)
        finally:
            writer.close()
        return sink.statistics

    def _by_two_passes(
        self, space: Workspace, kernels: PixelKernels, model: PixelModel, facts: RunFacts, run: HeightPass
    ) -> MapStatistics:
        """One wavelength, or a datum to remove: scratch files first, the output from them."""
        assert space.journal is not None
        again = bool(space.journal.steps)  # then the scratch files must be there: ResumeError if not
        kinds = scratch_kinds(self.stack.shape[0], self.settings)
        scratch = ScratchArrays(space.scratch, self._shape, kinds, resume=again)
        two = TwoPass(self.stack, self.settings, scratch, space.journal, self._bar, self._band_rows)
        try:
            if model.search is None:
                self._count(two.phases(kernels))
                started = time.perf_counter()
                facts.unwrapping, facts.components = two.unwrap()
                facts.ripple_mrad = two.ripple_mrad()
                self.timings.orders = time.perf_counter() - started
                if self.settings.orders_by in ("field", "hybrid"):
                    self._refine_one(two, facts)
            else:
                self._count(two.heights(kernels, run))
            if self.model is not None:
                self._learn(two, kernels, model, facts)
            if self.settings.inpaint:
                started = time.perf_counter()
                facts.inpainting = two.inpaint()
                self.timings.refine += time.perf_counter() - started
            writer = self._writer(space)
            try:
                sink = RowSink(
                    _Selected(writer, writer.quantities), space.journal, "output", self._shape, durable=False
                )
                self.timings.write += two.form(sink, self.slopes)
                if self.settings.remove and sink.statistics.valid:
                    facts.form, facts.surface = two.datum().summary(self.settings.remove), two.surface()
                self._finish(space, writer)
            finally:
                writer.close()
        finally:
            scratch.close()
        return sink.statistics

    def _refine_one(self, two: TwoPass, facts: RunFacts) -> None:
        """One wavelength: components joined and orders set right by a surface, or that surface itself."""
        started = time.perf_counter()
        asked = bool(set(SLOPES) & set(self._quantities()))
        shared = None if self.frames_fit is None else self.frames_fit.sigma_nm
        facts.refining, facts.components, self.slopes = two.refine(facts.components, slopes=asked, shared_nm=shared)
        self.timings.refine += time.perf_counter() - started
        if facts.refining["surfaces"]:
            facts.methods_used = ["unwrap", self.settings.orders_by]
        else:
            facts.warnings.append(
                f"no surface for --method {self.settings.orders_by}: no part of the map has 54 blocks of 8 x 8 pixels; the "
                "heights are those of unwrapping"
            )

    def _learn(self, two: TwoPass, kernels: PixelKernels, model: PixelModel, facts: RunFacts) -> None:
        """The network over the heights, with the frames' phases where it takes them."""
        assert self.model is not None
        started = time.perf_counter()
        half_wave_nm, phases = self.stack.acquisition.wavelengths_nm[0] / 2, None
        if model.search is not None:
            half_wave_nm = model.search.half_wave_nm
            assert isinstance(kernels, DemodulationKernels), "orders of hybrid"
            phases = phases_of(self.stack, kernels, model.search, self.settings.mask)
        facts.learned = two.learn(self.model, half_wave_nm, phases, facts.components)
        facts.methods_used = [*facts.methods_used, "learned"]
        self.timings.refine += time.perf_counter() - started

    def _writer(self, space: Workspace) -> MapWriter:
        assert space.journal is not None
        begun = space.journal.last("pixels") or space.journal.last("output")
        kinds = {name: QUANTITIES[name].dtype for name in self._quantities()}
        attributes = {
            "acquisition": self._plan_acquisition(),
            "settings": self.settings.plan(),
            "pixel_um": self.stack.acquisition.pixel_um,
        }
        return open_writer(self.output, self._shape, kinds, attributes=attributes, resume=begun is not None)

    def _finish(self, space: Workspace, writer: MapWriter) -> None:
        started = time.perf_counter()
        rows = pyramid_rows(self._shape, len(writer.quantities)) if isinstance(writer, HasPyramid) else 0
        with self._bar("pyramid", rows) as bar:
            build_pyramid(writer, progress=bar)
        space.replace_old()
        writer.finish()
        self.timings.write += time.perf_counter() - started

    def _bar(self, label: str, rows: int) -> Progress:
        return Progress(label, rows, self._shape[1], self.progress)

    def _count(self, timings: Any) -> None:
        self.timings.read += timings.read
        self.timings.demodulate += timings.compute
        self.timings.write += timings.write

    @property
    def _shape(self) -> tuple[int, int]:
        return self.stack.shape[2], self.stack.shape[3]

    @property
    def _band_rows(self) -> int | None:
        return self.settings.band_rows

    def _two_passes(self) -> bool:
        asked = self.settings
        return self.stack.shape[0] == 1 or bool(asked.remove) or asked.inpaint or asked.method == "learned"

    def _quantities(self) -> tuple[str, ...]:
        stored = output_format(self.output)
        if stored.height_alone and not self.settings.all_quantities:
            return ("height_nm",)
        one = ("component",) if self.stack.shape[0] == 1 else ()
        slopes = SLOPES if self.settings.method == "field" else ()
        names = ("height_nm", "sigma_nm", "modulation", "flags", *one, *slopes)
        return tuple(name for name in names if name not in stored.leaves_out)

    def _plan_acquisition(self) -> dict[str, Any]:
        return asdict(self.stack.acquisition)

    def _plan(self, device: str) -> dict[str, Any]:
        """Everything a resumed run must share with the one it continues."""
        return {
            "cpikan": VERSION,
            "input": self.stack.fingerprint(),
            "shape": list(self.stack.shape),
            "acquisition": self._plan_acquisition(),
            "settings": {**self.settings.plan(), "device": device, **self._model_identity()},
            "quantities": list(self._quantities()),
        }

    def _model_identity(self) -> dict[str, str]:
        """A resumed run needs the same weights, wherever their file lies."""
        return {} if self.model is None else {"model": self.model.fingerprint}

    def _check(self, device: str) -> None:
        """Refuse what cannot work before anything is written."""
        if self.settings.mask is not None:
            self.settings.mask.check(self._shape)
        if self.settings.fit is not None and self.stack.acquisition.steps == "trusted":
            raise InputError(
                "--fit estimates what differs between frames, but the steps are trusted: say --steps nominal"
            )
        if self.stack.shape[0] == 1 and self.settings.unwrap_overlap < 2:
            raise InputError(f"overlap {self.settings.overlap} is too small to join tiles: give 2 to half a tile")
        if self.stack.shape[0] == 1 and self.settings.range_nm is not None:
            raise InputError(
                "--range needs two or more wavelengths: one wavelength has no absolute orders; leave it out"
            )
        source, target = Path(self.stack.source.partition("::")[0]), self.output
        names = {label.partition("[")[0] for label in self.stack.labels}
        if target.exists() and source.exists():
            inside = target.parent.resolve() == source.resolve() and target.name in names
            if inside or target.resolve() == source.resolve():
                raise InputError(f"output {target} holds the frames themselves: choose another name")

    def _check_disk(self, space: Workspace) -> None:
        needed = required_bytes(self.output, self._shape, self._quantities())
        if self._two_passes():
            kinds = scratch_kinds(self.stack.shape[0], self.settings)
            needed += ScratchArrays.required_bytes(self._shape, kinds)
        check_disk_space(self.output, needed - space.held_bytes())


class _Selected:
    """A writer that is handed more quantities than it stores."""

    def __init__(self, writer: MapWriter, names: tuple[str, ...]) -> None:
        self._writer, self.quantities, self.row_align = writer, names, writer.row_align

    def write_rows(self, start: int, rows: Any) -> None:
        self._writer.write_rows(start, {name: rows[name] for name in self.quantities})

    def sync(self) -> None:
        self._writer.sync()

    def finish(self) -> None:
        self._writer.finish()

    def close(self) -> None:
        self._writer.close()

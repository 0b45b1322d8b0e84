"""Frames to a height map on disk: streamed in bands, resumable, with an uncertainty for every pixel."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cpikan.compiled import compilation_told
from cpikan.errors import InputError, NothingMeasured, check_names, check_path, check_type
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.reconstruction.calibrate import FirstLook, StackCalibration, calibrated
from cpikan.pipeline.reconstruction.helper import help_demodulate
from cpikan.pipeline.reconstruction.output import HeightSample, Output
from cpikan.pipeline.reconstruction.passes import FrameSource, flat_bands
from cpikan.pipeline.reconstruction.plan import Plan, StackInfo, plan_reconstruction
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage
from cpikan.pipeline.reconstruction.summary import added, document, first_facts, run_place
from cpikan.pipeline.reconstruction.workspace import Workspace, refuse_existing
from cpikan.pipeline.stacks.frame_hash import check_finished, sha256_of_frames
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration.wavelengths.planning import check_orders
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import PixelModel
from cpikan.psi.kernels.select import PixelKernels, choose_device, make_kernels
from cpikan.psi.warm import warm_up
from cpikan.storage.atomic import check_disk_space, read_json
from cpikan.storage.maps import open_map
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.layout import document_path, output_format, required_bytes
from cpikan.streaming.events import Events, as_events, hint, note
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.ranks import ALONE, Ranks, same_plan
from cpikan.streaming.threads import RowPool
from cpikan.surface.apertures.aperture import laid_on
from cpikan.units import pixel_aspect
from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.pipeline.reconstruction.network import LearnedModel


_COMPILES = "compiling the kernels for frames of this kind, which takes up to a few minutes; later runs load them"


def reconstruct(
    stack: FrameStack,
    output: str | Path,
    settings: ReconstructSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Events = True,
    seconds_before: float = 0.0,
    **options: Any,
) -> HeightMap:
    """Turn a stack of frames into a height map at ``output`` (.npy, .tif or .zarr) and open it.

    Settings are given as `ReconstructSettings` or as its fields (``range_nm=27e3``, ``combine="finest"``, ...). Memory is
    bounded by a few bands of rows, whatever the size of the image. ``progress`` is True (a line on stderr), False, or Events.
    ``seconds_before`` is what the process spent before the stack was opened; it only counts in ``seconds_start``. A run that
    was stopped goes on with ``resume``; its arrays are those of an uninterrupted run, byte for byte. The figures are in
    ``.summary`` of the result. Raises InputError for input that cannot be measured, an output that exists, too little disk;
    ResumeError for other settings; `Cancelled` where the Events want no more.
    """
    check_type("stack", stack, FrameStack, "what open_stack opens")
    check_path("the output", output)
    if settings is not None and options:
        raise InputError(f"give settings or {', '.join(options)}, not both")
    check_names("setting", options, ReconstructSettings.__dataclass_fields__)
    found = reconstruct_shared(
        ALONE,
        stack,
        output,
        settings or ReconstructSettings(**options),
        progress=progress,
        resume=resume,
        overwrite=overwrite,
        seconds_before=seconds_before,
    )
    assert found is not None
    return found


def reconstruct_shared(
    ranks: Ranks,
    stack: FrameStack,
    output: str | Path,
    settings: ReconstructSettings,
    *,
    progress: bool | Events = True,
    **how: Any,
) -> HeightMap | None:
    """Reconstruct as `reconstruct` does, by several processes that all call this; the first has the map, others None.

    Each demodulates every n-th band of the frames and fits its tiles of a surface; the first writes all rows, and does what
    comes after. ``how`` are ``resume``, ``overwrite`` and ``seconds_before`` of `reconstruct`; any number of processes goes on
    with what others began. Raises InputError also for processes that were given other frames or settings.
    """
    run = _Run.prepared(stack, Path(output), settings, as_events(progress), ranks)
    if ranks.rank > 0:
        run.help()
        return None
    finished = run.go(**how)
    height_map = open_height_map(run.output)
    height_map.summary["already_finished"] = finished
    return height_map


@dataclass(frozen=True)
class _Run:
    """One reconstruction from claim to commit; the plan is that before calibration."""

    stack: FrameStack
    output: Path
    settings: ReconstructSettings
    events: Events
    plan: Plan
    network: LearnedModel | None
    ranks: Ranks = ALONE

    @classmethod
    def prepared(
        cls, stack: FrameStack, output: Path, settings: ReconstructSettings, events: Events, ranks: Ranks = ALONE
    ) -> _Run:
        """Plan the run and refuse what cannot work before anything is written."""
        accelerator = choose_device(settings.device)
        check_orders(stack.acquisition.wavelengths_nm, settings.range_nm)
        mask = laid_on(settings.mask, stack.shape[2:], pixel_aspect(stack.acquisition.pixel_um))
        settings = replace(settings, mask=mask)
        plan = plan_reconstruction(StackInfo.of(stack), settings, output_format(output), accelerator)
        _check_not_the_frames(stack, output)
        network = None
        if plan.method.network:
            from cpikan.pipeline.reconstruction.network import LearnedModel

            network = LearnedModel.open(settings.model, stack)
            network.tiling(settings.tile, settings.overlap, stack.shape[2:])
        return cls(stack, output, settings, events, plan, network, ranks)

    def go(self, seconds_before: float = 0.0, *, resume: bool = False, overwrite: bool = False) -> bool:
        """Run what an earlier run has not done; tells whether that was nothing."""
        begun_at = datetime.now(UTC)
        refuse_existing(self.output, resume=resume, overwrite=overwrite)  # before the first rows are read
        looked = time.perf_counter()
        identity = self._identity()  # reads a few rows, for which some files are decoded whole
        seconds_opening = time.perf_counter() - looked + self.stack.seconds_open
        self._same_plan(identity)
        # a run that goes on was looked at before, and may be finished
        look = None if resume else FirstLook.at(self.stack, self.settings)
        space = Workspace.open(self.output, self.plan.quantities, identity, resume=resume, overwrite=overwrite)
        self.ranks.first(float(space.state != "finished"))
        if space.state == "finished":
            check_finished(self.stack, read_json(document_path(self.output)))
            return True
        try:
            self._check_disk(space, self.plan)
            look = look or FirstLook.at(self.stack, self.settings)
            with compilation_told(lambda: note(self.events, _COMPILES)):
                begun = time.perf_counter()
                self._warm()
                started = time.perf_counter()
                with PeakMemory() as memory:
                    calibration, facts = self._measured(space, look)
                    facts["peak_anonymous_mib"] = max(memory.peak(), look.peak_mib)
            seconds = time.perf_counter() - started + look.seconds + seconds_opening
            facts |= {
                "seconds": seconds,
                "seconds_start": seconds_before + started - begun,
                "megapixels_per_second": self._shape[0] * self._shape[1] / 1e6 / max(seconds, 1e-9),
                "steps": calibration.calibration.steps.state,
                "output": str(self.output),
            }
            if facts.get("pv_robust_nm") is None:  # rows that an earlier run wrote went by unseen
                facts["pv_robust_nm"] = self._robust_pv_nm()
            if self.settings.hash_frames:
                hashed = time.perf_counter()
                facts["frames_sha256"] = sha256_of_frames(self.stack)
                facts["seconds_hash"] = time.perf_counter() - hashed
            where = run_place(begun_at, anonymous=self.settings.anonymous)
            space.commit(document(self.stack, identity, calibration.calibration, facts, where))
        except NothingMeasured:
            space.discard()
            raise
        finally:
            space.release()
        return False

    def help(self) -> None:
        """Do this process's share of what the first one writes."""
        self._same_plan(self._identity())
        if not self.ranks.first(0.0):
            return
        look = FirstLook.at(self.stack, self.settings)
        self._warm()
        calibration, stack, plan = self._settled(look)
        model, threads = calibration.calibration.model, self.settings.worker_threads
        with closing(_kernels(plan, model, threads)) as kernels, RowPool(threads) as pool:
            source = FrameSource(stack, kernels, model.search, look.mask, self.settings.band_rows, ranks=self.ranks)
            help_demodulate(source, plan, self.output.parent, pool)

    def _same_plan(self, identity: dict[str, Any]) -> None:
        if self.ranks.size > 1:
            same_plan(self.ranks, sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12])

    def _robust_pv_nm(self) -> float | None:
        """Compute the robust peak to valley from the finished output."""
        arrays, sample = open_map(self.output).arrays, HeightSample(self._shape)
        for band in flat_bands(self._shape, None, 0):
            names = [name for name in ("height_nm", "flags") if name in arrays]
            sample.add(band.start, {name: np.asarray(arrays[name][band.start : band.stop]) for name in names})
        return sample.pv_nm()

    def _measured(self, space: Workspace, look: FirstLook) -> tuple[StackCalibration, dict[str, Any]]:
        """Calibrate and carry out the stages; the summary as far as they know it."""
        assert space.journal is not None
        hint(self.events, "steps, noise and light of the frames")
        calibration, stack, plan = self._settled(look)
        self._check_disk(space, plan)  # what calibration found may need more scratch files
        facts = first_facts(self.settings.method, plan.device, calibration)
        again = bool(space.journal.steps)  # then the scratch files must be there: ResumeError if not
        with (
            closing(_kernels(plan, calibration.calibration.model, self.settings.worker_threads)) as kernels,
            RowPool(self.settings.worker_threads) as pool,
            closing(Arrays(space.scratch, self._shape, plan.stages, resume=again)) as arrays,
        ):
            context = Context(
                stack=stack,
                settings=replace(self.settings, mask=look.mask),
                plan=plan,
                calibrated=calibration,
                kernels=kernels,
                journal=space.journal,
                output=Output(space, self._shape, self._attributes(), self.events),
                pool=pool,
                events=self.events,
                facts=facts,
                network=self.network,
                ranks=self.ranks,
            )
            for stage in plan.stages:
                facts = added(facts, run_stage(stage, arrays, replace(context, facts=facts)))
            facts["peak_device_mib"] = kernels.peak_device_mib()
        return calibration, facts

    def _settled(self, look: FirstLook) -> tuple[StackCalibration, FrameStack, Plan]:
        """Calibrate, and settle the order of the frames and the plan."""
        calibration = calibrated(self.stack, self.settings, self.plan, look)
        used = calibration.calibration.acquisition
        plan = self.plan.settle(
            doubtful=calibration.doubtful,
            varying=calibration.varying,
            reach=calibration.registration.reach,
            wider=calibration.wider,
        )
        return calibration, self.stack if used is None else self.stack.in_order(used.order), plan

    def _identity(self) -> dict[str, Any]:
        """Collect what a resumed run must share with the one before: settings but the device, what serves for it."""
        settings = {name: value for name, value in self.settings.plan().items() if name != "device"}
        if self.network is not None:  # the same weights, wherever their file lies
            settings["model"] = self.network.fingerprint
        return {
            "cpikan": VERSION,
            "input": self.stack.fingerprint(),
            "shape": list(self.stack.shape),
            "acquisition": asdict(self.stack.acquisition),
            "settings": settings,
            "stages": list(self.plan.names),
            "accelerator": self.plan.network_device,
            "quantities": list(self.plan.quantities),
        }

    def _attributes(self) -> dict[str, Any]:
        """Collect the attributes that are kept inside files that can hold them."""
        acquisition = self.stack.acquisition
        return {
            "acquisition": asdict(acquisition),
            "settings": self.settings.plan(),
            "pixel_um": acquisition.pixel_um,
        }

    def _warm(self) -> None:
        """Compile or load what the plan needs before the clock starts; imports what fits surfaces where one will be."""
        wavelengths, frames = self.stack.shape[:2]
        fitted, scheme = self.stack.acquisition.steps != "trusted", self.settings.scheme
        warm_up(wavelengths, frames, self.stack.dtype, scheme, self.plan.device, fitted=fitted)
        if self.plan.neighbours != "never":
            from cpikan.psi.warm import warm_orders

            warm_orders(wavelengths, frames, self.stack.dtype, scheme, fitted=fitted)
        if self.plan.method.refines:
            from cpikan.psi.warm import warm_fields

            warm_fields(slopes=self.plan.slopes)

    def _check_disk(self, space: Workspace, plan: Plan) -> None:
        needed = required_bytes(self.output, self._shape, plan.quantities)
        needed += ScratchArrays.required_bytes(self._shape, plan.scratch)
        check_disk_space(self.output, needed - space.held_bytes())

    @property
    def _shape(self) -> tuple[int, int]:
        return self.stack.shape[2:]


def run_stage(stage: Stage, arrays: Arrays, context: Context) -> dict[str, Any]:
    """Run a stage, or take its part of the summary from the journal of an earlier run; the part, with its seconds."""
    started = time.perf_counter()
    done = context.journal.last(stage.name) if stage.once else None
    if done is None:
        part = stage.run(arrays, context)
        if stage.once:
            checks = arrays.checks(stage, context.journal.path.parent)
            context.journal.add({"stage": stage.name, "part": part, "checks": checks})
    else:
        part = cast(dict[str, Any], done["part"])
        stage.resume(arrays, context)
    arrays.finish(stage)
    if any(name.startswith("seconds_") for name in part):
        return part
    return {**part, f"seconds_{stage.clock}": time.perf_counter() - started}


def _kernels(plan: Plan, model: PixelModel, threads: int) -> PixelKernels:
    """Open the kernels of a settled plan."""
    ask = plan.neighbours == "always"
    return DemodulationKernels(model, threads) if ask else make_kernels(model, plan.device, threads)


def _check_not_the_frames(stack: FrameStack, target: Path) -> None:
    """Refuse an output that would take the place of the frames."""
    source = Path(stack.source.partition("::")[0])
    names = {label.partition("[")[0] for label in stack.labels}
    if target.exists() and source.exists():
        inside = target.parent.resolve() == source.resolve() and target.name in names
        if inside or target.resolve() == source.resolve():
            raise InputError(f"output {target} holds the frames themselves: choose another name")

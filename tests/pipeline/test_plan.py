"""The plan of a reconstruction: what it decides from headers and settings, tested without files."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import cpikan
from cpikan.errors import InputError
from cpikan.pipeline.reconstruction import reconstruct as module
from cpikan.pipeline.reconstruction.plan import Plan, StackInfo, estimate_run, plan_reconstruction
from cpikan.pipeline.reconstruction.settings import METHODS, ReconstructSettings
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage
from cpikan.storage.writers.layout import QUANTITIES, SLOPES, Quantity, output_format
from cpikan.streaming.events import Silent
from cpikan.surface.apertures.aperture import Circle
from independent_frames import Faults, Scene, make_scene
from small_stacks import STEPS_DEG, stack_of

ONE = ("demodulate", "unwrap", "ripple")


def plan_of(
    wavelengths: int, suffix: str = ".zarr", accelerator: str = "cpu", steps: str = "trusted", **options: Any
) -> Plan:
    info = StackInfo((wavelengths, 5, 100, 120), steps)
    return plan_reconstruction(info, ReconstructSettings(**options), output_format(f"x{suffix}"), accelerator)


@pytest.mark.parametrize(
    ("wavelengths", "options", "stages"),
    [
        (4, {}, ("demodulate",)),
        (4, {"method": "pixel"}, ("demodulate",)),
        (4, {"method": "field"}, ("demodulate",)),
        (4, {"remove": "piston"}, ("demodulate", "form", "write")),
        (4, {"inpaint": True}, ("demodulate", "inpaint", "write")),
        (2, {"method": "learned"}, ("demodulate", "learn", "write")),
        (
            2,
            {"method": "learned", "remove": "tilt", "inpaint": True},
            ("demodulate", "learn", "form", "inpaint", "write"),
        ),
        (1, {}, (*ONE, "write")),
        (1, {"method": "pixel"}, (*ONE, "write")),
        (1, {"method": "hybrid"}, (*ONE, "refine", "write")),
        (1, {"method": "field", "remove": "piston"}, (*ONE, "refine", "form", "write")),
        (1, {"method": "learned", "inpaint": True}, (*ONE, "refine", "learn", "inpaint", "write")),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
def test_stages_by_settings_and_wavelengths(wavelengths, options, stages, suffix):
    assert plan_of(wavelengths, suffix, **options).names == ("calibrate", *stages)


@pytest.mark.parametrize(
    ("suffix", "options", "one", "several"),
    [
        (".npy", {}, "height_nm", "height_nm"),
        (
            ".npy",
            {"all_quantities": True},
            "height_nm sigma_nm flags component",
            "height_nm sigma_nm flags",
        ),
        (".tif", {}, "height_nm sigma_nm modulation flags", "height_nm sigma_nm modulation flags"),
        (".tiff", {}, "height_nm sigma_nm modulation flags", "height_nm sigma_nm modulation flags"),
        (".zarr", {}, "height_nm sigma_nm modulation flags component", "height_nm sigma_nm modulation flags"),
    ],
)
def test_quantities_by_kind_of_file(suffix, options, one, several):
    for wavelengths, names in ((1, one.split()), (4, several.split())):
        plain = plan_of(wavelengths, suffix, **options)
        assert plain.quantities == tuple(names)
        slopes = SLOPES if len(names) > 1 else ()
        assert plan_of(wavelengths, suffix, method="field", **options).quantities == (*names, *slopes)
        assert plan_of(wavelengths, suffix, method="field", **options).slopes == bool(slopes)


FLAGS = [{}, {"remove": "piston,tilt"}, {"inpaint": True}, {"remove": "tilt", "inpaint": True}]


@pytest.mark.parametrize(("method", "wavelengths", "flags"), list(itertools.product(METHODS, (1, 4), FLAGS)))
def test_every_array_is_written_before_it_is_read(method, wavelengths, flags):
    plan = plan_of(wavelengths, method=method, **flags)
    written: set[str] = set()
    for stage in plan.stages:
        assert set(stage.reads) <= written, stage.name
        written |= set(stage.writes)
    assert len(plan.scratch) == sum(len(stage.writes) for stage in plan.stages)  # no version takes another's file


def test_devices_are_decided_once():
    def devices(wavelengths: int, **options: Any) -> tuple[str, str]:
        plan = plan_of(wavelengths, accelerator="cuda:0", **options)
        return plan.device, plan.network_device

    assert devices(4) == devices(4, method="pixel") == devices(1, method="field") == ("cuda:0", "cuda:0")
    assert (
        devices(4, method="hybrid") == devices(4, method="field") == devices(4, method="learned") == ("cpu", "cuda:0")
    )


@pytest.mark.parametrize(
    ("method", "device", "doubtful", "varying", "settled"),
    [
        ("auto", "auto", False, False, ("never", "cuda:0")),
        ("auto", "auto", True, False, ("always", "cpu")),
        ("auto", "cuda", True, False, ("always", "cpu")),
        ("auto", "auto", False, True, ("never", "cpu")),
        ("auto", "cuda", False, True, ("never", "cuda:0")),  # which the kernels refuse with a reason
        ("pixel", "auto", True, False, ("never", "cuda:0")),
        ("hybrid", "auto", False, False, ("always", "cpu")),
    ],
)
def test_calibration_settles_the_plan(method, device, doubtful, varying, settled):
    plan = plan_of(4, accelerator="cuda:0", method=method, device=device)
    after = plan.settle(doubtful=doubtful, varying=varying)
    assert (after.neighbours, after.device) == settled
    assert after.names == plan.names


@pytest.mark.parametrize(
    ("wavelengths", "steps", "options", "words"),
    [
        (1, "trusted", {"range_nm": 27e3}, "two or more wavelengths"),
        (1, "trusted", {"overlap": 1}, "too small to join tiles"),
        (4, "trusted", {"fit": ("tilt",)}, "say --steps nominal"),
    ],
)
def test_what_does_not_serve_the_stack_is_refused(wavelengths, steps, options, words):
    with pytest.raises(InputError, match=words):
        plan_of(wavelengths, steps=steps, **options)


def test_a_surface_is_fitted_to_frames_of_one_wavelength_only():
    assert plan_of(1, method="field").fits_surface
    assert not plan_of(1, method="hybrid").fits_surface
    assert not plan_of(1, method="field", scheme="carre").fits_surface
    assert not plan_of(4, method="field").fits_surface


def test_info_and_the_document_name_the_stages(tmp_path, mirror: Scene):
    stack = stack_of(mirror.frames, mirror.wavelengths_nm, (0, 90, 180, 270, 360))
    asked = ReconstructSettings(method="hybrid", remove="tilt")
    stages = ["calibrate", *ONE, "refine", "form", "write"]
    assert estimate_run(stack, asked)["stages"] == stages
    cpikan.reconstruct(stack, tmp_path / "a.npy", asked, progress=False)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["plan"]["stages"] == stages
    assert document["settings"]["device"] == document["summary"]["device"]


# --- arrays ----------------------------------------------------------------------------------------------------------


class _Writes(Stage):
    """A stage that does nothing."""

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        return {}


class First(_Writes):
    name: ClassVar[str] = "first"


class Second(_Writes):
    name: ClassVar[str] = "second"


def test_the_newest_version_of_an_array_is_the_current_one(tmp_path):
    first, second = First(writes=("order", "flags")), Second(writes=("order",))
    arrays = Arrays(tmp_path / "s", (3, 4), (first, second), resume=False)
    assert "order" not in arrays
    arrays.of(first, "order")[:] = 1
    arrays.finish(first)
    arrays.of(second, "order")[:] = 2
    assert (arrays.current("order") == 1).all()  # while the second writes, the first's stay
    arrays.finish(second)
    assert (arrays.current("order") == 2).all()
    assert (arrays.of(first, "order") == 1).all()
    assert {name: rows.shape for name, rows in arrays.rows(("order", "flags", "phase_rad"), 1, 3).items()} == {
        "order": (2, 4),
        "flags": (2, 4),
    }
    arrays.close()


# --- a quantity more -------------------------------------------------------------------------------------------------


class Twice(Stage):
    """Twice the modulation, in an array of its own; and rows that are three times it, computed when they are written."""

    name: ClassVar[str] = "twice"

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        arrays.of(self, "twice")[:] = 2 * arrays.current("modulation")
        power = arrays.current("modulation")
        arrays.derive(("thrice",), lambda start, stop: {"thrice": 3 * power[start:stop]})
        return {"twice": True}


def test_a_quantity_from_this_file_is_written(tmp_path, wafer: Scene, monkeypatch):
    for name in ("twice", "thrice"):
        monkeypatch.setitem(QUANTITIES, name, Quantity(name, np.dtype("<f4"), np.nan, None, name))

    def planned(*given: Any) -> Plan:
        plan = plan_reconstruction(*given)
        more = Twice(reads=("modulation",), writes=("twice",), derives=("thrice",))
        return replace(plan, stages=(*plan.stages[:-1], more, plan.stages[-1]))

    monkeypatch.setattr(module, "plan_reconstruction", planned)
    result = cpikan.reconstruct(stack_of(wafer.frames), tmp_path / "a.zarr", remove="piston", progress=False)
    found = cpikan.open_height_map(tmp_path / "a.zarr")
    power, valid = np.asarray(found.modulation[:]), np.isfinite(np.asarray(found.height_nm[:]))
    assert result.summary["twice"] is True
    assert np.array_equal(np.asarray(found.twice[:]), 2 * power)
    assert np.array_equal(np.asarray(found.thrice[:]), np.where(valid, 3 * power, np.nan), equal_nan=True)


# --- every setting counts --------------------------------------------------------------------------------------------

WAVES, SINGLE = "several", "one"
OTHERS: dict[str, tuple[str, Any]] = {  # another value of each setting, and the stack on which it shows
    "method": (WAVES, "hybrid"),
    "model": (SINGLE, "no-such-model"),
    "scheme": (SINGLE, "carre"),
    "combine": (WAVES, "finest"),
    "range_nm": (WAVES, 20e3),
    "mask": (WAVES, Circle(30, 30, 20)),
    "remove": (WAVES, ("tilt",)),
    "fit": (SINGLE, ()),
    "inpaint": (WAVES, True),
    "tile": (SINGLE, 24),
    "overlap": (SINGLE, 16),
    "device": (WAVES, "cuda:77"),
    "all_quantities": (WAVES, True),
    "threads": (WAVES, 3),
    "hash_frames": (WAVES, True),
    "anonymous": (WAVES, True),
    "band_rows": (WAVES, 7),
}
BASE: dict[str, dict[str, Any]] = {
    WAVES: {"method": "pixel", "device": "cpu", "threads": 1},
    SINGLE: {"method": "pixel", "device": "cpu", "tile": 32, "overlap": 4},
}


@pytest.fixture(scope="module")
def small() -> dict[str, cpikan.FrameStack]:
    """Frames with tilts between them, so that every setting has something to say."""
    faults = Faults(read_noise=0.01, fringes=4.0, tilt_rad=0.4, step_error_deg=3.0)
    several = make_scene(5, (70, 80), (5000.0, 5500.0, 6050.0, 6655.0), STEPS_DEG, Faults(read_noise=0.01, fringes=4.0))
    single = make_scene(6, (70, 80), (632.8,), (0, 90, 180, 270), faults)
    return {
        WAVES: stack_of(several.frames, several.wavelengths_nm),
        SINGLE: stack_of(single.frames, (632.8,), STEPS_DEG, "nominal"),
    }


def _outcome(stack: cpikan.FrameStack, output: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What a run leaves: bytes of the arrays and the summary but for times and memory; or why it was refused."""
    try:
        result = cpikan.reconstruct(stack, output, progress=Silent(), overwrite=True, **options)
    except InputError as refusal:
        return {"refused": str(refusal)}
    timed = ("seconds", "peak", "megapixels", "band_rows", "frames_sha256")  # the last is of the frames, not of the map
    summary = {name: value for name, value in result.summary.items() if not name.startswith(timed)}
    arrays = {path.name: path.read_bytes() for path in sorted(output.parent.glob("*.npy"))}
    for path in output.parent.glob("out*"):
        path.unlink()
    return {"summary": summary, "arrays": arrays}


@pytest.mark.parametrize("name", [entry.name for entry in fields(ReconstructSettings)])
def test_every_setting_changes_the_result_or_is_declared_to_change_the_speed_alone(name, small, tmp_path):
    kind, value = OTHERS[name]
    base = dict(BASE[kind])
    other = {**base, name: value} | ({"method": "learned"} if name == "model" else {})
    if name == "model":
        base["method"] = "learned"
        with pytest.raises(InputError, match="no-such-model"):
            cpikan.reconstruct(small[kind], tmp_path / "out.npy", progress=False, **other)
        return
    before = _outcome(small[kind], tmp_path / "out.npy", base)
    after = _outcome(small[kind], tmp_path / "out.npy", other)
    assert "summary" in before
    assert (before == after) == ReconstructSettings.speed_only(name)

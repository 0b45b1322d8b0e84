"""Stacks that many tests share: made once, never written to."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from cpikan.pipeline.reconstruction import calibrate
from independent_frames import Faults, Scene, make_scene
from pages import CHROMIUM, FLAGS
from small_stacks import FIVE_DEG, STEPS_DEG, WAVES_NM, folder_of

# where a failure would stop a landing the examples are the same every time; elsewhere they wander
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("default", deadline=None)  # no test fails because the machine is busy
settings.register_profile("long", deadline=None, max_examples=400)  # benchmarks/reliability.py
settings.load_profile(os.environ.get("EXAMPLES", "steady" if os.environ.get("CI") else "default"))

# 1 DN of read noise and uneven light, as a bench has them; 20 DN of fringes remain everywhere
BENCH = Faults(read_noise=0.004, background=0.2, modulation=0.2, fringes=6.0, aperture=0.8, holes=3)


def _frozen(scene: Scene) -> Scene:
    for array in (scene.frames, scene.height_nm, scene.mask):
        array.flags.writeable = False
    return scene


@pytest.fixture(scope="session")
def wafer() -> Scene:
    """Four wavelengths of four frames, a round field with holes, 15 um of height."""
    return _frozen(make_scene(1, (160, 200), WAVES_NM, STEPS_DEG, BENCH))


@pytest.fixture(scope="session")
def mirror() -> Scene:
    """One wavelength of five frames, six fringes in a round field with holes."""
    return _frozen(make_scene(2, (160, 200), (632.8,), FIVE_DEG, BENCH))


@pytest.fixture(scope="session")
def tower() -> Scene:
    """Four wavelengths, tall and narrow: three shards of rows in chunked outputs."""
    return _frozen(make_scene(3, (1100, 36), WAVES_NM, STEPS_DEG, BENCH))


@pytest.fixture(scope="session")
def wafer_folder(wafer: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``wafer`` on disk, as the command line reads it."""
    return folder_of(tmp_path_factory.mktemp("wafer") / "frames", np.asarray(wafer.frames))


@pytest.fixture(scope="session")
def tower_folder(tower: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tower`` on disk."""
    return folder_of(tmp_path_factory.mktemp("tower") / "frames", np.asarray(tower.frames))


def _digest(values: object) -> bytes:
    """Hash by value alone: a plain pickle also says which parts are one object."""
    written = io.BytesIO()
    pickler = pickle.Pickler(written)
    pickler.fast = True
    pickler.dump(values)
    return blake2b(written.getbuffer()).digest()


@pytest.fixture(scope="session", autouse=True)
def calibrated_once() -> Iterator[None]:
    """Calibrate no stack twice that a test before has calibrated with the same settings: most of the time of a small run.

    `tests/psi/calibration` calls what is replaced here by its own name, and processes of their own calibrate for themselves.
    """
    original, known = calibrate.calibrate_stack, OrderedDict[bytes, Any]()

    def remembering(*args: Any, **named: Any) -> Any:
        key = _digest((args, sorted(named.items())))
        if key not in known:
            known[key] = original(*args, **named)
        known.move_to_end(key)
        if len(known) > 40:  # of a megabyte each
            known.popitem(last=False)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "calibrate_stack", remembering)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a browser for a module: while it runs, no other loop of events can run in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()

"""Maps by several processes (here threads): the map of one process, what is sent, and a run that goes on."""

from __future__ import annotations

import pytest

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.reconstruct import reconstruct_shared
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.psi.refine import closed_form, coupling, network
from cpikan.storage.writers.layout import SLOPES
from cpikan.streaming.events import Cancelled, Silent
from cpikan.streaming.ranks import ALONE
from independent_frames import Faults, make_scene
from small_stacks import STEPS_DEG, stack_of
from thread_ranks import together

WAVES = (5000.0, 5500.0, 6050.0, 6655.0)


@pytest.fixture(scope="module")
def wide():
    """Frames of four wavelengths, of two tiles of the surface."""
    scene = make_scene(5, (136, 400), WAVES, STEPS_DEG, Faults(read_noise=0.01, fringes=4.0))
    return lambda: stack_of(scene.frames, scene.wavelengths_nm)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Two tiles are shared too, and networks tried on all of them."""
    for module, name, value in (
        (closed_form, "_CHUNK", 1),
        (coupling, "_CHUNK", 1),
        (network, "_TOGETHER", 1),
        (network, "DONE", 0.0),
        (network, "_ITERATIONS", 1),
        (network, "_BETTER", 10.0),
    ):
        monkeypatch.setattr(module, name, value)


class Stops(Silent):
    """Ends a run once it has written some rows."""

    def progress(self, stage, done, of, **figures):
        self.over = stage.startswith("demodulate") and done > 0

    def cancelled(self):
        return self.over


def made(ranks, stack, folder, events=None, **settings):
    how = {"resume": settings.pop("resume", False)}
    given = ReconstructSettings(all_quantities=True, threads=1, **settings)
    return reconstruct_shared(ranks, stack, folder / "out.npy", given, progress=events or Silent(), **how)


def outcome(found, folder):
    """Bytes of the arrays, and the figures but for those of time and memory."""
    timed = ("seconds", "peak", "megapixels", "band_rows", "output")
    figures = {name: value for name, value in found.summary.items() if not name.startswith(timed)}
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}, figures


@pytest.mark.parametrize("method", ["field", "pixel"])
def test_the_map_of_several_processes_is_that_of_one(method, wide, tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one = outcome(made(ALONE, wide(), folders[0], method=method), folders[0])
    sent = {}

    def work(ranks):
        found = made(ranks, wide(), folders[1], method=method)
        sent[ranks.rank] = ranks.sent
        return found

    first, *others = together(2, work)
    arrays, figures = outcome(first, folders[1])
    assert arrays == one[0]  # to the last bit
    assert figures == one[1]
    assert others == [None]
    pixel = 13 + (4 * len(SLOPES) if method == "field" else 0)  # bytes: height, sigma, modulation, flags; slopes
    assert sent[1] - 64 * (400 * pixel + 8 * COLUMNS) == 0  # the rows of its band
    if method == "field":
        assert figures["refining"]["networks_tried"] == 2
    # what two have begun one ends, and the other way round
    for begins, ends in ((2, 1), (1, 2)):
        folder = tmp_path / f"{begins}{ends}"
        folder.mkdir()
        stopped = {"method": method, "band_rows": 64}
        with pytest.raises(Cancelled):
            _by(begins, wide, folder, events=Stops(), **stopped)
        found = _by(ends, wide, folder, resume=True, **stopped)
        assert outcome(found, folder)[0] == one[0]


def _by(size, stack, folder, **more):
    if size == 1:
        return made(ALONE, stack(), folder, **more)
    return together(size, lambda ranks: made(ranks, stack(), folder, **more))[0]


def test_processes_that_were_given_other_settings_are_told_apart(wide, tmp_path):
    def work(ranks):
        return made(ranks, wide(), tmp_path, method="pixel", combine="finest" if ranks.rank else "weighted")

    with pytest.raises(InputError, match=r"process 1 has another plan than process 0 \(\w{12} and \w{12}\): start all"):
        together(2, work)
    assert not list(tmp_path.iterdir())  # nothing was begun

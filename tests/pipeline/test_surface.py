"""Surface numbers of a stored map: streamed, in a region, and from the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.pipeline.maps import surface as module
from cpikan.pipeline.maps.surface import surface_figures
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.storage.atomic import write_json
from cpikan.streaming.memory import PeakMemory, anonymous_mib
from cpikan.surface.apertures.aperture import Circle, Mask
from cpikan.surface.forms.form import fit_form
from cpikan.surface.spectra.ripple import fringe_ripple
from cpikan.surface.sums.measure import MeasureSettings, surface_parameters
from independent_frames import make_scene
from small_stacks import FIVE_DEG, stack_of

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "zygo").is_dir(), reason="measured data absent: set CPIKAN_DATA")
SHAPE = (260, 310)


def heights(seed: int = 1) -> np.ndarray:
    """Ten fringes of 316.4 nm, a wave on them, noise and holes."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE)
    found = 9.0 * y + 4.0 * x + 0.01 * (x - 150) ** 2 + 20 * np.cos(x / 11) + rng.normal(0, 1, SHAPE)
    found += 3 * np.cos(2 * (2 * np.pi * found / 316.4))  # print-through of the doubled fringe
    found[rng.random(SHAPE) < 0.05] = np.nan
    return found.astype(np.float32)


def numbers(found: dict) -> dict:
    names = surface_parameters(np.eye(9), MeasureSettings(pixel_um=1.0)).summary()
    return {name: found[name] for name in names if found[name] is not None and name != "mean_nm"}


def test_bands_are_the_whole_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = heights()
    np.save(tmp_path / "a.npy", values)
    write_json(tmp_path / "a.json", {"acquisition": {"wavelengths_nm": [632.8], "pixel_um": 2.0}})
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 8 * SHAPE[1])
    found = surface_figures(tmp_path / "a.npy", remove="piston,tilt,power")
    whole = surface_parameters(values, MeasureSettings(("piston", "tilt", "power"), pixel_um=2.0))
    assert found["pixels"] == np.isfinite(values).sum()
    # two orders of summing 8e4 heights
    assert numbers(found) == pytest.approx(numbers(whole.summary()), rel=1e-9)
    form = fit_form(values, None, "piston,tilt,power")
    assert found["removed_nm"] == pytest.approx(form.summary(), rel=1e-9)
    assert found["circle_pixels"] == [form.pupil.x, form.pupil.y, form.pupil.radius, 0.0]
    phase = 4 * np.pi * values.astype(float) / 632.8
    assert found["ripple_mrad"] == [{str(k): v for k, v in fringe_ripple(phase, np.angle(np.exp(1j * phase))).items()}]
    # 3 nm at 4 pi / 632.8 nm; the wave of its own argument mixes a little of it into the others
    assert found["ripple_mrad"][0]["2"] == pytest.approx(1e3 * 3 * 4 * np.pi / 632.8, rel=0.05)


def test_only_valid_pixels_of_the_region_count(tmp_path: Path) -> None:
    values = heights(2)
    np.save(tmp_path / "a.npy", values)
    rng = np.random.default_rng(5)
    mask = rng.random(SHAPE) < 0.8
    pupil = Circle(150, 130, 110, 45)
    kept = np.where(mask & pupil.inside(0, *SHAPE), values, np.nan)
    found = surface_figures(tmp_path / "a.npy", remove="noll:11", aperture=pupil & Mask(mask))
    expected = surface_parameters(kept, MeasureSettings(("noll:11",), pupil))
    assert found["pixels"] == np.isfinite(kept).sum()
    assert numbers(found) == pytest.approx(numbers(expected.summary()), rel=1e-9)
    assert found["removed_nm"] == pytest.approx(fit_form(kept, None, "noll:11", pupil).summary(), rel=1e-9)
    # a mask alone: the circle is drawn around what it lets in
    small = np.zeros(SHAPE, bool)
    small[100:151, 90:141] = True
    found = surface_figures(tmp_path / "a.npy", aperture=Mask(small))
    assert found["circle_pixels"][:2] == [115, 125]
    for aperture, words in (
        (Mask(np.ones((3, 4))), "must agree"),
        (Circle(-50, -50, 9), "outside the image"),
        (Mask(np.zeros(SHAPE)), "no pixel in"),
        (Circle(150, 130, 2), "too few for a form of 36 terms"),
    ):
        with pytest.raises(InputError, match=words):
            surface_figures(tmp_path / "a.npy", remove="zernike:36", aperture=aperture)


def test_ripple_is_told_only_where_there_are_fringes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", heights())
    assert surface_figures(tmp_path / "a.npy")["ripple_mrad"] is None  # no wavelength
    np.save(tmp_path / "flat.npy", heights() / 20)
    write_json(tmp_path / "flat.json", {"acquisition": {"wavelengths_nm": [632.8, 611.9]}})
    assert surface_figures(tmp_path / "flat.npy")["ripple_mrad"] is None  # half a fringe


def test_a_form_that_was_removed_brings_its_fringes_back(tmp_path: Path) -> None:
    """The ripple sits on the fringes that were measured, not on those of the map without its form."""
    scene = make_scene(61, (150, 190), (632.8,), FIVE_DEG)
    stack = stack_of(scene.frames, (632.8,), FIVE_DEG)
    plain = reconstruct(stack, tmp_path / "a.npy", progress=False, all_quantities=True)
    bare = reconstruct(
        stack, tmp_path / "b.npy", progress=False, all_quantities=True, remove="piston,tilt,power,zernike:9"
    )
    one, other = (surface_figures(path) for path in (plain.path, bare.path))
    assert other["pv_nm"] < one["pv_nm"] / 3
    # float32 heights of 1e4 nm: 1e-3 nm, 20 urad; orders and pixels are the same
    assert other["ripple_mrad"][0] == pytest.approx(one["ripple_mrad"][0], abs=0.1)


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    shape = (6000, 2000)
    stored = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, shape)
    for start in range(0, 6000, 500):
        stored[start : start + 500] = np.arange(2000) + np.arange(start, start + 500)[:, None] % 7
    del stored
    surface_figures(tmp_path / "a.npy", remove="zernike:36")  # kernels are compiled once
    before = anonymous_mib()
    with PeakMemory() as peak:
        found = surface_figures(tmp_path / "a.npy", remove="zernike:36")
    assert found["pixels"] == 12_000_000
    # a dozen arrays of float64 of a band of a quarter of a megapixel (2 MiB each), and the sample of a megapixel
    assert peak.mib - before < 60


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["evaluate", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", heights())
    np.save(tmp_path / "mask.npy", np.ones(SHAPE, bool))
    a = str(tmp_path / "a.npy")
    code, out, _ = run(
        capsys, a, "--remove", "noll:11", "--circle", "150,130,100,20", "--mask", str(tmp_path / "mask.npy"), "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["removed"] == ["noll:11"]
    assert found["circle_pixels"] == [150, 130, 100, 20]
    assert {"pv_nm", "pvr_nm", "rms_nm", "sa_nm", "sq_nm", "slope_rms_x_nm_per_pixel", "ripple_mrad"} <= found.keys()
    code, out, _ = run(capsys, a)
    assert "PVr" in out
    assert "nm/pixel" in out
    assert "removed: piston" in out
    for arguments, words in (
        ((a, "--remove", "tlt"), "did you mean 'tilt'"),
        ((a, "--remove", "noll:"), "noll:N"),
        ((a, "--remove", "zernike:9999"), "at most 30"),
        ((a, "--circle", "1,2"), "X,Y,R"),
        ((a, "--circle", "1,2,3,4"), "INNER below R"),
        ((a, "--mask", str(tmp_path / "none.npy")), "not a file"),
        ((str(tmp_path / "none.dat"),), "does not exist"),
    ):
        code, out, told = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert words in told
        assert told.count("\n") == 1


@needs_data
def test_published_figures_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """prysm: PV 330.70, RMS 44.591, Sa 29.552 nm; SurfaceTopography: Sq 75.28822 and, without curvature, 3.911386 nm."""
    fizeau, microscope = (str(DATA / "zygo" / name) for name in ("valid_zygo_dat_file.dat", "metropro-1.dat"))
    _, out, _ = run(capsys, fizeau, "--remove", "piston,tilt")
    assert [line.split()[:2] for line in out.splitlines()[:5:2]] == [
        ["PV", "330.7002"],
        ["RMS", "44.59141"],
        ["Sq", "44.59141"],
    ]
    assert "Sa         29.55173 nm" in out
    assert "Sq         75.28822 nm" in run(capsys, microscope)[1]
    assert "Sq         3.911386 nm" in run(capsys, microscope, "--remove", "order:2")[1]

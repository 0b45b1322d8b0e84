from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.cli.evaluate import tell
from cpikan.errors import InputError
from cpikan.pipeline.maps import height_map as module
from cpikan.pipeline.maps.evaluate import align_to_truth, error_figures, evaluate
from cpikan.pipeline.maps.height_map import HeightMap, MapRows
from cpikan.psi.model.flags import Flag
from cpikan.storage.atomic import write_json
from cpikan.storage.writers.layout import open_writer
from cpikan.streaming.memory import PeakMemory, anonymous_mib
from cpikan.surface.apertures.aperture import Circle, Mask
from cpikan.surface.forms.zernike import ZernikeBasis

SHAPE = (300, 251)
ORDER_NM = 316.4
KEYS = {"rms_nm", "relative_l2", "max_abs_nm", "wrong_order_fraction", "coverage_95", "pixels"}


def _document(*wavelengths_nm: float) -> dict[str, Any]:
    return {"acquisition": {"wavelengths_nm": list(wavelengths_nm)}, "settings": {}, "summary": {}}


def in_memory(height_nm: Any, sigma_nm: Any = None, document: dict[str, Any] | None = None, **more: Any) -> HeightMap:
    """A height map whose arrays need no file."""
    arrays = {"height_nm": height_nm, "sigma_nm": sigma_nm, **more}
    stored = {name: array for name, array in arrays.items() if array is not None}
    return HeightMap(Path("out.npy"), stored, _document(632.8, 611.9) if document is None else document)


def _truth(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return 1e5 + 2000 * np.cos(2 * y) * np.sin(3 * x)


def test_figures_of_a_planted_error() -> None:
    rng = np.random.default_rng(1)
    truth = _truth()
    noise = rng.normal(0, 3.0, SHAPE)
    wrong = rng.random(SHAPE) < 0.02
    height = truth - 4321.0 + noise + ORDER_NM * wrong
    height[40:60, 10:90] = np.nan
    truth[200:, 200:] = np.nan
    valid = np.isfinite(height) & np.isfinite(truth)
    right = valid & ~wrong
    found = error_figures(align_to_truth(in_memory(height, np.full(SHAPE, 3.0)), truth))
    assert found.keys() >= KEYS
    error = noise - noise[right].mean() + ORDER_NM * wrong
    assert found["pixels"] == valid.sum()
    assert found["wrong_order_fraction"] == wrong[valid].mean()
    # heights near 1e5 nm carry 1e5 * 2^-53 of rounding each
    assert found["rms_nm"] == pytest.approx(np.sqrt(np.mean(error[right] ** 2)), rel=1e-9)
    assert found["max_abs_nm"] == pytest.approx(np.abs(error[right]).max(), rel=1e-9)
    spread = np.linalg.norm(truth[valid] - truth[valid].mean())
    assert found["relative_l2"] == pytest.approx(np.linalg.norm(error[valid]) / spread, rel=1e-9)
    # 5 % outside 1.96 sigma and 2 % wrong orders; binomial noise sqrt(0.07 * 0.93 / 7e4) = 0.001, five of them
    assert found["coverage_95"] == pytest.approx(0.95 * (1 - wrong[valid].mean()), abs=0.005)
    assert found["wrong_order_limit_nm"] == pytest.approx(611.9 / 4)


@pytest.mark.parametrize("labelled", [True, False])
def test_guesses_are_told_apart(labelled: bool) -> None:
    """Two components on levels of their own, a hole in each: guesses lie 50 nm off the level of what surrounds them."""
    truth, flags = _truth(), np.zeros(SHAPE, np.uint8)
    component = np.ones(SHAPE, np.int32)
    component[:, 130:] = 2
    component[40:60, 20:90] = component[100:140, 150:200] = 0
    level = np.where(np.arange(SHAPE[1]) < 130, 700.0, -9000.0)
    guess = component == 0
    flags[guess] = Flag.INVALID | Flag.INPAINTED
    height = truth + (level if labelled else 0.0) + 50.0 * guess
    given = in_memory(height, flags=flags, component=component if labelled else None)
    found = error_figures(align_to_truth(given, truth))
    assert found["pixels"] == (~guess).sum()
    assert found["rms_nm"] < 1e-6
    assert found["max_abs_nm"] < 1e-6
    assert found["inpainted"] == pytest.approx({"pixels": guess.sum(), "rms_nm": 50.0, "max_abs_nm": 50.0}, rel=1e-9)
    assert error_figures(align_to_truth(in_memory(truth, flags=flags * 0), truth))["inpainted"] is None
    told = tell({**found, "coverage_95": None})
    assert f"in-painted {guess.sum()} pixels more: 50 nm RMS" in told


def test_tilt_is_removed_only_when_asked() -> None:
    truth = _truth()
    height = truth + np.add.outer(50 + np.linspace(-20, 20, SHAPE[0]), np.linspace(30, -30, SHAPE[1]))
    assert error_figures(align_to_truth(in_memory(height), truth))["rms_nm"] > 10
    found = error_figures(align_to_truth(in_memory(height), truth, remove=("piston", "tilt")))
    assert found["rms_nm"] < 1e-6
    assert found["coverage_95"] is None
    assert found["removed"] == ["piston", "tilt"]
    with pytest.raises(InputError, match="did you mean 'tilt'"):
        align_to_truth(in_memory(height), truth, remove=("tlt",))


def test_a_form_is_removed_from_the_error() -> None:
    """Power and coma of many orders, a tenth of the pixels wrong by one: what is left is the noise."""
    rng = np.random.default_rng(7)
    truth = _truth()
    pupil = Circle(125.0, 149.5, 120.0)
    modes = ((2, 0), (3, -1), (4, 4))
    rows, columns = np.indices(SHAPE)
    form = np.tensordot((900.0, 300.0, -200.0), ZernikeBasis(modes).values(*pupil.coordinates(rows, columns)), 1)
    wrong = rng.random(SHAPE) < 0.1
    height = truth + form + rng.normal(0, 3.0, SHAPE) + ORDER_NM * wrong
    found = error_figures(align_to_truth(in_memory(height), truth, remove="tilt,power,zernike:17", aperture=pupil))
    inside = pupil.inside(0, *SHAPE)
    assert found["pixels"] == inside.sum()
    assert found["wrong_order_fraction"] == wrong[inside].mean()
    # 4e4 pixels of 3 nm: 1 / sqrt(8e4) = 0.35 %, five of them
    assert found["rms_nm"] == pytest.approx(3.0, rel=0.02)
    assert found["removed"] == ["piston", "tilt", "power", "zernike:17"]
    assert found["form"]["circle_pixels"] == [125.0, 149.5, 120.0, 0.0]
    assert found["form"]["coefficients_nm"]["Z(2,0)"] == pytest.approx(900.0, abs=0.2)
    assert found["form"]["coefficients_nm"]["Z(4,4)"] == pytest.approx(-200.0, abs=0.2)
    with pytest.raises(InputError, match="outside the image"):
        align_to_truth(in_memory(height), truth, aperture=Circle(-900, 0, 3))


def test_a_mask_limits_the_error() -> None:
    truth = _truth()
    height = truth + 7.0
    height[:50] += 1000.0
    mask = np.ones(SHAPE, np.uint8)
    mask[:50] = 0
    found = error_figures(align_to_truth(in_memory(height), truth, aperture=Mask(mask)))
    assert found["pixels"] == 250 * SHAPE[1]
    assert found["rms_nm"] < 1e-9


def test_the_hole_of_a_circle_takes_no_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line: errors inside the inner radius are not seen, those just outside of it are."""
    truth, (rows, columns) = _truth(), np.indices(SHAPE)
    square = (rows - 150) ** 2 + (columns - 125) ** 2
    height = truth + np.where(square < 40**2, 60.0, 0.0)
    np.save(tmp_path / "out.npy", height)
    np.save(tmp_path / "truth.npy", truth)
    write_json(tmp_path / "out.json", _document(632.8, 611.9))
    for inner, bad in (("40", 0), ("30", ((square < 1600) & (square >= 900)).sum())):
        arguments = [
            str(tmp_path / "out.npy"),
            str(tmp_path / "truth.npy"),
            "--circle",
            f"125,150,110,{inner}",
            "--json",
        ]
        assert main(["evaluate", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)
        inside = (square <= 110**2) & (square >= float(inner) ** 2)
        assert found["pixels"] == inside.sum()
        share = bad / inside.sum()
        # of a step of 60 nm on a share of the pixels, about its mean; heights of 1e5 nm carry 1e-11 nm of rounding
        assert found["rms_nm"] == pytest.approx(60 * np.sqrt(share * (1 - share)), rel=1e-9, abs=1e-9)


def test_a_high_truth_does_not_cancel() -> None:
    """Relative L2 of 1 nm on a relief of some 10 nm, 1e8 nm up: sums of squares about zero would leave no digit of it."""
    rng = np.random.default_rng(12)
    relief = 10 * np.cos(np.arange(SHAPE[1]) / 9) + rng.normal(0, 1, SHAPE)
    truth, noise = 1e8 + relief, rng.normal(0, 1, SHAPE)
    found = error_figures(align_to_truth(in_memory(truth + noise), truth))
    expected = np.linalg.norm(noise - noise.mean()) / np.linalg.norm(relief - relief.mean())
    # heights of 1e8 nm are stored to 1.5e-8 nm
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("stored", [True, False])
def test_one_wavelength_has_a_piston_per_component(stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 20 * SHAPE[1])  # many bands
    rng = np.random.default_rng(2)
    truth = _truth()
    component = np.zeros(SHAPE, np.int32)
    component[:140, :100] = 1
    component[:, 110:] = 2  # spans all bands
    component[150:, :100] = 3
    noise = rng.normal(0, 1.0, SHAPE)
    height = truth + noise + np.array([0.0, 1000.0, -7.0, 12345.6])[component]
    height[component == 0] = np.nan
    given = in_memory(height, component=component if stored else None, document=_document(632.8))
    found = error_figures(align_to_truth(given, truth))
    assert found["components"] == 3
    assert found["wrong_order_fraction"] == 0
    assert found["rms_nm"] == pytest.approx(1.0, abs=0.02)  # 1 / sqrt(2 * 6.7e4) = 0.003, five of them and more
    # two wavelengths without components: one piston for all, so the parts do not fit together
    assert error_figures(align_to_truth(in_memory(height), truth))["wrong_order_fraction"] > 0.3


def test_bands_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    truth = _truth()
    height = truth + rng.normal(0, 3.0, SHAPE) + ORDER_NM * (rng.random(SHAPE) < 0.1)
    whole = error_figures(align_to_truth(in_memory(height), truth, remove=("tilt",)))
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 7 * SHAPE[1])
    figures = KEYS - {"coverage_95"}
    banded = error_figures(align_to_truth(in_memory(height), truth, remove=("tilt",)))
    assert {key: banded[key] for key in figures} == pytest.approx({key: whole[key] for key in figures}, rel=1e-9)


def test_every_chunk_is_read_once_per_sweep() -> None:
    class Lazy:
        def __init__(self, array: np.ndarray) -> None:
            self.array, self.shape, self.reads = array, array.shape, []

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            self.reads.append((key[0].start, key[0].stop))
            return self.array[key]

    array = np.arange(1300 * 9000, dtype=np.float32).reshape(1300, 9000)
    lazy = Lazy(array)
    bands = list(MapRows(in_memory(lazy)).heights())
    assert lazy.reads == [(0, 512), (512, 1024), (1024, 1536)]
    assert np.array_equal(np.concatenate([rows for _, rows in bands]), array)
    assert max(band.rows * 9000 for band, _ in bands) <= 1 << 20


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    shape = (6000, 2000)  # 96 MB of truth in float64, 48 MB of height
    truth = np.lib.format.open_memmap(tmp_path / "truth.npy", "w+", np.float64, shape)
    height = np.lib.format.open_memmap(tmp_path / "height.npy", "w+", np.float32, shape)
    for start in range(0, 6000, 500):
        truth[start : start + 500] = np.arange(2000)
        height[start : start + 500] = np.arange(2000) + 3
    lazy = in_memory(np.load(tmp_path / "height.npy", mmap_mode="r"))
    before = anonymous_mib()
    with PeakMemory() as peak:
        found = error_figures(align_to_truth(lazy, tmp_path / "truth.npy"))
    assert found["pixels"] == 12_000_000
    assert found["rms_nm"] == 0
    # some ten float64 and index arrays of a block of 1 MPix (8 MiB each) and 2e6 sampled pixels (4 x 16 MiB, twice
    # while joined)
    assert peak.mib - before < 260


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "not a file"),
        (lambda p: p.write_bytes(b""), "not a readable"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00nonsense"), "not a readable"),
        (lambda p: np.save(p, np.zeros((2, 3, 4))), "two-dimensional"),
        (lambda p: np.save(p, np.zeros(SHAPE, complex)), "numbers"),
        (lambda p: np.save(p, np.zeros(SHAPE, bool)), "numbers"),
        (lambda p: np.save(p, np.array([["a"]])), "numbers"),
        (lambda p: np.save(p, np.array([[None]]), allow_pickle=True), "numbers"),
        (lambda p: np.save(p, np.zeros((5, 5))), "shape"),
        (lambda p: np.save(p, np.full(SHAPE, np.nan)), "no valid pixel"),
        (lambda p: p.write_bytes(_bomb()), "truncated"),
        (lambda p: _archive(p), "not a readable"),
    ],
)
def test_bad_truth_is_told_in_one_line(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "truth.npy"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        error_figures(align_to_truth(in_memory(_truth()), path))
    assert "\n" not in str(caught.value)


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def _bomb() -> bytes:
    """A header that claims 8 TB, and no data."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def test_a_map_without_wavelengths_is_refused() -> None:
    with pytest.raises(InputError, match="wavelengths"):
        align_to_truth(in_memory(_truth(), document={}), _truth())


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".tif"])
def test_evaluate_opens_the_files_of_a_run(tmp_path: Path, suffix: str) -> None:
    truth = _truth()
    np.save(tmp_path / "truth.npy", truth)
    height, sigma = (truth + 5).astype(np.float32), np.ones(SHAPE, np.float32)
    path = tmp_path / f"out{suffix}"
    types = {"height_nm": np.dtype(np.float32), "sigma_nm": np.dtype(np.float32)}
    writer = open_writer(path, SHAPE, types, attributes={}, resume=False)
    writer.write_rows(0, {"height_nm": height, "sigma_nm": sigma})
    writer.finish()
    writer.close()
    write_json(path.with_suffix(".json"), _document(632.8))
    found = evaluate(path, tmp_path / "truth.npy")
    # float32 near 1e5 nm: steps of 2^-7 nm, rounding uniform in half a step, 0.0023 nm RMS
    assert found["rms_nm"] == pytest.approx(2**-7 / np.sqrt(12), rel=0.05)
    assert found["coverage_95"] == 1.0
    assert found["pixels"] == truth.size
    with pytest.raises(InputError, match="does not exist"):
        evaluate(tmp_path / "other.npy", tmp_path / "truth.npy")


@pytest.mark.parametrize("height", [1e16, -1e200])
def test_heights_that_no_surface_has(tmp_path, height):
    """A flipped bit of an exponent is named, in the map as in the truth; infinity is no height, as before."""
    flat = np.zeros((20, 30))
    for name in ("m", "t"):
        np.save(tmp_path / f"{name}.npy", flat)
        write_json(tmp_path / f"{name}.json", {"acquisition": {"wavelengths_nm": [633.0]}})
    spoilt = flat.copy()
    spoilt[3, 4] = height
    np.save(tmp_path / "t.npy", spoilt)
    with pytest.raises(InputError, match="truth holds a height of"):
        evaluate(tmp_path / "m.npy", tmp_path / "t.npy")
    with pytest.raises(InputError, match=r"t\.npy holds a height of"):
        evaluate(tmp_path / "t.npy", tmp_path / "m.npy")
    spoilt[3, 4] = np.inf
    assert evaluate(tmp_path / "m.npy", spoilt)["pixels"] == 599

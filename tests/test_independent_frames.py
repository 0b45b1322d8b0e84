"""The independent frames against closed formulas, so that tests may rely on them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from independent_frames import Faults, make_scene, make_stack

HERE = Path(__file__).parent
EXACT = Faults(bits=None)  # float32 frames of the order of 1: rounding 6e-8


def wrap(phase):
    return np.angle(np.exp(1j * phase))


def test_nothing_of_the_package_is_imported():
    tree = ast.parse((HERE / "independent_frames.py").read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {"__future__", "collections", "dataclasses", "numpy", "scipy"}
    script = "import sys, independent_frames; sys.exit(any(m.partition('.')[0] == 'cpikan' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], cwd=HERE, check=False).returncode == 0


def test_four_buckets_give_the_phase_of_the_height():
    frames, height, mask = make_stack(1, (23, 31), [632.8, 589.3], [0, 90, 180, 270], EXACT)
    assert frames.shape == (2, 4, 23, 31)
    assert mask.all()
    for stack, wave in zip(frames.astype(float), (632.8, 589.3), strict=True):
        phase = np.arctan2(stack[3] - stack[1], stack[0] - stack[2])
        # Rounding of 3e-8 per frame against a difference of 2 B = 0.6: 1.5e-7 rad; a few of those.
        assert np.abs(wrap(phase - 4 * np.pi * height / wave)).max() < 5e-7


def test_intensity_of_every_pixel_by_hand():
    scene = make_scene(2, (5, 4), [500.0], [0, 77], EXACT)
    for row in range(5):
        for column in range(4):
            path = 2 * scene.height_nm[row, column]  # down and up again
            for k, step in enumerate((0, 77)):
                light = 0.46 + 0.30 * np.cos(2 * np.pi * path / 500.0 + step / 180 * np.pi)
                assert scene.frames[0, k, row, column] == pytest.approx(light, abs=1e-7)


@pytest.mark.parametrize("fringes", [2.0, 30.0])
def test_number_of_fringes(fringes):
    _, height, _ = make_stack(3, (40, 50), [600.0], [0, 120, 240], Faults(fringes=fringes))
    assert np.ptp(height) == pytest.approx(fringes * 300.0)


def test_harmonics_are_the_lines_of_the_spectrum_over_the_step():
    steps = np.arange(16) * 22.5
    scene = make_scene(4, (9, 9), [632.8], steps, Faults(bits=None, harmonic2=0.14, harmonic3=0.05))
    lines = np.fft.fft(scene.frames[0].astype(float), axis=0) / 16
    phase = 4 * np.pi * scene.height_nm / 632.8
    for order, share in ((0, 0.46 / 0.30), (1, 0.5), (2, 0.07), (3, 0.025), (4, 0.0), (5, 0.0)):
        assert np.abs(lines[order] - 0.30 * share * np.exp(1j * order * phase)).max() < 1e-7


def test_each_fault_alone_enters_the_phase_as_its_formula_says():
    shape, wave = (21, 33), 632.8
    faults = Faults(bits=None, step_error_deg=4, tilt_rad=0.4, defocus_rad=0.3, piston_rad=0.5, wavelength_tilt_rad=0.2)
    scene = make_scene(5, shape, [wave, 600.0], [0, 90, 180, 270], faults)
    assert np.array_equal(scene.steps_deg[:, 0], [0, 0])
    assert not scene.tilt_rad[:, 0].any()
    assert not scene.defocus_rad[:, 0].any()
    assert not scene.piston_rad[0]
    assert not scene.wavelength_tilt_rad[0].any()
    assert np.unique(scene.steps_deg[:, 1:] % 90).size == 6  # errors differ between frames and wavelengths
    y, x = np.linspace(-1, 1, 21)[:, None], np.linspace(-1, 1, 33)[None, :]
    for w, nm in enumerate((wave, 600.0)):
        for k in range(4):
            phase = 4 * np.pi / nm * scene.height_nm + np.pi / 180 * scene.steps_deg[w, k]
            phase = phase + (scene.tilt_rad[w, k] * np.stack(np.broadcast_arrays(y, x), -1)).sum(-1)
            phase = phase + scene.defocus_rad[w, k] * (x**2 + y**2) / 2
            phase = (
                phase + scene.piston_rad[w] + scene.wavelength_tilt_rad[w, 0] * y + scene.wavelength_tilt_rad[w, 1] * x
            )
            assert np.abs(scene.frames[w, k] - (0.46 + 0.30 * np.cos(phase))).max() < 1e-7


def test_tilt_pivots_at_the_centre_of_the_mask():
    scene = make_scene(6, (64, 80), [632.8], [0, 90, 180, 270], Faults(bits=None, tilt_rad=1.0, holes=5, aperture=0.6))
    flat = make_scene(6, (64, 80), [632.8], [0, 90, 180, 270], Faults(bits=None, tilt_rad=0.0, holes=5, aperture=0.6))
    assert np.array_equal(scene.mask, flat.mask)
    rows, columns = np.nonzero(scene.mask)
    centre = round(rows.mean()), round(columns.mean())
    assert scene.mask[centre]  # with this seed no hole lies there
    # Half a pixel from the centroid a tilt of four standard deviations changes the phase by 2 * 4 * 0.5 * 2 / 63 = 0.13 rad.
    assert np.abs(scene.frames[0, :, *centre] - flat.frames[0, :, *centre]).max() < 0.3 * 0.13


def test_uneven_light_stays_within_its_bounds_and_does_not_saturate():
    scene = make_scene(7, (60, 70), [632.8], [0, 60, 120, 180], Faults(background=0.2, modulation=0.2, harmonic2=0.14))
    assert np.abs(scene.background / 0.46 - 1).max() == pytest.approx(0.2)
    assert np.abs(scene.amplitude / 0.30 - 1).max() == pytest.approx(0.2)
    assert scene.frames.min() > 0
    assert scene.frames.max() < 255


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (10, np.uint16), (12, np.uint16), (16, np.uint16)])
def test_quantisation_is_to_the_nearest_level(bits, kind):
    digital, _, _ = make_stack(8, (30, 30), [632.8], [0, 90, 180, 270], Faults(bits=bits))
    exact, _, _ = make_stack(8, (30, 30), [632.8], [0, 90, 180, 270], EXACT)
    top = 2**bits - 1
    assert digital.dtype == kind
    assert np.abs(digital - exact.astype(float) * top).max() <= 0.5 + 1e-7 * top


def test_light_beyond_full_scale_clips():
    frames, _, _ = make_stack(9, (40, 40), [632.8], [0, 90, 180, 270], Faults(modulation=0.9, background=0.3))
    assert frames.max() == 255
    assert (frames == 255).sum() > 1


def test_noise_has_the_variance_it_says():
    clean = make_scene(10, (300, 300), [632.8], [0, 90, 180], EXACT)
    noisy = make_scene(10, (300, 300), [632.8], [0, 90, 180], Faults(bits=None, read_noise=0.01, full_well=10_000.0))
    error = noisy.frames[0].astype(float) - clean.frames[0]
    expected = 0.01**2 + clean.frames[0].mean() / 10_000.0
    # 270000 samples: the variance is known to sqrt(2 / n) = 0.27 %; five of those. The mean to 2e-5; five of those.
    assert error.var() == pytest.approx(expected, rel=0.0136)
    assert abs(error.mean()) < 5 * np.sqrt(expected / error.size)


def test_holes_have_no_fringes():
    scene = make_scene(11, (90, 90), [632.8, 600.0], [0, 90, 180, 270], Faults(bits=None, holes=6, aperture=0.7))
    assert 0 < (~scene.mask).sum() < scene.mask.size / 2
    assert not scene.mask[0, 0]
    assert np.ptp(scene.frames[:, :, ~scene.mask], axis=1).max() == 0
    assert np.ptp(scene.frames[:, :, scene.mask], axis=1).max() > 0.5
    assert np.isfinite(scene.height_nm).all()


def test_the_seed_decides_everything():
    faults = Faults(step_error_deg=3, tilt_rad=0.2, read_noise=0.01, holes=2, background=0.1)
    first, second, other = (make_stack(seed, (20, 20), [632.8], [0, 90, 180, 270], faults) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_steps_may_differ_between_wavelengths():
    scene = make_scene(12, (4, 4), [632.8, 600.0], [[0, 90, 180], [0, 100, 200]], EXACT)
    assert np.array_equal(scene.steps_deg, [[0, 90, 180], [0, 100, 200]])


def test_a_converter_has_at_most_sixteen_bits():
    with pytest.raises(ValueError, match="17 bits"):
        make_stack(0, (4, 4), [632.8], [0, 90, 180], Faults(bits=17))

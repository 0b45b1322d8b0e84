"""Patches of a stack: what they show, that augmentation keeps the physics, joints, order, memory."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_files import A_DN, B_DN, SHAPE, STEPS, known_light, stack_files, surface_nm

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, stack_patches
from cpikan.images.patches.augment import SYMMETRIES, Symmetry, add_piston, apply_symmetry, corrupt_orders, reorder
from cpikan.images.patches.dataset import PatchSettings, WaferPatchDataset
from cpikan.images.patches.light import WaveLight
from cpikan.images.patches.places import joint_of, random_corners
from cpikan.images.patches.source import StackFiles, StackSource, Wanted
from cpikan.psi.model.frame_model import FrameModel

SIZE = 24
ALL = Wanted(frames=True, phases=True, modulation=True)
# phases err by the rounding of float32 heights (lifted to some 1e4 nm: half an ulp is 5e-4 nm, 1.2e-5 rad), steps (1e-7) and
# tilts (1e-9 x 17 px), so fringes of 50 DN by 1e-3 DN; frames themselves are rounded to 1e-5 DN
FRAME_DN = 2e-3
PHASE_RAD = 5e-5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> StackFiles:
    return stack_files(tmp_path_factory.mktemp("known"), known_light(1))


@pytest.fixture(scope="module")
def source(files: StackFiles) -> StackSource:
    return StackSource(files)


def unexplained_dn(batch: PatchBatch) -> float:
    """The largest difference between frames and A + B cos(4 pi h / lambda + step + tilt . (r - pivot)), in float64."""
    frames, planes = batch.frames, batch.planes
    assert frames is not None
    size = planes.height_nm.shape[-1]
    r = torch.stack(torch.meshgrid(*2 * [torch.arange(size, dtype=torch.float64)], indexing="ij"), dim=-1)
    away = r - frames.pivot_px.double()[:, None, None]
    tilt = torch.einsum("nlkc,nyxc->nlkyx", frames.tilt_rad_px.double(), away)
    height = planes.height_nm.double()[:, None] * (4 * math.pi / frames.wavelengths_nm.double()[:, :, None, None])
    model = A_DN + B_DN * torch.cos(height[:, :, None] + frames.step_rad.double()[..., None, None] + tilt)
    return float((frames.frames_dn.double() - model).abs().max())


def phase_error_rad(batch: PatchBatch) -> float:
    """The largest difference, modulo a turn, between phases and 4 pi h / lambda."""
    assert batch.planes.phase_rad is not None
    assert batch.frames is not None
    expected = batch.planes.height_nm.double()[:, None] * (4 * math.pi / batch.frames.wavelengths_nm[:, :, None, None])
    return float(torch.angle(torch.exp(1j * (batch.planes.phase_rad.double() - expected))).abs().max())


def test_a_patch_is_the_window_and_its_frames_are_explained(source: StackSource):
    batch = source.patch(31, 50, SIZE, ALL, number=7)
    window = surface_nm()[31 : 31 + SIZE, 50 : 50 + SIZE].astype(np.float32)
    assert torch.equal(batch.planes.height_nm[0], torch.from_numpy(window))
    assert batch.truth_nm is not None
    assert torch.equal(batch.truth_nm[0], torch.from_numpy(window))
    assert batch.place.tolist() == [[7, 31, 50]]
    assert batch.half_wave_nm.item() == 266.0
    assert unexplained_dn(batch) < FRAME_DN
    assert phase_error_rad(batch) < PHASE_RAD
    assert batch.planes.modulation is not None
    assert torch.allclose(batch.planes.modulation, torch.ones(1), atol=1e-5)  # B is the same everywhere


def test_uniform_steps_and_pixel_by_pixel_agree(tmp_path: Path):
    flat = StackSource(stack_files(tmp_path, known_light(3, tilted=False)))
    batch = flat.patch(5, 9, SIZE, ALL)
    assert phase_error_rad(batch) < PHASE_RAD
    assert batch.frames is not None
    assert not batch.frames.tilt_rad_px.any()


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("tilted", [True, False])
def test_harmonics_gain_and_offset_are_taken_off(free, tilted, tmp_path: Path):
    """A second harmonic of 14 % of B, free in every pixel or a known share: phases and frames are as without it."""
    light = known_light(4, waves=1, tilted=tilted)
    files = stack_files(tmp_path, light)
    plain = np.load(tmp_path / "frames.npy", allow_pickle=False)
    gain, offset = np.array([1.0, 1.1, 0.9, 1.05, 0.95]), np.array([0.0, 3.0, -2.0, 1.0, 4.0])
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    argument = 4 * math.pi / 632.8 * surface_nm() + light[0].steps_at(y, x)
    bent = plain[0] + 0.14 * B_DN * np.cos(2 * argument)
    np.save(tmp_path / "frames.npy", (gain[:, None, None] * bent + offset[:, None, None])[None].astype(np.float32))
    known = {"harmonics": (2,)} if free else {"locked": ((2, 0.14),)}
    better = replace(light[0], model=replace(light[0].model, gain=gain, offset_dn=offset, **known))
    batch = StackSource(replace(files, light=(better,))).patch(20, 20, SIZE, ALL)
    # float32 frames of 1e-5 DN; the fixed-point iteration takes a share of 14 % off to 0.14^6 = 8e-6 of B
    assert phase_error_rad(batch) < PHASE_RAD
    assert unexplained_dn(batch) < FRAME_DN
    ignorant = replace(better, model=replace(better.model, harmonics=(), locked=()))
    batch = StackSource(replace(files, light=(ignorant,))).patch(20, 20, SIZE, ALL)
    assert unexplained_dn(batch) == pytest.approx(7.0, abs=0.1)


def test_invalid_pixels_and_missing_parts(tmp_path: Path):
    hole = np.zeros(SHAPE, bool)
    hole[10:20, 10:30] = True
    files = stack_files(tmp_path, known_light(2), invalid=hole)
    batch = StackSource(files).patch(0, 0, SIZE, Wanted())
    assert torch.equal(batch.planes.valid[0], torch.from_numpy(~hole[:SIZE, :SIZE]))
    assert torch.isfinite(batch.planes.height_nm).all()
    assert batch.frames is None
    assert batch.planes.phase_rad is None
    assert batch.planes.modulation is None
    alone = StackSource(replace(files, truth=None, frames=None, light=()))
    assert alone.patch(0, 0, SIZE, Wanted()).truth_nm is None
    with pytest.raises(InputError, match="opened without frames"):
        WaferPatchDataset([alone], PatchSettings(size=SIZE, frames=True))


def test_two_frames_have_no_phase():
    two = WaveLight(FrameModel.plain((0.0, 90.0)))
    with pytest.raises(InputError, match="2 frames per wavelength give no phase"):
        two.phasor(np.zeros((2, 4, 4), np.float32), 0, 0)


def test_phases_of_two_frames_are_refused_before_training(tmp_path: Path):
    files = stack_files(tmp_path, known_light(1, waves=1))
    two = StackSource(replace(files, light=(WaveLight(FrameModel.plain((0.0, 90.0))),)))
    WaferPatchDataset([two], PatchSettings(size=SIZE, frames=True))
    with pytest.raises(InputError, match="2 frames per wavelength, which give no phases"):
        WaferPatchDataset([two], PatchSettings(size=SIZE, phases=True))


@settings(max_examples=25, deadline=None)
@given(
    number=st.integers(0, SYMMETRIES - 1),
    corner=st.tuples(st.integers(0, SHAPE[0] - SIZE), st.integers(0, SHAPE[1] - SIZE)),
    piston=st.floats(-9000, 9000),
    seed=st.integers(0, 2**32 - 1),
)
def test_augmentation_keeps_the_physics(source, number, corner, piston, seed):
    batch = apply_symmetry(source.patch(*corner, SIZE, ALL), Symmetry.numbered(number, SIZE))
    batch = add_piston(batch, piston, source.wavelengths_nm)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(STEPS), (2, 1)), axis=1)
    batch = replace(batch, frames=reorder(batch.frames, torch.from_numpy(order)))
    assert unexplained_dn(batch) < FRAME_DN
    assert phase_error_rad(batch) < PHASE_RAD
    assert torch.equal(batch.planes.height_nm, batch.truth_nm)


def test_forgetting_the_tilts_is_seen(source: StackSource):
    """The property above can fail: pixels flipped without their tilts are off by far more than rounding."""
    batch = source.patch(30, 40, SIZE, ALL)
    flipped = apply_symmetry(batch, Symmetry.numbered(2, SIZE))
    wrong = replace(flipped, frames=replace(flipped.frames, tilt_rad_px=batch.frames.tilt_rad_px))
    assert unexplained_dn(wrong) > 1000 * FRAME_DN


def test_the_eight_symmetries_are_the_square():
    image = torch.arange(16.0).reshape(4, 4)
    turned = [Symmetry.numbered(number, 4).pixels(image) for number in range(SYMMETRIES)]
    expected = [torch.rot90(one, k) for one in (image, image.flip(0)) for k in range(4)]
    assert {tuple(one.flatten().tolist()) for one in turned} == {tuple(one.flatten().tolist()) for one in expected}
    point = torch.tensor([1.0, 3.0])
    for number, one in enumerate(turned):
        y, x = Symmetry.numbered(number, 4).points(point).long().tolist()
        assert one[y, x] == image[1, 3]


@settings(max_examples=25, deadline=None)
@given(
    index=st.integers(0, 199),
    order=st.sampled_from(["random", "regular"]),
    overlap=st.integers(1, SIZE - 1),
    seed=st.integers(0, 99),
)
def test_joints_show_the_same_pixels(source, index, order, overlap, seed):
    """After flips, pistons, permuted frames and corrupted orders, bit for bit."""
    asked = PatchSettings(
        size=SIZE, order=order, overlap=overlap, pairs=True, frames=True, phases=True, wrong_orders=0.2, seed=seed
    )
    dataset = WaferPatchDataset([source], asked)
    batch = dataset[3, index % len(dataset)]
    assert len(batch) == 2
    ((i, j, y0, x0, y1, x1, height, width),) = batch.joints.tolist()
    assert min(height, width) >= overlap
    assert max(height, width) == SIZE
    planes, frames = batch.planes, batch.frames
    for values in (planes.height_nm, planes.valid, batch.truth_nm, frames.frames_dn):
        one = values[i, ..., y0 : y0 + height, x0 : x0 + width]
        assert torch.equal(one, values[j, ..., y1 : y1 + height, x1 : x1 + width])


def test_joints_are_renumbered_in_a_batch(source: StackSource):
    dataset = WaferPatchDataset([source], PatchSettings(size=SIZE, pairs=True, overlap=8, count=3))
    batch = stack_patches([dataset[0, index] for index in range(3)])
    assert batch.joints[:, :2].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert joint_of(((5, 7), (21, 7)), SIZE) == [0, 1, 16, 0, 0, 0, 8, SIZE]


def test_corrupted_orders_are_whole_half_waves_and_as_many_as_said(source: StackSource):
    batch = source.patch(0, 0, 64, Wanted())
    share = 0.1
    found = corrupt_orders(batch, ((0, 0),), share, np.random.default_rng(1))
    off = (found.planes.height_nm - batch.planes.height_nm) / batch.half_wave_nm
    assert set(off.round().unique().tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert torch.allclose(off, off.round(), atol=1e-5)
    # 4096 pixels: singles scatter by 0.3 %, blocks of nine by 1.1 %; overlaps take a few per cent off
    assert float((off.round() != 0).float().mean()) == pytest.approx(share, abs=0.04)
    assert found.truth_nm is batch.truth_nm


def test_a_patch_follows_from_seed_epoch_and_index(source: StackSource, files: StackFiles):
    asked = PatchSettings(size=SIZE, frames=True, count=20, seed=5)
    first, second = WaferPatchDataset([source], asked), WaferPatchDataset([StackSource(files)], asked)
    for key in ((0, 3), (4, 19), (4, 0)):
        one, other = first[key], second[key]
        assert torch.equal(one.planes.height_nm, other.planes.height_nm)
        assert torch.equal(one.frames.frames_dn, other.frames.frames_dn)
    assert first.place(0, 3) != first.place(1, 3)
    assert WaferPatchDataset([source], replace(asked, seed=6)).place(0, 3) != first.place(0, 3)
    assert torch.equal(first[3].planes.height_nm, first[0, 3].planes.height_nm)
    with pytest.raises(IndexError):
        first[0, 20]


def test_regular_patches_cover_every_pixel_once_an_epoch(source: StackSource):
    dataset = WaferPatchDataset([source], PatchSettings(size=SIZE, order="regular", overlap=4))
    for epoch in (0, 1):
        seen = np.zeros(SHAPE, int)
        for index in range(len(dataset)):
            ((y, x),) = dataset.place(epoch, index).corners
            seen[y : y + SIZE, x : x + SIZE] += 1
        assert seen.min() == 1
    places = [[dataset.place(epoch, i).corners for i in range(len(dataset))] for epoch in (0, 1)]
    assert places[0] != places[1]
    assert sorted(places[0]) == sorted(places[1])


def test_places_keep_to_rows_and_measured_pixels(tmp_path: Path):
    hole = np.zeros(SHAPE, bool)
    hole[:, :50] = True
    source = StackSource(stack_files(tmp_path, known_light(2), invalid=hole))
    for order in ("random", "regular"):
        asked = PatchSettings(size=16, order=order, least_valid=0.9, rows=(0.5, 1.0))
        dataset = WaferPatchDataset([source], asked)
        corners = [dataset.place(0, i).corners[0] for i in range(len(dataset))]
        assert min(y for y, _ in corners) >= 36
        # every fourth column counts: at most one and a half of 16 columns may lie in the hole
        assert min(x for _, x in corners) >= 50 - 4
    with pytest.raises(InputError, match="no patch of 60 has 100% measured pixels"):
        WaferPatchDataset([source], PatchSettings(size=60, order="regular", least_valid=1.0))


def test_stacks_are_drawn_by_weight(source: StackSource, tmp_path: Path):
    other = StackSource(stack_files(tmp_path, known_light(8), name="other"))
    dataset = WaferPatchDataset([source, other], PatchSettings(size=SIZE, count=400), weights=[3, 1])
    drawn = [dataset.place(0, i).source for i in range(400)]
    assert abs(sum(drawn) - 100) < 4 * math.sqrt(400 * 0.25 * 0.75)  # four sigmas of the binomial
    assert {int(dataset[0, i].place[0, 0]) for i in range(12)} == {0, 1}
    for weights in ([1], [1, -1], [0, 0], [1, math.nan]):
        with pytest.raises(InputError, match="weights"):
            WaferPatchDataset([source, other], PatchSettings(size=SIZE), weights=weights)
    with pytest.raises(InputError, match="leave the weights out"):
        WaferPatchDataset([source], PatchSettings(size=SIZE, order="regular"), weights=[1])


def test_stacks_that_cannot_share_a_batch_are_refused(source: StackSource, tmp_path: Path):
    one = StackSource(stack_files(tmp_path, known_light(8, waves=1), name="one"))
    WaferPatchDataset([source, one], PatchSettings(size=SIZE))
    for name in ("frames", "phases"):
        with pytest.raises(InputError, match=f"known has 2 wavelengths x 5 frames, one 1 .* cannot share .* {name}"):
            WaferPatchDataset([source, one], PatchSettings(size=SIZE, **{name: True}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 4}, "patch size 4"),
        ({"order": "regulr"}, "did you mean 'regular'"),
        ({"overlap": 24, "order": "regular"}, "give 0 to 23"),
        ({"pairs": True}, "overlap 0"),
        ({"overlap": 3}, "random patches lie where they fall"),
        ({"count": 0}, "give 1 or more"),
        ({"count": 3, "order": "regular"}, "leave count out"),
        ({"least_valid": 2.0}, "share of the pixels"),
        ({"rows": (0.5, 0.5)}, "two rising numbers"),
        ({"piston_units": -1.0}, "piston_units"),
        ({"wrong_orders": 0.9}, "wrong_orders"),
        ({"finest_period": 0.0}, "finest_period"),
        ({"seed": -1}, "seed"),
        ({"size": 80}, "does not fit"),
        ({"size": 60, "pairs": True, "overlap": 8}, "two patches of 60 with overlap 8"),
        ({"size": 40, "rows": (0.0, 0.5)}, "rows 0 to 36"),
    ],
)
def test_bad_settings_are_told_in_one_line(source, values, said):
    with pytest.raises(InputError, match=said) as told:
        WaferPatchDataset([source], PatchSettings(**{"size": SIZE, **values}))
    assert "\n" not in str(told.value)


def test_no_stacks():
    with pytest.raises(InputError, match="no stacks"):
        WaferPatchDataset([], PatchSettings())


def test_a_window_of_wide_frames_copies_no_whole_rows(tmp_path: Path):
    """Frames 100 000 pixels wide: whole rows of a patch would be 32 MB, the patch itself is 0.2 MB of float32."""
    width, rows, size = 100_000, 80, 64
    light = known_light(1, waves=1, tilted=False)
    np.save(tmp_path / "frames.npy", np.zeros((1, STEPS, rows, width), np.uint8))
    for name, kind in (("guide", np.float32), ("sigma", np.float32), ("flags", np.uint8)):
        np.save(tmp_path / f"{name}.npy", np.zeros((rows, width), kind))
    places = {name: tmp_path / f"{name}.npy" for name in ("guide", "sigma", "flags")}
    files = StackFiles("wide", **places, wavelengths_nm=(632.8,), frames=str(tmp_path / "frames.npy"), light=light)
    source = StackSource(files)
    source.prepare(Wanted(frames=True))
    tracemalloc.start()
    try:
        source.patch(3, 50_000, size, Wanted(frames=True))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # frames as float32 twice (each wavelength, then stacked), maps, validity: 64 x 64 x (2 x 5 x 4 + 2 x 4 + 8) bytes
    assert peak < 2 * size * size * (2 * STEPS * 4 + 16)


def test_random_patches_reach_both_ends():
    """Patches of 16 in 18 columns begin at 0, 1 or 2; in rows 1 to 17, at 1 or 2."""
    draw = np.random.default_rng(0)
    drawn = {random_corners((1, 18), 18, PatchSettings(size=16), draw)[0] for _ in range(200)}
    assert drawn == {(row, column) for row in (1, 2) for column in (0, 1, 2)}

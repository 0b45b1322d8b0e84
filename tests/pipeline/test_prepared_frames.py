"""Frames that are averaged, corrected and turned before they are measured: maps of them are the maps of plain frames."""

from __future__ import annotations

import json
import pickle
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.stacks.prepare import turn_of
from cpikan.pipeline.stacks.stack import describe_stack, format_description, open_stack
from cpikan.storage.readers.array import ArrayReader
from cpikan.storage.readers.averaged import AveragedReader
from cpikan.storage.readers.corrected import CorrectedReader
from cpikan.storage.readers.turned import ORIENTATIONS, Turn, TurnedReader
from independent_frames import make_scene
from small_stacks import STEPS_DEG, WAVES_NM, folder_of

SHAPE = (3, 11, 7)


def some(seed: int, dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


TURNS = [Turn(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]


class TestTurned:
    @pytest.mark.parametrize("turn", TURNS, ids=str)
    def test_rows_are_those_of_the_turned_frames(self, turn: Turn) -> None:
        frames = some(1)
        truth = np.ascontiguousarray(turn.view(frames))
        reader = TurnedReader(ArrayReader(frames), turn)
        assert reader.shape == truth.shape
        for start, stop in ((0, truth.shape[1]), (2, 5), (3, 3), (6, 7)):
            np.testing.assert_array_equal(reader.read_rows(start, stop), truth[:, start:stop])
            out = np.zeros_like(truth[:, start:stop])
            np.testing.assert_array_equal(reader.read_rows(start, stop, out), truth[:, start:stop])

    def test_turns_follow_each_other(self) -> None:
        frames = some(2)
        for one in TURNS:
            for two in TURNS:
                np.testing.assert_array_equal(one.then(two).view(frames), two.view(one.view(frames)))

    @pytest.mark.parametrize("degrees", [0, 90, 180, 270])
    def test_rotation_is_counter_clockwise_and_before_the_mirror(self, degrees: int) -> None:
        frame = some(3)[0]
        turned = np.rot90(frame, degrees // 90)
        np.testing.assert_array_equal(turn_of({"rotate": degrees}).view(frame), turned)
        np.testing.assert_array_equal(turn_of({"rotate": str(degrees), "flip": "vertical"}).view(frame), turned[::-1])
        np.testing.assert_array_equal(
            turn_of({"rotate": f"{degrees} deg", "flip": "horizontal"}).view(frame), turned[:, ::-1]
        )

    def test_orientation_tags_are_those_of_pillow(self) -> None:
        from PIL import Image, ImageOps

        for tag, turn in ORIENTATIONS.items():
            image = Image.fromarray(some(4, "uint8")[0])
            image.getexif()[274] = tag
            np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), turn.view(np.asarray(image)))

    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        frames = some(5, shape=(2, 150, 9))
        monkeypatch.setattr("cpikan.storage.readers.turned._BLOCK_BYTES", 70 * 2 * 9 * 2)
        reader = TurnedReader(ArrayReader(frames), Turn(True))
        np.testing.assert_array_equal(reader.read_rows(0, 9), frames.swapaxes(1, 2))


class TestAveraged:
    def test_is_the_mean_and_saturated_where_one_is(self) -> None:
        stacks = [some(k) for k in range(5)]
        stacks[3][1, 4, 2] = 255
        mean = np.mean(np.stack(stacks), axis=0)
        mean[np.max(stacks, axis=0) >= 255] = np.inf
        reader = AveragedReader([ArrayReader(one) for one in stacks], 255.0)
        assert reader.dtype == np.float32
        np.testing.assert_allclose(reader.read_rows(0, 11), mean.astype(np.float32), rtol=2e-7)
        assert np.isinf(reader.read_rows(4, 5)[1, 0, 2])

    def test_others_are_refused(self) -> None:
        with pytest.raises(InputError, match="stacks that are averaged have the same frames"):
            AveragedReader([ArrayReader(some(1)), ArrayReader(some(1, "uint8"))])


class TestCorrected:
    @pytest.mark.parametrize(("darks", "flats"), [(1, 0), (0, 1), (1, 1), (3, 1), (1, 3), (3, 3)])
    def test_is_the_formula(self, darks: int, flats: int) -> None:
        frames = some(1)
        dark = [some(10 + k, shape=(2, 11, 7)) // 8 for k in range(darks)]
        flat = [some(20 + k, shape=(4, 11, 7)) + 200 for k in range(flats)]
        truth = frames.astype(np.float64)
        for k in range(3):
            level = dark[min(k, darks - 1)].mean(axis=0) if darks else 0.0
            truth[k] -= level
            if flats:
                light = flat[min(k, flats - 1)].mean(axis=0) - level
                truth[k] *= light.mean() / light
        reader = CorrectedReader(
            ArrayReader(frames), [ArrayReader(d) for d in dark], [ArrayReader(f) for f in flat], range(3)
        )
        found = np.concatenate([reader.read_rows(0, 4), reader.read_rows(4, 11)], axis=1)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-4)

    def test_saturated_and_blind_pixels(self) -> None:
        frames, flat = some(1), np.full((1, 11, 7), 1000, np.uint16)
        frames[2, 3, 4], flat[0, 5, 6] = 4095, 3
        reader = CorrectedReader(ArrayReader(frames), (), [ArrayReader(flat)], (), 4095.0)
        found = reader.read_rows(0, 11)
        assert found[2, 3, 4] == np.inf
        assert np.isnan(found[:, 5, 6]).all()
        assert np.isfinite(found).sum() == found.size - 4

    def test_what_does_not_fit(self) -> None:
        frames = ArrayReader(some(1))
        with pytest.raises(InputError, match=r"dark array.* is 10 x 7 but the frames are 11 x 7"):
            CorrectedReader(frames, [ArrayReader(some(1)[:, :10])])
        with pytest.raises(InputError, match="2 flat for 3 wavelengths"):
            CorrectedReader(frames, (), [ArrayReader(some(1)), ArrayReader(some(2))], range(3))
        with pytest.raises(InputError, match="no brighter than the dark"):
            CorrectedReader(frames, [ArrayReader(some(1))], [ArrayReader(some(1))]).read_rows(0, 1)


@pytest.fixture(scope="module")
def scene():
    return make_scene(5, (70, 80), WAVES_NM[:2], STEPS_DEG)


def test_maps_of_prepared_frames(scene, tmp_path: Path) -> None:
    """What a camera adds and a turn exchanges is taken off again: the same map, turned; through files and by relative paths."""
    rng = np.random.default_rng(1)
    frames = np.asarray(scene.frames) + rng.uniform(-0.5, 0.5, scene.frames.shape).astype(np.float32)
    dark = rng.integers(20, 60, (70, 80)).astype(np.uint16)
    gain = rng.uniform(0.5, 1.5, (70, 80))
    light = 2000 * gain / gain.mean()
    raw = np.rint(20.0 * frames * gain / gain.mean() + dark).astype(np.uint16)
    camera = folder_of(
        tmp_path / "camera",
        np.rot90(raw, -1, (2, 3)),
        WAVES_NM,
        STEPS_DEG,
        dark="../dark.npy",
        flat=["../flat.npy"],
        rotate=90,
        pixel_size=["3 um", "5 um"],
    )
    np.save(tmp_path / "dark.npy", np.rot90(dark, -1))
    np.save(tmp_path / "flat.npy", np.rot90(np.rint(light + dark).astype(np.uint16)[None], -1, (1, 2)))
    with open_stack(folder_of(tmp_path / "plain", frames, WAVES_NM, STEPS_DEG)) as stack:
        expected = reconstruct(stack, tmp_path / "plain.npy", progress=False)
    with open_stack(camera) as stack:
        assert stack.acquisition.pixel_um == (5.0, 3.0)
        assert [text.split()[0] for text in stack.prepared] == ["dark", "flat", "saturated", "turned:"]
        assert "dark" in format_description(describe_stack(stack))
        with closing(pickle.loads(pickle.dumps(stack))) as copy:
            assert copy.fingerprint() == stack.fingerprint()
        found = reconstruct(stack, tmp_path / "found.npy", progress=False)
        again = reconstruct(stack, tmp_path / "found.npy", progress=False, resume=True)
    assert again.summary["already_finished"]
    difference = np.asarray(found.height_nm) - np.asarray(expected.height_nm)
    known = np.isfinite(np.asarray(expected.height_nm))  # some pixels of the scene are clipped
    assert np.isfinite(difference).sum() > 0.98 * known.sum()
    assert np.nanmedian(np.abs(difference - np.nanmedian(difference))) < 0.2 * expected.summary["sigma_nm_median"]


@pytest.mark.parametrize("share", [1, 3])
def test_counts_that_became_floats_are_not_saturated(scene, tmp_path: Path, share: int) -> None:
    """A dark level leaves whole numbers and a mean of stacks whole numbers of parts: no pile is seen at one of them."""
    frames = np.asarray(scene.frames).astype(np.float32) / share
    with open_stack(folder_of(tmp_path / "s", frames, WAVES_NM, STEPS_DEG)) as stack:
        assert reconstruct(stack, tmp_path / "m.npy", progress=False).summary["saturated_fraction"] == 0


def test_a_dark_has_a_form_of_its_own(scene, tmp_path: Path) -> None:
    """Frames of bare pixels in sub-folders, named by a pattern; the dark is a .npy, the flat a folder of them."""
    frames = np.asarray(scene.frames)
    for wave, shots in enumerate(frames):
        (tmp_path / f"w{wave}").mkdir()
        for step, shot in enumerate(shots):
            (tmp_path / f"w{wave}" / f"s{step}.bin").write_bytes(shot.tobytes())
    (tmp_path / "flat").mkdir()
    for k in range(2):
        np.save(tmp_path / "flat" / f"{k}.npy", np.full((70, 80), 100, np.uint8))
    np.save(tmp_path / "dark.npy", np.full((70, 80), 7, np.uint8))
    raw = {"pixel": "Mono8", "width": 80, "height": 70}
    (tmp_path / "acquisition.toml").write_text(
        f"wavelengths = {[f'{wave} nm' for wave in WAVES_NM[:2]]}\nphase_steps = {list(STEPS_DEG)}\n"
        'pattern = "w{wavelength}/s{step}.bin"\nraw = {pixel = "Mono8", width = 80, height = 70}\n'
        'dark = "dark.npy"\nflat = "flat"\n'
    )
    with open_stack(tmp_path) as stack:
        np.testing.assert_allclose(stack.rows(0, 70), frames.astype(np.float32) - 7, rtol=1e-6)
    (tmp_path / "dark.bin").write_bytes(bytes([7]) * 5600)
    with open_stack(tmp_path, dark=str(tmp_path / "dark.bin"), raw=raw) as stack:
        np.testing.assert_allclose(stack.rows(3, 9), frames[:, :, 3:9].astype(np.float32) - 7, rtol=1e-6)


def test_average_and_flags(scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.asarray(scene.frames)
    one, two = (folder_of(tmp_path / name, frames, WAVES_NM, STEPS_DEG) for name in ("one", "two"))
    assert main(["info", str(one), "--average", str(two), "--flip", "vertical", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dtype"] == "float32"
    assert told["bit_depth"] is None
    assert told["prepared"] == ["mean of 2 stacks", "saturated at 255 DN before that", "turned: upside down"]
    with open_stack(one, average=str(two), flip="vertical") as stack:
        np.testing.assert_array_equal(stack.rows(0, 70), frames[:, :, ::-1])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("flip", "up", "unknown flip 'up'"),
        ("rotate", 45, "rotate 45 is no quarter of a turn"),
        ("rotate", True, "rotate True is no quarter"),
        ("dark", 5, "dark 5 is no path"),
        ("dark", "nothing.tif", "dark: .*nothing.tif' does not exist"),
        ("dark", "n" * 400, "dark: .*nnn' does not exist"),  # no file system holds it
        ("average", [3], r"average \[3\] is no path"),
        ("raw", "Mono8", "KEY=VALUE"),
        ("pattern", 3, "pattern 3 is no text"),
        ("axes", "abc", "axes 'abc' are not letters"),
        ("axes", "wsyx", "one file|axes|shape"),
    ],
)
def test_wrong_values_are_one_line(scene, tmp_path: Path, key: str, value: object, words: str) -> None:
    frames = np.asarray(scene.frames)[0]
    folder = folder_of(
        tmp_path / "s", frames[None] if key != "axes" else frames, WAVES_NM[:1], STEPS_DEG, **{key: value}
    )
    with pytest.raises(InputError, match=words) as caught:
        open_stack(folder)
    assert "\n" not in str(caught.value)

"""FrameStack: the frames and how they were taken, whatever the files; counts that do not fit are refused with numbers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpikan
from cpikan.errors import InputError
from cpikan.pipeline.stacks.frame_hash import hash_frames
from cpikan.pipeline.stacks.stack import FrameStack, describe_stack, format_description, open_stack
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.model.acquisition import Acquisition

SHAPE = (2, 4, 11, 13)
FRAMES = np.random.default_rng(3).integers(0, 4096, SHAPE, dtype=np.uint16)
TWO = ["632.8 nm", "532 nm"]
STEPS = [0, 90, 180, 270]
DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
measured = pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set CPIKAN_DATA")


def save(folder: Path, frames: np.ndarray = FRAMES) -> Path:
    np.save(folder / "x.npy", frames)
    return folder / "x.npy"


@pytest.mark.parametrize("frames", [FRAMES, FRAMES.reshape(8, 11, 13)], ids=["four axes", "three axes"])
def test_shape_rows_and_windows(tmp_path: Path, frames: np.ndarray) -> None:
    with open_stack(save(tmp_path, frames), wavelengths=TWO, phase_steps=STEPS, bit_depth=12) as stack:
        assert stack.shape == SHAPE
        assert stack.dtype == np.uint16
        assert stack.source == str(tmp_path / "x.npy")
        assert len(stack.labels) == 8
        assert stack.saturation_dn == 4095.0
        assert stack.acquisition.phase_steps_deg == (tuple(STEPS),) * 2
        np.testing.assert_array_equal(stack.rows(2, 7), FRAMES[:, :, 2:7])
        np.testing.assert_array_equal(stack.window(slice(1, -2), slice(None, 5)), FRAMES[:, :, 1:-2, :5])
        assert stack.window(slice(5, 2), slice(0, 3)).shape == (2, 4, 0, 3)
        with pytest.raises(ValueError, match="step 1"):
            stack.window(slice(0, 8, 2), slice(None))


def test_the_package_opens_stacks(tmp_path: Path) -> None:
    with cpikan.open_stack(save(tmp_path), wavelengths=TWO) as stack:
        assert isinstance(stack, cpikan.FrameStack)
        assert stack.acquisition.steps == "unknown"


def test_out_is_filled_even_when_it_is_not_contiguous(tmp_path: Path) -> None:
    with open_stack(save(tmp_path), wavelengths=TWO) as stack:
        plain = np.zeros((2, 4, 5, 13), np.uint16)
        assert stack.rows(3, 8, plain) is plain
        np.testing.assert_array_equal(plain, FRAMES[:, :, 3:8])
        turned = np.zeros((4, 2, 5, 13), np.uint16).swapaxes(0, 1)
        assert stack.rows(3, 8, turned) is turned
        np.testing.assert_array_equal(turned, FRAMES[:, :, 3:8])


@given(st.data())
def test_windows_equal_slices_of_the_array(data: st.DataObject) -> None:
    stack = FrameStack.from_array(FRAMES, Acquisition((632.8, 532.0)))
    rows, columns = data.draw(st.slices(11)), data.draw(st.slices(13))
    rows, columns = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
    np.testing.assert_array_equal(stack.window(rows, columns), FRAMES[:, :, rows, columns])


def test_from_array_takes_an_acquisition() -> None:
    stack = FrameStack.from_array(FRAMES, Acquisition((632.8, 532.0), (tuple(STEPS),) * 2, "trusted"))
    assert stack.shape == SHAPE
    assert stack.source == "array"
    assert np.shares_memory(stack.rows(0, 3), FRAMES)
    with pytest.raises(InputError, match="distinct positions"):
        FrameStack.from_array(FRAMES, Acquisition((632.8, 532.0), ((0, 180, 0, 180),) * 2, "trusted"))
    with pytest.raises(InputError, match=r"holds int64.*astype"):
        FrameStack.from_array(FRAMES.astype(np.int64), Acquisition((632.8, 532.0)))


def test_acquisition_file_beside_and_in_the_folder(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "x.toml").write_text(f"wavelengths = {TWO}\nphase_steps = {STEPS}\n")
    with open_stack(tmp_path / "x.npy") as stack:
        assert stack.acquisition.steps == "trusted"
    (tmp_path / "x.npy").rename(tmp_path / "frames.npy")
    (tmp_path / "x.toml").rename(tmp_path / "acquisition.toml")
    with open_stack(tmp_path) as stack:
        assert stack.shape == SHAPE
        assert stack.acquisition.wavelengths_nm == (632.8, 532.0)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (FRAMES, {"wavelengths": ["632.8 nm"]}, "holds 2 x 4 frames but its acquisition names 1 wavelength: name 2"),
        (
            FRAMES,
            {"wavelengths": TWO, "phase_steps": [0, 120, 240]},
            "holds 8 frames but 2 wavelengths x 3 phase steps need 6",
        ),
        (FRAMES[0], {"wavelengths": ["1 um", "2 um", "3 um"]}, "holds 4 frames, which cannot be shared evenly by 3"),
        (FRAMES[0, :2], {"wavelengths": TWO}, "holds 2 frame.* for 2 wavelengths: 2 or more"),
        (
            FRAMES[0, :2],
            {"wavelengths": ["1 um"], "phase_steps": [0, 90]},
            r"are 2: .* \(or two with --steps nominal\)",
        ),
        (FRAMES[0].transpose(1, 2, 0), {"wavelengths": ["1 um"], "phase_steps": STEPS}, "put the frames first"),
        (FRAMES, {"wavelengths": TWO, "bit_depth": 17}, "bit_depth 17 .* uint16: give 1 to 16"),
        (FRAMES, {}, r"no wavelength in the flags and no x\.toml"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    tmp_path: Path, frames: np.ndarray, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_stack(save(tmp_path, np.ascontiguousarray(frames)), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "bits", "saturation"),
    [
        ("uint8", None, 255.0),
        ("uint16", None, 65535.0),
        ("uint16", 10, 1023.0),
        ("float32", None, np.inf),
        ("float32", 8, 255.0),
    ],
)
def test_saturation(dtype: str, bits: int | None, saturation: float) -> None:
    stack = FrameStack.from_array(np.zeros((3, 4, 5), dtype), Acquisition((632.8,), bit_depth=bits))
    assert stack.saturation_dn == saturation


def test_fingerprint_follows_frames_and_acquisition(tmp_path: Path) -> None:
    def fingerprint(**options: object) -> str:
        with open_stack(tmp_path / "x.npy", wavelengths=TWO, **options) as stack:  # type: ignore[arg-type]
            return stack.fingerprint()

    save(tmp_path)
    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(phase_steps=STEPS) != first
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    assert fingerprint() == first, "times are no part of the frames"
    other = FRAMES.copy()
    other[1, 2, 5, 7] += 1
    save(tmp_path, other)
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    assert fingerprint() != first


def test_files_are_closed_when_the_metadata_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["frames"] = FRAMES
    with pytest.raises(InputError):
        open_stack(f"{tmp_path / 'x.h5'}::/frames", wavelengths=["no unit"])
    with h5py.File(tmp_path / "x.h5", "a") as file:  # fails while a reader holds the file
        file["more"] = 1


class TestDescription:
    def test_is_json_and_complete(self, tmp_path: Path) -> None:
        with open_stack(save(tmp_path), wavelengths=TWO, phase_steps=STEPS, pixel_size="5 um") as stack:
            description = describe_stack(stack)
        assert json.loads(json.dumps(description, allow_nan=False)) == description
        assert description == {
            "source": str(tmp_path / "x.npy"),
            "form": "NumPy file",
            "shape": [2, 4, 11, 13],
            "dtype": "uint16",
            "first_frame": "x.npy[0,0]",
            "last_frame": "x.npy[1,3]",
            "wavelengths_nm": [632.8, 532.0],
            "phase_steps_deg": [[0.0, 90.0, 180.0, 270.0]] * 2,
            "steps": "trusted",
            "pixel_um": 5.0,
            "bit_depth": 16,
            "saturation_dn": 65535.0,
            "input_bytes": 2 * 2 * 4 * 11 * 13,
            "orientation": None,
            "prepared": [],
            "frame_cautions": [],
        }

    def test_for_people(self) -> None:
        known = FrameStack.from_array(FRAMES, Acquisition((632.8, 532.0), (tuple(STEPS),) * 2, "nominal", 5.0, 12))
        text = format_description(describe_stack(known))
        for part in (
            "2 wavelengths x 4 steps, 11 rows x 13 columns",
            "632.8 nm, 532 nm",
            "0, 90, 180, 270 deg (nominal)",
        ):
            assert part in text
        assert "5 um" in text
        unknown = FrameStack.from_array(FRAMES.astype(np.float32), Acquisition((632.8, 532.0)))
        text = format_description(describe_stack(unknown))
        assert "unknown" in text
        assert "nothing saturates" in text


@measured
class TestMeasured:
    """The stacks of the measured data, opened as their users would."""

    def test_telescope_mirror(self) -> None:
        steps = [-60.0 * k for k in range(12)]
        with open_stack(DATA / "mlpeck_zernike", wavelengths=["654 nm"], phase_steps=steps, steps="nominal") as stack:
            assert stack.shape == (1, 12, 600, 800)
            assert stack.labels == tuple(f"Image{k}.jpg" for k in range(5, 17))
            means = stack.rows(0, 600).mean(axis=(2, 3))
        assert np.ptp(means) < 20  # one interferometer, one exposure

    def test_fringe_projection_is_demodulated_by_its_steps(self) -> None:
        with open_stack(DATA / "nzhagen_fpp", wavelengths="1 mm", phase_steps="0,90,180,270") as stack:
            frames = stack.rows(0, stack.shape[2])[0].astype(float)
        modulation = np.hypot(frames[0] - frames[2], frames[3] - frames[1]) / 2
        # the reference run gives B = 35.8 DN; which pixels count as lit moves the median by a few DN
        assert abs(np.median(modulation[modulation > 10]) - 35.8) < 6

    def test_two_stacks_in_one_folder_are_refused_and_apart_they_open(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"1080 x 1080 .* 1024 x 1024 .* a folder of its own"):
            open_stack(DATA / "pyDHM", wavelengths=["532 nm"])
        for pattern, shape in (("usaf*", (1, 3, 1080, 1080)), ("I?_*", (1, 4, 1024, 1024))):
            folder = tmp_path / pattern[0]
            folder.mkdir()
            for path in (DATA / "pyDHM").glob(pattern):
                shutil.copyfile(path, folder / path.name)
            with open_stack(folder, wavelengths=["532 nm"], pixel_size="2.4 um") as stack:
                assert stack.shape == shape
                assert stack.acquisition.pixel_um == pytest.approx(2.4)
                assert np.ptp(stack.rows(500, 510)) > 50

    def test_frames_last_are_recognised(self) -> None:
        source = f"{DATA / 'opencsp_sofast' / 'measurement_facet.h5'}::/MeasurementSofastFringe/fringe_images"
        with pytest.raises(
            InputError, match=r"holds 154 frames but 8 wavelengths x 4 phase steps need 32.*frames first"
        ):
            open_stack(source, wavelengths=[f"{k} um" for k in range(1, 9)], phase_steps=STEPS)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", ">i2"])
def test_light_below_zero_is_read_as_it_is(tmp_path: Path, dtype: str) -> None:
    y, x = np.indices((40, 50))
    scale = 60 if dtype == "int8" else 900
    frames = np.array([np.rint(0.6 * scale + scale * np.cos(0.3 * x + 0.1 * y + np.radians(step))) for step in STEPS])
    assert frames.min() < 0
    with open_stack(save(tmp_path, frames.astype(dtype)), wavelengths=["633 nm"], phase_steps=STEPS) as stack:
        np.testing.assert_array_equal(stack.rows(0, 40)[0], frames)
        assert stack.saturation_dn == np.inf
        take_subsample(stack, None)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_unsigned_light_stored_as_signed_is_refused_with_the_remedy(tmp_path: Path, dtype: str) -> None:
    y, x = np.indices((40, 50))
    top = np.iinfo(f"u{dtype}").max
    light = [np.rint(0.5 * top * (1 + 0.9 * np.cos(0.3 * x + 0.1 * y + np.radians(step)))) for step in STEPS]
    wrapped = np.array(light).astype(f"u{dtype}").view(dtype)
    with (
        open_stack(save(tmp_path, wrapped), wavelengths=["633 nm"], phase_steps=STEPS) as stack,
        pytest.raises(InputError, match=rf"unsigned light stored as {dtype}.*view\('u{dtype}'\)"),
    ):
        take_subsample(stack, None)
    with open_stack(save(tmp_path, wrapped.view(f"u{dtype}")), wavelengths=["633 nm"], phase_steps=STEPS) as stack:
        take_subsample(stack, None)


@pytest.mark.parametrize("four_axes", [True, False])
def test_frames_step_by_step_are_read_by_wavelength(tmp_path: Path, four_axes: bool) -> None:
    stored = np.ascontiguousarray(FRAMES.swapaxes(0, 1))
    path = save(tmp_path, stored if four_axes else stored.reshape(8, 11, 13))
    with open_stack(path, wavelengths=TWO, phase_steps=STEPS, bit_depth=12, order="step-major") as stack:
        assert stack.shape == SHAPE
        np.testing.assert_array_equal(stack.rows(2, 7), FRAMES[:, :, 2:7])
        out = np.zeros((2, 4, 5, 13), np.uint16)
        np.testing.assert_array_equal(stack.rows(2, 7, out), FRAMES[:, :, 2:7])
        assert stack.rows(2, 7).flags.c_contiguous
        flat = stack.in_order("wavelength-major") if not four_axes else None
        number = [label[len(path.name) :] for label in stack.labels]
        assert number[:2] == (["[0,0]", "[1,0]"] if four_axes else ["[0]", "[2]"])
        if flat is not None:
            np.testing.assert_array_equal(flat.rows(0, 11).reshape(8, 11, 13), stored.reshape(8, 11, 13))
            assert hash_frames(flat) == hash_frames(stack)  # the same file


def test_orders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 x 4 frames but step-major order and 2 wavelengths need steps x 2"):
        open_stack(save(tmp_path), wavelengths=TWO, phase_steps=STEPS, order="step-major")
    with pytest.raises(InputError, match=r"order of the frames 'random'"):
        open_stack(save(tmp_path), wavelengths=TWO, phase_steps=STEPS, order="random")


def test_pistons_are_read_and_checked(tmp_path: Path) -> None:
    with open_stack(save(tmp_path), wavelengths=TWO, phase_steps=STEPS, pistons="0, -12.5") as stack:
        assert stack.acquisition.pistons_deg == (0.0, -12.5)
    with pytest.raises(InputError, match="1 pistons for 2 wavelengths"):
        open_stack(save(tmp_path), wavelengths=TWO, phase_steps=STEPS, pistons=[3])
    with pytest.raises(InputError, match="piston 'x' is not a number of degrees"):
        open_stack(save(tmp_path), wavelengths=TWO, phase_steps=STEPS, pistons="0,x")

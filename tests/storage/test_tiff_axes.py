"""The axes that TIFF files name decide the order of frames; names that decide nothing are refused with the letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cpikan.errors import InputError
from cpikan.storage.readers.open import open_frames

WAVES, STEPS = 3, 5
FRAMES = np.random.default_rng(11).integers(0, 4000, (WAVES, STEPS, 14, 18), dtype=np.uint16)
KINDS: dict[str, dict[str, Any]] = {
    "imagej": {"imagej": True},
    "ome": {"ome": True, "photometric": "minisblack"},
    "named by tifffile": {"photometric": "minisblack"},
}


def stored(folder: Path, axes: str, frames: np.ndarray, **options: Any) -> Path:
    path = folder / "x.tif"
    tifffile.imwrite(path, np.ascontiguousarray(frames), metadata={"axes": axes}, **options)
    return path


def ordered(axes: str) -> np.ndarray:
    """The frames as a file of these axes holds them: C is the wavelength."""
    return FRAMES if axes[0] == "C" else FRAMES.swapaxes(0, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", ["CZYX", "ZCYX", "CTYX", "TCYX"])
def test_channels_are_wavelengths_whatever_the_order_of_the_axes(tmp_path: Path, kind: str, axes: str) -> None:
    if kind == "imagej" and axes.startswith("C"):
        axes = axes[1] + "C" + axes[2:]  # ImageJ knows one order, TZCYX
    path = stored(tmp_path, axes, ordered(axes), **KINDS[kind])
    reader = open_frames(path).reader
    assert reader.groups == WAVES
    np.testing.assert_array_equal(reader.read_rows(3, 9), FRAMES[:, :, 3:9].reshape(-1, 6, 18))
    reader.close()


def test_compressed_pages_are_ordered_too(tmp_path: Path) -> None:
    path = stored(tmp_path, "TCYX", ordered("TCYX"), compression="zlib", photometric="minisblack", ome=True)
    reader = open_frames(path).reader
    np.testing.assert_array_equal(reader.read_rows(0, 14), FRAMES.reshape(-1, 14, 18))
    reader.close()


def test_labels_name_the_page_in_the_file(tmp_path: Path) -> None:
    reader = open_frames(stored(tmp_path, "ZCYX", ordered("ZCYX"), imagej=True)).reader
    assert reader.labels[:3] == ("x.tif[0]", "x.tif[3]", "x.tif[6]")
    reader.close()


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX", "IYX"])
def test_one_axis_of_frames_is_taken_as_it_lies(tmp_path: Path, axes: str) -> None:
    frames = FRAMES.reshape(-1, 14, 18)
    reader = open_frames(stored(tmp_path, axes, frames, photometric="minisblack")).reader
    assert reader.groups is None
    np.testing.assert_array_equal(reader.read_rows(0, 14), frames)
    reader.close()


def test_axes_without_a_meaning_stay_wavelength_major(tmp_path: Path) -> None:
    reader = open_frames(stored(tmp_path, "QQYX", FRAMES, photometric="minisblack")).reader
    assert reader.groups == WAVES
    np.testing.assert_array_equal(reader.read_rows(0, 14), FRAMES.reshape(-1, 14, 18))
    reader.close()


@pytest.mark.parametrize(("axes", "shape"), [("TZYX", (3, 5)), ("TZCYX", (2, 5, 3)), ("TCZYX", (2, 3, 5))])
def test_axes_that_do_not_say_which_is_the_wavelength_are_refused_by_name(
    tmp_path: Path, axes: str, shape: tuple[int, ...]
) -> None:
    frames = np.zeros((*shape, 14, 18), np.uint8)
    kind = KINDS["imagej"] if axes in ("TZYX", "TZCYX") else KINDS["ome"]
    with pytest.raises(InputError, match=rf"axes {axes}.*called C"):
        open_frames(stored(tmp_path, axes, frames, **kind))


def test_an_ome_file_that_names_frames_of_others_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, "CTYX", FRAMES, ome=True, photometric="minisblack")
    text = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, text.replace(f'SizeT="{STEPS}"', f'SizeT="{STEPS + 1}"').encode())
    with pytest.raises(InputError, match="not in it"):
        open_frames(path)

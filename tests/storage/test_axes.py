"""Arrays whose axes have names are read wavelength by wavelength, whichever of the two comes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from cpikan.errors import InputError
from cpikan.storage.readers.blocks import is_step_major
from cpikan.storage.readers.open import open_frames

FRAMES = np.random.default_rng(2).integers(0, 250, (2, 5, 19, 13), dtype=np.uint8)  # wavelengths, steps
TURNED = np.ascontiguousarray(FRAMES.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("names", "turned"),
    [
        (("c", "t", "y", "x"), False),
        (("z", "c", "y", "x"), True),
        (("Time", "Wavelength", "y", "x"), True),
        (("phase_steps", "channels", "y", "x"), True),
        (("steps", None, "y", "x"), True),
        ((None, "wavelengths", "y", "x"), True),
        (("wavelengths", "other", "y", "x"), False),
        (("a", "b", "y", "x"), False),
        (("", "", "", ""), False),
        (None, False),
    ],
)
def test_names_tell_the_order(names: Sequence[str | None] | None, turned: bool) -> None:
    assert is_step_major("f", names, 4) is turned


def test_three_axes_have_one_order_and_two_of_a_kind_none() -> None:
    assert not is_step_major("f", ("t", "y", "x"), 3)
    with pytest.raises(InputError, match="both of which are steps"):
        is_step_major("f", ("z", "t", "y", "x"), 4)


def _check(source: str) -> None:
    reader = open_frames(source).reader
    assert reader.groups == 2
    np.testing.assert_array_equal(reader.read_rows(3, 17), FRAMES[:, :, 3:17].reshape(10, 14, 13))
    reader.close()


@pytest.mark.parametrize("chunks", [(1, 1, 8, 13), (5, 2, 19, 13)])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_zarr_dimension_names(
    tmp_path: Path, chunks: tuple[int, ...], one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "f.zarr", data=TURNED, chunks=chunks, dimension_names=("t", "c", "y", "x"))
    if one_by_one:  # as for arrays too large for one block
        monkeypatch.setattr("cpikan.storage.readers.blocks._MAX_BLOCK_BYTES", 1)
    _check(str(tmp_path / "f.zarr"))


@pytest.mark.parametrize("version", [2, 3])
def test_axes_of_an_ome_image(tmp_path: Path, version: int) -> None:
    axes = [{"name": name} for name in "zcyx"]
    multiscale = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    group = zarr.create_group(
        tmp_path / "i.zarr", zarr_format=version, attributes={"ome": multiscale} if version == 3 else multiscale
    )
    group.create_array("0", data=TURNED, chunks=(1, 1, 19, 13))
    _check(str(tmp_path / "i.zarr" / "0"))


@pytest.mark.parametrize("chunks", [None, (2, 1, 8, 8)])
def test_labels_of_hdf5_dimensions(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("d", data=TURNED, chunks=chunks)
        dataset.dims[0].label, dataset.dims[1].label = "phase", "wavelength"
    _check(f"{tmp_path / 'f.h5'}::/d")

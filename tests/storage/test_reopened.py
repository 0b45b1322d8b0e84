"""Copies of a reader open its files by name, with descriptors of their own; links into other files are followed."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from cpikan.errors import InputError
from cpikan.storage.readers.array import ArrayReader
from cpikan.storage.readers.open import open_frames

FRAMES = np.random.default_rng(5).integers(0, 250, (2, 3, 21, 17), dtype=np.uint8)
FLAT = FRAMES.reshape(-1, 21, 17)


def _npy(folder: Path) -> str:
    np.save(folder / "f.npy", FRAMES)
    return str(folder / "f.npy")


def _tiff(folder: Path) -> str:
    tifffile.imwrite(folder / "f.tif", FRAMES, photometric="minisblack", compression="zlib")
    return str(folder / "f.tif")


def _images(folder: Path) -> str:
    (folder / "f").mkdir()
    for index, frame in enumerate(FLAT):
        Image.fromarray(frame).save(folder / "f" / f"{index}.png")
    return str(folder / "f")


def _zarr(folder: Path) -> str:
    zarr.create_array(folder / "f.zarr", data=FRAMES, chunks=(1, 1, 8, 17))
    return str(folder / "f.zarr")


def _hdf5(folder: Path) -> str:
    with h5py.File(folder / "f.h5", "w") as file:
        file.create_dataset("d", data=FRAMES, chunks=(1, 1, 8, 8), compression="gzip")
    return f"{folder / 'f.h5'}::/d"


FORMS = (_npy, _tiff, _images, _zarr, _hdf5)


@pytest.mark.parametrize("write", FORMS)
def test_a_copy_reads_the_same_frames_and_may_be_closed(tmp_path: Path, write: Callable[[Path], str]) -> None:
    reader = open_frames(write(tmp_path)).reader
    for again in (pickle.loads(pickle.dumps(reader)), copy.copy(reader), copy.deepcopy(reader)):
        other = os.open(__file__, os.O_RDONLY)  # takes the number of a descriptor that a copy might have closed
        np.testing.assert_array_equal(again.read_rows(4, 15, np.zeros((6, 11, 17), np.uint8)), FLAT[:, 4:15])
        again.close()
        os.close(other)
        np.testing.assert_array_equal(reader.read_rows(4, 15, np.zeros((6, 11, 17), np.uint8)), FLAT[:, 4:15])
    reader.close()


def test_a_pickle_holds_no_pixels_and_knows_a_changed_file(tmp_path: Path) -> None:
    path = _npy(tmp_path)
    with closing(open_frames(path).reader) as reader:
        kept = pickle.dumps(reader)
    assert len(kept) < 2000
    np.save(path, FRAMES[:, ::-1, :, :][..., :16].copy())
    with pytest.raises(InputError, match="has changed"):
        pickle.loads(kept)


def test_frames_in_memory_travel_with_the_pickle() -> None:
    again = pickle.loads(pickle.dumps(ArrayReader(FRAMES)))
    np.testing.assert_array_equal(again.read_rows(0, 21), FLAT)


@pytest.mark.parametrize("chunks", [None, (1, 1, 8, 8)])
@pytest.mark.parametrize("userblock", [0, 1024])
def test_external_links_lead_to_the_frames_of_the_other_file(
    tmp_path: Path, chunks: tuple[int, ...] | None, userblock: int
) -> None:
    with h5py.File(tmp_path / "data.h5", "w", userblock_size=userblock) as file:
        file.create_dataset("inner/d", data=FRAMES, chunks=chunks)
    with h5py.File(tmp_path / "index.h5", "w") as file:
        file["ballast"] = np.full(50_000, 99, np.uint8)
        file["frames"] = h5py.ExternalLink("data.h5", "/inner/d")
        file["group"] = h5py.ExternalLink("data.h5", "/inner")
    for name in ("/frames", "/group/d"):
        reader = open_frames(f"{tmp_path / 'index.h5'}::{name}").reader
        np.testing.assert_array_equal(reader.read_rows(0, 21), FLAT)
        before = reader.fingerprint()
        reader.close()
        os.utime(tmp_path / "data.h5", (1.6e9, 1.6e9))
        reader = open_frames(f"{tmp_path / 'index.h5'}::{name}").reader
        assert reader.fingerprint() != before, "the file that holds the frames is the one that counts"
        reader.close()
        os.utime(tmp_path / "data.h5")


def test_an_external_link_to_nothing_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "index.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("gone.h5", "/d")
    with pytest.raises(InputError):
        open_frames(f"{tmp_path / 'index.h5'}::/frames")

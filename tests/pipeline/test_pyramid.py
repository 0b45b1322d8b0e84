from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cpikan.errors import InputError
from cpikan.pipeline.maps import pyramid
from cpikan.pipeline.maps.pyramid import build_pyramid, halve, level_shapes, pyramid_rows
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.layout import QUANTITIES, open_writer, required_bytes

SHAPE = (2049, 1111)
_SMALL = array_shapes(min_dims=2, max_dims=2, max_side=9)


def cells(fine: np.ndarray) -> list[list[np.ndarray]]:
    """The two by two cells, cut short at odd rims."""
    height, width = fine.shape
    return [[fine[y : y + 2, x : x + 2] for x in range(0, width, 2)] for y in range(0, height, 2)]


def slow_mean(fine: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing but NaN is NaN
        return np.array([[np.nanmean(cell.astype(np.float64)) for cell in row] for row in cells(fine)])


@given(arrays(np.float32, _SMALL, elements=st.floats(-1000, 1000, width=32) | st.just(np.nan)))
def test_means_equal_nanmean_of_each_cell(fine: np.ndarray) -> None:
    coarse = halve(fine, "height_nm")
    assert coarse.dtype == np.float32
    # at most three additions and one division, each rounded by half an ulp of at most 4000: 4 * 4000 * 2**-24
    np.testing.assert_allclose(coarse, slow_mean(fine), rtol=0, atol=4 * 4000 * 2**-24)


def test_an_even_cell_is_exact() -> None:
    fine = np.array([[1, 2, np.nan, np.nan], [4, 5, np.nan, 8]], np.float32)
    np.testing.assert_array_equal(halve(fine, "sigma_nm"), [[3, 8]])
    np.testing.assert_array_equal(halve(np.full((3, 3), np.nan, np.float32), "modulation"), np.full((2, 2), np.nan))


@given(arrays(np.uint8, _SMALL))
def test_flags_are_joined(fine: np.ndarray) -> None:
    expected = [[np.bitwise_or.reduce(cell, axis=None) for cell in row] for row in cells(fine)]
    np.testing.assert_array_equal(halve(fine, "flags"), np.array(expected, np.uint8))


@given(arrays(np.int32, _SMALL, elements=st.integers(0, 3)))
def test_components_are_never_made_up(fine: np.ndarray) -> None:
    expected = [[next((number for number in cell.flat if number), 0) for cell in row] for row in cells(fine)]
    coarse = halve(fine, "component")
    assert coarse.dtype == np.int32
    np.testing.assert_array_equal(coarse, expected)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_levels_end_at_512(height: int, width: int) -> None:
    shapes = level_shapes((height, width))
    assert shapes[0] == (height, width)
    assert max(shapes[-1]) <= 512
    assert all(max(shape) > 512 for shape in shapes[:-1])


def data(shape: tuple[int, int] = SHAPE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: shape[0], : shape[1]]
    outside = np.hypot(y / shape[0] - 0.5, x / shape[1] - 0.5) > 0.5
    return {
        "height_nm": np.where(outside, np.nan, rng.normal(size=shape)).astype(np.float32),
        "flags": outside.astype(np.uint8) + 2 * (rng.random(shape) < 0.01).astype(np.uint8),
        "component": np.where(outside, 0, 1 + x // 300).astype(np.int32),
    }


def write(path: Path) -> MapWriter:
    made = data()
    types = {name: QUANTITIES[name].dtype for name in made}
    writer = open_writer(path, SHAPE, types, attributes={"pixel_um": 2.0}, resume=False)
    writer.write_rows(0, made)
    return writer


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pyramid") / "out.zarr"
    writer = write(path)
    build_pyramid(writer)
    writer.finish()
    return path


def test_every_level_in_bands_equals_the_level_made_at_once(built: Path) -> None:
    root = zarr.open_group(built, mode="r")
    for name, level in data().items():
        assert sorted(root[name].array_keys()) == ["0", "1", "2", "3"]
        for number, shape in enumerate(level_shapes(SHAPE)):
            found = root[f"{name}/{number}"]
            assert found.shape == shape == level.shape
            np.testing.assert_array_equal(found[:], level)
            level = halve(level, name)


def test_metadata_place_coarse_pixels_on_the_finest(built: Path) -> None:
    group = json.loads((built / "height_nm" / "zarr.json").read_text())
    datasets = group["attributes"]["ome"]["multiscales"][0]["datasets"]
    assert [entry["path"] for entry in datasets] == ["0", "1", "2", "3"]
    for number, entry in enumerate(datasets):
        found = {item["type"]: item[item["type"]] for item in entry["coordinateTransformations"]}
        # pixel 0 of level n covers pixels 0 .. 2**n - 1 of 2 um: its centre is their mean
        centre_um = np.mean(np.arange(2**number)) * 2.0
        assert found["scale"] == [2.0 * 2**number] * 2
        assert found.get("translation", [0.0, 0.0]) == [centre_um] * 2


def test_a_pass_that_was_killed_is_made_again(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.zarr"
    writer = write(path)
    calls: list[str] = []

    def killed(fine: np.ndarray, quantity: str) -> np.ndarray:
        calls.append(quantity)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return halve(fine, quantity)

    with monkeypatch.context() as patch:
        patch.setattr(pyramid, "halve", killed)
        with pytest.raises(KeyboardInterrupt):
            build_pyramid(writer)
    stray = tmp_path / "out.zarr.partial" / "flags" / "1.abc.partial"
    stray.write_bytes(b"half")
    types = {name: QUANTITIES[name].dtype for name in data()}
    writer = open_writer(path, SHAPE, types, attributes={"pixel_um": 2.0}, resume=True)
    build_pyramid(writer)
    writer.finish()
    assert content(path) == content(built)
    build_pyramid(str(path))  # on a finished output, and again: nothing changes
    assert content(path) == content(built)


def test_a_missing_chunk_is_not_averaged(tmp_path: Path) -> None:
    writer = write(tmp_path / "out.zarr")
    (tmp_path / "out.zarr.partial" / "flags" / "0" / "c" / "2" / "0").unlink()
    with pytest.raises(InputError, match="missing"):
        build_pyramid(writer)


def test_formats_without_pyramids_are_left_alone(tmp_path: Path) -> None:
    writer = write(tmp_path / "out.npy")
    before = content(tmp_path)
    build_pyramid(writer)
    assert content(tmp_path) == before
    writer.close()
    with pytest.raises(InputError, match="holds no maps"):
        build_pyramid(tmp_path)


def test_progress_counts_every_row(tmp_path: Path) -> None:
    class Count:
        rows = 0

        def advance(self, rows: int) -> None:
            self.rows += rows

    writer = write(tmp_path / "out.zarr")
    count = Count()
    build_pyramid(writer, progress=count)
    assert count.rows == pyramid_rows(SHAPE, 3) == 3 * (1025 + 513 + 257)


def test_required_bytes_covers_the_pyramid(built: Path) -> None:
    assert sum(map(len, content(built).values())) <= required_bytes(built, SHAPE, list(data()))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_halving_in_column_blocks_is_halving(seed: int) -> None:
    fine = np.random.default_rng(seed).normal(size=(5, 40)).astype(np.float32)
    blocks = [halve(fine[:, left : left + 8], "height_nm") for left in range(0, 40, 8)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), halve(fine, "height_nm"))

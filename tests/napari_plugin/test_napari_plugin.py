"""The plug-in for napari, without napari: its manifest names what is there, layers are the map, what is saved opens again."""

from __future__ import annotations

import importlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import cpikan
from cpikan.errors import InputError
from cpikan.napari_plugin.layers import get_reader, read_layers, write_layer
from cpikan.storage.formats import suffixes_of

MANIFEST: dict[str, Any] = yaml.safe_load(files("cpikan.napari_plugin").joinpath("napari.yaml").read_text("utf-8"))
ROOT = Path(__file__).parents[2]


def test_the_manifest_names_functions_and_all_formats() -> None:
    given = MANIFEST["contributions"]
    commands = {one["id"]: one["python_name"] for one in given["commands"]}
    for name in commands.values():
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    (reader,), (writer,) = given["readers"], given["writers"]
    assert {reader["command"], writer["command"]} == set(commands)
    assert set(reader["filename_patterns"]) == {f"*{suffix}" for suffix in suffixes_of("heights")}
    assert set(writer["filename_extensions"]) == set(suffixes_of("writer", "exporter"))
    assert 'scaled-cpikan = "cpikan.napari_plugin:napari.yaml"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert MANIFEST["name"] == "scaled-cpikan"  # napari looks a plug-in up by the name of its package


def test_layers_are_the_quantities_of_the_map(tmp_path: Path) -> None:
    heights = np.random.default_rng(0).normal(0, 5, (40, 60)).astype(np.float32)
    heights[:5] = np.nan
    path = str(tmp_path / "map.npy")
    assert write_layer(path, heights, {"scale": (2.0, 3.0)}) == [path]
    np.save(tmp_path / "map.flags.npy", np.isnan(heights).astype(np.uint8))
    reader = get_reader(path)
    assert reader is not None
    layers = {about["name"]: (data, about, kind) for data, about, kind in reader(path)}
    data, about, kind = layers["map height_nm"]
    assert kind == "image"
    assert np.array_equal(np.asarray(data), heights, equal_nan=True)
    assert about["scale"] == (2.0, 3.0)
    low, high = about["contrast_limits"]
    assert np.nanmin(heights) <= low < high <= np.nanmax(heights)
    if "map flags" in layers:
        assert layers["map flags"][2] == "labels"


@pytest.mark.parametrize("suffix", [".tif", ".zarr", ".sur"])
def test_what_is_saved_opens_again(suffix: str, tmp_path: Path) -> None:
    heights = np.linspace(0, 1000, 20 * 30, dtype=np.float32).reshape(20, 30)
    path = str(tmp_path / f"map{suffix}")
    for _ in range(2):  # napari has asked before it replaces a file
        write_layer(path, heights, {"scale": (5.0, 5.0)})
    # 16 bit over 1000 nm in the instrument's format
    assert np.allclose(np.asarray(read_layers(path)[0][0]), heights, atol=1000 / 65535 if suffix == ".sur" else 0)
    assert cpikan.open_height_map(path).pixel_um == pytest.approx(5.0, rel=2**-23)  # float32 in some formats


def test_what_is_no_map_is_left_to_others(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.zeros((3, 4, 5), np.float32))
    for path in (str(tmp_path / "stack.npy"), str(tmp_path / "none.tif"), ["a.npy", "b.npy"]):
        assert get_reader(path) is None
    with pytest.raises(InputError, match="two dimensions"):
        write_layer(str(tmp_path / "a.npy"), np.zeros((2, 2, 2)), {})

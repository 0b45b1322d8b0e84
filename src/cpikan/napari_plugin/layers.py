"""Layers of napari from height maps, and height maps from its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.notebook import overview
from cpikan.units import pixel_pair

Layer = tuple[Any, dict[str, Any], str]
_COLOURS = {"height_nm": "viridis", "sigma_nm": "magma", "modulation": "gray"}


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Layer]] | None:
    """Give the function that reads ``path`` as a height map; None for what is none, and for several files at once."""
    if isinstance(path, list):
        return None
    try:
        open_height_map(path)
    except InputError:
        return None
    return read_layers


def read_layers(path: str | list[str]) -> list[Layer]:
    """Open a map as layers: an image of each quantity, labels of the flags; scaled to um where the size of pixels is known.

    Heights are read once for their limits; napari reads what it shows. Raises InputError for what is no map.
    """
    opened = open_height_map(path if isinstance(path, str) else path[0])
    pair = pixel_pair(opened.pixel_um)
    common: dict[str, Any] = {"metadata": {"cpikan": opened.document}}
    if pair is not None:
        common |= {"scale": pair, "units": ("um", "um")}
    layers: list[Layer] = []
    for name, data in opened.arrays.items():
        about = {**common, "name": f"{opened.path.stem} {name}"}
        if name == "flags":
            layers.append((np.asarray(data), {**about, "visible": False}, "labels"))
            continue
        about |= {"colormap": _COLOURS.get(name, "viridis"), "visible": name == "height_nm"}
        if name == "height_nm":
            about["contrast_limits"] = overview(opened).limits_nm
        layers.append((data, about, "image"))
    return layers


def write_layer(path: str, data: Any, about: Mapping[str, Any]) -> list[str]:
    """Save an image layer as a height map in nm, in the format of the suffix, an existing file replaced.

    The scale of a layer that has one other than 1 is the size of its pixels in um. Raises InputError for data that are no map.
    """
    heights = np.asarray(data, np.float32)
    if heights.ndim != 2:
        raise InputError(f"a layer of shape {heights.shape} is no height map: give one of two dimensions")
    scale = [float(value) for value in about.get("scale", (1.0, 1.0))]
    document = {} if scale == [1.0, 1.0] else {"acquisition": {"pixel_um": scale}}
    HeightMap(Path("layer of napari"), {"height_nm": heights}, document).save(path, overwrite=True)
    return [path]

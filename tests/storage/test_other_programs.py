"""What other programs look for in our files: the no-data value of GDAL, and the collection of OME readers."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr

from cpikan.errors import InputError
from cpikan.pipeline.maps.pyramid import build_pyramid
from cpikan.storage.maps import open_map
from cpikan.storage.writers.layout import QUANTITIES, open_writer

SHAPE = (530, 70)
NAMES = ("height_nm", "sigma_nm", "flags", "component")
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def written(path: Path, names: tuple[str, ...] = NAMES, **attributes: object) -> Path:
    kinds = {name: QUANTITIES[name].dtype for name in names}
    writer = open_writer(path, SHAPE, kinds, attributes=attributes, resume=False)
    for start in (0, 512):
        rows = min(512, SHAPE[0] - start)
        writer.write_rows(start, {name: np.full((rows, SHAPE[1]), 3, kind) for name, kind in kinds.items()})
    build_pyramid(writer)
    writer.finish()
    writer.close()
    return path


def test_nan_is_no_data_in_pages_of_floats_alone(tmp_path: Path) -> None:
    with tifffile.TiffFile(written(tmp_path / "o.tif", NAMES[:3])) as file:
        tags = [page.tags.get(42113) for page in file.pages]
        assert [tag and tag.value for tag in tags] == ["nan", "nan", None]
        assert np.isnan(file.pages[0].nodata)
        codes = [list(page.tags.keys()) for page in file.pages]
        assert all(code == sorted(code) for code in codes), "TIFF wants its tags in ascending order"


def test_the_whole_output_is_a_collection_of_images(tmp_path: Path) -> None:
    path = written(tmp_path / "o.zarr", pixel_um=2.5)
    root = json.loads((path / "zarr.json").read_text())["attributes"]
    assert root["ome"] == {"version": "0.5", "bioformats2raw.layout": 3}
    assert root["pixel_um"] == 2.5
    series = zarr.open_group(path / "OME", mode="r").attrs["ome"]["series"]
    assert series == list(NAMES)
    images = ElementTree.parse(path / "OME" / "METADATA.ome.xml").getroot().findall(f"{OME}Image")
    assert [image.get("Name") for image in images] == series
    assert [image.get("ID") for image in images] == [f"Image:{name}" for name in series], (
        "napari takes the path from it"
    )
    for image, name in zip(images, series, strict=True):
        pixels = image.find(f"{OME}Pixels")
        assert pixels is not None
        assert (int(pixels.get("SizeY", 0)), int(pixels.get("SizeX", 0))) == SHAPE
        assert pixels.get("Type") == {"f": "float", "u": "uint8", "i": "int32"}[QUANTITIES[name].dtype.kind]
        assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeY")) == ("2.5", "2.5")
        multiscale = zarr.open_group(path / name, mode="r").attrs["ome"]["multiscales"][0]
        assert (path / name / multiscale["datasets"][-1]["path"]).is_dir(), "every image of the list is there"


def test_an_unknown_pixel_size_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "o.zarr", NAMES[:1])
    assert "PhysicalSize" not in (path / "OME" / "METADATA.ome.xml").read_text()


def test_the_heights_inside_an_output_open_it(tmp_path: Path) -> None:
    path = written(tmp_path / "o.zarr")
    (tmp_path / "o.json").write_text('{"acquisition": {"wavelengths_nm": [532.0]}}')
    for inner in (path / "height_nm", f"{path}/height_nm/", path / "height_nm" / "0"):
        stored = open_map(inner)
        assert stored.path == path
        assert set(stored.arrays) == set(NAMES)
        assert stored.document["acquisition"]["wavelengths_nm"] == [532.0]
    with pytest.raises(InputError):
        open_map(path / "sigma_nm")

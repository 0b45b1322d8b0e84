"""An OME-Zarr 0.5 group per quantity, in shards of 512 image rows (fewer where rows are long)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import BaseZarrError

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import Check, full_disk_named, plain, read_json, sync_path, sync_tree, write_bytes
from cpikan.storage.writers.layout import QUANTITIES, LayoutWriter, MapLayout, Quantity, pixel_um

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_FLOATS = {"float32": "float", "float64": "double"}  # integers have the names of NumPy


def ome_xml(layout: MapLayout) -> str:
    """Write the metadata of all quantities, in the order of the layout; no program, version or time.

    The path of an image follows ``Image:`` in its ID, where napari looks for it.
    """
    root = ElementTree.Element("OME", {"xmlns": _SCHEMA})
    pixel = pixel_um(layout.attributes)
    sizes = {} if pixel is None else {"PhysicalSizeX": repr(pixel[1]), "PhysicalSizeY": repr(pixel[0])}
    for name in layout.quantities:
        image = ElementTree.SubElement(root, "Image", {"ID": f"Image:{name}", "Name": name})
        described = {
            "ID": f"Pixels:{name}",
            "DimensionOrder": "XYZCT",
            "Type": _FLOATS.get(QUANTITIES[name].dtype.name, QUANTITIES[name].dtype.name),
            "SizeX": str(layout.shape[1]),
            "SizeY": str(layout.shape[0]),
            **dict.fromkeys(("SizeZ", "SizeC", "SizeT"), "1"),
            **sizes,  # micrometres are the default unit
        }
        pixels = ElementTree.SubElement(image, "Pixels", described)
        ElementTree.SubElement(pixels, "Channel", {"ID": f"Channel:{name}:0", "SamplesPerPixel": "1"})
        ElementTree.SubElement(pixels, "MetadataOnly")
    ElementTree.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}\n{ElementTree.tostring(root, encoding='unicode')}\n"


CHUNK = 512
COLLECTION = "OME"  # the group that lists the quantities
_SHARD_PIXELS = 512 * 10240  # a shard of more is halved, so that memory hardly grows with the width of an image


def shard_rows(shape: tuple[int, ...]) -> int:
    """Choose the image rows of a shard: 512, halved for wide images (never below 64); all rows of low ones."""
    rows = CHUNK
    while rows > 64 and rows * shape[-1] > _SHARD_PIXELS:
        rows //= 2
    return min(rows, shape[-2])


BAD_ZARR = (BaseZarrError, ValueError, KeyError, TypeError, AttributeError, OSError)  # what broken metadata may raise


class ZarrWriter(LayoutWriter):
    """MapWriter of ``NAME.zarr``: level 0 of every quantity; the pyramid pass adds the others before ``finish``.

    ``pyramid_root`` is the folder of that pass. Shards span the image, so a band is a few files. Unfinished shards have
    names of their own (zarr renames them into place); what a kill leaves of them is swept on resume and in ``finish``.
    """

    def __init__(self, layout: MapLayout, *, resume: bool) -> None:
        super().__init__(layout)
        self.row_align = shard_rows(layout.shape)
        self.pyramid_root = layout.partial
        self._unsynced: list[Path] = []
        self._unchecked: list[Path] = []
        self._named = False
        with full_disk_named(layout.path, layout.raw_bytes):
            self._arrays = self._reopen() if resume else self._create()

    def _put(self, name: str, start: int, rows: np.ndarray) -> None:
        level = self._arrays[name]
        level[start : start + len(rows)] = rows
        shards = range(start // self.row_align, -(-(start + len(rows)) // self.row_align))
        written = [chunk_path(self.pyramid_root / name / "0", level, (shard, 0)) for shard in shards]
        self._unsynced += written
        self._unchecked += written

    def take_checks(self) -> list[Check]:
        taken, self._unchecked = self._unchecked, []
        return [Check.of_file(shard) for shard in taken]

    def _flush(self) -> None:
        if self._named:
            for shard in self._unsynced:
                sync_path(shard)
            for folder in {parent for shard in self._unsynced for parent in shard.parents[:2]}:
                sync_path(folder)
        else:
            sync_tree(self.pyramid_root)
            sync_path(self.pyramid_root.parent)
            self._named = True
        self._unsynced.clear()

    def finish(self) -> None:
        self._refuse_existing()
        sweep(self.pyramid_root)
        with full_disk_named(self._layout.path, self._layout.raw_bytes):
            sync_tree(self.pyramid_root)
        os.rename(self.pyramid_root, self._layout.path)
        sync_path(self._layout.path.parent)

    def close(self) -> None:
        """Close nothing: no file is held open between calls."""

    def _refuse_existing(self) -> None:
        if self._layout.path.exists():  # unlike a file, a folder cannot be replaced in one step
            raise InputError(f"{self._layout.path} exists already: remove it, or run again with --overwrite")

    def _create(self, root: Path | None = None) -> dict[str, zarr.Array[Any]]:
        root = root or self.pyramid_root
        if root.exists():
            shutil.rmtree(root)
        attributes = plain(self._layout.attributes)
        zarr.create_group(root, attributes=attributes | {"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
        _describe_collection(root, self._layout)
        arrays = {}
        for name in self._layout.quantities:
            quantity = QUANTITIES[name]
            describe_levels(root, quantity, [self._layout.shape])
            arrays[name] = create_level(root, quantity, 0, self._layout.shape)
        return arrays

    def _reopen(self) -> dict[str, zarr.Array[Any]]:
        root = self.pyramid_root
        if not root.is_dir():
            raise ResumeError(f"{root} is missing: nothing to resume; run again without --resume")
        with tempfile.TemporaryDirectory() as folder:
            pattern = Path(folder, "pattern")
            self._create(pattern)
            self._check_belongs(pattern)
            sweep(root)
            self._restore_heads(pattern)
        try:
            return {name: open_level(root, name, 0, mode="r+") for name in self._layout.quantities}
        except BAD_ZARR as failure:
            raise ResumeError(f"{root} cannot be resumed ({failure}): run again without --resume") from failure

    def _check_belongs(self, pattern: Path) -> None:
        """Refuse what is not the output in ``pattern``, an empty one; metadata that are no JSON tell nothing."""
        root = self.pyramid_root
        found = {level.parent.name for level in root.glob("*/0") if level.is_dir()}
        heads = [Path(name, "0", "zarr.json") for name in self._layout.quantities]
        other = any(read_json(root / head) not in ({}, read_json(pattern / head)) for head in heads)
        if found != set(self._layout.quantities) or other:
            raise ResumeError(f"{root} holds another shape, type or set of maps: run again without --resume")

    def _restore_heads(self, pattern: Path) -> None:
        """Bring the metadata back to those of an output without a pyramid, whatever a power cut has left of them."""
        root = self.pyramid_root
        (root / COLLECTION).mkdir(exist_ok=True)
        for head in (*pattern.rglob("zarr.json"), *pattern.rglob("*.xml")):
            write_bytes(root / head.relative_to(pattern), head.read_bytes())
        for name in self._layout.quantities:
            for level in (root / name).glob("[1-9]*"):
                shutil.rmtree(level)


def create_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype, fill: float) -> zarr.Array[Any]:
    """Make (anew) an empty array (H, W) or (C, H, W) in shards of image rows.

    Blosc lz4 after a bit shuffle: on float heights with noise it is about three times as fast as zstd and within a few
    percent of its size. The checksum tells a flipped bit from a height.
    """
    rows, columns, leading = shard_rows(shape), min(CHUNK, shape[-1]), (1,) * (len(shape) - 2)
    blosc = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=dtype.itemsize)
    return zarr.create_array(
        path,
        shape=shape,
        dtype=dtype,
        chunks=(*leading, rows, columns),
        shards=(*leading, rows, -(-shape[-1] // columns) * columns),
        filters=None,
        compressors=(blosc, Crc32cCodec()),
        fill_value=fill,
        dimension_names=("c", "y", "x")[-len(shape) :],
        overwrite=True,
        config={"write_empty_chunks": True},
    )


def open_rows(path: Path, mode: Any = "r") -> zarr.Array[Any]:
    """Open an array; rows written to it are stored even where they equal the fill value."""
    return zarr.open_array(path, mode=mode).with_config({"write_empty_chunks": True})


def create_level(root: Path, quantity: Quantity, level: int, shape: tuple[int, int]) -> zarr.Array[Any]:
    """Make (anew) the empty array of one pyramid level."""
    return create_rows(root / quantity.name / str(level), shape, quantity.dtype, quantity.fill)


def open_level(root: Path, name: str, level: int, *, mode: Any = "r") -> zarr.Array[Any]:
    """Open the array of one pyramid level, as `open_rows` does."""
    return open_rows(root / name / str(level), mode)


def describe_levels(root: Path, quantity: Quantity, shapes: Sequence[tuple[int, int]]) -> None:
    """Write the OME-Zarr 0.5 metadata of a quantity's group for pyramid levels of the given shapes, finest first.

    A pixel of level n is the mean of 2**n by 2**n pixels, so its centre lies (2**n - 1) / 2 pixels inwards.
    """
    parent = zarr.open_group(root, mode="r+")
    pixel = pixel_um(dict(parent.attrs))
    axis: dict[str, Any] = {"type": "space"} | ({"unit": "micrometer"} if pixel else {})
    sizes = pixel or (1.0, 1.0)
    datasets = []
    for level in range(len(shapes)):
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [size * 2**level for size in sizes]}]
        if level:
            offsets = [size * (2**level - 1) / 2 for size in sizes]
            transforms.append({"type": "translation", "translation": offsets})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": "y"} | axis, {"name": "x"} | axis]
    multiscale = {"name": quantity.name, "axes": axes, "datasets": datasets}
    attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}, "unit": quantity.unit}
    parent.require_group(quantity.name).update_attributes(attributes)


def _describe_collection(root: Path, layout: MapLayout) -> None:
    """Write the group that lists the quantities (bioformats2raw layout 3), for readers that are given the whole output.

    Some readers take the list from its attributes, others only from the OME-XML, which has an image for each.
    """
    series = list(layout.quantities)
    zarr.create_group(root / COLLECTION, attributes={"ome": {"version": "0.5", "series": series}})
    (root / COLLECTION / "METADATA.ome.xml").write_text(ome_xml(layout), encoding="utf-8")


def chunk_path(folder: Path, array: zarr.Array[Any], index: tuple[int, ...]) -> Path:
    """Return the file of the outermost chunk (the shard) ``index`` of an array that lives in ``folder``."""
    return folder / array.metadata.encode_chunk_key(index)


def sweep(root: Path) -> None:
    """Remove the unfinished files a kill may have left anywhere in a zarr folder."""
    for left in root.rglob("*.partial"):
        left.unlink()

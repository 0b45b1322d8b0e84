"""A tiled BigTIFF with one page per quantity."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cpikan.errors import ResumeError
from cpikan.storage.atomic import Check, full_disk_named, sync_path
from cpikan.storage.documents import parse_json
from cpikan.storage.writers.bigtiff import TILE, TiffPage, head_of
from cpikan.storage.writers.layout import QUANTITIES, LayoutWriter, MapLayout
from cpikan.storage.writers.preallocated import PreallocatedFile

# what broken headers may raise; TiffFileError and JSONDecodeError are ValueErrors
BAD_TIFF = (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError, struct.error)


class TiffWriter(LayoutWriter):
    """MapWriter of one uncompressed BigTIFF in tiles of 512, pages in the caller's order.

    The pages are laid out when the file is made, so bands fill all of them at once. Tiles that reach over the rim are
    padded with the fill value.
    """

    row_align = TILE

    def __init__(self, layout: MapLayout, *, resume: bool) -> None:
        super().__init__(layout)
        head, pages = head_of(layout)
        self._pages = {page.quantity: page for page in pages}
        with full_disk_named(layout.path, layout.raw_bytes):
            if resume:
                _check_resumable(layout.partial, pages)
                self._file = PreallocatedFile.reopen(layout.partial, pages[-1].end)
            else:
                self._file = PreallocatedFile.create(layout.partial, pages[-1].end, head)

    def _put(self, name: str, start: int, rows: np.ndarray) -> None:
        page = self._pages[name]
        for top in range(0, len(rows), TILE):
            tiles = _cut_tiles(rows[top : top + TILE], page.tiles[1], QUANTITIES[name].fill)
            self._file.write(page.tile_offset((start + top) // TILE, 0), tiles)

    def _flush(self) -> None:
        self._file.sync()

    def take_checks(self) -> list[Check]:
        return self._file.take_checks()

    def finish(self) -> None:
        self.sync()
        self.close()
        os.replace(self._layout.partial, self._layout.path)
        sync_path(self._layout.path.parent)

    def close(self) -> None:
        self._file.close()


def _check_resumable(partial: Path, wanted: list[TiffPage]) -> None:
    try:
        found = read_pages(partial)
    except FileNotFoundError as failure:
        raise ResumeError(f"{partial} is missing: nothing to resume; run again without --resume") from failure
    except BAD_TIFF as failure:
        raise ResumeError(f"{partial} cannot be resumed ({failure}): run again without --resume") from failure
    if found != wanted:
        raise ResumeError(f"{partial} holds another shape, type or set of maps: run again without --resume")


def read_pages(path: Path) -> list[TiffPage]:
    """Read the pages of a file this module wrote from its headers; raises one of BAD_TIFF for any other file."""
    pages = []
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            if not isinstance(page, tifffile.TiffPage):
                raise ValueError("a page is not readable")
            described = _description(page)
            offsets, dtype = page.dataoffsets, page.dtype
            if page.tile != (TILE, TILE) or page.compression != 1 or dtype is None or len(page.shape) != 2:
                raise ValueError(f"a page is not an uncompressed map in tiles of {TILE}")
            height, width = page.shape
            name = str(described.get("quantity"))
            made = TiffPage(name, (height, width), dtype.newbyteorder(file.byteorder), offsets[0])
            if tuple(offsets) != tuple(made.tile_offsets) or set(page.databytecounts) != {made.tile_bytes}:
                raise ValueError("the tiles of a page do not follow one another")
            pages.append(made)
    if "height_nm" not in {page.quantity for page in pages}:
        raise ValueError("no page is called height_nm")
    return pages


def _description(page: tifffile.TiffPage) -> dict[str, Any]:
    described = parse_json(page.description or "null")
    if not isinstance(described, dict):
        raise ValueError("a page has no description of its own")
    return described


def _cut_tiles(rows: np.ndarray, columns: int, fill: float) -> np.ndarray:
    """Rearrange at most 512 image rows into whole tiles, shape (columns, 512, 512)."""
    count, width = rows.shape
    tiles = np.empty((columns, TILE, TILE), rows.dtype)
    tiles[:, count:] = fill
    for column in range(columns):
        piece = rows[:, column * TILE : (column + 1) * TILE]
        tiles[column, :count, : piece.shape[1]] = piece
    tiles[-1, :, width - (columns - 1) * TILE :] = fill
    return tiles

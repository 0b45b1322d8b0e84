"""Fringe orders of one wavelength from a wrapped phase of any size, tile by tile."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from cpikan.errors import InputError, check_name
from cpikan.masked import without_mask
from cpikan.partition.partition import Partition
from cpikan.psi.unwrap.audit import apply_names, audit_map
from cpikan.psi.unwrap.integer_least_squares import OffsetSolution, solve_offsets
from cpikan.psi.unwrap.merger import TileMerger, unwrap_box, unwrap_window
from cpikan.psi.unwrap.nodes import NodeCounts, name_components
from cpikan.psi.unwrap.overlap import LARGEST_REGION
from cpikan.psi.unwrap.report import OrderMaps, UnwrapReport, UnwrapResult
from cpikan.streaming.events import Progress
from cpikan.streaming.executor import ThreadExecutor

_ROUNDS = 8  # of joining tiles that disagree; a region may disagree with its new neighbours
_INT16_PIXELS = 60_000  # below this height + width a smooth surface cannot leave int16: half an order per pixel


def unwrap(
    phase_rad: np.ndarray,
    quality: np.ndarray | None = None,
    *,
    tile: int = 512,
    overlap: int = 64,
    threads: int = 2,
    out: Mapping[str, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> UnwrapResult:
    """Find the integer orders k that make ``phase_rad + 2 pi k`` continuous within each connected component.

    ``phase_rad`` (H, W) float, wrapped, NaN = no pixel; ``quality`` (H, W), higher is better, such as 1 / sigma^2 or
    the modulation (only its ratios matter; it decides only where the phase is inconsistent). What NumPy masked arrays
    mask, in either, is no pixel. Both may be memory-mapped;
    so may arrays to fill, by name in ``out`` (``orders`` int16 or int32, ``component`` int32, ``ambiguous`` bool): then
    memory is bounded by the tiles in flight and the strips of one row of tiles. Tiles of ``tile`` pixels share ``overlap``
    pixels; every pixel takes its order from the tile whose core owns it. Tiles that disagree on more than 0.5 % of what
    they share, so that one of them cut a fault where it does not end, are unwrapped again as one region of up to four
    million pixels.

    A component is a set of pixels connected through valid pixels (4-connectivity), numbered by size from 1. Its piston
    is not known: its (lower) median order is 0. ``ambiguous`` flags pixels on which two tiles disagree and pixels more
    than pi away from a neighbour. Raises InputError for shapes, types, tiles and orders that do not fit. The integer
    offsets between tiles follow the overlaps, as in the tile mode of SNAPHU (Chen, Zebker, IEEE TGRS 40, 1709 (2002)).
    """
    phase_rad, quality = _without_masks(phase_rad, quality)
    _check_input(phase_rad, quality, tile, overlap, threads)
    maps = _order_maps(phase_rad.shape, out or {})
    maps.ambiguous[...] = False
    merger, boxes = TileMerger(maps), tuple(Partition.tiles(phase_rad.shape, tile, overlap, ramp=0))
    with ThreadExecutor(threads, "cpikan-unwrap") as executor:
        for box, done in zip(boxes, executor.map(partial(unwrap_box, phase_rad, quality), boxes), strict=True):
            merger.add(box, done)
            if progress is not None and box.core[1][1] == phase_rad.shape[1]:
                progress.advance(box.core[0][1] - box.core[0][0])

    nodes, solution, regions = _solve(merger, phase_rad, quality, overlap)
    merger.flag(solution.offsets)
    names = name_components(nodes, solution.group, solution.offsets)
    limits = np.iinfo(maps.orders.dtype)
    if names.lowest < limits.min or names.highest > limits.max:
        raise InputError(
            f"orders reach from {names.lowest} to {names.highest} and do not fit {maps.orders.dtype}: "
            "give orders of int32"
        )
    apply_names(maps, names, threads)
    audit = audit_map(phase_rad, maps, threads)
    overlaps, seams = merger.votes()
    report = UnwrapReport(
        residues=merger.residues,
        components=len(names.sizes),
        component_sizes=names.sizes,
        tiles=len(boxes),
        tiles_by_method=dict(merger.methods),
        regions=regions,
        overlap_pixels=overlaps.total,
        overlap_disagreement=overlaps.wrong(solution.offsets) / max(overlaps.total, 1),
        seam_violations=seams.wrong(solution.offsets),
        jumps=audit.jumps,
        ambiguous_pixels=audit.ambiguous_pixels,
        congruence_rad=audit.congruence_rad,
        offsets_exact=solution.exact,
    )
    return UnwrapResult(*maps, report)


def _without_masks(phase_rad: np.ndarray, quality: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Turn masked arrays into plain ones; a pixel that either masks has a phase of NaN."""
    phase = without_mask(phase_rad)
    if quality is None or not np.ma.is_masked(quality) or quality.shape != phase.shape:
        return phase, without_mask(quality)
    return np.where(np.ma.getmaskarray(quality), phase.dtype.type(np.nan), phase), np.ma.filled(quality, 0)


def _solve(
    merger: TileMerger, phase_rad: np.ndarray, quality: np.ndarray | None, overlap: int
) -> tuple[NodeCounts, OffsetSolution, int]:
    """Find the offsets of all nodes; regions that disagree beyond single pixels are first unwrapped again as one."""
    count = 0
    for again in range(_ROUNDS + 1):
        nodes = merger.nodes()
        solution = solve_offsets(nodes.size.size, merger.edges(), nodes.size)
        contested = merger.contested(solution.offsets, LARGEST_REGION) if again < _ROUNDS else []
        if not contested:
            break
        for rectangle in contested:
            window = rectangle.grown(overlap, phase_rad.shape)
            merger.replace(rectangle, window, *unwrap_window(phase_rad, quality, window.window))
            count += 1
    return nodes, solution, count


def _check_input(phase_rad: np.ndarray, quality: np.ndarray | None, tile: int, overlap: int, threads: int) -> None:
    if phase_rad.ndim != 2 or phase_rad.size == 0:
        raise InputError(f"phase has shape {phase_rad.shape}: give one map (H, W) with at least one pixel")
    if phase_rad.dtype not in (np.float32, np.float64):
        raise InputError(f"phase is {phase_rad.dtype}: give float32 or float64 in rad, NaN where there is no pixel")
    if quality is not None and quality.shape != phase_rad.shape:
        raise InputError(f"quality has shape {quality.shape}, the phase {phase_rad.shape}: give one value per pixel")
    if tile < 4:
        raise InputError(f"tile {tile} is too small: give at least 4 pixels, such as 512")
    if not 2 <= overlap <= tile // 2:
        raise InputError(
            f"overlap {overlap} does not fit tile {tile}: allowed are 2 to {tile // 2} pixels (half a tile)"
        )
    if threads < 1:
        raise InputError(f"threads {threads}: give at least 1")


def _order_maps(shape: tuple[int, ...], given: Mapping[str, np.ndarray]) -> OrderMaps:
    """Make the arrays to fill that are not ``given``; raises InputError for names, types and shapes that do not fit."""
    smallest = np.int16 if sum(shape) < _INT16_PIXELS else np.int32
    allowed = {"orders": (np.int16, np.int32), "component": (np.int32,), "ambiguous": (np.bool_,)}
    for name, array in given.items():
        check_name("array to fill", name, allowed)
        if array.shape != shape or array.dtype not in allowed[name]:
            names = " or ".join(np.dtype(kind).name for kind in allowed[name])
            raise InputError(f"{name} is {array.dtype} {array.shape}: give {names} of shape {tuple(shape)}")
        if not array.flags.writeable:
            raise InputError(f"{name} is read-only: give a writable array")
    made = {"orders": smallest, "component": np.int32, "ambiguous": np.bool_}
    return OrderMaps(*(given[name] if name in given else np.empty(shape, kind) for name, kind in made.items()))

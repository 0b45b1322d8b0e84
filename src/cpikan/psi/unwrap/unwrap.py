"""Fringe orders of one wavelength from a wrapped phase of any size, tile by tile."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.unwrap.audit import apply_names, audit_map
from cpikan.psi.unwrap.components import NodeSurvey, name_components
from cpikan.psi.unwrap.grid import TileBox, tile_grid
from cpikan.psi.unwrap.integer_least_squares import OffsetSolution, solve_offsets
from cpikan.psi.unwrap.regions import LARGEST_REGION
from cpikan.psi.unwrap.report import UnwrapReport, UnwrapResult
from cpikan.psi.unwrap.survey import Survey, TileWork, finished_tiles, work_on_tile
from cpikan.psi.unwrap.tile import unwrap_tile
from cpikan.streaming.engine import ProgressSink

_ROUNDS = 8  # of joining tiles that disagree; a region may disagree with its new neighbours
_INT16_PIXELS = 60_000  # below this height + width a smooth surface cannot leave int16: half an order per pixel


def unwrap(
    phase_rad: np.ndarray,
    quality: np.ndarray | None = None,
    *,
    tile: int = 512,
    overlap: int = 64,
    threads: int = 2,
    orders_out: np.ndarray | None = None,
    component_out: np.ndarray | None = None,
    ambiguous_out: np.ndarray | None = None,
    progress: ProgressSink | None = None,
) -> UnwrapResult:
    """Find the integer orders k that make ``phase_rad + 2 pi k`` continuous within each connected component.

    ``phase_rad`` (H, W) float, wrapped, NaN = no pixel; ``quality`` (H, W), higher is better, such as 1 / sigma^2 or
    the modulation (only its ratios matter; it decides only where the phase is inconsistent). Both may be memory-mapped;
    so may the outputs (``orders_out`` int16 or int32, ``component_out`` int32, ``ambiguous_out`` bool), then memory is
    bounded by the tiles in flight and the strips of one row of tiles. Tiles of ``tile`` pixels share ``overlap``
    pixels; every pixel takes its order from the tile whose core owns it. Tiles that disagree on more than 0.5 % of what
    they share, so that one of them cut a fault where it does not end, are unwrapped again as one region of up to four
    million pixels.

    A component is a set of pixels connected through valid pixels (4-connectivity), numbered by size from 1. Its piston
    is not known: its (lower) median order is 0. ``ambiguous`` flags pixels on which two tiles disagree and pixels more
    than pi away from a neighbour. Raises InputError for shapes, types, tiles and orders that do not fit. The integer
    offsets between tiles follow the overlaps, as in the tile mode of SNAPHU (Chen, Zebker, IEEE TGRS 40, 1709 (2002)).
    """
    _check_input(phase_rad, quality, tile, overlap, threads)
    height, width = phase_rad.shape
    kind = np.int16 if height + width < _INT16_PIXELS else np.int32
    orders = _output(orders_out, "orders_out", phase_rad.shape, kind, (np.int16, np.int32))
    component = _output(component_out, "component_out", phase_rad.shape, np.int32, (np.int32,))
    ambiguous = _output(ambiguous_out, "ambiguous_out", phase_rad.shape, np.bool_, (np.bool_,))
    ambiguous[...] = False

    def work(box: TileBox) -> TileWork:
        return work_on_tile(phase_rad, quality, box, width)

    survey = Survey(orders, component)
    boxes = tile_grid((height, width), tile, overlap)
    for box, done in finished_tiles(boxes, work, threads):
        survey.add(box, done)
        if progress is not None and box.x.core_stop == width:
            progress.advance(box.y.core_stop - box.y.core_start)

    nodes, solution, regions = _solve(survey, phase_rad, quality, overlap)
    survey.flag(ambiguous, solution.offsets)
    names = name_components(nodes, solution.group, solution.offsets)
    limits = np.iinfo(orders.dtype)
    if names.lowest < limits.min or names.highest > limits.max:
        raise InputError(
            f"orders reach from {names.lowest} to {names.highest} and do not fit {orders.dtype}: "
            "give orders_out of int32"
        )
    apply_names(orders, component, names, threads)
    audit = audit_map(phase_rad, orders, component, ambiguous, threads)
    overlaps, seams = survey.votes()
    report = UnwrapReport(
        residues=survey.residues,
        components=len(names.sizes),
        component_sizes=names.sizes,
        tiles=len(boxes),
        tiles_by_method=dict(survey.methods),
        regions=regions,
        overlap_pixels=overlaps.total,
        overlap_disagreement=overlaps.wrong(solution.offsets) / max(overlaps.total, 1),
        seam_violations=seams.wrong(solution.offsets),
        jumps=audit.jumps,
        ambiguous_pixels=audit.ambiguous_pixels,
        congruence_rad=audit.congruence_rad,
        offsets_exact=solution.exact,
    )
    return UnwrapResult(orders, component, ambiguous, report)


def _solve(
    survey: Survey, phase_rad: np.ndarray, quality: np.ndarray | None, overlap: int
) -> tuple[NodeSurvey, OffsetSolution, int]:
    """Offsets of all nodes; tiles that disagree beyond single pixels are first unwrapped again as one region."""
    count = 0
    for again in range(_ROUNDS + 1):
        nodes = survey.nodes()
        solution = solve_offsets(nodes.size.size, survey.edges(), nodes.size)
        regions = survey.regions(solution.offsets, LARGEST_REGION) if again < _ROUNDS else []
        if not regions:
            break
        for region in regions:
            window = region.grown(overlap, phase_rad.shape)
            phase = np.array(phase_rad[window.window], np.float32)
            weight = None if quality is None else np.array(quality[window.window], np.float32)
            survey.replace(region, window, phase, unwrap_tile(phase, weight))
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


def _output(
    given: np.ndarray | None,
    name: str,
    shape: tuple[int, ...],
    kind: type[np.generic],
    allowed: tuple[type[np.generic], ...],
) -> np.ndarray:
    if given is None:
        return np.empty(shape, kind)
    if given.shape != shape or given.dtype not in allowed:
        names = " or ".join(np.dtype(a).name for a in allowed)
        raise InputError(f"{name} is {given.dtype} {given.shape}: give {names} of shape {tuple(shape)}")
    if not given.flags.writeable:
        raise InputError(f"{name} is read-only: give a writable array")
    return given

"""Refinement of one wavelength after unwrapping: components joined, orders corrected by a surface, or that surface itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from cpikan.pipeline.reconstruction.calibrate import SIGMA_CELL_PX
from cpikan.pipeline.reconstruction.stage import Arrays, Context, DerivedRows, Stage
from cpikan.pipeline.reconstruction.summary import told
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.frame_joining import join_over_frame
from cpikan.psi.refine.joining import Joined, join_components
from cpikan.psi.refine.patches import Candidates, choose, find_candidates
from cpikan.psi.refine.protocol import BLOCK_PX
from cpikan.psi.refine.unwrapped import UnwrappedBlocks, UnwrappedRows
from cpikan.streaming.threads import RowPool, single_threaded

if TYPE_CHECKING:
    from cpikan.psi.refine.slopes import LayeredSurface

_BAND_PIXELS = 1 << 21  # not the user's bands: sums and fits must not depend on them
_PART_ROWS = 2 * BLOCK_PX  # of a thread's work
_TURN = 2 * np.pi
_REFINED, _AMBIGUOUS = np.uint8(Flag.REFINED), np.uint8(Flag.AMBIGUOUS)


class JoinedSurface(NamedTuple):
    """Blocks of the unwrapped map, how its components are joined, and the surfaces of the joined ones."""

    blocks: UnwrappedBlocks
    joined: Joined
    surface: LayeredSurface


@dataclass(frozen=True)
class Refine(Stage):
    """Joins components across gaps that a smooth surface bridges; moves patches of pixels whole orders onto that surface,
    or with ``surface`` puts the surface in the place of the phases. With ``far`` gaps of any width are bridged, by the
    background of the whole frame, and what stays apart is ambiguous."""

    name: ClassVar[str] = "refine"
    clock: ClassVar[str] = "refine"
    once: ClassVar[bool] = True
    surface: bool = False
    far: bool = False

    @classmethod
    def by(cls, *, surface: bool, slopes: tuple[str, ...], far: bool) -> Refine:
        """Make the stage that also gives ``slopes`` of the surface."""
        writes = ("order", "component", "flags", *(("phase_rad", "sigma_rad") if surface else ()))
        return cls((*UnwrappedRows._fields, "flags"), writes, slopes, surface, far)

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Fit the surface and write the new versions of the arrays."""
        with context.progress(self.name) as progress:
            refinement = _Refinement(self, arrays, context, progress.advance)
            fitted = refinement.fit()
            changes = refinement.write(fitted)
        self._derive_slopes(arrays, fitted)
        blocks, joined, surface = fitted
        report = {
            "pairs": joined.pairs,
            "joined": joined.joined,
            "joined_over_frame": joined.over_frame,
            "refused": joined.refused,
            **changes,
            "blocks": int(blocks.label.size),
            "blocks_known": float((blocks.label > 0).mean()),
            **surface.summary(),
        }
        name = context.plan.method.refiner
        missing = Caution(
            "no-surface",
            f"no surface for --method {name}: no part of the map has 54 blocks of 8 x 8 pixels; the heights are those of "
            "unwrapping",
        )
        apart = Caution(
            "orders-apart",
            f"the map falls into {joined.components} parts whose whole orders against each other no smooth surface decides: "
            "all but the largest are flagged ambiguous (8)",
        )
        cautions = [
            *([] if report["surfaces"] else [missing]),
            *([apart] if self.far and joined.components > 1 else []),
        ]
        outcome = {"methods_used": [name]} if report["surfaces"] else {}
        return {"refining": report, "components": joined.components, **outcome, **told(tuple(cautions))}

    def resume(self, arrays: Arrays, context: Context) -> None:
        """Fit the surface again, to the same bits, where its slopes are stored: the surface itself is not."""
        if self.derives:
            self._derive_slopes(arrays, _Refinement(self, arrays, context).fit())

    def _derive_slopes(self, arrays: Arrays, fitted: JoinedSurface) -> None:
        if self.derives:
            arrays.derive(self.derives, _slopes(fitted, arrays.of(self, "component")))


def _slopes(fitted: JoinedSurface, component: np.ndarray) -> DerivedRows:
    """Make a reader of slopes and curvature by quantity, of the surface of each joined component."""
    from cpikan.psi.refine.slopes import LayeredSlopes

    with single_threaded():
        maps = LayeredSlopes(fitted.surface)
    return lambda start, stop: maps.rows(start, component[start:stop])


@dataclass(frozen=True)
class _Refinement:
    """The work of the stage on the arrays of one run; ``advance`` hears of rows that are done."""

    stage: Refine
    arrays: Arrays
    context: Context
    advance: Callable[[int], None] = lambda rows: None

    @property
    def pool(self) -> RowPool:
        return self.context.pool

    def fit(self) -> JoinedSurface:
        """Join the components of the unwrapped map and fit their surfaces; the same bits whenever it is asked."""
        from cpikan.psi.refine.slopes import fit_layers

        blocks = self.blocks()
        with single_threaded():
            joined = join_components(blocks, every=self.stage.far)
            joined = join_over_frame(blocks, joined) if self.stage.far else joined
            period_nm = _TURN * self.context.nm_per_rad
            return JoinedSurface(blocks, joined, fit_layers(blocks, joined, period_nm, measuring=self.stage.surface))

    def blocks(self) -> UnwrappedBlocks:
        """Reduce the unwrapped map to the heights of its blocks."""
        blocks = UnwrappedBlocks.empty(self.arrays.shape, self.context.facts["components"])
        for start, stop in self._bands():
            blocks.add(self._rows(start, stop), start, self.pool.share)
        return blocks

    def write(self, fitted: JoinedSurface) -> dict[str, int]:
        """Write the new arrays, band by band; counts patches and pixels moved onto the surface, and pixels of the surface."""
        out = {name: self.arrays.of(self.stage, name) for name in self.stage.writes}
        candidates: list[Candidates] = []
        drawn = 0
        for start, stop in self._bands():
            if self.stage.surface:
                work = self._render_surface(fitted, out)
                drawn += sum(self.pool.map(work, stop - start, _PART_ROWS, start))
            else:
                found = self.pool.map(self._correct_orders(fitted, out), stop - start, _PART_ROWS, start)
                candidates += [part for part in found if len(part.index)]
            self.advance(stop - start)
        index, move, patches = choose(candidates, self.arrays.shape[1])
        flat_order, flat_flags = out["order"].reshape(-1), out["flags"].reshape(-1)
        flat_order[index] += move
        flat_flags[index] |= _REFINED
        return {"patches_moved": patches, "pixels_moved": len(index), "pixels_drawn": drawn}

    def _join(
        self, rows: UnwrappedRows, start: int, joined: Joined, out: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write rows with their components joined; their new orders and components."""
        part = slice(start, start + len(rows.order))
        order = rows.order + joined.level[rows.component]
        group = joined.label[rows.component]
        flags = np.array(self.arrays.current("flags")[part])
        flags[joined.moved[rows.component]] |= _REFINED
        if self.stage.far:
            flags[group > 1] |= _AMBIGUOUS
        out["order"][part], out["component"][part], out["flags"][part] = order, group, flags
        return order, group

    def _correct_orders(self, fitted: JoinedSurface, out: dict[str, np.ndarray]) -> Callable[[int, int], Candidates]:
        """Write rows with joined orders, and find pixels that lie whole orders off the surface."""
        height, joined = self.arrays.shape[0], fitted.joined

        def work(start: int, stop: int) -> Candidates:
            first, last = max(0, start - 1), min(height, stop + 1)
            rows = self._rows(first, last)
            inner = slice(start - first, stop - first)
            group = self._join(rows.part(inner.start, inner.stop), start, joined, out)[1]
            guide = fitted.surface.rows(start, group).height_nm / np.float64(_TURN * self.context.nm_per_rad)
            turns = rows.phase_rad / _TURN + rows.order + joined.level[rows.component]
            return find_candidates(turns, joined.label[rows.component], guide, first, inner)

        return work

    def _render_surface(self, fitted: JoinedSurface, out: dict[str, np.ndarray]) -> Callable[[int, int], int]:
        """Write rows as the surface has them, phases as what is left of it over their orders; counts its pixels."""
        nm_per_rad = self.context.nm_per_rad

        def work(start: int, stop: int) -> int:
            rows = self._rows(start, stop)
            order, group = self._join(rows, start, fitted.joined, out)
            found = fitted.surface.rows(start, group)
            known = np.isfinite(found.sigma_nm)
            phase = found.height_nm / np.float64(nm_per_rad) - _TURN * order
            sigma = self._with_shared(found.sigma_nm, start) / np.float32(nm_per_rad)
            out["phase_rad"][start:stop] = np.where(known, phase, rows.phase_rad)
            out["sigma_rad"][start:stop] = np.where(known, sigma, rows.sigma_rad)
            return int(known.sum())

        return work

    def _with_shared(self, sigma_nm: np.ndarray, start: int) -> np.ndarray:
        """Add the uncertainty that the pixels of a cell share to the sigma in nm of rows from ``start`` on.

        The uncertainty is that of steps found with a surface; without a surface the sigma stays.
        """
        if self.context.calibrated.surface is None:
            return sigma_nm
        rows, columns = (np.arange(a, a + n) // SIGMA_CELL_PX for a, n in zip((start, 0), sigma_nm.shape, strict=True))
        return np.hypot(sigma_nm, self.context.calibrated.surface.sigma_nm[rows][:, columns])

    def _bands(self) -> list[tuple[int, int]]:
        height, width = self.arrays.shape
        step = max(1, _BAND_PIXELS // (width * _PART_ROWS)) * _PART_ROWS
        return [(a, min(a + step, height)) for a in range(0, height, step)]

    def _rows(self, start: int, stop: int) -> UnwrappedRows:
        return UnwrappedRows(**self.arrays.rows(UnwrappedRows._fields, start, stop))

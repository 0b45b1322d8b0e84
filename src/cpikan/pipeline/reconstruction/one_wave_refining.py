"""One wavelength after unwrapping: blocks surveyed, components joined, orders set right or the surface itself drawn."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from cpikan.pipeline.reconstruction.frame_fitting import SIGMA_CELL_PX
from cpikan.pipeline.reconstruction.slope_rows import SlopeSource
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.joining import Joined, join_components
from cpikan.psi.refine.patches import Candidates, choose, find_candidates
from cpikan.psi.refine.protocol import BLOCK_PX
from cpikan.psi.refine.unwrapped import UnwrappedBlocks, UnwrappedRows
from cpikan.storage.scratch import ScratchArrays
from cpikan.streaming.engine import ProgressSink

if TYPE_CHECKING:
    from cpikan.psi.refine.layers import LayeredSurface

_BAND_PIXELS = 1 << 21  # not the user's bands: sums and fits must not depend on them
_PART_ROWS = 2 * BLOCK_PX  # of a thread's work
_TURN = 2 * np.pi
_REFINED = np.uint8(Flag.REFINED)

# What refining gives, beside what it read: a run that is killed meanwhile begins this stage again with the same input.
REFINED_ORDERS = {"order": "order_refined", "component": "component_refined", "flags": "flags_refined"}
REFINED_FIELD = {"phase_rad": "phase_refined_rad", "sigma_rad": "sigma_refined_rad"}


def refined_names(method: str) -> dict[str, str]:
    """Scratch arrays that take the place of others when ``method`` refines one wavelength."""
    if method not in ("field", "hybrid"):
        return {}
    return {**REFINED_ORDERS, **(REFINED_FIELD if method == "field" else {})}


class OneWaveSurfaces(NamedTuple):
    """Blocks of the unwrapped map, how its components are joined, and their surfaces."""

    blocks: UnwrappedBlocks
    joined: Joined
    surface: LayeredSurface


@dataclass(frozen=True)
class OneWaveRefining:
    """Refining in scratch arrays; ``nm_per_rad`` turns phases into heights, ``method`` is ``field`` or ``hybrid``.

    ``shared_nm`` is an uncertainty of the field per cell of 32 pixels that its pixels share: of steps found with the surface.
    """

    scratch: ScratchArrays
    method: str
    nm_per_rad: float
    threads: int
    progress: ProgressSink | None = None
    shared_nm: np.ndarray | None = None

    def surfaces(self, components: int) -> OneWaveSurfaces:
        """What the unwrapped map of ``components`` says: the same whenever it is asked."""
        blocks = self.survey(components)
        with threadpool_limits(limits=1):  # small systems: threads that wait for each other take several times as long
            joined = join_components(blocks)
            return OneWaveSurfaces(blocks, joined, self.fit(blocks, joined))

    def run(self, found: OneWaveSurfaces) -> tuple[dict[str, Any], int]:
        """Fill the arrays of `refined_names`; the report and the number of components that are left."""
        blocks, joined, surface = found
        patches, moved, drawn = self._write(joined, surface)
        report = {
            "pairs": joined.pairs,
            "joined": joined.joined,
            "refused": joined.refused,
            "patches_moved": patches,
            "pixels_moved": moved,
            "pixels_drawn": drawn,
            "blocks": int(blocks.label.size),
            "blocks_known": float((blocks.label > 0).mean()),
            **surface.summary(),
        }
        return report, joined.components

    def slopes(self, found: OneWaveSurfaces) -> SlopeSource:
        """Rows of slopes and curvature by quantity, once the arrays are filled."""
        from cpikan.psi.refine.layers import LayeredSlopes

        with threadpool_limits(limits=1):
            maps = LayeredSlopes(found.surface)
        group = self.scratch.array(REFINED_ORDERS["component"])
        return lambda start, stop: maps.rows(start, group[start:stop])

    def survey(self, components: int) -> UnwrappedBlocks:
        """Heights of blocks of the unwrapped map."""
        blocks = UnwrappedBlocks.empty(self.scratch.shape, components)
        with ThreadPoolExecutor(self.threads) as pool:
            for start, stop in self._bands():
                blocks.add(self._rows(start, stop), start, pool.map)
        return blocks

    def fit(self, blocks: UnwrappedBlocks, joined: Joined) -> LayeredSurface:
        """The surfaces of the components, those that were joined as one."""
        from cpikan.psi.refine.layers import fit_layers

        return fit_layers(blocks, joined, _TURN * self.nm_per_rad, measuring=self.method == "field")

    def _write(self, joined: Joined, surface: LayeredSurface) -> tuple[int, int, int]:
        """The new arrays, band by band; patches and pixels moved onto the surface, pixels drawn by it."""
        out = {name: self.scratch.array(new, writable=True) for name, new in refined_names(self.method).items()}
        candidates: list[Candidates] = []
        drawn = 0
        write: Callable[[int, int], Any] = self._drawer(joined, surface, out)
        if self.method == "hybrid":
            write = self._judge(joined, surface, out)
        with ThreadPoolExecutor(self.threads) as pool:
            for start, stop in self._bands():
                firsts = range(start, stop, _PART_ROWS)
                found = list(pool.map(lambda a, stop=stop: write(a, min(a + _PART_ROWS, stop)), firsts))
                if self.method == "hybrid":
                    candidates += [part for part in found if len(part.index)]
                else:
                    drawn += sum(found)
                if self.progress is not None:
                    self.progress.advance(stop - start)
        index, move, patches = choose(candidates, self.scratch.shape[1])
        flat_order, flat_flags = out["order"].reshape(-1), out["flags"].reshape(-1)
        flat_order[index] += move
        flat_flags[index] |= _REFINED
        return patches, len(index), drawn

    def _joined_rows(
        self, rows: UnwrappedRows, start: int, joined: Joined, out: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write rows with their components joined; their new orders and components."""
        part = slice(start, start + len(rows.order))
        order = rows.order + joined.level[rows.component]
        group = joined.label[rows.component]
        flags = np.array(self.scratch.array("flags")[part])
        flags[joined.moved[rows.component]] |= _REFINED
        out["order"][part], out["component"][part], out["flags"][part] = order, group, flags
        return order, group

    def _judge(
        self, joined: Joined, surface: LayeredSurface, out: dict[str, np.ndarray]
    ) -> Callable[[int, int], Candidates]:
        """What writes rows with joined orders and finds pixels that lie orders off the surface."""
        height = self.scratch.shape[0]

        def work(start: int, stop: int) -> Candidates:
            first, last = max(0, start - 1), min(height, stop + 1)
            rows = self._rows(first, last)
            inner = slice(start - first, stop - first)
            group = self._joined_rows(rows.part(inner.start, inner.stop), start, joined, out)[1]
            guide = surface.rows(start, group).height_nm / np.float64(_TURN * self.nm_per_rad)
            turns = rows.phase_rad / _TURN + rows.order + joined.level[rows.component]
            return find_candidates(turns, joined.label[rows.component], guide, first, inner)

        return work

    def _drawer(self, joined: Joined, surface: LayeredSurface, out: dict[str, np.ndarray]) -> Callable[[int, int], int]:
        """What writes rows as the surface has them, phases as what is left of it over their orders; counts pixels."""

        def work(start: int, stop: int) -> int:
            rows = self._rows(start, stop)
            order, group = self._joined_rows(rows, start, joined, out)
            found = surface.rows(start, group)
            known = np.isfinite(found.sigma_nm)
            phase = found.height_nm / np.float64(self.nm_per_rad) - _TURN * order
            sigma = self._with_shared(found.sigma_nm, start) / np.float32(self.nm_per_rad)
            out["phase_rad"][start:stop] = np.where(known, phase, rows.phase_rad)
            out["sigma_rad"][start:stop] = np.where(known, sigma, rows.sigma_rad)
            return int(known.sum())

        return work

    def _with_shared(self, sigma_nm: np.ndarray, start: int) -> np.ndarray:
        """The sigma of rows from ``start`` on, with what all pixels of a cell share."""
        if self.shared_nm is None:
            return sigma_nm
        rows, columns = (np.arange(a, a + n) // SIGMA_CELL_PX for a, n in zip((start, 0), sigma_nm.shape, strict=True))
        return np.hypot(sigma_nm, self.shared_nm[rows][:, columns])

    def _bands(self) -> list[tuple[int, int]]:
        height, width = self.scratch.shape
        step = max(1, _BAND_PIXELS // (width * _PART_ROWS)) * _PART_ROWS
        return [(a, min(a + step, height)) for a in range(0, height, step)]

    def _rows(self, start: int, stop: int) -> UnwrappedRows:
        return UnwrappedRows(*(np.array(self.scratch.array(name)[start:stop]) for name in UnwrappedRows._fields))

"""What a user may ask of a reconstruction, checked where it is made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from cpikan.errors import InputError, check_name, unknown_name
from cpikan.option import FORM_HELP, option, options_of
from cpikan.psi.calibration.steps.model import EFFECTS
from cpikan.psi.model.schemes import CARRE, LEAST_SQUARES, SCHEMES
from cpikan.surface.apertures.aperture import Aperture


@dataclass(frozen=True)
class Method:
    """Who decides the orders of pixels, and what becomes of their heights.

    ``neighbours``: whether several wavelengths ask a pixel's neighbours; a surface fitted to the map guides the orders
    ``always``, and on cells in doubt where those are asked ``in doubt``. ``refiner``: the name that goes into
    ``methods_used``. ``surface``: heights are those of the surface itself. ``network``: a learned model corrects them.
    """

    neighbours: Literal["never", "in doubt", "always"]
    refiner: str = ""
    surface: bool = False
    network: bool = False

    @property
    def refines(self) -> bool:
        """Tell whether the orders of one wavelength are set right after unwrapping."""
        return self.neighbours == "always"


METHODS: Mapping[str, Method] = {
    "auto": Method("in doubt", "hybrid"),
    "pixel": Method("never"),
    "field": Method("always", "field", surface=True),
    "hybrid": Method("always", "hybrid"),
    "learned": Method("always", "hybrid", network=True),
}


UNWRAP_TILE, UNWRAP_OVERLAP = 512, 64
FIT = (*EFFECTS, "response")
COMBINATIONS = ("weighted", "finest")


@dataclass(frozen=True)
class ReconstructSettings:
    """Settings of `reconstruct`; all but those that affect speed only are part of the plan that a resume compares.

    One wavelength is unwrapped; ``hybrid`` and ``field`` then also join components across gaps that a smooth surface bridges;
    ``auto`` takes ``hybrid`` on the 64-pixel cells whose pixels are in doubt and ``pixel`` elsewhere. ``range_nm`` is the
    length of the height range, or exact (low, high). Of ``fit`` None means what the frames show.
    """

    method: str = option(
        "auto",
        "auto, pixel, hybrid (orders decided with the neighbours and a fitted surface; one wavelength: also across "
        "gaps), field (that surface itself) or learned (hybrid, then a network that takes noise off)",
    )
    model: str | None = option(
        None, "network of --method learned: a .safetensors file, or a shipped one (default: wafer)", metavar="M"
    )
    scheme: str = option(LEAST_SQUARES, "least-squares, carre, schwider-hariharan, de-groot-7, 13-frame")
    combine: str = option("weighted", "height from all wavelengths (weighted) or the finest alone")
    range_nm: float | tuple[float, float] | None = None
    mask: Aperture | None = None
    remove: tuple[str, ...] = option((), f"take off the map: {FORM_HELP}", metavar="TERMS")
    fit: tuple[str, ...] | None = option(
        None,
        "what differs between frames of nominal or unknown steps: tilt, defocus, gain, offset, harmonic2, harmonic3, "
        "response, or none (default: what the frames show)",
        metavar="EFFECTS",
    )
    inpaint: bool = option(
        False,
        "guess heights and their sigma in holes that do not reach the edge, and in gaps between parts that a surface joins "
        "(flag 32); holes between components stay open, and the JSON counts them",
    )
    tile: int | None = option(None, "tile of unwrapping (default: 512) or of the network (default: 512 x 1024), pixels")
    overlap: int | None = option(None, "overlap of tiles in pixels (default: 64, or what the network needs)")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    all_quantities: bool = option(False, "beside a .npy height also OUT.sigma.npy and OUT.flags.npy", flag="--all")
    threads: int | None = option(None, "worker threads (default: one per core)", speed_only=True)
    hash_frames: bool = option(
        False, "also frames_sha256, a hash of the frames that other programs can check", flag="--hash", speed_only=True
    )
    anonymous: bool = option(False, "leave user and host out of the record", speed_only=True)
    band_rows: int | None = option(None, "image rows per band (default: about 20 MiB of frames)", speed_only=True)

    def __post_init__(self) -> None:
        from cpikan.surface.forms.form import check_form_terms  # compiled: help must not wait for it

        check_name("method", self.method, METHODS)
        check_name("combination", self.combine, COMBINATIONS)
        check_name("scheme", self.scheme, (LEAST_SQUARES, CARRE, *SCHEMES))
        if self.fit is not None:
            object.__setattr__(self, "fit", _effects(self.fit))
        object.__setattr__(self, "remove", check_form_terms(self.remove))  # one order, whatever was written
        _check_range(self.range_nm)
        if self.tile is not None and self.tile < 4:
            raise InputError(f"tile {self.tile} is too small: give at least 4 pixels, such as 512")
        if self.model is not None and not METHODS[self.method].network:
            raise InputError(
                f"model {self.model} is not used by method {self.method}: give method learned, or no model"
            )
        tile = self.unwrap_tile
        if self.overlap is not None and not 0 <= self.overlap <= tile // 2:
            raise InputError(f"overlap {self.overlap} does not fit tile {tile}: give 0 to {tile // 2} (half a tile)")
        for name, value in (("threads", self.threads), ("band rows", self.band_rows)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value} is not positive: give at least 1")

    @property
    def worker_threads(self) -> int:
        return self.threads or max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)

    @property
    def unwrap_tile(self) -> int:
        """Give the tile of unwrapping in pixels: what was given, else 512."""
        return UNWRAP_TILE if self.tile is None else self.tile

    @property
    def unwrap_overlap(self) -> int:
        """Give the overlap of the tiles of unwrapping in pixels: what was given, else 64, or half of a small tile."""
        return min(UNWRAP_OVERLAP, self.unwrap_tile // 2) if self.overlap is None else self.overlap

    @classmethod
    def speed_only(cls, name: str) -> bool:
        """Tell whether a setting is declared to change the speed alone."""
        return any(name == known and entry.speed_only for known, (_, entry) in options_of(cls).items())

    def plan(self) -> dict[str, Any]:
        """Collect the settings that decide the result, JSON-able."""
        # not asdict: it would copy the mask's array
        values = {f.name: getattr(self, f.name) for f in fields(self) if not self.speed_only(f.name)}
        values["mask"] = None if self.mask is None else self.mask.identity
        return values


def _effects(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """Sort the effects into one order, whatever was written; ``none`` alone leaves the steps."""
    if isinstance(names, str):
        names = tuple(name.strip() for name in names.split(",") if name.strip())
    if tuple(names) == ("none",):
        return ()
    for name in names:
        if name not in FIT:
            raise unknown_name("effect", name, (*FIT, "none"))
    return tuple(effect for effect in FIT if effect in names)


def _check_range(range_nm: float | tuple[float, float] | None) -> None:
    if isinstance(range_nm, tuple):
        if len(range_nm) != 2 or not math.isfinite(range_nm[1] - range_nm[0]) or not range_nm[1] > range_nm[0]:
            raise InputError(f"height range {range_nm} nm is empty: give (low, high) with low < high")
    elif range_nm is not None and not 0 < range_nm < float("inf"):
        raise InputError(f"height range {range_nm} nm is not a positive length: give one, such as 27 um")

"""What a user may ask of the patches of a training run, checked where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cpikan.errors import InputError, check_name
from cpikan.images.features import FeatureSpec
from cpikan.images.patches.source import Wanted

ORDERS = ("random", "regular")


@dataclass(frozen=True)
class PatchSettings:
    """Square patches of ``size`` pixels.

    ``order``: "random" places, ``count`` of them an epoch (None: as many as cover the images once), or "regular": all of a
    grid that overlaps by at least ``overlap`` pixels, evenly spread, each once an epoch, ``shuffle`` d. ``pairs``: neighbours
    that overlap by ``overlap``, named in ``joints``; a pair counts as one. ``least_valid`` is the share of measured pixels a
    patch must have. ``rows`` is the part of the image rows that patches may show (0 to 1), so that another part can be held
    out. ``turned``: one of the eight flips and rotations, drawn anew each epoch; ``permuted``: frames change places with
    their steps; ``piston_units``: a random height, up to so many units, added to all of a patch (0: none); ``wrong_orders``:
    the largest share of the pixels whose guide is put off by one or two half waves, drawn anew for each patch (0: none).
    ``frames``, ``phases`` and ``modulation`` are read only when asked for. Everything drawn follows from ``seed``, the
    epoch and the number of the patch alone. Raises InputError for what cannot be.
    """

    size: int = 256
    order: str = "random"
    count: int | None = None
    overlap: int = 0
    pairs: bool = False
    shuffle: bool = True
    least_valid: float = 0.25
    rows: tuple[float, float] = (0.0, 1.0)
    turned: bool = True
    permuted: bool = True
    piston_units: float = 256.0
    wrong_orders: float = 0.0
    frames: bool = False
    phases: bool = False
    modulation: bool = False
    finest_period: float = FeatureSpec().periods[0]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(float(share) for share in self.rows))
        check_name("order of patches", self.order, ORDERS)
        if self.size < 8:
            raise InputError(f"patch size {self.size} is too small: give 8 pixels or more, such as 256")
        if not 0 <= self.overlap < self.size:
            raise InputError(f"overlap {self.overlap} does not fit patches of {self.size}: give 0 to {self.size - 1}")
        if self.pairs and not self.overlap:
            raise InputError(f"pairs of patches share no pixel at overlap 0: give 1 to {self.size - 1}")
        if self.count is not None and self.count < 1:
            raise InputError(f"{self.count} patches an epoch: give 1 or more, or leave it out")
        if self.count is not None and self.order == "regular":
            raise InputError("regular patches are all of the grid: leave count out, or ask for random ones")
        if self.overlap and self.order == "random" and not self.pairs:
            raise InputError("random patches lie where they fall: leave overlap out, or ask for pairs or regular ones")
        if not 0 <= self.least_valid <= 1:
            raise InputError(f"least_valid {self.least_valid} is a share of the pixels: give 0 to 1")
        if len(self.rows) != 2 or not 0 <= self.rows[0] < self.rows[1] <= 1:
            raise InputError(f"rows {list(self.rows)} are shares of the image: give two rising numbers from 0 to 1")
        if not (math.isfinite(self.piston_units) and self.piston_units >= 0):
            raise InputError(f"piston_units {self.piston_units}: give 0 or more")
        if not 0 <= self.wrong_orders <= 0.5:
            raise InputError(f"wrong_orders {self.wrong_orders} is a share of the pixels: give 0 to 0.5, such as 0.01")
        if not (math.isfinite(self.finest_period) and self.finest_period > 0):
            raise InputError(f"finest_period {self.finest_period}: give a positive number, such as 16")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed {self.seed} is out of range: give a whole number from 0 to 2**63 - 1")

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.frames, self.phases, self.modulation, self.finest_period)

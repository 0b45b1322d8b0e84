"""The methods of a reconstruction: one line each, the only place that knows what a method's name means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


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

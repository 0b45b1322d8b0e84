"""Whether a network was trained: what its hidden layers have learned beyond what its output layer alone can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.iterate import Iterate
from cpikan.learning.methods.gauss_newton import gauss_newton
from cpikan.learning.methods.last_layer import OutputProblem
from cpikan.learning.unknowns import network_of

OUTPUT_SHARE = 0.15  # of the parameters, at most
_WORSE = 100.0  # times the held-out residual
_RANK, _STEPS, _HALVINGS, _FLAT = 1e-10, 20, 12, 1e-3


def widened(widths: Sequence[int], degree: int | Sequence[int], share: float) -> list[int]:
    """Widen all hidden layers but the last of Chebyshev networks until the output has at most ``share`` of the parameters.

    ``degree`` is that of every layer, or one for each. Widths of fewer than two hidden layers stay, for nothing inside of them
    would grow.
    """
    found = list(widths)
    degrees = [degree] * (len(widths) - 1) if isinstance(degree, int) else degree
    while len(found) > 3 and _share_of_output(found, degrees) > share:
        found[1:-2] = [width + 1 for width in found[1:-2]]
    return found


def nodes_within(hidden: Sequence[int], seconds: float, wanted_s: float) -> tuple[int, ...]:
    """Make hidden layers that want ``wanted_s`` seconds narrower for fewer, by four nodes at a time.

    A step takes the cube of the parameters, which go by the square of the nodes.
    """
    factor = min(max(seconds, 0.0) / wanted_s, 1.0) ** (1 / 6)
    return tuple(min(n, max(4, 4 * round(n * factor / 4))) for n in hidden)


def _share_of_output(widths: Sequence[int], degrees: Sequence[int]) -> float:
    layers = zip(pairwise(widths), degrees, strict=True)
    sizes = [after * (degree * before + 1) for (before, after), degree in layers]
    return sizes[-1] / sum(sizes)


def trained(drawn: Any, found: Iterate) -> dict[str, Any]:
    """Compare a network with the ``drawn`` one that it began from, whose output layer alone is solved for.

    Gives ``output_share`` of the output coefficients in all parameters, ``frozen_over_found``, the held-out residual with
    the drawn hidden layers over the one that was found, and whether it counts as ``trained``: at most 15 %, at least 100.
    """
    share = drawn.output_coefficients().numel() / sum(p.numel() for p in drawn.parameters())
    reached, place = found.heldout_cost(), parameter_vector(found.field)
    network_of(found.field).load_state_dict(drawn.state_dict())
    gauss_newton(OutputProblem(found.objective, found.field, _RANK), _STEPS, _HALVINGS, _FLAT)
    frozen = found.heldout_cost()
    set_parameters(found.field, place)
    worse = math.sqrt(frozen / reached) if reached > 0 else math.inf
    return {
        "trained": share <= OUTPUT_SHARE and worse >= _WORSE,
        "output_share": share,
        "frozen_over_found": worse,
    }

"""Local: what one subdomain has of its own, its network, its points and the weight of its residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpikan.errors import NUMBER, WHOLE, InputError, check_type
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.partition import Partition

_APART = 1299709  # between seeds of networks of different shapes


@dataclass(frozen=True)
class Local:
    """A subdomain's own network, ``hidden`` widths and ``degree`` (None: as the recipe has it), and its share of the work.

    It has ``points`` times as many points of the equation as it would have, and its residuals are multiplied by ``weight``.
    Raises InputError for what is no network, and for numbers that are not above zero.
    """

    hidden: tuple[int, ...] | None = None
    degree: int | None = None
    points: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        for width in (*(self.hidden or ()), 1 if self.degree is None else self.degree):
            check_type("a width or degree of a subdomain", width, WHOLE, "whole numbers from 1")
            if width < 1:
                raise InputError(f"a width or degree {width} of a subdomain: give whole numbers from 1")
        for name in ("points", "weight"):
            check_type(f"{name} of a subdomain", getattr(self, name), NUMBER, "a number above 0")
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)} of a subdomain: give more than 0")


def check_local(local: Mapping[tuple[int, ...], Local]) -> None:
    """Raise InputError for what is no mapping from places in the grid to `Local`."""
    check_type("local", local, Mapping, "Local by place in the grid, as {(0, 1): Local(degree=8)}")
    for place, own in local.items():
        check_type(f"place {place} of local", place, tuple, "numbers from 0, one per axis, as (0, 1)")
        check_type(f"local of {place}", own, Local, "a Local, as Local(degree=8)")


def numbered(local: Mapping[tuple[int, ...], Local], counts: Sequence[int]) -> dict[int, Local]:
    """Give the numbers of subdomains in a grid of ``counts`` in place of their places; raises InputError for others."""
    found = {}
    for place, own in local.items():
        if len(place) != len(counts) or not all(0 <= at < count for at, count in zip(place, counts, strict=True)):
            grid = "x".join(map(str, counts))
            raise InputError(f"subdomain {place} in a grid of {grid}: give a number from 0 per axis, below that grid's")
        number = 0
        for at, count in zip(place, counts, strict=True):
            number = number * count + at
        found[number] = own
    return found


def local_networks(
    partition: Partition[float],
    local: Mapping[int, Local],
    hidden: tuple[int, ...],
    degree: int,
    outputs: int,
    seed: int,
) -> list[DecomposedField]:
    """Make fresh networks for all subdomains: those of one shape are one field of a few subdomains."""
    shapes: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for number in range(len(partition)):
        own = local.get(number, Local())
        shape = (own.hidden if own.hidden is not None else hidden, own.degree if own.degree is not None else degree)
        shapes.setdefault(shape, []).append(number)
    lower, upper = DecomposedField.boxes(partition)
    found = []
    for place, ((widths, power), members) in enumerate(shapes.items()):
        boxes = [lower[n] for n in members], [upper[n] for n in members]
        sizes = [len(partition.axes), *widths, outputs]
        parts = ScaledCPIKAN(sizes, power, boxes, networks=len(members), start=Start(seed + _APART * place))
        found.append(DecomposedField(partition, parts, None if len(members) == len(partition) else members))
    return found

"""Owners: which process works on which boxes of a grid, in equal shares that touch each other along few faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cpikan.errors import InputError

Places = Sequence[Sequence[float]]


def owners(places: Places, processes: int) -> list[int]:
    """Give every box, at ``places`` (E, d), to one of the processes, whose shares differ by as little as they can.

    Boxes are cut in two along the axis on which they have the most places, and each part again, as the processes are
    (recursive coordinate bisection; Berger and Bokhari, IEEE Trans. Comput. 36, 1987). Raises InputError for more processes
    than boxes.
    """
    if processes > len(places):
        raise InputError(
            f"{processes} processes for {len(places)} subdomains: start at most {len(places)}, or give more subdomains"
        )
    found = [0] * len(places)
    _give(list(range(len(places))), places, (0, processes), found)
    return found


def merges(rank: int, processes: int) -> Iterator[tuple[int, int, int]]:
    """List the spans of processes (first, middle, last) that one belongs to as their parts are joined, the smallest first.

    Those before ``middle`` are one part and those from it to ``last``, exclusive, the other.
    """
    yield from reversed(list(_halvings(rank, 0, processes)))


def _halvings(rank: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    while last - first > 1:
        middle = _middle(first, last)
        yield first, middle, last
        first, last = (first, middle) if rank < middle else (middle, last)


def _middle(first: int, last: int) -> int:
    return first + (last - first) // 2


def _give(boxes: list[int], places: Places, span: tuple[int, int], found: list[int]) -> None:
    """Give boxes to the processes of a span."""
    first, last = span
    if last - first == 1:
        for box in boxes:
            found[box] = first
        return
    middle, axes = _middle(first, last), range(len(places[0]))
    longest = max(axes, key=lambda axis: len({places[box][axis] for box in boxes}))
    boxes = sorted(boxes, key=lambda box: (places[box][longest], *places[box]))
    cut = round(len(boxes) * (middle - first) / (last - first))
    _give(boxes[:cut], places, (first, middle), found)
    _give(boxes[cut:], places, (middle, last), found)

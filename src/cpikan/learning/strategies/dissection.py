"""Least squares whose rows touch few blocks of a grid, eliminated by QR in the order of nested dissection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cpikan.learning.strategies.block_band import BlockRows, firm

_ROOT_TWO = 2.0**0.5


@dataclass(frozen=True)
class Element:
    """Rows J c = -r of some nodes of the system, of which no others are touched.

    ``place`` says where it lies among the elements, ``nodes`` number the blocks of unknowns, in the order of the columns of
    ``rows`` (R, columns + 1), whose last one is r.
    """

    place: tuple[float, ...]
    nodes: tuple[int, ...]
    rows: Tensor


@dataclass(frozen=True)
class Kept:
    """Rows of R of the nodes that were eliminated, with the nodes that they still depend on."""

    gone: tuple[int, ...]
    open: tuple[int, ...]
    rows: Tensor


def solve_dissected(sets: Sequence[BlockRows], places: Tensor, damping: float = 0.0) -> Tensor:
    """Minimise |J c + r|^2 over c (E, K), blocks at ``places`` (E, d), by QR of the parts of the grid, halved and halved again.

    Rows that couple two blocks are split: J_a c_a + J_b c_b + r becomes J_a c_a + r - g and J_b c_b + g, both times the root of
    two, with an unknown g for each row, over which the least of the two squares is the square of the whole. Every block is
    then eliminated by itself, and what is left of it are its faces: the separators are lines of faces, as in the hierarchical
    Poincare-Steklov scheme (Martinsson, J. Comput. Phys. 242, 2013), and in two dimensions work grows as N^1.5 (George, SIAM J.
    Numer. Anal. 10, 1973). Rows of three blocks and more are taken as they are. ``damping`` holds coefficients, counted in
    the length of the longest column of a block, at zero where no row determines them.
    """
    if all(one.blocks.shape[1] <= 2 for one in sets):
        elements, sizes = split(sets, places, damping)
    else:
        elements, sizes = whole(sets, places, damping, longest_columns(sets, len(places)))
    found = solve_elements(elements, sizes)
    return torch.stack([found[block] for block in range(len(places))])


def solve_elements(elements: Sequence[Element], sizes: Mapping[int, int]) -> dict[int, Tensor]:
    """Minimise the squares of all rows over the nodes, of ``sizes`` unknowns each; those that no row touches are zero."""
    total = Counter(node for one in elements for node in one.nodes)
    kept: list[Kept] = []
    eliminated(list(elements), total, sizes, kept)
    found = {node: torch.zeros(size, dtype=torch.float64) for node, size in sizes.items()}
    put_back(kept, sizes, found)
    return found


def condensed(sets: Sequence[BlockRows], places: Tensor, damping: float) -> tuple[list[Element], list[int], list[Kept]]:
    """Eliminate every block by itself, of rows that touch at most two: what is left of each is an element of its faces.

    Gives the elements, the sizes of all nodes (first the blocks, then a face for every pair that shares rows), and what was
    kept for ``put_back``.
    """
    elements, known = split(sets, places, damping)
    number = {node: place for place, node in enumerate(known)}
    elements = [replace(one, nodes=tuple(number[node] for node in one.nodes)) for one in elements]
    sizes = dict(enumerate(known.values()))
    total = Counter(node for one in elements for node in one.nodes)
    kept: list[Kept] = []
    return [eliminated([one], total, sizes, kept) for one in elements], list(sizes.values()), kept


def put_back(
    kept: Sequence[Kept], sizes: Mapping[int, int] | Sequence[int], found: dict[int, Tensor] | list[Tensor]
) -> None:
    """Solve for the nodes that were eliminated, the last first, and put them among those that were ``found``."""
    for one in reversed(kept):
        count = sum(sizes[node] for node in one.gone)
        right = -one.rows[:, -1]
        if one.open:
            right = right - one.rows[:, count:-1] @ torch.cat([found[node] for node in one.open])
        solved = torch.linalg.solve_triangular(firm(one.rows[:, :count]), right[:, None], upper=True).squeeze(1)
        for node, part in zip(one.gone, solved.split([sizes[node] for node in one.gone]), strict=True):
            found[node] = part


def eliminated(elements: list[Element], total: Counter[int], sizes: Mapping[int, int], kept: list[Kept]) -> Element:
    """Eliminate the nodes that these elements alone touch; gives what is left for the others as one element."""
    if len(elements) == 1:
        parts = elements
    else:
        parts = [eliminated(half, total, sizes, kept) for half in _halves(elements)]
    inside = Counter(node for one in elements for node in one.nodes)
    return joined(parts, lambda node: inside[node] == total[node], sizes, kept)


def joined(
    parts: Sequence[Element], done: Callable[[int], bool], sizes: Mapping[int, int], kept: list[Kept]
) -> Element:
    """Eliminate those nodes of some elements that are ``done``; gives what is left as one element."""
    nodes = dict.fromkeys(node for one in parts for node in one.nodes)
    gone = tuple(node for node in nodes if done(node))
    still = tuple(node for node in nodes if not done(node))
    count = sum(sizes[node] for node in gone)
    triangle = _triangle(_stacked(parts, (*gone, *still), sizes, count), bool(gone))
    if gone:
        kept.append(Kept(gone, still, triangle[:count].clone()))
    return Element(parts[0].place, still, triangle[count:, count:].clone())


def _stacked(parts: Sequence[Element], nodes: Sequence[int], sizes: Mapping[int, int], least: int) -> Tensor:
    """Put the rows of elements below each other, at ``least`` so many, their columns in the order of ``nodes``."""
    first, columns = {}, 0
    for node in nodes:
        first[node], columns = columns, columns + sizes[node]
    height = sum(len(one.rows) for one in parts)
    stacked = torch.zeros(max(height, least), columns + 1, dtype=torch.float64)
    row = 0
    for one in parts:
        column, here = 0, slice(row, row + len(one.rows))
        for node in one.nodes:
            width = sizes[node]
            stacked[here, first[node] : first[node] + width] = one.rows[:, column : column + width]
            column += width
        stacked[here, -1] = one.rows[:, -1]
        row += len(one.rows)
    return stacked


def _triangle(rows: Tensor, needed: bool) -> Tensor:
    """Give R of the QR of rows: needed where unknowns are eliminated, else where it makes the rows fewer."""
    if not needed and len(rows) <= rows.shape[1]:
        return rows
    triangle: Tensor = torch.linalg.qr(rows, mode="r")[1]
    return triangle


def _halves(elements: list[Element]) -> tuple[list[Element], list[Element]]:
    """Cut elements in two along the axis on which they have the most places, between two of these."""
    values = [sorted({one.place[axis] for one in elements}) for axis in range(len(elements[0].place))]
    axis = max(range(len(values)), key=lambda a: len(values[a]))
    if len(values[axis]) == 1:
        middle = len(elements) // 2
        return elements[:middle], elements[middle:]
    cut = values[axis][len(values[axis]) // 2]
    return [one for one in elements if one.place[axis] < cut], [one for one in elements if one.place[axis] >= cut]


def split(
    sets: Sequence[BlockRows], places: Tensor, damping: float, blocks: Sequence[int] | None = None
) -> tuple[list[Element], dict[int, int]]:
    """Make an element of every block, or of some, with a node of unknowns for every pair of blocks that share rows.

    The number of such a node says which pair it is of which of the sets, whatever part of the rows is there.
    """
    count, width = len(places), sets[0].jacobian.shape[-1]
    mine: dict[int, list[tuple[int | None, float, Tensor, Tensor]]] = {
        block: [] for block in (range(count) if blocks is None else blocks)
    }
    sizes = dict.fromkeys(mine, width)
    for number, one in enumerate(sets):
        for n, touched in enumerate(one.blocks.tolist()):
            jacobian, residual = one.jacobian[n], one.residual[n]
            if len(touched) == 1 or touched[0] == touched[-1]:
                mine[touched[0]].append((None, 0.0, jacobian.sum(dim=0), residual))
                continue
            first, second = touched
            face = ((number + 1) * count + first) * count + second
            sizes[face] = len(residual)
            if first in mine:
                mine[first].append((face, -_ROOT_TWO, _ROOT_TWO * jacobian[0], _ROOT_TWO * residual))
            if second in mine:
                mine[second].append((face, _ROOT_TWO, _ROOT_TWO * jacobian[1], torch.zeros_like(residual)))
    found = [_element(block, tuple(places[block].tolist()), parts, sizes, damping) for block, parts in mine.items()]
    return found, sizes


def pair_of(node: int, count: int) -> tuple[int, int]:
    """Give the blocks that a node belongs to: one of ``count`` blocks, or a pair of them, as `split` numbers it."""
    return (node, node) if node < count else (node // count % count, node % count)


def _element(
    number: int,
    place: tuple[float, ...],
    parts: Sequence[tuple[int | None, float, Tensor, Tensor]],
    sizes: Mapping[int, int],
    damping: float,
) -> Element:
    """Put the rows of a block below each other, behind its own columns those of what couples it to others."""
    faces = [face for face, _, _, _ in parts if face is not None]
    width, nodes = sizes[number], (number, *faces)
    starts = {face: width + sum(sizes[f] for f in faces[:n]) for n, face in enumerate(faces)}
    columns = width + sum(sizes[face] for face in faces) + 1
    height = sum(len(residual) for *_, residual in parts)
    rows = torch.zeros(height + (width if damping else 0), columns, dtype=torch.float64)
    row = 0
    for face, sign, jacobian, residual in parts:
        here = slice(row, row + len(residual))
        rows[here, :width], rows[here, -1] = jacobian, residual
        if face is not None:
            rows[here, starts[face] : starts[face] + len(residual)].diagonal().fill_(sign)
        row += len(residual)
    if damping:
        rows[row:, :width].diagonal().fill_(damping * _longest(rows[:row, :width]))
    return Element(place, nodes, rows)


def whole(
    sets: Sequence[BlockRows],
    places: Tensor,
    damping: float,
    longest: Sequence[float],
    blocks: Sequence[int] | None = None,
) -> tuple[list[Element], dict[int, int]]:
    """Make an element of every group of blocks, and one of every block, or of some, for the damping."""
    width = sets[0].jacobian.shape[-1]
    chosen = range(len(places)) if blocks is None else blocks
    sizes, elements = dict.fromkeys(chosen, width), []
    for one in sets:
        for n, touched in enumerate(one.blocks.tolist()):
            rows = torch.cat([one.jacobian[n].movedim(0, 1).flatten(1), one.residual[n][:, None]], dim=1)
            place = tuple(places[one.blocks[n]].mean(dim=0).tolist())
            elements.append(Element(place, tuple(touched), rows))
            sizes |= dict.fromkeys(touched, width)
    for block in chosen if damping else ():
        rows = torch.cat([damping * longest[block] * torch.eye(width).double(), torch.zeros(width, 1).double()], dim=1)
        elements.append(Element(tuple(places[block].tolist()), (block,), rows))
    return elements, sizes


def longest_columns(sets: Sequence[BlockRows], count: int) -> list[float]:
    """Find the length of the longest column of every one of ``count`` blocks, in any one group of rows."""
    longest = [0.0] * count
    for one in sets:
        for n, touched in enumerate(one.blocks.tolist()):
            for number, block in enumerate(touched):
                longest[block] = max(longest[block], _longest(one.jacobian[n, number]))
    return longest


def _longest(rows: Tensor) -> float:
    """Find the length of the longest column."""
    return float(rows.square().sum(dim=0).amax().sqrt())

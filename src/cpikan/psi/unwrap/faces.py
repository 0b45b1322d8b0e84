"""The dual graph of a tile: faces between its pixels, where order steps must sum to zero, and the orders that follow.

Pixels ``o`` are joined by edges, edges separate faces; around a face the order steps along its four edges must sum to zero.
A step along a row separates the face above from the one below, a step along a column the faces to its left and right::

        0     0     0     0             gain and loss of an edge: the nodes whose sum grows and falls with its step
           o-----o-----o
        0  |  1  |  2  |  0             o--s--o   s += 1:  face below (i + 1, j + 1) gains, face above (i, j + 1) loses
           o-----o-----o                |
        0  |  3  |  4  |  0             s         s += 1:  face to the left gains, face to the right loses
           o-----o-----o                |
        0     0     0     0             o

Node 0 is everything outside. Faces that touch the same hole are one node, so that windings around the hole are loops too.
"""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.union_find import find_root


@compiled
def number_faces(valid: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the node of every face (h + 1, w + 1) of a grid of pixels (h, w) bool; returns also how many there are.

    Face (i, j) has the pixels (i - 1, j - 1) to (i, j) as corners. The outside is node 0. Faces that touch the same
    hole (pixels that are not valid, joined by edges or corners) are one node: windings around a hole are loops too.
    """
    height, width = valid.shape
    across = width + 1
    parent = np.arange((height + 1) * across).astype(np.int32)
    value = np.zeros(parent.size, np.int32)
    for i in range(height + 1):
        for j in range(width + 1):
            if i == 0 or i == height or j == 0 or j == width:
                parent[i * across + j] = 0
    for y in range(height):
        for x in range(width):
            if valid[y, x]:
                continue
            root = find_root(parent, value, y * across + x)
            for face in (y * across + x + 1, (y + 1) * across + x, (y + 1) * across + x + 1):
                other = find_root(parent, value, face)
                if other < root:
                    parent[root] = other
                    root = other
                else:
                    parent[other] = root
    node = np.empty((height + 1, width + 1), np.int32)
    number = np.empty(parent.size, np.int32)
    count = 0
    for face in range(parent.size):
        root = find_root(parent, value, face)
        if root == face:  # roots are the first of their set
            number[face] = count
            count += 1
        node[face // across, face % across] = number[root]
    return node, count


@compiled
def edge_ends(node: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nodes that gain and lose one unit of winding when the step along an edge grows by one; -1 for none.

    Edge y * w + x leads from pixel (y, x) to its right neighbour, edge h * w + y * w + x to the one below.
    """
    height, width = valid.shape
    pixels = height * width
    gain, loss = np.full(2 * pixels, -1, np.int32), np.full(2 * pixels, -1, np.int32)
    for y in range(height):
        for x in range(width):
            if not valid[y, x]:
                continue
            edge = y * width + x
            if x + 1 < width and valid[y, x + 1] and node[y + 1, x + 1] != node[y, x + 1]:
                gain[edge], loss[edge] = node[y + 1, x + 1], node[y, x + 1]
            edge += pixels
            if y + 1 < height and valid[y + 1, x] and node[y + 1, x] != node[y + 1, x + 1]:
                gain[edge], loss[edge] = node[y + 1, x], node[y + 1, x + 1]
    return gain, loss


@compiled
def windings(steps: np.ndarray, gain: np.ndarray, loss: np.ndarray, nodes: int) -> np.ndarray:
    """Sum the order steps around every node: int32 (nodes,), zero where a tile is consistent."""
    excess = np.zeros(nodes, np.int32)
    for edge in range(steps.size):
        if steps[edge] != 0 and gain[edge] >= 0:
            excess[gain[edge]] += steps[edge]
            excess[loss[edge]] -= steps[edge]
    return excess


@compiled
def follow_steps(valid: np.ndarray, steps: np.ndarray, orders: np.ndarray, labels: np.ndarray) -> int:
    """Fill ``orders`` and ``labels`` (int32; 1, 2, ... by first pixel, 0 = no pixel) along balanced steps.

    Returns the number of 4-connected components.
    """
    height, width = valid.shape
    pixels = height * width
    stack = np.empty(pixels, np.int32)
    for y in range(height):
        for x in range(width):
            orders[y, x], labels[y, x] = 0, 0
    count = 0
    for first in range(pixels):
        if not valid[first // width, first % width] or labels[first // width, first % width] > 0:
            continue
        count += 1
        labels[first // width, first % width] = count
        stack[0], waiting = first, 1
        while waiting > 0:
            waiting -= 1
            here = stack[waiting]
            y, x = here // width, here % width
            order = orders[y, x]
            if x + 1 < width and valid[y, x + 1] and labels[y, x + 1] == 0:
                orders[y, x + 1], labels[y, x + 1] = order + steps[here], count
                stack[waiting] = here + 1
                waiting += 1
            if x > 0 and valid[y, x - 1] and labels[y, x - 1] == 0:
                orders[y, x - 1], labels[y, x - 1] = order - steps[here - 1], count
                stack[waiting] = here - 1
                waiting += 1
            if y + 1 < height and valid[y + 1, x] and labels[y + 1, x] == 0:
                orders[y + 1, x], labels[y + 1, x] = order + steps[pixels + here], count
                stack[waiting] = here + width
                waiting += 1
            if y > 0 and valid[y - 1, x] and labels[y - 1, x] == 0:
                orders[y - 1, x], labels[y - 1, x] = order - steps[pixels + here - width], count
                stack[waiting] = here - width
                waiting += 1
    return count

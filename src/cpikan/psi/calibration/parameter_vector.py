"""Named blocks of numbers in one vector of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

Vector = TypeVar("Vector")  # a NumPy array or a tensor (..., size)


class ParameterVector(ABC):
    """A layout of a vector: where the numbers of each block stand."""

    @property
    @abstractmethod
    def blocks(self) -> dict[str, np.ndarray]:
        """Give the places in the vector by name, integers of any shape."""

    @property
    def size(self) -> int:
        return sum(block.size for block in self.blocks.values())

    def moved(self, vector: Vector, other: ParameterVector, into: Vector) -> Vector:
        """Write the numbers that ``other`` has too into a vector of that layout, and return it.

        Of blocks of different lengths the first numbers are taken.
        """
        for name, block in other.blocks.items():
            count = min(len(block), len(self.blocks.get(name, ())))
            if count:
                into[..., block[:count]] = vector[..., self.blocks[name][:count]]  # type: ignore[index]
        return into


def stacked(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Place blocks of these shapes one after the other."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    ends = np.cumsum(sizes)
    return {
        name: np.arange(end - size, end).reshape(shape)
        for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
    }

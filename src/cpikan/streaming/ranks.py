"""Ranks: the processes that do one piece of work together, all by the same program, each on its own share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from cpikan.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Ranks(Protocol):
    """``size`` processes, of which this is number ``rank``; a context that ends the group.

    Every method is called by all of them in the same order, but for ``send`` and ``receive``, by the two that are named. What
    comes back of the first four has the same bits everywhere, so that all take the same way. ``sent`` counts the bytes that
    this process has sent to single others and to all, ``moved`` those of ``joined`` alone.
    """

    rank: int
    size: int
    sent: int
    moved: int

    def total(self, values: Tensor) -> Tensor:
        """Sum a few numbers over the processes, in their order."""

    def largest(self, values: Tensor) -> Tensor:
        """Take the largest of the processes, number by number."""

    def joined(self, values: Tensor) -> Tensor:
        """Put many numbers together, each of which is zero but in one process."""

    def first(self, value: float) -> float:
        """Take the number of process 0."""

    def texts(self, text: str) -> list[str]:
        """Collect a text of every process."""

    def send(self, values: Tensor, to: int) -> None:
        """Send a table of numbers."""

    def receive(self, source: int) -> Tensor:
        """Receive what a process sends."""

    def swap(self, out: Mapping[int, Tensor], into: Mapping[int, Tensor]) -> None:
        """Send tensors to neighbours, and fill those of ``into`` with what they send; shapes are known to both."""

    def __enter__(self) -> Ranks: ...

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None: ...


class Alone:
    """One process."""

    rank, size, sent, moved = 0, 1, 0, 0

    def total(self, values: Tensor) -> Tensor:
        return values

    def largest(self, values: Tensor) -> Tensor:
        return values

    def joined(self, values: Tensor) -> Tensor:
        return values

    def first(self, value: float) -> float:
        return value

    def texts(self, text: str) -> list[str]:
        return [text]

    def send(self, values: Tensor, to: int) -> None:
        raise AssertionError("one process has nobody to send to")

    def receive(self, source: int) -> Tensor:
        raise AssertionError("one process has nobody to receive from")

    def swap(self, out: Mapping[int, Tensor], into: Mapping[int, Tensor]) -> None:
        """Leave everything as it is."""

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        """Leave with nothing to end."""


ALONE = Alone()


def ranks_here() -> Ranks:
    """Join the processes that a launcher has started (``torchrun``: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or be alone.

    Raises InputError where they cannot find each other.
    """
    if _number("WORLD_SIZE", 1) == 1:
        return ALONE
    from cpikan.streaming.process_group import ProcessGroup

    return ProcessGroup(_number("RANK"), _number("WORLD_SIZE"))


def ranks_on_this_host() -> int:
    """Count the processes that a launcher has started on this host (``torchrun``: LOCAL_WORLD_SIZE), which share its cores."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def same_plan(ranks: Ranks, plan: str) -> None:
    """Raise InputError where processes were started with different plans; ``plan`` is a hash of all that has to be equal."""
    plans = ranks.texts(plan)
    others = [rank for rank, one in enumerate(plans) if one != plans[0]]
    if others:
        raise InputError(
            f"process {', '.join(map(str, others))} has another plan than process 0 ({plans[others[0]]} and {plans[0]}): start "
            "all of them with the same version, arguments and checkpoint"
        )


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name} is {text!r}: start processes by torchrun, which sets whole numbers") from None

"""What every loss of images is: a sum over pixels and, apart from it, how many pixels it is of."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, Prediction


def positive(loss: Any, *names: str) -> None:
    """Raise InputError where an option is no finite number above zero."""
    _check(loss, names, "a number above zero", lambda value: value > 0)


def not_negative(loss: Any, *names: str) -> None:
    """Raise InputError where an option is no finite number of zero or more."""
    _check(loss, names, "a number of zero or more", lambda value: value >= 0)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite int or float; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(loss: Any, names: tuple[str, ...], wanted: str, right: Any) -> None:
    for name in names:
        value = getattr(loss, name)
        if not is_number(value) or not right(value):
            raise InputError(f"{name} {value!r} of the loss {loss.name}: give {wanted}")


@runtime_checkable
class Loss(Protocol):
    """A sum over pixels and the data it is of; the value shown is ``sum / weight``.

    ``weight`` comes from the data alone, so micro-batches and processes may add sums and weights and divide once: the gradient
    is that of the big batch. ``needs`` says what a batch must hold: of "truth", "frames", "joints". A batch without it weighs
    nothing, and its sum is zero. Neither method changes the loss.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count the data of a batch, scalar float64."""
        ...

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum the values of a batch, scalar float64."""
        ...


@runtime_checkable
class AdaptiveLoss(Loss, Protocol):
    """A loss that changes with the steps of a training, as multipliers do; its state goes into checkpoints."""

    def after_step(self, prediction: Prediction, batch: PatchBatch) -> None:
        """Follow a step that was taken on ``batch``, whose ``prediction`` before the step is detached from its graph."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and numbers."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


class PixelLoss(abc.ABC):
    """A `Loss` of one value per pixel, added up over the pixels that count: without a truth none, else those of right order."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"truth"})

    def where(self, batch: PatchBatch) -> Bool[Tensor, "n h w"]:
        """Choose the pixels that count (N, h, w) bool."""
        return right_order(batch)

    @abc.abstractmethod
    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Bool[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Compute the value of each pixel (N, h, w), whose gradient is finite also where not ``chosen``; the truth is there
        where it is needed."""

    def weight(self, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Count the pixels, scalar float64."""
        return self.where(batch).sum().double()

    def sum(self, prediction: Prediction, batch: PatchBatch) -> Float64[Tensor, ""]:
        """Sum the pixels' values, scalar float64, part of the graph of ``prediction``."""
        if "truth" in self.needs and batch.truth_nm is None:
            return zero_of(prediction)
        chosen = self.where(batch)
        return total(self.value(prediction, batch, chosen), chosen)


def mean_loss(loss: Loss, prediction: Prediction, batch: PatchBatch) -> Tensor:
    """Divide ``sum`` by ``weight``, scalar; zero where the batch has no data for it."""
    weight = loss.weight(batch)
    return loss.sum(prediction, batch) / torch.where(weight > 0, weight, 1.0)


def zero_of(prediction: Prediction) -> Tensor:
    """Make a zero that hangs on the graph, so that a batch without data can still go backward."""
    return prediction.order_logit.flatten()[:0].sum(dtype=torch.float64)


def total(values: Float[Tensor, "*shape"], chosen: Bool[Tensor, "*shape"]) -> Float64[Tensor, ""]:
    """Sum the chosen values in float64; the others are not looked at, NaN included."""
    return torch.where(chosen, values, 0.0).sum(dtype=torch.float64)


def known(batch: PatchBatch) -> Bool[Tensor, "n h w"]:
    """Choose valid pixels whose truth is known (N, h, w) bool."""
    if batch.truth_nm is None:
        return torch.zeros_like(batch.planes.valid)
    return batch.planes.valid & batch.truth_nm.isfinite()


def wrong_order(batch: PatchBatch) -> Bool[Tensor, "n h w"]:
    """Choose known pixels where the guide is off the truth by more than half of half a wavelength (N, h, w) bool."""
    if batch.truth_nm is None:
        return torch.zeros_like(batch.planes.valid)
    return known(batch) & ((batch.planes.height_nm - batch.truth_nm).abs() > batch.half_wave_nm[:, None, None] / 2)


def right_order(batch: PatchBatch) -> Bool[Tensor, "n h w"]:
    """Choose known pixels that are not of wrong order (N, h, w) bool."""
    return known(batch) & ~wrong_order(batch)


def residual_sigmas(prediction: Prediction, batch: PatchBatch, chosen: Bool[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Compute (prediction - truth) / sigma (N, h, w) at the pixels chosen, zero elsewhere; truth must be there."""
    assert batch.truth_nm is not None
    # the operands are cleaned first: zero times NaN would reach the gradient
    height, truth = (torch.where(chosen, plane, 0.0) for plane in (prediction.height_nm, batch.truth_nm))
    return (height - truth) / torch.where(chosen, batch.planes.sigma_nm, 1.0)


def pseudo_huber(value: Float[Tensor, "*shape"], delta: float) -> Float[Tensor, "*shape"]:
    """Compute value^2 / 2 below ``delta``, delta |value| beyond, smooth between (Charbonnier et al., ICIP 1994)."""
    return delta**2 * ((1 + (value / delta) ** 2).sqrt() - 1)

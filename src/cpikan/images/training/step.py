"""The gradient of a group of batches, equal to that of one batch of them all, and the loss of many without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpikan.images.features import FeatureSpec, PatchBatch, Prediction, predict
from cpikan.images.losses.base import AdaptiveLoss, Loss
from cpikan.images.training.engine import Engine

_NAMES = ("right", "error", "guide", "covered", "wrong", "found", "false", "still")
NORMAL_95 = 1.959963984540054


def sums(prediction: Prediction, batch: PatchBatch) -> Tensor:
    """Add up counts and squares of a batch (8,) float64, to be added up over batches and processes; zeros without a truth."""
    found = torch.zeros(len(_NAMES), dtype=torch.float64, device=prediction.height_nm.device)
    truth, planes = batch.truth_nm, batch.planes
    if truth is None:
        return found
    known = planes.valid & truth.isfinite()
    truth = truth.double()
    guide, error = planes.height_nm.double() - truth, prediction.height_nm.double() - truth
    half = 0.5 * batch.half_wave_nm.double()[:, None, None]
    wrong = known & (guide.abs() > half)
    right = known & ~wrong
    sigma = planes.sigma_nm.double() * (0.5 * prediction.log_variance.double()).exp()
    doubted = prediction.order_logit > 0
    for index, values in enumerate(
        (
            right,
            error.square()[right],
            guide.square()[right],
            right & (error.abs() <= NORMAL_95 * sigma),
            wrong,
            wrong & doubted,
            right & doubted,
            known & (error.abs() > half),
        )
    ):
        found[index] = values.sum()
    return found


def figures(total: Tensor) -> dict[str, float | None]:
    """Compute figures of the added sums; None where nothing is known.

    ``noise_ratio`` is rms(prediction - truth) / rms(guide - truth) and ``coverage_95`` the share within 1.96 predicted
    sigmas, both over pixels of right order; ``wrong_orders`` and ``wrong_orders_after`` are shares of the known pixels before
    and after the correction, ``wrong_orders_found`` and ``wrong_orders_missed`` shares of the wrong ones, ``false_orders`` of
    the right ones.
    """
    value = dict(zip(_NAMES, total.tolist(), strict=True))
    known = value["right"] + value["wrong"]

    def share(part: str, whole: float) -> float | None:
        return value[part] / whole if whole else None

    found = share("found", value["wrong"])
    return {
        "noise_ratio": math.sqrt(value["error"] / value["guide"]) if value["guide"] else None,
        "coverage_95": share("covered", value["right"]),
        "wrong_orders": share("wrong", known),
        "wrong_orders_after": share("still", known),
        "wrong_orders_found": found,
        "wrong_orders_missed": None if found is None else 1 - found,
        "false_orders": share("false", value["right"]),
        "pixels": known,
    }


Terms = Sequence[tuple[float, Loss]]
Answer = tuple[Prediction, PatchBatch]
Tally = Callable[[Prediction, PatchBatch], Tensor]  # sums of figures, see metrics


@dataclass(frozen=True)
class FeatureModel:
    """A ``network`` as the engine prepared it, behind the features of ``spec``; patches have sides of ``patch_px``."""

    network: nn.Module
    spec: FeatureSpec
    patch_px: int

    def predict(self, batch: PatchBatch) -> Prediction:
        """Correct the heights of a batch."""
        return predict(self.network, batch.planes, self.spec, batch.unit_nm)

    def zero(self, device: torch.device) -> Tensor:
        """Make a zero that hangs on every parameter: a process without patches adds it, and others need not wait."""
        blank = torch.zeros(1, self.spec.channels, self.patch_px, self.patch_px, device=device)
        return self.network(blank).float().sum() * 0.0


class GroupGradient(NamedTuple):
    """What a gradient was made from: ``values`` of the losses by name, their weighted ``total``, and the ``answers``, without
    their graphs, where a loss adapts to the steps."""

    values: dict[str, float]
    total: float
    answers: list[Answer]


def group_gradient(
    engine: Engine, model: FeatureModel, terms: Terms, group: Sequence[PatchBatch | None]
) -> GroupGradient:
    """Add the gradient of sum_t f_t (sum of loss t over the group) / (its weight over the group) to the parameters.

    ``group`` holds this process's batches, None where it has none; every process gives as many. The weights
    of all processes and batches are added up first, so unequal batches, an incomplete last group and unequal valid areas
    count as in one big batch.
    """
    weights = engine.total(sum_weights(terms, group, engine.device))
    sums = torch.zeros(len(terms), dtype=torch.float64, device=engine.device)
    counts = weights.tolist()
    answers: list[Answer] = []
    adaptive = any(isinstance(loss, AdaptiveLoss) for _, loss in terms)
    for number, batch in enumerate(group):
        last = number == len(group) - 1
        with engine.quiet(model.network, last=last):
            if batch is None:
                engine.backward(model.zero(engine.device))
                continue
            prediction = model.predict(batch)
            total = torch.zeros((), dtype=torch.float64, device=engine.device)
            for index, (factor, loss) in enumerate(terms):
                if counts[index] > 0:
                    value = loss.sum(prediction, batch)
                    sums[index] += value.detach().double()
                    total = total + value * (factor / counts[index])
            # where no loss has data the network still takes part, with a gradient of zero
            engine.backward(total if total.requires_grad else prediction.log_variance.sum() * 0.0)
        if adaptive:
            answers.append((Prediction(*(plane.detach() for plane in prediction)), batch))
    return GroupGradient(*values_of(terms, engine.total(sums), weights), answers)


def follow_step(terms: Terms, answers: Iterable[Answer]) -> None:
    """Let the losses that adapt follow a step that was taken on ``answers``."""
    for prediction, batch in answers:
        for _, loss in terms:
            if isinstance(loss, AdaptiveLoss):
                loss.after_step(prediction, batch)


@torch.no_grad()
def evaluate(
    engine: Engine, model: FeatureModel, terms: Terms, batches: Iterable[PatchBatch | None], tally: Tally
) -> tuple[dict[str, float], float, Tensor]:
    """Evaluate the losses by name and their total over all batches of all processes, and what ``tally`` adds up."""
    # the network itself: DDP's wrapper would wait for processes that have no batch left
    weights = torch.zeros(len(terms), dtype=torch.float64, device=engine.device)
    sums, counted = torch.zeros_like(weights), None
    bare = replace(model, network=getattr(model.network, "module", model.network))
    for batch in batches:
        if batch is None:
            continue
        weights += sum_weights(terms, [batch], engine.device)
        prediction = bare.predict(batch)
        sums += torch.stack([loss.sum(prediction, batch).double() for _, loss in terms])
        counts = tally(prediction, batch)
        counted = counts if counted is None else counted + counts
    if counted is None:
        raise RuntimeError("validation without a patch")
    values, total = values_of(terms, engine.total(sums), engine.total(weights))
    return values, total, engine.total(counted)


def sum_weights(terms: Terms, group: Sequence[PatchBatch | None], device: torch.device) -> Tensor:
    """Add the weights of the losses up over batches (T,) float64."""
    total = torch.zeros(len(terms), dtype=torch.float64, device=device)
    for batch in group:
        if batch is not None:
            total += torch.stack([loss.weight(batch).double() for _, loss in terms])
    return total


def values_of(terms: Terms, sums: Tensor, weights: Tensor) -> tuple[dict[str, float], float]:
    """Divide sums by weights: losses by name and their weighted total; a loss without data is 0."""
    means = torch.where(weights > 0, sums / weights.clamp_min(torch.finfo(torch.float64).tiny), 0.0).tolist()
    values = {loss.name: value for (_, loss), value in zip(terms, means, strict=True)}
    return values, sum(factor * value for (factor, _), value in zip(terms, means, strict=True))

"""The gradient of a group of batches, equal to that of one batch of them all, and the loss of many without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpikan.images.batch import PatchBatch
from cpikan.images.features import FeatureSpec, Prediction, predict
from cpikan.images.losses.base import Loss
from cpikan.images.training.engine import Engine

Terms = Sequence[tuple[float, Loss]]
Look = Callable[[Prediction, PatchBatch], Tensor]  # sums of figures, see metrics


@dataclass(frozen=True)
class Shown:
    """How a network is shown patches: prepared by the engine, its features, and the side of a patch."""

    network: nn.Module
    spec: FeatureSpec
    patch_px: int

    def predict(self, batch: PatchBatch) -> Prediction:
        return predict(self.network, batch.planes, self.spec, batch.unit_nm)

    def nothing(self, device: torch.device) -> Tensor:
        """Zero, by way of every parameter: what a process without patches adds, so that others need not wait for it."""
        blank = torch.zeros(1, self.spec.channels, self.patch_px, self.patch_px, device=device)
        return self.network(blank).float().sum() * 0.0


def group_gradient(
    engine: Engine, shown: Shown, terms: Terms, group: Sequence[PatchBatch | None]
) -> tuple[dict[str, float], float]:
    """Add the gradient of sum_t f_t (sum of loss t over the group) / (its weight over the group) to the parameters.

    ``group`` holds this process's batches, None where it has none; every process gives as many. Returns the values of the
    losses by name and their weighted total. The weights of all processes and batches are added up first, so unequal batches,
    an incomplete last group and unequal valid areas count as in one big batch.
    """
    weights = engine.total(sum_weights(terms, group, engine.device))
    sums = torch.zeros(len(terms), dtype=torch.float64, device=engine.device)
    counts = weights.tolist()
    for number, batch in enumerate(group):
        last = number == len(group) - 1
        with engine.quiet(shown.network, last=last):
            if batch is None:
                engine.backward(shown.nothing(engine.device))
                continue
            prediction = shown.predict(batch)
            total = torch.zeros((), dtype=torch.float64, device=engine.device)
            for index, (factor, loss) in enumerate(terms):
                if counts[index] > 0:
                    value = loss.sum(prediction, batch)
                    sums[index] += value.detach().double()
                    total = total + value * (factor / counts[index])
            # where no loss has data the network still takes part, with a gradient of zero
            engine.backward(total if total.requires_grad else prediction.log_variance.sum() * 0.0)
    return values_of(terms, engine.total(sums), weights)


@torch.no_grad()
def evaluate(
    engine: Engine, shown: Shown, terms: Terms, batches: Iterable[PatchBatch | None], look: Look
) -> tuple[dict[str, float], float, Tensor]:
    """The losses by name and their total over all batches of all processes, and what ``look`` adds up."""
    # the network itself: DDP's wrapper would wait for processes that have no batch left
    weights = torch.zeros(len(terms), dtype=torch.float64, device=engine.device)
    sums, seen = torch.zeros_like(weights), None
    bare = Shown(getattr(shown.network, "module", shown.network), shown.spec, shown.patch_px)
    for batch in batches:
        if batch is None:
            continue
        weights += sum_weights(terms, [batch], engine.device)
        prediction = bare.predict(batch)
        sums += torch.stack([loss.sum(prediction, batch).double() for _, loss in terms])
        found = look(prediction, batch)
        seen = found if seen is None else seen + found
    if seen is None:
        raise RuntimeError("validation without a patch")
    values, total = values_of(terms, engine.total(sums), engine.total(weights))
    return values, total, engine.total(seen)


def sum_weights(terms: Terms, group: Sequence[PatchBatch | None], device: torch.device) -> Tensor:
    """The weights of the losses added up over batches (T,) float64."""
    total = torch.zeros(len(terms), dtype=torch.float64, device=device)
    for batch in group:
        if batch is not None:
            total += torch.stack([loss.weight(batch).double() for _, loss in terms])
    return total


def values_of(terms: Terms, sums: Tensor, weights: Tensor) -> tuple[dict[str, float], float]:
    """Losses by name and their weighted total; a loss without data is 0."""
    means = torch.where(weights > 0, sums / weights.clamp_min(torch.finfo(torch.float64).tiny), 0.0).tolist()
    values = {loss.name: value for (_, loss), value in zip(terms, means, strict=True)}
    return values, sum(factor * value for (factor, _), value in zip(terms, means, strict=True))

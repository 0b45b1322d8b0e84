"""What validation says of a model: noise against the guide's, wrong orders found, coverage of the predicted sigma."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cpikan.images.batch import PatchBatch
from cpikan.images.features import Prediction

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

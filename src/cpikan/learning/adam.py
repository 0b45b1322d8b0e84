"""Adam with clipped gradients, a falling rate, and rollback when the cost is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cpikan.errors import InputError
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_ROLLBACKS = 3


@dataclass(frozen=True)
class Adam:
    """``iterations`` full-batch steps at ``rate``, times ``decay`` every thousand; ``clip`` bounds the gradient's length."""

    iterations: int = 2000
    rate: float = 1e-3
    decay: float = 0.98
    clip: float | None = 1.0
    name: str = "adam"

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.rate > 0:
            raise InputError(f"{self.iterations} steps of Adam at rate {self.rate}: give at least 1, and more than 0")

    def run(self, run: Run) -> StopReason:
        """Step; a cost that is not finite brings the best state back at half the rate, three times."""
        parameters = list(run.field.parameters())
        rate, rollbacks = self.rate, 0
        optimizer = torch.optim.Adam(parameters, lr=rate)
        run.keep_best()
        for step in range(self.iterations):
            optimizer.zero_grad()
            cost = 0.5 * run.rows.residuals(run.field).square().sum()
            cost.backward()
            value = float(cost.detach())
            if not math.isfinite(value):
                if rollbacks == _ROLLBACKS:
                    return StopReason.DIVERGED
                rollbacks, rate = rollbacks + 1, rate / 2
                run.restore_best()
                optimizer = torch.optim.Adam(parameters, lr=rate)
                continue
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, self.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate * self.decay ** (step / 1000)
            optimizer.step()
            ended = run.note(value)
            if ended is not None:
                return ended
        return StopReason.BUDGET

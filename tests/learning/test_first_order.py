"""Adam and SOAP: rate, decay and clip act on the steps as their formulas say; patience of Levenberg-Marquardt."""

from __future__ import annotations

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem


class Numbers(torch.nn.Module):
    """Parameters and nothing else."""

    def __init__(self, start):
        super().__init__()
        self.at = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))


class Slope:
    """A cost with constant gradients, one per step, in place of an objective."""

    def __init__(self, *gradients):
        self._gradients = [torch.tensor(g, dtype=torch.float64) for g in gradients]

    def gradient(self, field):
        gradient = self._gradients.pop(0)
        return gradient @ field.at.detach(), gradient

    def clip(self, parameters, longest):
        torch.nn.utils.clip_grad_norm_(parameters, longest)


def steps(method, *gradients):
    """How far every step goes, (steps, parameters)."""
    field = Numbers([0.0] * len(gradients[0]))
    objective = Slope(*gradients)
    state, taken = method.init(objective, field), []
    for _ in gradients:
        before = field.at.detach().clone()
        state, _ = method.step(objective, field, state)
        taken.append(field.at.detach() - before)
    return torch.stack(taken)


def test_the_rate_falls_by_decay_every_thousand_steps():
    """With a constant gradient a step of Adam is the rate itself: 1e-6 to the power of n / 1000 of it after n steps."""
    found = steps(Adam(50, 1e-2, decay=1e-6, clip=None), *[[3.0]] * 50)[:, 0]
    truth = -1e-2 * (1e-6) ** (torch.arange(50, dtype=torch.float64) / 1000)
    assert torch.allclose(found, truth, rtol=1e-6)  # the epsilon of Adam, 1e-8 of a gradient of 3


def test_a_gradient_is_clipped_to_its_length_and_not_by_entry():
    """A long gradient after a short one: clipped to (0.6, 0.8) its moments are those of the formulas, else others."""
    long, short = [30.0, 40.0], [0.3, 0.4]
    clipped = steps(Adam(2, 1.0, decay=1.0, clip=1.0), short, long)
    assert torch.allclose(clipped, steps(Adam(2, 1.0, decay=1.0, clip=None), short, [0.6, 0.8]), rtol=1e-5)
    free = steps(Adam(2, 1.0, decay=1.0, clip=None), short, long)
    assert float((clipped - free).abs().max()) > 0.1
    assert torch.equal(clipped[0], free[0])  # what is shorter stays


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_steps_without_a_better_held_out_residual(patience):
    """More parameters than rows: the fit goes on to fall when the held-out residual does not any more."""
    run = Runner(problem("helmholtz-1d"))
    run.place(ScaledCPIKAN([1, 10, 1], 10, start=Start(5)), Points(12, 2, "random"))
    assert run.run(Levenberg(200, patience=patience)) is StopReason.HELD_OUT
    heldout = [record["heldout"] for record in run.history.records]
    best = min(range(len(heldout)), key=heldout.__getitem__)
    assert len(heldout) - 1 - best == patience
    assert heldout[best] == run.iterate.best_cost


def test_bad_settings():
    with pytest.raises(InputError, match="0 steps of adam at rate"):
        Adam(0)

"""The loop: steps, schedules, running mean, early stop, curriculum, divergence."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from cpikan.images.curriculum import Curriculum
from cpikan.images.training.checkpoint import Ema
from cpikan.images.training.config import OptimizerConfig
from cpikan.images.training.log import TrainLog
from cpikan.images.training.optimizers import build_optimizer, rate_at
from training_cases import config, one_thread, trainer, without_held_out  # noqa: F401 - a fixture


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- steps -----------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_says_why_it_ended(tmp_path):
    log = TrainLog(tmp_path / "log.jsonl")
    trained = trainer(config(training={"steps": 30}), log=log).run()
    log.close()
    at = trained.position
    assert at.stop_reason == "all 30 steps done"
    assert (at.step, at.epoch, at.batch) == (30, 9, 3)  # 3 batches an epoch
    assert at.samples == 100  # of 10 patches each
    assert at.best_validation["loss"] < 0.9 * at.first_validation["loss"]
    kinds = [line["kind"] for line in lines(tmp_path / "log.jsonl")]
    assert kinds.count("validation") == 9  # at 0, 4, ..., 28, 30
    assert kinds[-1] == "end"


def test_accumulated_steps_end_with_the_incomplete_group():
    trained = trainer(config(training={"steps": 4, "accumulate": 2})).run()
    assert (trained.position.epoch, trained.position.batch, trained.position.samples) == (1, 3, 20)


def test_rates():
    told = OptimizerConfig(rate=2.0, warmup_steps=4, final_share=0.1)
    rates = [rate_at(told, step, 25) for step in range(25)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[14] == pytest.approx(2 * (0.1 + 0.9 / 2))  # half of the cosine: step 4 to 24
    assert rates[24] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    constant = OptimizerConfig(rate=2.0, warmup_steps=0, schedule="constant")
    assert {rate_at(constant, step, 25) for step in range(30)} == {2.0}


def test_running_mean_is_that_of_the_formula():
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
    ema, expected = Ema(network, 0.3), 0.0
    for count in range(1, 6):
        with torch.no_grad():
            network.weight.fill_(float(count))
        ema.follow(network)
        decay = min(0.3, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * count
        assert float(ema.weights["weight"]) == pytest.approx(expected, rel=1e-6)
    with ema.swapped_in(network):
        assert float(network.weight.detach()) == pytest.approx(expected, rel=1e-6)
    assert float(network.weight.detach()) == 5.0


def test_mean_weights_are_kept_and_validated():
    told = config(training={"ema": 0.9, "steps": 8})
    one, plain = trainer(told), trainer(config(training={"steps": 8}))
    kept, last = one.run().weights, plain.run().weights
    assert not same(kept, last)  # the same steps, but their mean
    assert same(kept, one._parts.best)


@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_optimizers_lower_a_loss(name):
    decay = {} if name == "adamw" else {"weight_decay": 0.0}
    trained = trainer(config(optimizer={"name": name, **decay}, training={"steps": 20})).run()
    assert trained.position.best_validation["loss"] < 0.95 * trained.position.first_validation["loss"]


def test_soap_takes_kernels_as_matrices():
    """A kernel of one pixel is a matrix: flattened or not, the same steps."""
    kernel, matrix = (
        torch.nn.Parameter(torch.randn(4, 5, generator=torch.Generator().manual_seed(1))) for _ in range(2)
    )
    kernel.data = kernel.data.view(4, 5, 1, 1)
    told = OptimizerConfig(name="soap", weight_decay=0.0, rate=0.1)
    optimizers = [build_optimizer(told, [each]) for each in (kernel, matrix)]
    for step in range(12):
        pull = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        kernel.grad, matrix.grad = pull.view(4, 5, 1, 1).clone(), pull.clone()
        for each in optimizers:
            each.step()
    assert torch.equal(kernel.view(4, 5), matrix)


def test_early_stop_keeps_the_best():
    """A rate of 1e-12 gains nothing: the first state is the best, and three validations later the run ends."""
    told = config(training={"steps": 100, "patience": 3}, optimizer={"rate": 1e-12})
    one = trainer(told)
    start = {name: value.clone() for name, value in one._parts.network.state_dict().items()}
    trained = one.run()
    assert trained.position.step == 12
    assert trained.position.stop_reason.startswith("early: 3 validations without a gain")
    assert trained.position.best_step == 0
    assert same(trained.weights, start)


def test_time_limit():
    trained = trainer(config(training={"steps": 10_000, "seconds": 0.5})).run()
    assert trained.position.stop_reason == "the time limit of 0.5 s"
    assert trained.position.step < 10_000


def test_curriculum_goes_on_and_compares_no_losses_across_stages():
    told = config(training={"steps": 24, "validate_steps": 4, "patience": 2}, optimizer={"rate": 1e-12})
    stages = Curriculum((2, 1), patience=1, least_gain=0.5)
    trained = trainer(told, curriculum=stages).run()
    # 1/2: step 4 sets the mark, 8 does not gain; 1/1: 12 sets it, 16 and 20 do not gain
    assert trained.position.step == 20
    assert trained.position.validation["resolution"] == 1.0
    assert trained.position.first_validation["resolution"] == 0.5
    assert trained.position.stop_reason.startswith("early")


# --- divergence ------------------------------------------------------------------------------------------------------


class Breaking:
    """A plain loss that is NaN (or has an infinite gradient) on its calls of these numbers."""

    name, needs = "breaking", frozenset()

    def __init__(self, calls: set[int], how: str = "loss") -> None:
        self.calls, self.how, self.count = calls, how, 0

    def weight(self, batch):
        return batch.planes.valid.sum().double()

    def sum(self, prediction, batch):
        value = (prediction.log_variance.double() ** 2).sum() + prediction.order_logit.double().sum() * 0.1
        if not torch.is_grad_enabled():
            return value
        self.count += 1
        if self.count not in self.calls:
            return value
        if self.how == "loss":
            return value * math.nan
        zero = value.detach() * 0  # 0 * inf: a value that is finite, a slope that is not
        return value + (prediction.log_variance.sum().double() * 0 + zero).sqrt()


class Following(Breaking):
    """A loss that adapts: it counts the steps and the patches that it is told of."""

    steps = patches = 0

    def after_step(self, prediction, batch):
        assert not prediction.height_nm.requires_grad
        self.steps, self.patches = self.steps + 1, self.patches + len(batch)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def test_losses_that_adapt_follow_the_steps_that_are_taken():
    """The fifth gradient is bad and no step is taken on it: of ten gradients nine are followed, each by its own patches."""
    loss = Following({5})
    one = trainer(without_held_out(config(training={"steps": 9})), losses=[(1.0, loss)])
    trained = one.run()
    assert (loss.count, loss.steps) == (10, 9)
    assert loss.patches == trained.position.samples
    assert one._good["losses"] == {"breaking": {"steps": 9}}


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_divergence_goes_back_at_half_the_rate(how, tmp_path):
    """State of step 3 is good; the fifth gradient is bad: back to step 3's weights, and on with the next patches."""
    told = without_held_out(config(training={"steps": 9, "checkpoint_steps": 3, "log_steps": 1}))
    log = TrainLog(tmp_path / "log.jsonl")
    one = trainer(told, losses=[(1.0, Breaking({5}, how))], log=log)
    states = {}
    keep, back = one._keep, one._roll_back
    one._keep = lambda: (keep(), states.update({one.position.step: one._eval_weights()}))
    one._roll_back = lambda what: (back(what), states.update(back=one._eval_weights()))
    trained = one.run()
    log.close()
    assert same(states["back"], states[3])
    assert trained.position.rollbacks == 1
    assert trained.position.rate_scale == 0.5
    assert trained.position.step == 9
    assert all(value.isfinite().all() for value in trained.weights.values())
    said = lines(tmp_path / "log.jsonl")
    assert f"{how} not finite at step 4" in next(line["text"] for line in said if line["kind"] == "rollback")
    rates = {line["step"]: line["rate"] for line in said if line["kind"] == "step"}
    assert rates[5] == pytest.approx(0.5 * rate_at(told.optimizer, 4, 9))


def test_divergence_gives_up_after_so_many_and_keeps_good_weights():
    told = without_held_out(config(training={"steps": 20, "rollbacks": 2}))
    trained = trainer(told, losses=[(1.0, Breaking(set(range(5, 99))))]).run()
    assert trained.position.stop_reason.startswith("diverged: loss not finite at step 4 after 2 rollbacks")
    assert all(value.isfinite().all() for value in trained.weights.values())

"""Groups of batches against one batch, checkpointed against not, precision inside the network alone."""

from __future__ import annotations

import pytest
import torch

from cpikan.images.features import FeatureSpec, stack_patches
from cpikan.images.losses.kinds import build_losses
from cpikan.images.training.engine import Engine
from cpikan.images.training.step import FeatureModel, evaluate, group_gradient, sums
from training_cases import SIZE, config, one_thread, patches, tiny  # noqa: F401 - a fixture

LOSSES = {"supervised": 1.0, "orders": 0.5, "smoothness": 0.1}


def gradient(group, *, checkpointing: bool = False, precision: str = "off", losses=LOSSES):
    told = config(training={"precision": precision})
    engine, network = Engine(told), tiny(3)
    network.checkpointing = checkpointing
    prepared, _ = engine.prepare(network, torch.optim.SGD(network.parameters(), lr=1.0))
    model = FeatureModel(prepared, FeatureSpec(), SIZE)
    found = group_gradient(engine, model, build_losses(losses), group)
    flat = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).double()
    engine.close()
    return flat, found.values, found.total


def difference(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("parts", [(4, 4, 1), (9,)])
def test_accumulated_gradient_is_that_of_the_big_batch(parts):
    """Unequal batches with unequal valid areas, the last group incomplete; float32 sums in another order differ by some
    2^-24 of the gradient, below the 1e-6 asked for."""
    starts = [sum(parts[:at]) for at in range(len(parts))]
    group = [patches(start, count) for start, count in zip(starts, parts, strict=True)]
    whole = stack_patches([patches(0, 9)])
    many, values, total = gradient(group)
    one, values_one, total_one = gradient([whole])
    assert difference(many, one) <= 1e-6
    assert total == pytest.approx(total_one, rel=1e-6)
    assert values == pytest.approx(values_one, rel=1e-6)
    # the naive mean of means is another gradient: the batches have unequal weights
    if len(parts) > 1:
        naive = torch.stack([gradient([batch])[0] for batch in group]).mean(dim=0)
        assert difference(naive, one) > 1e-3


def test_gradient_is_the_weighted_sum_of_those_of_the_losses():
    """The gradient is linear in the weights of the losses; float32 gradients added up in another order differ by some 2^-24."""
    group = [patches(0, 4), patches(4, 2)]
    alone = {name: gradient(group, losses={name: 1.0}) for name in LOSSES}
    found, values, total = gradient(group)
    assert difference(found, sum(weight * alone[name][0] for name, weight in LOSSES.items())) <= 1e-6
    # weights that were left out, or given to another loss, would show
    assert difference(found, sum(flat for flat, _, _ in alone.values())) > 0.1
    assert values == {name: alone[name][1][name] for name in LOSSES}
    assert total == pytest.approx(sum(weight * values[name] for name, weight in LOSSES.items()), rel=1e-12)


def test_a_group_with_a_process_that_has_nothing():
    whole = patches(0, 3)
    assert difference(gradient([whole, None])[0], gradient([whole])[0]) == 0
    assert not gradient([None])[0].any()


def test_checkpointed_gradient_is_the_same():
    group = [patches(0, 4), patches(4, 3)]
    assert difference(gradient(group, checkpointing=True)[0], gradient(group)[0]) <= 1e-6


def test_bf16_inside_the_network_alone():
    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Conv2d(FeatureSpec().channels, 3, 1), []

        def forward(self, x):
            self.seen.append((x.dtype, torch.is_autocast_enabled("cpu"), self.layer(x).dtype))
            return self.layer(x)

    class WatchingLoss:
        name, needs, seen = "watching", frozenset(), []

        def weight(self, batch):
            return torch.tensor(1.0, dtype=torch.float64)

        def sum(self, prediction, batch):
            self.seen.append((prediction.log_variance.dtype, torch.is_autocast_enabled("cpu")))
            return prediction.log_variance.sum()

    told = config(training={"precision": "bf16"})
    engine, network = Engine(told), Watching()
    prepared, _ = engine.prepare(network, torch.optim.SGD(network.parameters(), lr=1.0))
    loss = WatchingLoss()
    group_gradient(engine, FeatureModel(prepared, FeatureSpec(), SIZE), [(1.0, loss)], [patches(0, 2)])
    assert network.seen == [(torch.float32, True, torch.bfloat16)]
    assert loss.seen == [(torch.float32, False)]
    engine.close()
    assert prepared(torch.zeros(1, FeatureSpec().channels, 4, 4)).dtype == torch.float32  # as it was before


def test_bf16_gradient_is_near():
    """bfloat16 keeps 8 bits: a relative error of 2^-8 per product, averaging out over many; 5 % bounds it."""
    group = [patches(0, 6)]
    found = difference(gradient(group, precision="bf16")[0], gradient(group)[0])
    assert 1e-5 < found < 0.05


def test_held_out_loss_does_not_depend_on_the_batches():
    told = config()
    engine, terms = Engine(told), build_losses(LOSSES)
    model = FeatureModel(tiny(3), FeatureSpec(), SIZE)
    _, one, figures_one = evaluate(engine, model, terms, [patches(0, 7)], sums)
    _, many, figures_many = evaluate(engine, model, terms, [patches(0, 5), None, patches(5, 2)], sums)
    assert many == pytest.approx(one, rel=1e-6)
    assert figures_many.tolist() == pytest.approx(figures_one.tolist(), rel=1e-6)
    assert not model.network.fold.weight.grad

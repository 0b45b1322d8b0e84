"""Networks on images: what the kinds of `cpikan.images.models` cost and reach, and neuraloperator on the same numbers.

    python benchmarks/operators.py [--only same resolution compression context denoise speed] [--seconds 60] [--steps 500]
                                   [--seeds 3]

Prints each figure and keeps it in results/operators.csv. Everything runs on one thread. The comparison needs neuraloperator
(``pip install neuraloperator==2.0.0 --no-deps`` with tensorly, tensorly-torch, opt_einsum, ruamel.yaml, configmypy, requests),
which the package does not; without it that part is left out, saying so. ``--seconds`` is the training time of each network,
``--steps`` their number where context is compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "images"))
from cpikan.images.features import FeatureSpec, Planes, features, noise_unit_nm, read_answer
from cpikan.images.models.fno import FNO
from cpikan.images.models.kinds import MODELS, build_model
from cpikan.images.models.multigrid import context_patches, stitch
from cpikan.images.models.tucker import TFNO
from ledger import Row, keep

RESULTS = Path(__file__).parent / "results" / "operators.csv"
SIZE = {"width": 20, "modes": 12, "depth": 3}


def parameters(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def seconds_of(call: Callable[[], object], repeat: int = 9) -> float:
    call()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@dataclass(frozen=True)
class Budget:
    """How long a network learns: so many seconds, or so many steps."""

    seconds: float = math.inf
    steps: int = sys.maxsize


def train(network: nn.Module, batch: Callable[[int], Tensor], budget: Budget) -> int:
    """Adam on the loss ``batch(step)``, the rate falling to nothing as a cosine of the budget; steps made."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    started, steps = time.perf_counter(), 0
    while (share := max((time.perf_counter() - started) / budget.seconds, steps / budget.steps)) < 1:
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 + np.cos(np.pi * share)) / 2
        optimizer.zero_grad()
        batch(steps).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
    return steps


def waves(samples: int, side: int, seed: int, length: float = 0.1) -> tuple[Tensor, Tensor]:
    """Periodic images a and u = (1 - length^2 laplace)^-1 a^2 on the unit square, sampled from a grid that resolves them."""
    fine = 256
    k = np.fft.fftfreq(fine, 1 / fine)
    square = k[:, None] ** 2 + k[None, : fine // 2 + 1] ** 2
    rng = np.random.default_rng(seed)
    shape = np.exp(-square / 50) * (square < 24**2)
    a = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(samples, fine, fine))) * shape, s=(fine, fine))
    a /= a.std()
    u = np.fft.irfft2(np.fft.rfft2(a**2) / (1 + (2 * np.pi * length) ** 2 * square), s=(fine, fine))
    step = fine // side
    return tuple(torch.from_numpy(each[:, None, ::step, ::step].copy()).float() for each in (a, u))  # type: ignore[return-value]


class Mean(nn.Module):
    """The network and the mean of what it learns, which no network has to find."""

    def __init__(self, network: nn.Module, mean: Tensor) -> None:
        super().__init__()
        self.network, self.mean = network, mean

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.network(x)


def learnt(
    network: nn.Module, budget: Budget, seed: int, sides: tuple[int, ...], length: float = 0.1
) -> tuple[list[float], int]:
    """Relative L2 errors beyond the mean, at each of ``sides``, of a network trained at 64 x 64; and the steps made."""
    given, wanted = waves(128, 64, seed, length)
    whole = Mean(network, wanted.mean())
    generator = torch.Generator().manual_seed(seed)

    def loss(_step: int) -> Tensor:
        chosen = torch.randint(len(given), (8,), generator=generator)
        return (whole(given[chosen]) - wanted[chosen]).square().mean()

    steps = train(network, loss, budget)
    errors = []
    for side in sides:
        a, u = waves(16, side, seed + 1000, length)
        with torch.inference_mode():
            errors.append(float((whole(a) - u).norm() / (u - wanted.mean()).norm()))
    return errors, steps


def same(_options: argparse.Namespace) -> list[Row]:
    """Both packages with the same weights: difference, parameters, time."""
    if importlib.util.find_spec("neuralop") is None:
        print("neuraloperator is not installed: the comparison is left out")
        return []
    from neuralop.models import FNO as TheirFNO
    from test_fno import OnceGelu, copy_weights, shaken

    rows = []
    for name, ours in (("fno", FNO(6, 3, 24, 12, 4)), ("tfno", TFNO(6, 3, 24, 12, 4, rank=0.1))):
        shaken(ours)
        activation = OnceGelu()
        theirs = TheirFNO(
            (24, 22),
            in_channels=6,
            out_channels=3,
            hidden_channels=24,
            n_layers=4,
            lifting_channel_ratio=0,
            positional_embedding=None,
            non_linearity=activation,
            use_channel_mlp=False,
            factorization=None if name == "fno" else "Tucker",
            rank=1.0 if name == "fno" else ours.layers[0].spectral.ranks,
        )
        copy_weights(ours, theirs)
        image = torch.randn(4, 6, 128, 128, generator=torch.Generator().manual_seed(0))

        def run(network: nn.Module, backward: bool, image: Tensor = image, activation: OnceGelu = activation) -> Tensor:
            activation.calls = 0
            with torch.set_grad_enabled(backward):
                answer = network(image)
            if backward:
                answer.square().sum().backward()
            return answer.detach()

        exact = run(theirs, False)
        error = float((run(ours, False) - exact).norm() / exact.norm())
        rows.append(
            Row(f"{name}: difference, same weights", f"{error:.1e}", "", "<= 1e-5", error <= 1e-5, "neuraloperator", "")
        )
        rows.append(
            Row(f"{name}: parameters", parameters(ours), "", "", "", "neuraloperator", "real numbers; the same in both")
        )
        for what, backward in (("forward", False), ("forward and backward", True)):
            mine, other = (seconds_of(lambda n=n, b=backward: run(n, b)) for n in (ours, theirs))
            note = f"{mine * 1e3:.0f} ms against {other * 1e3:.0f} ms, 4 x 6 x 128 x 128, median of 9"
            rows.append(Row(f"{name}: speed, {what}", round(other / mine, 2), "x", "", "", "neuraloperator", note))
    return rows


def resolution(options: argparse.Namespace) -> list[Row]:
    """Trained at 64 x 64, tested at 128 x 128 and 256 x 256."""
    rows = []
    for name, kind, more in (("fno", FNO, {}), ("tfno", TFNO, {"rank": 0.1})):
        torch.manual_seed(0)
        errors, steps = learnt(kind(1, 1, **SIZE, **more), Budget(options.seconds), 0, (64, 128, 256))
        change = max(abs(error / errors[0] - 1) for error in errors)
        note = f"relative L2 {', '.join(f'{error:.4f}' for error in errors)} at 64, 128, 256; {steps} steps"
        rows.append(
            Row(
                f"{name}: change of the error with resolution",
                round(100 * change, 2),
                "%",
                "< 10",
                change < 0.1,
                "",
                note,
            )
        )
    return rows


def compression(options: argparse.Namespace) -> list[Row]:
    """The same operator with kernels of fewer and fewer numbers, same time."""
    rows = []
    for rank in (None, 1.0, 0.3, 0.1, 0.02, 0.004):
        errors = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            network = FNO(1, 1, **SIZE) if rank is None else TFNO(1, 1, **SIZE, rank=rank)
            found, steps = learnt(network, Budget(options.seconds), seed, (64,))
            errors += found
        name = "dense kernel" if rank is None else f"rank {rank:g}"
        note = f"{parameters(network)} parameters, {steps} steps, seeds {', '.join(f'{error:.4f}' for error in errors)}"
        rows.append(Row(f"{name}: relative L2 error", round(statistics.median(errors), 4), "", "", "", "", note))
    return rows


class Patches(nn.Module):
    """A TFNO over patches of half the side of a periodic image: alone, with a margin, with coarser views around them."""

    def __init__(self, margin_px: int, views: int) -> None:
        super().__init__()
        self.margin_px, self.views, self.operator = margin_px, views, TFNO(views, 1, **SIZE, rank=0.1)

    def forward(self, x: Tensor) -> Tensor:
        seen = context_patches(x, 1, self.margin_px, periodic=True)[:, : self.views]
        return stitch(self.operator(seen), 1, self.margin_px)


def context(options: argparse.Namespace) -> list[Row]:
    """Operators that look 0.1 and 0.3 of the image far, on patches of half its side: equal numbers of steps."""
    kinds: dict[str, Callable[[], nn.Module]] = {
        "whole image": lambda: TFNO(1, 1, **SIZE, rank=0.1),
        "patches alone": lambda: Patches(0, 1),
        "patches with a margin of 8": lambda: Patches(8, 1),
        "patches with a coarse view": lambda: Patches(0, 2),
        "patches with a margin of 8 and a coarse view": lambda: Patches(8, 2),
    }
    rows = []
    for length, (name, make) in itertools.product((0.1, 0.3), kinds.items()):
        errors = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            found, steps = learnt(make(), Budget(steps=options.steps), seed, (64,), length)
            errors += found
        note = f"{steps} steps, seeds {', '.join(f'{error:.4f}' for error in errors)}"
        rows.append(
            Row(
                f"reach {length:g}, {name}: relative L2 error",
                round(statistics.median(errors), 4),
                "",
                "",
                "",
                "",
                note,
            )
        )
    return rows


def wafers(samples: int, side: int, seed: int) -> tuple[Planes, Tensor]:
    """Waves, a bow and terraces of 120 nm with white noise of 10 nm, and the truth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / 64
    truth = np.empty((samples, side, side))
    for image in truth:
        image[:] = 0.0
        for _ in range(4):
            ky, kx = rng.normal(0, 1.5, 2)
            image += rng.normal(0, 60) * np.sin(2 * np.pi * (ky * y + kx * x) / 2 + rng.uniform(0, 6.3))
        for _ in range(2):
            angle, off = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4) * side / 64
            image += 120 * ((x - x.mean()) * np.cos(angle) + (y - y.mean()) * np.sin(angle) > off)
    noisy = truth + rng.normal(0, 10, truth.shape)
    planes = Planes(
        torch.from_numpy(noisy).float(), torch.full(truth.shape, 10.0), torch.ones(truth.shape, dtype=torch.bool)
    )
    return planes, torch.from_numpy(truth).float()


def denoise(options: argparse.Namespace) -> list[Row]:
    """Each kind at its default size on heights with noise: what of the noise is left, same training time."""
    spec, side, rows = FeatureSpec(), 64, []
    planes, truth = wafers(256, side, 1)
    held, held_truth = wafers(64, side, 2)

    def shown(which: Planes) -> Tensor:
        units = [noise_unit_nm(h, s, v, spec.periods[0]) for h, s, v in zip(*which[:3], strict=True)]
        return features(which, spec, torch.tensor(units))

    channels, held_channels = shown(planes), shown(held)
    for kind in MODELS:
        torch.manual_seed(0)
        network = build_model(kind, {"channels_in": spec.channels, "channels_out": 3})
        generator = torch.Generator().manual_seed(0)

        def loss(_step: int, network: nn.Module = network, generator: torch.Generator = generator) -> Tensor:
            chosen = torch.randint(len(truth), (8,), generator=generator)
            some = Planes(planes.height_nm[chosen], planes.sigma_nm[chosen], planes.valid[chosen])
            return (read_answer(network(channels[chosen]), some).height_nm - truth[chosen]).square().mean() / 100

        steps = train(network, loss, Budget(options.seconds))
        with torch.inference_mode():
            left = (read_answer(network(held_channels), held).height_nm - held_truth).square().mean().sqrt() / 10
        note = f"{parameters(network)} parameters, {steps} steps of 8 patches of 64 x 64; 3 x 3 means: 0.33 where flat"
        rows.append(Row(f"{kind}: noise left of heights with steps", round(float(left), 3), "x", "", "", "pixel", note))
    return rows


def speed(_options: argparse.Namespace) -> list[Row]:
    """Each kind at its default size over one tile of 512 x 512."""
    rows = []
    for kind in MODELS:
        network = build_model(kind, {"channels_in": FeatureSpec().channels, "channels_out": 3}).eval()
        image = torch.randn(1, FeatureSpec().channels, 512, 512).contiguous(memory_format=torch.channels_last)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            took = seconds_of(lambda network=network, image=image: network(image), repeat=5)
        note = f"{parameters(network)} parameters, receptive field {network.receptive_field_px}, one thread"
        rows.append(Row(f"{kind}: speed on a tile of 512", round(512**2 / 1e6 / took, 2), "MPix/s", "", "", "", note))
    return rows


PARTS = {each.__name__: each for each in (same, resolution, compression, context, denoise, speed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        rows = PARTS[name](options)
        for row in rows:
            print(f"{name}: {row.figure}: {row.value} {row.unit} {row.target} ({row.note})", flush=True)
        keep(RESULTS, rows)


if __name__ == "__main__":
    main()

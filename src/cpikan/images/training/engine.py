"""Where a network is trained: one process, several (DDP), one GPU or CPU, half precision, on Hugging Face Accelerate."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, need
from cpikan.images.training.config import TrainConfig


class Engine:
    """One run's processes, device and precision.

    Autocast holds inside the network alone: what it is shown and what is made of its answer are float32. Raises InputError
    for what is not installed, and for options that cannot work together.
    """

    def __init__(self, config: TrainConfig) -> None:
        need("accelerate", "train", "training")
        check_together(config)
        from accelerate import Accelerator

        _forget_earlier_runs()
        training = config.training
        # DeepSpeed alone holds the moments of the optimizer: no state can be gone on from
        self.owns_moments = training.engine == "deepspeed"
        self._accelerator = Accelerator(
            # said of a machine without CUDA too: processes that a launcher started would not find each other otherwise
            cpu=not self.owns_moments and (training.device == "cpu" or not torch.cuda.is_available()),
            mixed_precision={"off": "no"}.get(training.precision, training.precision),
            deepspeed_plugin=_zero_plugin(config) if self.owns_moments else None,
        )
        self.processes, self.rank = int(self._accelerator.num_processes), int(self._accelerator.process_index)
        self.main = bool(self._accelerator.is_main_process)  # the process that writes files and messages
        self.device = torch.device(self._accelerator.device)
        self._networks: list[nn.Module] = []
        self._threads = torch.get_num_threads()
        if training.threads:
            torch.set_num_threads(training.threads)

    @property
    def scaler(self) -> Any:
        """Return the scaler of losses in fp16, or None."""
        return self._accelerator.scaler

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Put the network on its device, its gradients shared between processes, and the optimizer that follows them."""
        prepared, stepped = self._accelerator.prepare(network, optimizer)
        self._networks.append(prepared)
        return prepared, stepped

    def quiet(self, network: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Add gradients up here without sharing them yet, around all passes of a group but the ``last``."""
        return contextlib.nullcontext() if last else self._accelerator.no_sync(network)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss``; DDP takes means over processes, so sums are given times their number."""
        self._accelerator.backward(loss * self.processes)

    def clip(self, network: nn.Module, longest: float) -> float:
        """Measure the length of the gradient (unscaled first), cut to ``longest`` where that is above 0."""
        norm = self._accelerator.clip_grad_norm_(network.parameters(), longest if longest else float("inf"))
        return float(norm) if norm is not None else 0.0

    def total(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all processes."""
        if self.processes == 1:
            return values
        return self._accelerator.reduce(values, reduction="sum")

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Give the network its own forward back and the process its threads, and end the group of processes."""
        torch.set_num_threads(self._threads)
        for network in self._networks:
            self._accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        self._accelerator.free_memory()
        self._accelerator.end_training()


def check_together(config: TrainConfig) -> None:
    """Raise InputError where options of [training] exclude each other or the device, with the reason."""
    training = config.training
    cuda = torch.cuda.is_available()
    if training.device == "cuda" and not cuda:
        raise InputError("[training] device = 'cuda', but there is no CUDA device: give cpu or auto")
    on_cpu = training.device == "cpu" or not cuda
    if training.precision == "fp16" and on_cpu:
        raise InputError(
            "[training] precision = 'fp16' on the CPU: float16 convolutions are emulated there and losses are not "
            "scaled, so small gradients vanish; give off or bf16"
        )
    if training.recorrupt and not _physics(config):
        raise InputError(
            "[training] recorrupt without a physics loss: nothing else judges frames, add [loss] physics = 1"
        )
    if training.engine == "deepspeed":
        wrong = {
            "accumulate": (training.accumulate > 1, "ZeRO-2 cuts gradients up in every pass; give a larger batch"),
            "ema": (training.ema > 0, "DeepSpeed keeps weights of its own, which a mean would not see"),
            "rollbacks": (training.rollbacks > 0, "the moments live in DeepSpeed and cannot be put back; set it to 0"),
            "optimizer": (config.optimizer.name != "adamw", "ZeRO offload steps AdamW alone"),
            "precision": (training.precision == "fp16", "DeepSpeed scales losses itself; give off or bf16"),
        }
        for name, (bad, reason) in wrong.items():
            if bad:
                raise InputError(f"{name} cannot be combined with engine = 'deepspeed': {reason}")
        for module in ("deepspeed", "transformers"):  # Accelerate's way to DeepSpeed leads through transformers
            need(module, "deepspeed", "[training] engine = 'deepspeed'")
        if "LOCAL_RANK" not in os.environ:
            raise InputError(
                "[training] engine = 'deepspeed' needs a launcher: torchrun --nproc-per-node 1 -m cpikan train ..."
            )


def _physics(config: TrainConfig) -> bool:
    return "physics" in config.loss


def _forget_earlier_runs() -> None:
    """Let a run of this process choose anew: Accelerate keeps what the first one chose; the group of processes stays."""
    from accelerate.state import AcceleratorState, GradientState

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state(True)
        GradientState._reset_state()


def _zero_plugin(config: TrainConfig) -> Any:
    from accelerate import DeepSpeedPlugin

    text = importlib.resources.files("cpikan.images.training").joinpath("zero2_offload.json").read_text("utf-8")
    table = json.loads(text)
    table["train_micro_batch_size_per_gpu"] = config.data.batch
    if config.optimizer.clip:
        table["gradient_clipping"] = config.optimizer.clip
    table["bf16"] = {"enabled": config.training.precision == "bf16"}
    return DeepSpeedPlugin(hf_ds_config=table)

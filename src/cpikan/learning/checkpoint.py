"""Checkpoint: a solve on disk, to be continued bit for bit: tensors in safetensors, numbers in JSON, both or neither."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cpikan.errors import InputError, ResumeError
from cpikan.fields.files import load_field, save_field
from cpikan.storage.atomic import write_bytes, write_json
from cpikan.streaming.journal import open_locked
from cpikan.version import VERSION

State = Mapping[str, Any]  # of a stage on its way: tensors and plain numbers by name
_NAME = "checkpoint.json"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: numbers, tensors, and the field where it was written as one."""

    numbers: dict[str, Any]
    tensors: dict[str, Tensor]
    field: nn.Module | None


class Checkpoint:
    """A folder with the state of one solve; ``identity`` tells what it belongs to, by name.

    Files are written in turn under two names, and the JSON that names the turn comes last: a kill at any moment leaves the
    state before or the one after.
    """

    def __init__(self, folder: Path | str, identity: Mapping[str, Any], every_s: float = 5.0) -> None:
        self._folder = Path(folder)
        self._identity = {"version": VERSION, **identity}
        self._every_s, self._turn, self._written = every_s, 0, time.perf_counter()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone; raises InputError while another process holds it."""
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"checkpoint {self._folder} is a file: give a folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = open_locked(self._folder / "lock")
        try:
            yield
        finally:
            os.close(descriptor)

    def open(self, resume: bool) -> Saved | None:
        """What is there, to be resumed; None where nothing is.

        Raises ResumeError for the state of another solve, for a damaged one, and for one that would be written over.
        """
        path = self._folder / _NAME
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"checkpoint {self._folder} is a file: give a folder")
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            return None
        if not resume:
            raise ResumeError(f"{self._folder} holds a checkpoint: add --resume (resume=True), or name another folder")
        try:
            numbers = json.loads(path.read_text(encoding="utf-8"))
            self._turn = int(numbers["turn"])
            self._check(numbers["identity"])
            tensors = _read_tensors(self._folder / f"tensors-{self._turn}.safetensors")
            path = self._folder / f"field-{self._turn}.safetensors"
            field = deepcopy(load_field(path)) if numbers["whole field"] else None  # a copy, as of the tensors
        except ResumeError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as failure:
            raise ResumeError(f"checkpoint in {self._folder} is damaged ({failure}): name another folder") from failure
        return Saved(numbers, tensors, field)

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.perf_counter() - self._written >= self._every_s

    def write(self, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor], field: nn.Module | None) -> None:
        """Write all, or nothing; ``field`` is one that must be built anew on resuming."""
        turn = 1 - self._turn
        whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        write_bytes(self._folder / f"tensors-{turn}.safetensors", save(whole))
        if field is not None:
            save_field(field, self._folder / f"field-{turn}.safetensors")
        head = {"turn": turn, "whole field": field is not None, "identity": self._identity}
        write_json(self._folder / _NAME, {**head, **numbers})
        self._turn, self._written = turn, time.perf_counter()

    def _check(self, found: Mapping[str, Any]) -> None:
        asked = json.loads(json.dumps(self._identity))
        for key in asked:
            if found.get(key) != asked[key]:
                raise ResumeError(
                    f"cannot resume: {key} in {self._folder} is {_short(found.get(key))}, now {_short(asked[key])}: "
                    "give the same, or another folder"
                )


def split_state(state: State) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A stage's state as numbers and tensors."""
    numbers = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    return numbers, {name: value for name, value in state.items() if isinstance(value, Tensor)}


def described(thing: Any) -> str:
    """A few characters that differ when the settings of a thing do: of its text, without addresses."""
    return sha256(_ADDRESS.sub("", repr(thing)).encode()).hexdigest()[:12]


def or_infinite(value: float | None) -> float:
    """A cost as JSON keeps it: null stands for what is not finite."""
    return math.inf if value is None else value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        # copies, so that they lie in memory as fresh tensors do: products of others may round differently
        return {name: file.get_tensor(name).clone(memory_format=torch.contiguous_format) for name in file.keys()}  # noqa: SIM118


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

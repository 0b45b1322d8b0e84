"""The state of a run in a folder, to be continued bit for bit: numbers in JSON, tensors in safetensors, all or nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import plain, refuse_special, write_bytes, write_json
from cpikan.storage.documents import parse_json
from cpikan.streaming.journal import check_same_plan, open_locked
from cpikan.version import VERSION

if TYPE_CHECKING:
    from torch import Tensor

STATE, LOCK = "checkpoint.json", "lock"
_TENSOR, _FLOAT = "$tensor", "$float"  # what stands in the JSON for a tensor and for a number that JSON has not


@dataclass(frozen=True)
class Saved:
    """A state as it was saved: a tree of dictionaries and lists, whose leaves are tensors and what JSON holds.

    ``files`` are the paths of what was written beside it.
    """

    state: dict[str, Any]
    files: dict[str, Path]


class RunStore:
    """The newest state of one run, in a folder that one process at a time may write to.

    ``identity`` names what the state belongs to; a state of another identity or version is not resumed. Files are written
    in turn under two names, and the JSON that names the turn comes last: a kill at any moment leaves the state before or
    the one after. ``saved`` is what was found, None where there was nothing. With ``reading`` nothing is locked and
    nothing can be saved: for the other processes of a distributed run.

    Raises InputError for a file in place of the folder and while another process holds the store; ResumeError for a state
    of another run, for a damaged one, and where there is one and ``resume`` was not said.
    """

    def __init__(
        self,
        folder: Path | str,
        identity: Mapping[str, Any],
        *,
        resume: bool,
        every_s: float = 5.0,
        reading: bool = False,
    ) -> None:
        self._folder, self._identity = Path(folder), {"version": VERSION, **identity}
        self._every_s, self._saved_at, self._turn = every_s, time.perf_counter(), 0
        self._lock = -1 if reading else self._locked()
        try:
            self.saved = self._found(resume)
        except BaseException:
            self.close()
            raise

    @property
    def due(self) -> bool:
        """Tell whether ``every_s`` seconds have passed since the last state was saved."""
        return time.perf_counter() - self._saved_at >= self._every_s

    def save(self, state: Mapping[str, Any], files: Mapping[str, Callable[[Path], object]] | None = None) -> None:
        """Put a state in place of the last one; each of ``files`` writes one more file to the path that it is given.

        A state is a tree of mappings and lists (tuples become lists, keys become text) whose leaves are tensors, numbers,
        text and None; all come back as they are, tensors on the CPU. Raises StorageFull when the disk is full; the last
        state stays.
        """
        assert self._lock >= 0, "the store is open for reading only"
        turn = 1 - self._turn
        tensors: dict[str, Tensor] = {}
        tree = _without_tensors(state, "", tensors)
        if tensors:
            from safetensors.torch import save

            write_bytes(self._path("tensors", turn), save(tensors))
        for name, write in (files or {}).items():
            write(self._path(name, turn))
        head = {"turn": turn, "tensors": bool(tensors), "files": list(files or {}), "identity": self._identity}
        document = plain({**head, "state": tree})
        write_json(self._folder / STATE, {**document, "digest": self._digest(document)})
        self._turn, self._saved_at = turn, time.perf_counter()

    def close(self) -> None:
        """Let another process have the store."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _locked(self) -> int:
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"checkpoint {self._folder} is a file: give a folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        return open_locked(self._folder / LOCK)

    def _found(self, resume: bool) -> Saved | None:
        path = self._folder / STATE
        if not path.exists():
            return None
        if not resume:
            raise ResumeError(f"{self._folder} holds a checkpoint: add --resume (resume=True), or name another folder")
        from safetensors import SafetensorError

        refuse_special(path)
        try:
            head = parse_json(path.read_bytes())
            check_same_plan(head["identity"], self._identity, "name another folder")
            digest = head.pop("digest")
            self._turn = int(head["turn"])
            if digest != self._digest(head):
                raise ValueError("it is not what was written")
            tensors = _read_tensors(self._path("tensors", self._turn)) if head["tensors"] else {}
            files = {name: self._path(name, self._turn) for name in head["files"]}
            return Saved(_with_tensors(head["state"], tensors), files)
        except ResumeError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as failure:
            raise ResumeError(f"checkpoint in {self._folder} is damaged ({failure}): name another folder") from failure

    def _digest(self, document: Mapping[str, Any]) -> str:
        """Hash a state: its JSON, without the digest itself, and the files that it names."""
        found = hashlib.blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=16)
        for name in (*(["tensors"] if document["tensors"] else []), *document["files"]):
            with open(self._path(name, document["turn"]), "rb") as file:
                found.update(hashlib.file_digest(file, "blake2b").digest())
        return found.hexdigest()

    def _path(self, name: str, turn: int) -> Path:
        return self._folder / f"{name}-{turn}.safetensors"


def remove_state(folder: Path) -> None:
    """Remove the state that a `RunStore` kept in ``folder``, its JSON first: what is left then is no state.

    Raises InputError while another process holds the store.
    """
    if not folder.is_dir():
        return
    lock = open_locked(folder / LOCK)
    try:
        for pattern in (STATE, "*-[01].safetensors", LOCK):  # the lock goes last: until then nobody else begins
            for path in sorted(folder.glob(pattern)):
                path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Turn a tree into what JSON holds; its tensors go to ``tensors`` under the names that stand in their place."""
    if isinstance(value, Mapping):
        return {str(key): _without_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{name}/{at}", tensors) for at, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(float(value))}
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    while name in tensors:  # a key may hold a slash
        name += "'"
    tensors[name] = value.detach().cpu().clone().contiguous()
    return {_TENSOR: name}


def _with_tensors(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put the tensors of a tree back where their names stand."""
    if isinstance(tree, list):
        return [_with_tensors(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    return float(tree[_FLOAT]) if _FLOAT in tree else {key: _with_tensors(item, tensors) for key, item in tree.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        # copies, so that they lie in memory as fresh tensors do: products of others may round differently
        return {name: file.get_tensor(name).clone(memory_format=torch.contiguous_format) for name in file.keys()}  # noqa: SIM118

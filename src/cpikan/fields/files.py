"""Fields on disk: one safetensors file, the parameters as tensors and the shape as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from cpikan.errors import InputError, unknown_name
from cpikan.fields.corner import CornerField
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.front_ckan import FrontCKAN
from cpikan.fields.kinds import FIELDS
from cpikan.fields.levelled import LevelledField
from cpikan.fields.lifted import LiftedField
from cpikan.fields.module_field import ModuleField
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.rounded_kink import RoundedKink
from cpikan.fields.stacked import StackedField
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.fields.time_windows import TimeWindows
from cpikan.storage.atomic import write_bytes
from cpikan.storage.documents import parse_json

_FORMAT = 1
_NESTED: dict[str, tuple[Any, Callable[[Any], Sequence[Any]]]] = {  # a field around others, and which others
    "DecomposedField": (DecomposedField, lambda field: [field.parts]),
    "LevelledField": (LevelledField, lambda field: list(field.levels)),
    "CornerField": (CornerField, lambda field: [field.field]),
    "EmbeddedField": (EmbeddedField, lambda field: [field.field]),
    "LiftedField": (LiftedField, lambda field: [field.network, field.lift]),
    "StackedField": (StackedField, lambda field: list(field.levels)),
    "RoundedKink": (RoundedKink, lambda field: [field.series]),
    "TimeWindows": (TimeWindows, lambda field: list(field.parts)),
}


def save_field(field: nn.Module, path: Path | str) -> None:
    """Write a field to ``path``, whole or not at all; the precision is kept.

    Raises InputError for a kind of field that has no file form, StorageFull when the disk is full.
    """
    header = {"format": str(_FORMAT), "field": json.dumps(_describe(field), allow_nan=False)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in field.state_dict().items()}
    data = save(tensors, metadata=header)
    write_bytes(path, data)


def load_field(path: Path | str, module: nn.Module | None = None) -> nn.Module:
    """Read a field written by ``save_field``, bit for bit; for a `ModuleField` give a ``module`` as it was made of.

    Nothing is allocated from the description: the field is built without memory and takes over the tensors of the file,
    whose shapes must match. Raises InputError for a file that is absent, damaged or not a field.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}: give a field written by save_field")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as failure:
        raise InputError(f"{path} is not a whole safetensors file ({failure}): write it again") from failure
    if header.get("format") != str(_FORMAT):
        raise InputError(f"{path} holds no field of format {_FORMAT}: give a file written by save_field")
    try:
        described = parse_json(header["field"])
        field = _around(described, module) if described["kind"] == "ModuleField" else _bare(described)
        field.load_state_dict(tensors, strict=True, assign=True)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, RecursionError) as failure:
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise InputError(f"{path} describes no field ({reason}): write it again") from failure
    if len({tensor.dtype for tensor in tensors.values()}) != 1:
        raise InputError(f"{path} mixes precisions: write it again")
    return field


def _around(description: dict[str, Any], module: nn.Module | None) -> nn.Module:
    """Build the field of a module, whose code is no part of a file."""
    if module is None:
        raise InputError("the field was made of a torch module: give one of the same layers by module=")
    box = description["config"]["domain"]
    return ModuleField(module, (box["lower"], box["upper"]))


def _bare(description: dict[str, Any]) -> nn.Module:
    """Build a field without memory."""
    with torch.device("meta"):
        return _build(description)


def _describe(field: Any) -> dict[str, Any]:
    kind = type(field).__name__
    if kind not in _classes():
        raise unknown_name("kind of field", kind, _classes())
    description = {"kind": kind, "config": field.config()}
    if kind in _NESTED:
        parts = [_describe(part) for part in _NESTED[kind][1](field)]
        description["parts"] = parts[0] if len(parts) == 1 else parts
    return description


def _build(description: dict[str, Any]) -> nn.Module:
    kind, config, classes = description["kind"], description["config"], _classes()
    if kind not in classes:
        raise unknown_name("kind of field", str(kind), classes)
    parts = description["parts"] if kind in _NESTED else []
    inner = [_build(part) for part in (parts if isinstance(parts, list) else [parts])]
    field: nn.Module = classes[kind].from_config(config, *inner)
    return field


def _classes() -> dict[str, Any]:
    """List the classes of fields that have a file form, by name."""
    alone: tuple[Any, ...] = (FrontCKAN, TensorChebyshev, ProductChebyshev, PiecewiseChebyshev, ModuleField)
    plain = [*(kind.field for kind in FIELDS.values()), *alone]
    return {field.__name__: field for field in plain} | {name: field for name, (field, _) in _NESTED.items()}

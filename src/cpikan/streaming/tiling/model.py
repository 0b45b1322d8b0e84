"""What a model on tiles promises, and plain functions that promise it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from cpikan.errors import InputError

ReceptiveField = int | Literal["global"]
_ATTRIBUTES = ("receptive_field_px", "multiple_px", "channels_in", "channels_out", "batch")


@runtime_checkable
class TileModel(Protocol):
    """A model over tiles: (N, channels_in, h, w) float32 to (N, channels_out, h, w) float32.

    ``receptive_field_px`` is the side of the square of input pixels that one output pixel sees (5 for a 5 x 5 filter),
    or ``"global"`` where all pixels of a tile count. ``multiple_px`` is the step by which tiles may be cut and shifted
    (2^k for a network that halves its grid k times). ``channels_in`` is None where any number goes, ``channels_out``
    where as many come out. ``batch`` is how many tiles it takes at a time.
    """

    receptive_field_px: ReceptiveField
    multiple_px: int
    channels_in: int | None
    channels_out: int | None
    batch: int

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class TileFunction:
    """A plain function as a TileModel; see there for the attributes. ``name`` tells runs of different models apart."""

    function: Callable[[np.ndarray], np.ndarray]
    receptive_field_px: ReceptiveField = "global"
    multiple_px: int = 1
    channels_in: int | None = None
    channels_out: int | None = None
    batch: int = 4
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"function {self.function!r} cannot be called: give a function of (N, C, h, w) arrays")

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        return self.function(tiles)


def as_model(given: Any) -> TileModel:
    """Return a TileModel; wrap any other callable with its known attributes; raises InputError for no model."""
    if not callable(given):
        raise InputError(f"model {type(given).__name__} cannot be called: give a function of (N, C, h, w) arrays")
    if hasattr(given, "state_dict") and hasattr(given, "forward"):
        raise InputError(f"model {type(given).__name__} is a torch module: wrap it, TorchTiles(module, ...)")
    if not isinstance(given, TileModel):
        defaults = TileFunction(given)
        stated = {key: getattr(given, key, getattr(defaults, key)) for key in _ATTRIBUTES}
        given = replace(defaults, name=model_name(given), **stated)
    check_attributes(given.receptive_field_px, given.multiple_px, given.batch)
    return given


def check_attributes(receptive_field_px: object, multiple_px: object, batch: object) -> None:
    """Raise InputError for attributes of a model that are no numbers of pixels or of tiles."""
    field = receptive_field_px
    if field != "global" and (not isinstance(field, int) or field < 1):
        raise InputError(f"receptive_field_px {field!r} of the model is no size: give 1 or more pixels, or 'global'")
    for key, number in (("multiple_px", multiple_px), ("batch", batch)):
        if not isinstance(number, int) or number < 1:
            raise InputError(f"{key} {number!r} of the model is not a count: give 1 or more")


def model_name(model: Any) -> str:
    """Name a model for resumed runs: its ``fingerprint``, else its name, else that of its function or class."""
    for key in ("fingerprint", "name"):
        found = getattr(model, key, "")
        if isinstance(found, str) and found:
            return found
    inner = getattr(model, "function", model)
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))


def channels_between(model: TileModel, given: int) -> int:
    """Count the channels out for ``given`` channels of the image; raises InputError where the model takes others."""
    if model.channels_in is not None and model.channels_in != given:
        raise InputError(
            f"the image has {given} channels, the model takes {model.channels_in}: give the channels it was made for"
        )
    return given if model.channels_out is None else model.channels_out


def checked_output(result: np.ndarray, tiles: tuple[int, ...], channels: int) -> np.ndarray:
    """Return the model's result; raises InputError for anything but real numbers of the promised shape."""
    expected = (tiles[0], channels, *tiles[2:])
    if not isinstance(result, np.ndarray) or result.shape != expected or result.dtype.kind not in "fiub":
        found = f"{result.dtype} of shape {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        raise InputError(
            f"the model returned {found} for tiles of shape {tiles}: it must return real numbers of shape {expected}; "
            "set channels_out, and give complex values as two channels"
        )
    return result

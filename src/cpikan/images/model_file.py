"""Image models on disk: NAME.safetensors with the weights and, beside it, NAME.json with all that is needed to use them.

The JSON says which network it is, what it is shown, how it was trained, and the SHA-256 of the weights. No code is read from
either file.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from cpikan.errors import InputError, check_names, check_path
from cpikan.images.features import OUTPUTS, FeatureSpec
from cpikan.images.models.kinds import build_model
from cpikan.images.models.network import ImageNetwork
from cpikan.storage.atomic import plain, write_bytes, write_json
from cpikan.storage.documents import parse_json
from cpikan.version import VERSION

_FORMAT = 1
_WEIGHTS, _CARD = ".safetensors", ".json"
_MOST_CARD_BYTES = 2**24
_MOST_HEADER_BYTES = 2**20  # of names and shapes in a file of weights
_SHIPPED = Path(__file__).parent / "shipped"
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class ModelCard:
    """What a model is: ``kind`` and ``config`` of the network (`build_model`), the ``features`` it is shown, and of its
    ``training`` what was kept (seed, settings, data, figures): whatever JSON can hold. ``sigma_factors`` are pairs of phase
    noise in rad and of the factor by which the network's sigma was found too small there.
    """

    kind: str
    config: dict[str, Any]
    features: FeatureSpec = field(default_factory=FeatureSpec)
    training: dict[str, Any] = field(default_factory=dict)
    sigma_factors: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, network: ImageNetwork, features: FeatureSpec, training: dict[str, Any] | None = None) -> ModelCard:
        """Make the card of a network as it stands."""
        return cls(network.kind, network.config(), features, training or {})

    def check(self) -> None:
        """Raise InputError where the network does not fit the features, or does not answer what a model answers."""
        given, wanted = self.config.get("channels_in"), self.features.channels
        if given != wanted:
            raise InputError(
                f"the network takes {given} channels, its features give {wanted}: set channels_in = {wanted}"
            )
        if self.config.get("channels_out") != OUTPUTS:
            raise InputError(
                f"the network answers with {self.config.get('channels_out')} channels, a model with {OUTPUTS} (correction, "
                f"order, variance): set channels_out = {OUTPUTS}"
            )


def save_model(network: ImageNetwork, card: ModelCard, path: Path | str) -> Path:
    """Write NAME.safetensors and NAME.json, each whole or not at all; ``path`` may end with either or with neither.

    Returns the path of the JSON. Raises InputError where card and network differ, where weights are not finite float32,
    and StorageFull when the disk is full.
    """
    card.check()
    if (card.kind, plain(card.config)) != (network.kind, plain(network.config())):
        raise InputError(f"the card says {card.kind} {card.config}, the network is another: make it by ModelCard.of")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise InputError(f"weights {name} are not finite float32 numbers: a model is saved as such, after training")
    weights, description = _paths(path)
    data = tensor_bytes(tensors, metadata={"format": "pt"})
    document = {
        "format": _FORMAT,
        "package": VERSION,
        "kind": card.kind,
        "config": card.config,
        "features": card.features.config(),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "sha256": hashlib.sha256(data).hexdigest(),
        "training": card.training,
        "sigma_factors": [list(pair) for pair in card.sigma_factors],
    }
    # weights first: where a run is killed between the two, the older card refuses them by its checksum
    write_bytes(weights, data)
    write_json(description, document)
    return description


def load_model(path: Path | str) -> tuple[ImageNetwork, ModelCard]:
    """Load a network, in evaluation mode on the CPU, and its card; ``path`` as in `save_model`, or the name of a shipped
    model.

    The network is built without memory and takes over the weights, whose number, shapes and checksum must be those of the
    card. Raises InputError for files that are missing, altered, damaged, of a newer format, or no model.
    """
    check_path("the model", path)
    weights, description = _find(path)
    document = _read_card(description)
    card = _card(document, description)
    try:
        with torch.device("meta"):
            network = build_model(card.kind, card.config)
    except InputError as failure:
        raise InputError(f"{description}: {failure}") from failure
    tensors = _read_weights(weights, description, network, document.get("sha256"))
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval(), card


def shipped_models() -> list[str]:
    """List names of the models that come with the package."""
    return sorted(path.name.removesuffix(_CARD) for path in _SHIPPED.glob("*" + _CARD))


def shipped_model(name: str) -> Path:
    """Find where a shipped model lies, whatever files of its name are at hand."""
    return _SHIPPED / name


def _paths(path: Path | str) -> tuple[Path, Path]:
    """Name the two files of a model; only their own endings are cut off: names may hold dots."""
    path = Path(path)
    name = path.name.removesuffix(_WEIGHTS).removesuffix(_CARD)
    if not name:
        raise InputError(f"model {str(path)!r} has no name: give NAME, for NAME.safetensors and NAME.json")
    return path.with_name(name + _WEIGHTS), path.with_name(name + _CARD)


def _find(path: Path | str) -> tuple[Path, Path]:
    weights, description = _paths(path)
    given, shipped = str(path), shipped_models()
    if given in shipped and not weights.is_file():  # NAME.json may be that of a height map of the same name
        return _paths(shipped_model(given))
    if description.is_file():
        if not weights.is_file():
            raise InputError(
                f"no weights {weights} beside {description.name}: put the file back, or save the model again"
            )
        return weights, description
    if weights.is_file():
        raise InputError(f"no {description} beside {weights.name}: a model is both files; put it back or save it again")
    near = difflib.get_close_matches(given, shipped, n=1, cutoff=0.4)
    names = f"the shipped models are {', '.join(shipped)}" if shipped else "no model is shipped"
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"no model {given!r}: there is no file {description}, and {names}{hint}")


def _read_card(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_CARD_BYTES:
        raise InputError(
            f"{path} has more than {_MOST_CARD_BYTES // 2**20} MiB: no model; give one written by save_model"
        )
    try:
        document = parse_json(path.read_bytes())
    except ValueError as failure:
        raise InputError(f"{path} is no JSON ({failure}): write the model again") from failure
    number = document.get("format") if isinstance(document, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 1 or "kind" not in document:
        raise InputError(f"{path} describes no model: give the JSON written beside a model's weights")
    if number > _FORMAT:
        raise InputError(
            f"{path} has format {number}, this package ({VERSION}) knows up to {_FORMAT}: update the package or train again"
        )
    return document


def _card(document: dict[str, Any], path: Path) -> ModelCard:
    try:
        check_names("feature of a model", document["features"], [each.name for each in fields(FeatureSpec)])
        spec = FeatureSpec(**document["features"])
        if not isinstance(spec.modulation, bool):
            raise TypeError(f"modulation {spec.modulation!r}")
        if not isinstance(document["kind"], str):
            raise TypeError(f"kind {document['kind']!r}")
        factors = tuple((float(noise), float(factor)) for noise, factor in document.get("sigma_factors") or ())
        if not all(0 <= noise < math.inf and 0 < factor < math.inf for noise, factor in factors):
            raise TypeError(f"sigma_factors {factors}")
        training = dict(document.get("training") or {})
        card = ModelCard(document["kind"], dict(document["config"]), spec, training, factors)
        card.check()
    except InputError as failure:
        raise InputError(f"{path}: {failure}") from failure
    except _DAMAGED as failure:
        raise InputError(f"{path} describes no model ({_first_line(failure)}): write it again") from failure
    return card


def _read_weights(path: Path, description: Path, network: nn.Module, checksum: Any) -> dict[str, Tensor]:
    """Read the tensors of a file, read once: the bytes that were checked are those that are used."""
    wanted = network.state_dict()
    size, numbers = path.stat().st_size, sum(tensor.numel() for tensor in wanted.values())
    if not 4 * numbers <= size <= 4 * numbers + _MOST_HEADER_BYTES:
        raise InputError(
            f"{path} has {size} bytes, the network of {description.name} {numbers} weights of 4: the file was altered or "
            "is another model's; save the model again"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise InputError(f"{path} was altered: its SHA-256 is not that of {description.name}; save the model again")
    try:
        tensors = read_tensors(data)
    except (SafetensorError, *_DAMAGED) as failure:
        raise InputError(f"{path} is not a safetensors file ({_first_line(failure)}): save it again") from failure
    for name, tensor in wanted.items():
        if name not in tensors:
            raise InputError(f"{path} lacks the weights {name}: save the model again")
        found = tensors[name]
        if found.shape != tensor.shape or found.dtype != torch.float32:
            raise InputError(
                f"weights {name} in {path} are {list(found.shape)} {str(found.dtype).removeprefix('torch.')}, the network of "
                f"{description.name} has {list(tensor.shape)} float32: save the model again"
            )
    if surplus := sorted(tensors.keys() - wanted.keys()):
        raise InputError(f"{path} has weights {surplus[0]} that the network has not: save the model again")
    return tensors


def _first_line(failure: BaseException) -> str:
    return (str(failure) or type(failure).__name__).splitlines()[0]

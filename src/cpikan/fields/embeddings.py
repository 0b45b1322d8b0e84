"""Embeddings: functions of the scaled coordinates, within [-1, 1], that stand in front of a network."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.errors import NUMBER, WHOLE, InputError, check_type, unknown_name
from cpikan.fields.layered import Through
from cpikan.fields.phase_layer import PhaseLayer
from cpikan.fields.start import START, Start
from cpikan.fields.streams import Streams, side_by_side


class Embedding(nn.Module, abc.ABC):
    """A map of ``dimension`` scaled coordinates to ``width`` nodes; ``settings`` are kept as attributes of these names."""

    settings: ClassVar[tuple[str, ...]] = ()
    dimension: int

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Count the nodes."""

    @abc.abstractmethod
    def forward(self, scaled: Tensor) -> Tensor:
        """Embed scaled points (..., B, d) as nodes (..., B, width)."""

    @abc.abstractmethod
    def streams(self, scaled: Streams, through: Through) -> Streams:
        """Embed points with derivatives; ``through(layer, streams)`` takes streams through a layer."""

    def restart(self, start: Start) -> None:
        """Draw anew what is drawn: here nothing."""
        del start

    def config(self) -> dict[str, Any]:
        """Write down what is needed to make the embedding again, without its parameters."""
        values = {name: getattr(self, name) for name in self.settings}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"kind": type(self).__name__, "dimension": self.dimension, **plain}


class PeriodicEmbedding(Embedding):
    """cos k pi x^, sin k pi x^ for k = 1 ... ``waves`` of every axis of ``axes``, x^ itself of the others.

    Whatever follows, a network behind it has the box as its period along these axes: value and all derivatives agree at
    both ends, and there is nothing left to be fitted. Raises InputError for axes that are not there or come twice, and for
    less than one wave. Dong and Ni, J. Comput. Phys. 435, 110242 (2021).
    """

    settings = ("axes", "waves")

    def __init__(self, dimension: int, axes: Sequence[int], waves: int = 1) -> None:
        super().__init__()
        self.dimension, self.axes, self.waves = dimension, _checked_axes("periodic", dimension, axes), int(waves)
        if self.waves < 1:
            raise InputError(f"{waves} waves of a period: give at least 1")

    @property
    def width(self) -> int:
        """Count the nodes."""
        return self.dimension + len(self.axes) * (2 * self.waves - 1)

    def forward(self, scaled: Tensor) -> Tensor:
        """Embed points, axis by axis."""
        parts = [
            torch.cat(self._waves(scaled[..., a : a + 1])[0], dim=-1) if a in self.axes else scaled[..., a : a + 1]
            for a in range(self.dimension)
        ]
        return torch.cat(parts, dim=-1)

    def streams(self, scaled: Streams, through: Through) -> Streams:
        """Embed points with derivatives, in closed form."""
        del through
        parts = []
        for a in range(self.dimension):
            axis = scaled.mapped(lambda part, a=a: part[..., a : a + 1])  # type: ignore[misc]
            waves = self._waves(axis.value) if a in self.axes else None
            parts.append(axis if waves is None else axis.expanded(*(torch.stack(w, dim=-2) for w in waves)))
        return side_by_side(parts)

    def _waves(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Compute the waves of a coordinate with their first and second derivatives."""
        rates = [k * math.pi for k in range(1, self.waves + 1)]
        pairs = [(r, torch.cos(r * x), torch.sin(r * x)) for r in rates]
        return (
            [w for _, c, s in pairs for w in (c, s)],
            [w for r, c, s in pairs for w in (-r * s, r * c)],
            [w for r, c, s in pairs for w in (-r * r * c, -r * r * s)],
        )


class EvenEmbedding(Embedding):
    """cos pi x^ of every axis of ``axes``, x^ itself of the others: node by node in place of the coordinates.

    Along these axes a network behind it is even about the middle and has the box as its period, and every smooth function
    of that kind is a smooth function of the cosine. Raises InputError for axes that are not there or come twice.
    """

    settings = ("axes",)

    def __init__(self, dimension: int, axes: Sequence[int]) -> None:
        super().__init__()
        self.dimension, self.axes = dimension, _checked_axes("even", dimension, axes)

    @property
    def width(self) -> int:
        """Count the nodes."""
        return self.dimension

    def forward(self, scaled: Tensor) -> Tensor:
        """Embed points, axis by axis."""
        parts = [torch.cos(math.pi * x) if a in self.axes else x for a, x in enumerate(scaled.split(1, dim=-1))]
        return torch.cat(parts, dim=-1)

    def streams(self, scaled: Streams, through: Through) -> Streams:
        """Embed points with derivatives, in closed form."""
        del through
        parts = []
        for a in range(self.dimension):
            axis = scaled.mapped(lambda part, a=a: part[..., a : a + 1])  # type: ignore[misc]
            phase = math.pi * axis.value
            c, s = torch.cos(phase), torch.sin(phase)
            parts.append(axis.through(c, -math.pi * s, -(math.pi**2) * c) if a in self.axes else axis)
        return side_by_side(parts)


class WaveEmbedding(Embedding):
    """The scaled coordinates, and cos w pi x^, sin w pi x^ beside them for every (axis, w) of ``waves``.

    w is how many waves there are from one end of the axis to the other, a whole number or not. A network behind it gives these
    waves a varying amplitude by products alone, where one of the coordinates has to find each of their crests. Raises
    InputError for none, for axes that are not there, and for numbers of waves that are not positive.
    """

    settings = ("waves",)

    def __init__(self, dimension: int, waves: Sequence[tuple[int, float]]) -> None:
        super().__init__()
        check_type("waves", waves, Sequence, "pairs of an axis and a number, as [(0, 4.0)]")
        for one in waves:
            check_type("a wave", one, Sequence, "an axis and a number, as (0, 4.0)")
            check_type("the number of waves", one[-1], NUMBER, "a number, as 4.0")
            if len(one) != 2 or not (one[1] > 0 and math.isfinite(one[1])):
                raise InputError(f"{one} for waves along an axis: give its number and a positive one, as (0, 4.0)")
        self.dimension = dimension
        axes = dict.fromkeys(axis for axis, _ in waves)
        _checked_axes("wave", dimension, list(axes))
        self.waves = tuple((int(axis), float(count)) for axis, count in waves)

    @property
    def width(self) -> int:
        """Count the nodes."""
        return self.dimension + 2 * len(self.waves)

    def forward(self, scaled: Tensor) -> Tensor:
        """Embed points: the coordinates, then the pairs."""
        phases = [count * math.pi * scaled[..., a : a + 1] for a, count in self.waves]
        return torch.cat([scaled, *(part for phase in phases for part in (torch.cos(phase), torch.sin(phase)))], dim=-1)

    def streams(self, scaled: Streams, through: Through) -> Streams:
        """Embed points with derivatives, in closed form."""
        del through
        parts = [scaled]
        for a, count in self.waves:
            axis, rate = scaled.mapped(lambda part, a=a: part[..., a : a + 1]), count * math.pi  # type: ignore[misc]
            c, s = torch.cos(rate * axis.value), torch.sin(rate * axis.value)
            parts += [axis.through(c, -rate * s, -(rate**2) * c), axis.through(s, rate * c, -(rate**2) * s)]
        return side_by_side(parts)

    def config(self) -> dict[str, Any]:
        """Write down what is needed to make the embedding again."""
        return {"kind": "WaveEmbedding", "dimension": self.dimension, "waves": [list(one) for one in self.waves]}


class FourierEmbedding(Embedding):
    """cos 2 pi x^B, sin 2 pi x^B with ``features`` / 2 columns of B, normal with deviation ``sigma``, or several in turn.

    With ``trained`` the frequencies are parameters that begin there. ``networks`` as of the field behind it. Raises
    InputError for an odd number of features and a sigma that is not positive. Tancik et al. (2020); Wang, Wang and
    Perdikaris (2021) for several scales.
    """

    settings = ("features", "sigma", "trained", "networks")

    def __init__(
        self,
        dimension: int,
        features: int,
        sigma: float | Sequence[float] = 0.5,
        *,
        trained: bool = False,
        networks: int | None = None,
        start: Start | None = START,
    ) -> None:
        super().__init__()
        for what, number in (("dimension", dimension), ("features", features)):
            check_type(what, number, WHOLE, "a whole number")
        scales = tuple(float(s) for s in (sigma if isinstance(sigma, Sequence) else (sigma,)))
        if not scales or not all(s > 0 and math.isfinite(s) for s in scales):
            raise InputError(f"sigma {sigma} of Fourier features: give positive numbers, such as 0.5 or [0.3, 3]")
        if features < 2 or features % 2:
            raise InputError(f"{features} Fourier features: give an even number, half cosines, half sines")
        self.dimension, self.features, self.sigma, self.trained = dimension, features, scales, trained
        self.networks = networks
        self.phases = PhaseLayer(dimension, features // 2, trained, networks)
        if start is not None:
            self.restart(start)

    @property
    def width(self) -> int:
        """Count the nodes."""
        return self.features

    @torch.no_grad()
    def restart(self, start: Start) -> None:
        """Draw the frequencies anew."""
        generator = np.random.default_rng([start.seed, 1])
        shape = tuple(self.phases.frequencies.shape)
        drawn = generator.standard_normal(shape) * np.resize(np.asarray(self.sigma), shape[-1])
        self.phases.frequencies.copy_(torch.from_numpy(drawn))

    def forward(self, scaled: Tensor) -> Tensor:
        """Embed points."""
        phase = self.phases(scaled)
        return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)

    def streams(self, scaled: Streams, through: Through) -> Streams:
        """Embed points with derivatives, in closed form."""
        phase = through(self.phases, scaled)
        c, s = torch.cos(phase.value), torch.sin(phase.value)
        return side_by_side([phase.through(c, -s, -c), phase.through(s, c, -s)])


def _checked_axes(kind: str, dimension: int, axes: Sequence[int]) -> tuple[int, ...]:
    """Check numbers of axes; raises InputError for none, for some that are not there, and for some that come twice."""
    for axis in axes:
        check_type(f"{'an' if kind == 'even' else 'a'} {kind} axis", axis, WHOLE, "numbers of axes, as [0]")
    found = tuple(int(a) for a in axes)
    if not found or len({*found}) < len(found) or not {*found} <= {*range(dimension)}:
        raise InputError(f"{kind} axes {list(axes)} of {dimension}: give some of 0 to {dimension - 1}, each once")
    return found


NAMES = ("periodic", "fourier", "trained-fourier")
EMBEDDINGS: dict[str, Any] = {
    kind.__name__: kind for kind in (PeriodicEmbedding, EvenEmbedding, WaveEmbedding, FourierEmbedding)
}


def embedding_named(name: str, dimension: int, periods: Sequence[int], features: int, seed: int = 0) -> Embedding:
    """Make ``periodic`` waves of the axes ``periods``, or so many ``fourier`` or ``trained-fourier`` features.

    Raises InputError for another name, and where no axis is periodic.
    """
    if name not in NAMES:
        raise unknown_name("embedding", name, NAMES)
    if name == "periodic":
        if not periods:
            raise InputError("periodic embedding of a problem without periodic conditions: take fourier, or none")
        return PeriodicEmbedding(dimension, periods)
    even = max(features + features % 2, 2 * dimension)
    return FourierEmbedding(dimension, even, trained=name == "trained-fourier", start=Start(seed))


def embedding_of(config: dict[str, Any]) -> Embedding:
    """Make an embedding from what ``config`` wrote down; what is drawn is zero."""
    kind, rest = config["kind"], {name: value for name, value in config.items() if name != "kind"}
    if kind not in EMBEDDINGS:
        raise unknown_name("embedding", str(kind), EMBEDDINGS)
    drawn = {"start": None} if kind == "FourierEmbedding" else {}
    made: Embedding = EMBEDDINGS[kind](**rest, **drawn)
    return made

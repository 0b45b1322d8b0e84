"""Which numbers describe the frames, and where each stands in the vector of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Effect = Literal["tilt", "defocus", "gain", "offset", "harmonic2", "harmonic3"]
EFFECTS: tuple[Effect, ...] = ("tilt", "defocus", "gain", "offset", "harmonic2", "harmonic3")
# standard deviations of weak priors (rad at the rim, shares of one, shares of B): they only keep what the data leave
# open from running away, and a parameter that is hardly better known than this is not determined
PRIOR: dict[str, float] = {
    "step": 10.0,
    "tilt": 3.0,
    "defocus": 3.0,
    "gain": 0.5,
    "offset": 1.0,
    "harmonic2": 0.5,
    "harmonic3": 0.5,
}


@dataclass(frozen=True)
class Parameters:
    """A vector of parameters, taken apart: ``wave`` (K, waves) coefficients of the step field, ``gain`` and ``offset``
    (K,), ``harmonic`` one ratio per order, ``background`` and ``modulation`` coefficients of the smooth fields."""

    wave: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    harmonic: np.ndarray
    background: np.ndarray
    modulation: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Frames 1 .. K-1 each have a step and what ``effects`` add; then harmonics, then ``terms`` of A and of B."""

    frames: int
    effects: frozenset[Effect]
    terms: int

    @property
    def waves(self) -> int:
        return 1 + 2 * ("tilt" in self.effects) + ("defocus" in self.effects)

    @property
    def per_frame(self) -> int:
        return self.waves + ("gain" in self.effects) + ("offset" in self.effects)

    @property
    def orders(self) -> tuple[int, ...]:
        return tuple(order for order in (2, 3) if f"harmonic{order}" in self.effects)

    @property
    def of_frames(self) -> int:
        """How many parameters belong to single frames."""
        return (self.frames - 1) * self.per_frame

    @property
    def own(self) -> int:
        """Parameters without those of the smooth fields."""
        return self.of_frames + len(self.orders)

    @property
    def size(self) -> int:
        return self.own + 2 * self.terms

    def without(self, effect: Effect) -> Layout:
        return replace(self, effects=self.effects - {effect})

    def indices(self, group: str) -> np.ndarray:
        """Where the parameters called ``group`` (an effect, or "step") stand."""
        if group.startswith("harmonic"):
            return np.array([self.of_frames + self.orders.index(int(group[-1]))])
        at = {"step": [0], "tilt": [1, 2], "defocus": [self.waves - 1], "gain": [self.waves]}
        at["offset"] = [self.per_frame - 1]
        frame = np.arange(self.frames - 1)[:, None] * self.per_frame
        return (frame + np.array(at[group])).ravel()

    def names(self) -> np.ndarray:
        """The group of every parameter, empty for the smooth fields."""
        names = np.full(self.size, "", dtype="U12")
        for group in ("step", *(effect for effect in EFFECTS if effect in self.effects)):
            names[self.indices(group)] = group
        return names

    def prior_precision(self) -> np.ndarray:
        """One over the variance of the weak priors, zero for the smooth fields."""
        return np.array([PRIOR[name] ** -2 if name else 0.0 for name in self.names()])

    def neutral(self) -> np.ndarray:
        """Frames that differ in nothing."""
        theta = np.zeros(self.size)
        if "gain" in self.effects:
            theta[self.indices("gain")] = 1.0
        return theta

    def unpack(self, theta: np.ndarray) -> Parameters:
        frame = np.zeros((self.frames, self.per_frame))
        frame[1:] = theta[: self.of_frames].reshape(self.frames - 1, self.per_frame)
        gain, offset = np.ones(self.frames), np.zeros(self.frames)
        if "gain" in self.effects:
            gain[1:] = frame[1:, self.waves]
        if "offset" in self.effects:
            offset = frame[:, self.per_frame - 1]
        harmonic, fields = theta[self.of_frames : self.own], theta[self.own :]
        return Parameters(frame[:, : self.waves], gain, offset, harmonic, fields[: self.terms], fields[self.terms :])

    def moved_to(self, other: Layout, theta: np.ndarray) -> np.ndarray:
        """The same parameters in another layout; what this one lacks is neutral."""
        moved = other.neutral()
        for group in ("step", *(effect for effect in EFFECTS if effect in self.effects & other.effects)):
            moved[other.indices(group)] = theta[self.indices(group)]
        moved[other.own :] = theta[self.own :]
        return moved

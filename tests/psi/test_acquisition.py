"""Metadata of a stack: parts that contradict each other are refused where they meet."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cpikan.errors import InputError
from cpikan.psi.model.acquisition import Acquisition

STEPS = (0.0, 90.0, 180.0, 270.0)


def test_a_complete_acquisition() -> None:
    acquisition = Acquisition((632.8, 532.0), (STEPS, STEPS), "trusted", pixel_um=5.0, bit_depth=12)
    assert acquisition.frames_per_wavelength == 4
    assert dataclasses.replace(acquisition) == acquisition
    assert hash(acquisition) == hash(dataclasses.replace(acquisition))


def test_wavelengths_alone_suffice() -> None:
    acquisition = Acquisition((632.8,))
    assert acquisition.steps == "unknown"
    assert acquisition.frames_per_wavelength is None


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Acquisition((632.8,)).pixel_um = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wavelengths_nm": ()}, "no wavelength"),
        ({"wavelengths_nm": (0.0,)}, "not positive"),
        ({"wavelengths_nm": (float("nan"),)}, "not positive"),
        ({"wavelengths_nm": (float("inf"),)}, "not positive"),
        ({"wavelengths_nm": (532.0, 532.0)}, "repeat"),
        ({"steps": "trused"}, "did you mean 'trusted'"),
        ({"steps": "trusted"}, "no phase_steps"),
        ({"phase_steps_deg": (STEPS, STEPS), "steps": "trusted"}, "2 lists of phase steps for 1 wavelengths"),
        ({"phase_steps_deg": ((0.0, 90.0, float("nan")),), "steps": "trusted"}, "finite"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Acquisition(**{"wavelengths_nm": (632.8,), **arguments})

"""The summary of a reconstruction: what is to be doubted comes first, and the same words are said once."""

from __future__ import annotations

import pytest

from cpikan.cli.reconstruct import gathered, tell

RESULT = {
    "output": "a.zarr",
    "sigma_nm_median": 3.0,
    "pv_nm": 1.0,
    "rms_nm": 1.0,
    "valid_fraction": 1.0,
    "ambiguous_fraction": 0.0,
    "components": 1,
    "seconds": 1.0,
    "megapixels_per_second": 1.0,
    "peak_anonymous_mib": 1.0,
    "phase_steps_deg": [[0, 90]],
    "steps": "trusted",
}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ((), "output     a.zarr"),
        (("saturated",), "WARNING    a warning is above (saturated); what to do: docs/explanation/trust.md"),
        (
            ("images-moved", "images-moved", "saturated"),
            "WARNING    3 warnings are above (images-moved, saturated); what to do: docs/explanation/trust.md",
        ),
    ],
)
def test_warnings_come_first(names, line):
    told = tell({**RESULT, "warnings": ["a sentence"] * len(names), "warning_names": list(names)})
    assert told.splitlines()[0] == line


def test_what_several_wavelengths_have_in_common_is_said_once():
    notes = ["wavelength 1: few frames", "a map of its own", "wavelength 3: few frames", "wavelength 2: another"]
    assert gathered(notes) == ["wavelengths 1, 3: few frames", "a map of its own", "wavelength 2: another"]
    assert len(tell({**RESULT, "notes": [f"wavelength {n}: few frames" for n in range(1, 9)]}).splitlines()) < 8

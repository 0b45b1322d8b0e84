"""Every setting of every kind of field changes the field that comes out."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from cpikan.fields.kinds import FIELDS
from cpikan.fields.layered import Start

CLASSES = sorted({kind.field for kind in FIELDS.values()}, key=lambda field: field.__name__)
OTHER = {
    "degree": 4,
    "activation": "silu",
    "frequency": 3.0,
    "sigma": (0.2, 0.9),
    "wavelets": 2,
    "mother": "dog",
    "spread": 0.5,
    "rank": 3,
    "gate": 0.3,
    "slopes": "layer",
    "rule": "critical",
}
COMMON = {
    "widths": [2, 6, 6, 1],
    "domain": ([-1.0, -1.0], [1.0, 2.0]),
    "networks": 2,
    "start": Start(1),
}
CASES = [(field, name) for field in CLASSES for name in (*COMMON, *field.settings)]


@pytest.mark.parametrize(("field", "name"), CASES)
def test_a_setting_changes_the_field(field, name):
    x = torch.tensor([[[0.3, -0.2], [0.1, 0.7]]], dtype=torch.float64)

    def result(**changed):
        made = field(**{"widths": [2, 4, 4, 1], **changed})
        if name == "slopes":  # all are 1 at first
            return [p.shape for p in made.parameters()]
        return made(x if "networks" in changed else x[0]).tolist()

    assert result(**{name: {**OTHER, **COMMON}[name]}) != result()


@pytest.mark.parametrize("name", [each.name for each in fields(Start)])
def test_how_a_field_is_drawn(name):
    field = FIELDS["scaled-cpikan"].field
    one, other = (field([2, 4, 1], 3, start=start) for start in (Start(), Start(**{name: OTHER.get(name, 7)})))
    assert not torch.equal(one.output_coefficients(), other.output_coefficients())


@pytest.mark.parametrize("field", CLASSES)
def test_what_is_written_down_is_what_was_asked_for(field):
    one = field([2, 4, 1])
    assert set(one.config()) == {"widths", "domain", "networks", *field.settings}
    assert field.from_config(one.config()).config() == one.config()

"""Field files: damaged, foreign and hostile ones are refused in one line and allocate nothing."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from cpikan.errors import InputError
from cpikan.fields.files import load_field, save_field
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

GOOD = {
    "kind": "ScaledCPIKAN",
    "config": {"widths": [1, 1], "degree": [2], "domain": {"lower": [0.0], "upper": [1.0]}, "networks": None},
}
TENSORS = dict(ScaledCPIKAN([1, 1], 2, ([0.0], [1.0])).state_dict())


def written(path, description, tensors=None, version="1"):
    save_file(
        dict(TENSORS if tensors is None else tensors), path, {"format": version, "field": json.dumps(description)}
    )
    return path


def changed(**config):
    return {**GOOD, "config": {**GOOD["config"], **config}}


def test_the_file_of_these_tests_is_a_good_one(tmp_path):
    field = load_field(written(tmp_path / "a.safetensors", GOOD))
    assert field(torch.zeros(1, 1, dtype=torch.float64)).shape == (1, 1)


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ({**GOOD, "kind": "ScaledcPIKAN"}, "unknown kind of field 'ScaledcPIKAN'.*did you mean 'ScaledCPIKAN'"),
        ({"kind": "ScaledCPIKAN"}, "describes no field"),
        ([], "describes no field"),
        (changed(degree=[0]), "degree 0 makes every edge constant"),
        (changed(degree=[3]), "describes no field"),
        (changed(widths=[1, 10**12]), "describes no field"),  # eight terabytes, were they allocated
        (changed(networks=10**9), "describes no field"),
        (changed(domain={"lower": [1.0], "upper": [1.0]}), "domain from 1 to 1"),
        (changed(widths="ab"), "widths.*is 'a': give whole numbers"),
        ({"kind": "DecomposedField", "config": {"axes": [{"lower": 0}]}, "parts": GOOD}, "describes no field"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, description, text):
    path = written(tmp_path / "a.safetensors", description)
    with pytest.raises(InputError, match=text) as caught:
        load_field(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        load_field(tmp_path / "absent.safetensors")
    path = tmp_path / "a.safetensors"
    whole = written(path, GOOD).read_bytes()
    for data in (b"", whole[:20], whole[:-1], b"PK\x03\x04" + whole, struct.pack("<Q", 2**62) + whole[8:]):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a whole safetensors file"):
            load_field(path)
    save_file(TENSORS, path)
    with pytest.raises(InputError, match="holds no field of format 1"):
        load_field(path)
    mixed = {name: t.float() if "bias" in name else t for name, t in TENSORS.items()}
    with pytest.raises(InputError, match="mixes precisions"):
        load_field(written(path, GOOD, mixed))
    with pytest.raises(InputError, match="holds no field of format 1"):
        load_field(written(path, GOOD, version="2"))


def test_what_is_no_field_is_not_written(tmp_path):
    with pytest.raises(InputError, match="unknown kind of field 'Linear'"):
        save_field(torch.nn.Linear(1, 1), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_field(ScaledCPIKAN([1, 1]), path)
    before = path.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cpikan.storage.atomic.os.fsync", fail)
    with pytest.raises(InputError, match="disk full"):
        save_field(ScaledCPIKAN([2, 1]), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]

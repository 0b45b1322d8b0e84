from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import open_height_map
from cpikan.psi.model.flags import Flag
from cpikan.storage.atomic import write_json
from cpikan.storage.writers.layout import QUANTITIES, document_path
from cpikan.storage.writers.open import open_writer


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
@pytest.mark.parametrize("names", [["height_nm"], list(QUANTITIES)])
def test_what_was_written_is_there_and_the_rest_is_none(tmp_path: Path, suffix: str, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    data = {name: rng.integers(0, 9, (30, 40)).astype(QUANTITIES[name].dtype) for name in names}
    path = tmp_path / f"out{suffix}"
    types = {name: array.dtype for name, array in data.items()}
    writer = open_writer(path, (30, 40), types, attributes={}, resume=False)
    writer.write_rows(0, data)
    writer.finish()
    assert open_height_map(path).summary == {}
    write_json(document_path(path), {"summary": {"rms_nm": 2.0}, "settings": {}})
    result = open_height_map(str(path))
    assert result.path == path
    assert result.shape == (30, 40)
    assert result.summary == {"rms_nm": 2.0}
    for name in QUANTITIES:
        array = getattr(result, name)
        if name in data:
            np.testing.assert_array_equal(array[5:7, ::3], data[name][5:7, ::3])
        else:
            assert array is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.path = tmp_path  # type: ignore[misc]


def test_a_missing_map_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_height_map(tmp_path / "out.zarr")


def test_flags_are_the_documented_bits_of_a_byte() -> None:
    assert [flag.value for flag in Flag] == [1, 2, 4, 8, 16, 32]
    assert np.uint8(Flag.INVALID | Flag.INPAINTED) == 33
    assert Flag(9) == Flag.INVALID | Flag.AMBIGUOUS

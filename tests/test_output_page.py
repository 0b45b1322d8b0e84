"""docs/reference/output.md: every key of the JSON is explained there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main
from small_stacks import FIVE_DEG, STEPS_DEG, folder_of

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "output.md"
# keys that are data: orders of harmonics and ripple, names of polynomials, of files, of tile methods
DATA = re.compile(r"\d+|Z\(.*\)|raster|network|npy|npy_all|tif|zarr|tilt|gain|offset|defocus|harmonic\d|response|none")


def _keys(value: Any, skip: frozenset[str] = frozenset({"settings", "omitted", "response"})) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in skip:
                yield from _keys(inner, skip)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, skip)


def _unexplained(value: Any) -> set[str]:
    named = set(re.findall(r"`([A-Za-z0-9_]+)`", PAGE.read_text(encoding="utf-8")))
    return {key for key in _keys(value) if key not in named and not DATA.fullmatch(key)}


@pytest.mark.parametrize(
    ("scene", "flags"),
    [
        ("wafer", ["--method", "field", "--all"]),
        ("wafer", ["--method", "learned", "--remove", "piston,tilt"]),
        ("mirror", ["--method", "hybrid", "--steps", "nominal", "--inpaint", "--remove", "piston,tilt"]),
    ],
    ids=["field", "learned", "one wavelength"],
)
def test_every_key_of_a_document_is_explained(scene, flags, request, tmp_path):
    found = request.getfixturevalue(scene)
    steps = FIVE_DEG if scene == "mirror" else STEPS_DEG
    folder = folder_of(tmp_path / "frames", np.asarray(found.frames), found.wavelengths_nm, steps, pixel_size="5 um")
    assert main(["reconstruct", str(folder), "-o", str(tmp_path / "out.npy"), *flags]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert _unexplained(document) == set()
    settings = set(re.findall(r"`([a-z_]+)`", PAGE.read_text(encoding="utf-8")))
    assert set(document["settings"]) <= settings


def test_every_key_of_the_other_verbs_is_explained(wafer_folder, tmp_path, capsys):
    out, truth = str(tmp_path / "out.npy"), str(tmp_path / "truth.npy")
    shape = np.load(wafer_folder / "frames.npy", mmap_mode="r").shape[2:]
    np.save(truth, np.zeros(shape, np.float32))
    verbs = [
        ["info", str(wafer_folder)],
        ["reconstruct", str(wafer_folder), "-o", out],
        ["evaluate", out, truth],
        ["evaluate", out],
        ["compare", out, truth],
        ["solve", "helmholtz-1d"],
        [
            "ablate",
            "-o",
            str(tmp_path / "ablation"),
            "--problems",
            "poisson-1d",
            "--parts",
            "recipe=adam",
            "--steps",
            "2",
        ],
        ["batch", str(wafer_folder), "-o", str(tmp_path / "batch"), "--workers", "0"],
        ["simulate", str(tmp_path / "sim"), "--shape", "24x24", "--frames", "4", "--wavelength", "632.8nm"],
    ]
    for verb in verbs:
        assert main([*verb, "--json"]) == 0
        assert _unexplained(json.loads(capsys.readouterr().out)) == set(), verb[0]


def test_every_key_of_the_doctor_is_explained(capsys, tmp_path):
    assert main(["doctor", "--folder", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for finding in told["findings"]:  # names of packages and of variables are data
        finding["figures"] = dict.fromkeys(finding["figures"])
    assert _unexplained(told) == set()

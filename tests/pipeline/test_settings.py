"""Settings of a reconstruction: defaults, refusals, and the plan that a resumed run must share."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.surface.apertures.aperture import Circle, Mask


def test_defaults_are_those_of_the_command_line():
    plain = ReconstructSettings()
    assert (plain.method, plain.device, plain.remove) == ("auto", "auto", ())
    assert (plain.unwrap_tile, plain.unwrap_overlap) == (512, 64)
    assert ReconstructSettings(tile=100).unwrap_overlap == 50
    assert plain.worker_threads >= 1
    assert ReconstructSettings(threads=3).worker_threads == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "pixle"}, "did you mean 'pixel'"),
        ({"combine": "finst"}, "did you mean 'finest'"),
        ({"model": "wafer"}, "model wafer is not used by method auto"),
        ({"scheme": "hariharan"}, "did you mean 'schwider-hariharan'"),
        ({"remove": ("tlit",)}, "did you mean 'tilt'"),
        ({"range_nm": 0.0}, "height range"),
        ({"range_nm": -1.0}, "height range"),
        ({"range_nm": float("nan")}, "height range"),
        ({"range_nm": float("inf")}, "height range"),
        ({"range_nm": (5.0, 5.0)}, "height range"),
        ({"range_nm": (5.0, 1.0)}, "height range"),
        ({"range_nm": (0.0, float("inf"))}, "height range"),
        ({"range_nm": (float("nan"), 1.0)}, "height range"),
        ({"tile": 3}, "tile 3"),
        ({"tile": -512}, "tile -512"),
        ({"overlap": 257}, "half a tile"),
        ({"overlap": -1}, "overlap -1"),
        ({"tile": 100, "overlap": 51}, "give 0 to 50"),
        ({"threads": 0}, "threads 0"),
        ({"band_rows": 0}, "band rows 0"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(InputError, match=words) as caught:
        ReconstructSettings(**options)
    assert "\n" not in str(caught.value)


@given(st.integers(4, 10_000), st.integers(0, 10_000))
def test_overlap_is_at_most_half_a_tile(tile, overlap):
    if overlap <= tile // 2:
        assert ReconstructSettings(tile=tile, overlap=overlap).overlap == overlap
    else:
        with pytest.raises(InputError, match="half a tile"):
            ReconstructSettings(tile=tile, overlap=overlap)


def test_the_plan_holds_what_changes_the_result_and_nothing_else():
    plan = ReconstructSettings().plan()
    assert ReconstructSettings(threads=7, band_rows=3).plan() == plan
    for other in (
        {"method": "pixel"},
        {"scheme": "carre"},
        {"combine": "finest"},
        {"range_nm": 27e3},
        {"range_nm": (0.0, 27e3)},
        {"mask": Circle(1, 2, 3)},
        {"mask": Mask(np.ones((3, 3)))},
        {"remove": ("tilt",)},
        {"tile": 256},
        {"overlap": 32},
        {"device": "cpu"},
        {"all_quantities": True},
    ):
        assert ReconstructSettings(**other).plan() != plan, other
    assert json.loads(json.dumps(plan)) | {"remove": ()} == plan


def test_the_order_of_what_is_removed_does_not_matter():
    plans = [ReconstructSettings(remove=terms).plan() for terms in (("piston", "tilt"), ("tilt", "piston", "tilt"))]
    assert plans[0] == plans[1]


def test_a_large_mask_is_not_copied_into_the_plan():
    array = np.lib.stride_tricks.as_strided(np.ones(1, np.uint8), (2**16, 2**12), (0, 0))  # 256 MiB that are one byte
    settings = ReconstructSettings(mask=Mask(array))
    import tracemalloc

    tracemalloc.start()
    settings.plan()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24

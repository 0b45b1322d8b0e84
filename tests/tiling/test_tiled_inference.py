"""infer_tiled in memory: identity, exactness by receptive field, what may be blended, figures, bad input."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiled_models import BLOCKS, BOXES, IDENTITY, PAIR, PISTON, blocks, piston, same, two_boxes

import cpikan
from cpikan.errors import InputError
from cpikan.streaming.tiling.blend import Blender
from cpikan.streaming.tiling.model import TileFunction
from cpikan.streaming.tiling.plan import TilingSettings, describe, plan_tiles

WINDOWS = ("halo", "hann", "hamming", "smooth")


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def runs(draw):
    shape = (draw(st.integers(1, 70)), draw(st.integers(1, 70)))
    tile = (draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    return shape, tile, tuple(draw(st.integers(0, length - 1)) for length in tile)


@settings(deadline=None)
@given(runs(), st.sampled_from(WINDOWS), st.integers(1, 5))
def test_the_identity_returns_every_bit(run, window, batch):
    shape, tile, overlap = run
    image = noise(shape)
    result = cpikan.infer_tiled(IDENTITY, image, tile=tile, overlap=overlap, window=window, batch=batch)
    assert result.values.dtype == np.float32
    assert np.array_equal(result.values, image)
    assert result.report["overlap_l2"] in (None, 0.0)
    assert result.report["tiles_run"] == result.report["tiles"]


@pytest.mark.parametrize("window", ["auto", *WINDOWS])
@pytest.mark.parametrize("overlap", [8, 9, 13])
def test_a_model_that_looks_no_farther_than_the_overlap_gives_the_untiled_result(window, overlap):
    image = noise((70, 93))
    untiled = two_boxes(image[None, None])[0, 0]
    result = cpikan.infer_tiled(BOXES, image, tile=24, overlap=overlap, window=window)
    # float64 sums in one fixed order per pixel, rounded once: every tile has the very same bits, and so has the blend
    assert np.array_equal(result.values, untiled)
    assert result.report["exact"] == "guaranteed by the receptive field"
    assert not result.report["overlap_l2"]


def test_a_receptive_field_that_is_larger_than_stated_shows_in_the_overlap():
    image = noise((70, 93))
    short_sighted = dataclasses.replace(BOXES, receptive_field_px=3)
    result = cpikan.infer_tiled(short_sighted, image, tile=24, overlap=6)
    assert np.abs(result.values - two_boxes(image[None, None])[0, 0]).max() > 0.02
    assert result.report["overlap_l2"] > 0.05


@pytest.mark.parametrize("shape", [(64, 96), (61, 90), (3, 5), (17, 130)])
def test_tiles_keep_to_the_grid_of_a_network_that_halves_it(shape):
    image = noise(shape)
    grown = np.pad(image, ((0, -shape[0] % 4), (0, -shape[1] % 4)), mode="edge")
    untiled = blocks(grown[None, None])[0, 0, : shape[0], : shape[1]]
    assert np.array_equal(cpikan.infer_tiled(BLOCKS, image, tile=24, overlap=7).values, untiled)


@pytest.mark.parametrize("window", ["hann", "smooth"])
def test_a_global_model_is_blended_as_defined_and_measured(window):
    image = noise((50, 61)) + np.linspace(0, 5, 61, dtype=np.float32)
    result = cpikan.infer_tiled(PISTON, image, tile=20, overlap=6, window=window, batch=3)
    views, grid = cpikan.tile_image(image, 20, 6)
    tiles = [piston(view[None, None])[0, 0] for view in views]
    assert np.array_equal(result.values, cpikan.blend_tiles(tiles, grid, window))
    # the relative L2 of the horizontal joints, by hand, where there is one row of tiles
    one_row = cpikan.infer_tiled(PISTON, image[:20], tile=20, overlap=6, window=window)
    views, grid = cpikan.tile_image(image[:20], 20, 6)
    tiles = [piston(view[None, None])[0, 0] for view in views]
    squares = reference = 0.0
    for left, right, a, b, begin in zip(
        tiles, tiles[1:], grid.axes[1].starts, grid.axes[1].starts[1:], grid.axes[1].ramps, strict=False
    ):
        old, new = (
            left[:, begin - a : begin - a + grid.axes[1].ramp],
            right[:, begin - b : begin - b + grid.axes[1].ramp],
        )
        squares += float(((new - old) ** 2).sum())
        reference += float((old**2).sum())
    # the earlier tile of a joint has been blended with the one before by then, but ramps never overlap; float32 squares
    assert one_row.report["overlap_l2"] == pytest.approx(np.sqrt(squares / reference), rel=1e-5)
    assert one_row.report["exact"].startswith("not guaranteed")


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_the_bits_do_not_depend_on_the_batch(batch):
    image = noise((2, 60, 75))
    model = TileFunction(lambda tiles: np.cumsum(tiles, axis=-1, dtype=np.float32), channels_out=2)
    reference = cpikan.infer_tiled(model, image, tile=16, overlap=5, batch=3).values
    assert np.array_equal(cpikan.infer_tiled(model, image, tile=16, overlap=5, batch=batch).values, reference)


def test_channels_in_and_out():
    frames = np.random.default_rng(1).integers(0, 255, (3, 40, 50), np.uint8)
    result = cpikan.infer_tiled(PAIR, frames, tile=16, overlap=4)
    wide = frames.astype(np.float32)
    assert np.array_equal(result.values, np.stack([2 * wide[0], wide.sum(axis=0)]))
    target = np.empty((2, 40, 50), np.float32)
    assert cpikan.infer_tiled(PAIR, frames, target, tile=16, overlap=4).values is target
    assert np.array_equal(target, result.values)


def test_a_plain_function_is_a_global_model():
    image = noise((30, 30))
    result = cpikan.infer_tiled(lambda tiles: tiles + 1, image, tile=16, overlap=8)
    # both sums are rounded alike, so tiles agree and the blend returns their value
    assert np.array_equal(result.values, image + np.float32(1))
    assert result.report["window"] == "hann"


def pistons_of(period):
    """Every second tile lies a period higher: wrong orders, as an unwrapper without a guide leaves them."""
    state = {"calls": 0}

    def model(tiles):
        state["calls"] += 1
        return tiles + np.float32(period * (state["calls"] % 2))

    return TileFunction(model, receptive_field_px=1, batch=1)


def test_heights_whose_orders_differ_are_not_blended():
    image = np.zeros((16, 60), np.float32)
    options = {"tile": 16, "overlap": 4, "values": "height", "period": 316.4}
    with pytest.raises(InputError, match=r"heights of neighbouring tiles differ by 316\.4.*make their orders agree"):
        cpikan.infer_tiled(pistons_of(316.4), image, window="hann", **options)
    result = cpikan.infer_tiled(pistons_of(316.4), image, window="halo", **options)
    assert set(np.unique(result.values)) == {np.float32(0), np.float32(316.4)}  # never in between
    assert result.report["overlap_rms"] < 1e-4  # modulo the period, in float32 of 316
    kept = cpikan.infer_tiled(pistons_of(10.0), image, window="hann", **options)
    assert kept.report["overlap_max"] == 10.0


def test_wrapped_phases_are_joined_without_blending_and_compared_on_the_circle():
    phase = np.angle(np.exp(1j * np.linspace(0, 40, 100)))[None].repeat(20, axis=0).astype(np.float32)
    for window in ("hann", "smooth", "hamming"):
        with pytest.raises(InputError, match="wrapped phases cannot be blended"):
            cpikan.infer_tiled(PISTON, phase, tile=16, overlap=4, values="wrapped", window=window)
    result = cpikan.infer_tiled(pistons_of(2 * np.pi), phase, tile=16, overlap=4, values="wrapped")
    assert result.report["window"] == "halo"
    assert result.report["overlap_rms"] < 2e-6  # float32 at 2 pi


def test_the_report_has_the_figures():
    report = cpikan.infer_tiled(PISTON, noise((90, 80)), tile=32, overlap=8, batch=2).report
    assert json.loads(json.dumps(report)) == report
    assert report["tiles"] == report["tiles_run"] == 12  # 1 + ceil(58 / 24) = 4 by 1 + ceil(48 / 24) = 3
    assert report["overlap"] == [12, 8]  # 90 in four: starts 0 19 38 58, 32 - 20; 80 in three: 0 24 48
    assert report["tile"] == [32, 32]


def test_a_failing_model_ends_the_run():
    def fails(tiles):
        raise RuntimeError("model failed")

    with pytest.raises(RuntimeError, match="model failed"):
        cpikan.infer_tiled(fails, noise((40, 40)), tile=16, overlap=4)


@pytest.mark.parametrize(
    ("model", "image", "options", "message"),
    [
        (BOXES, (90, 90), {"overlap": 7}, "overlap 7 is smaller than the model's receptive field of 9 pixels: give 8"),
        (BOXES, (90, 90), {"window": "hann", "ramp": 5, "overlap": 12}, "ramp 5 is longer than the 4 pixels"),
        (IDENTITY, (90, 90), {"overlap": 32}, "overlap 32 is not below the tile 32"),
        (IDENTITY, (90, 90), {"tile": (32, 0)}, "tile .* is too small"),
        (BLOCKS, (90, 90), {"tile": 30}, "tile 30 is no multiple of 4, which the model needs: give 28"),
        (PAIR, (90, 90), {}, "the image has 1 channels, the model takes 3"),
        (PISTON, (3, 90, 90), {"values": "phasor"}, r"pairs of channels \(cos, sin\), the model returns 3"),
        (IDENTITY, (90, 90), {"window": "han"}, "did you mean 'hann'"),
        (IDENTITY, (90, 90), {"overlapp": 8}, "did you mean 'overlap'"),
        (IDENTITY, (90, 90), {"values": "hight"}, "did you mean 'height'"),
        (IDENTITY, (90, 90), {"period": -1.0}, "period -1.0 is no length"),
        (IDENTITY, (90, 90), {"batch": 0}, "batch 0 is not a count"),
        (IDENTITY, (90, 90), {"resume": True, "overwrite": True}, "exclude each other"),
        (IDENTITY, (2, 2, 90, 90), {}, "is no image"),
        (IDENTITY, (0, 90), {}, "is no image"),
        (lambda tiles: tiles[..., 1:], (90, 90), {}, "the model returned float32 of shape .* set channels_out"),
        (lambda tiles: tiles * 1j, (90, 90), {}, "the model returned complex64"),
        (TileFunction(same, receptive_field_px=0), (90, 90), {}, "receptive_field_px 0 of the model is no size"),
        (TileFunction(same, multiple_px=0), (90, 90), {}, "multiple_px 0 of the model is not a count"),
        ("model.pt", (90, 90), {}, "model str cannot be called"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(model, image, options, message):
    with pytest.raises(InputError, match=message) as failure:
        cpikan.infer_tiled(model, np.zeros(image, np.float32), **{"tile": 32, "overlap": 8} | options)
    assert "\n" not in str(failure.value)


def test_sources_and_outputs_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="give cos and sin"):
        cpikan.infer_tiled(IDENTITY, np.zeros((9, 9), np.complex64))
    image = np.zeros((9, 9), np.float32)
    with pytest.raises(InputError, match="the output is the image itself"):
        cpikan.infer_tiled(IDENTITY, image, image)
    with pytest.raises(InputError, match="source list is no image"):
        cpikan.infer_tiled(IDENTITY, [[1.0]])
    with pytest.raises(InputError, match="does not exist"):
        cpikan.infer_tiled(IDENTITY, "nowhere.npy")
    with pytest.raises(InputError, match=r"give a float32 array of shape \(9, 9\)"):
        cpikan.infer_tiled(IDENTITY, np.zeros((9, 9)), np.zeros((9, 9)))


def test_a_band_alone_carries_on_as_it_did_in_the_whole():
    # what a resumed run relies on: the carry of a band does not depend on the ramp above it
    image = noise((64, 20))
    views, grid = cpikan.tile_image(image, (16, 20), (6, 0))
    tiles = [piston(view[None, None])[0] for view in views]

    def bands(first):
        blender, carry, rows = Blender(grid, grid.shape, "hann"), None, {}
        for box in list(grid)[first:]:
            top, bottom = blender.rows_of(box.index)
            band = np.empty((1, bottom - top, 20), np.float32)
            blender.across(box, tiles[box.index], band)
            rows[box.index], carry = blender.down(box.index, carry, band)
        return rows

    whole, part = bands(0), bands(2)
    assert all(np.array_equal(whole[i], part[i]) for i in range(3, len(grid)))
    assert not np.array_equal(whole[2], part[2])


CHANGED = {
    "tile": 48,
    "overlap": 14,
    "window": "smooth",
    "ramp": 2,
    "values": "phasor",
    "period": 2.0,
    "quantities": ("height_nm", "sigma_nm"),
}


def test_every_setting_changes_the_plan_or_is_marked_to_affect_something_else():
    model, shape = TileFunction(same, channels_out=2), (2, 100, 90)

    def plan(**options):
        chosen = TilingSettings(**({"tile": 32, "overlap": 8} | options))
        return describe(plan_tiles(model, shape, chosen), model, chosen)

    deciding = {entry.name for entry in dataclasses.fields(TilingSettings) if "affects" not in entry.metadata}
    assert deciding == CHANGED.keys()
    for name, value in CHANGED.items():
        assert plan(**{name: value}) != plan(), name

"""Tiles and subdomains: coverage, geometry, bijection, windows that sum to one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.partition import Partition
from cpikan.partition.windows import window


@st.composite
def tilings(draw, longest=70):
    """(shape, tile, overlap), rectangular, from one pixel up, overlaps below the tile."""
    shape = tuple(draw(st.integers(1, longest)) for _ in range(2))
    tile = tuple(draw(st.integers(1, longest)) for _ in range(2))
    overlap = tuple(draw(st.integers(0, length - 1)) for length in tile)
    return shape, tile, overlap


@st.composite
def tilings_in_steps(draw):
    """As `tilings`, with tiles that are multiples of some pixels."""
    multiple = draw(st.sampled_from([1, 2, 3, 4]))
    shape = (draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    units = (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    overlap = tuple(draw(st.integers(0, (unit - 1) * multiple)) for unit in units)
    return shape, tuple(unit * multiple for unit in units), overlap, multiple


def sample_window(axis, i, dtype):
    """The window of piece i of an axis at the pixels of its extent."""
    return window(axis, i, np.arange(*axis.extent(i)).astype(dtype) + dtype(0.5)).value


def sum_of_windows(partition, dtype):
    """The windows of all tiles added up at every pixel, in the given precision and in the order of the tiles."""
    total = np.zeros(partition.shape, dtype)
    windows = [[sample_window(axis, i, dtype) for i in range(len(axis))] for axis in partition.axes]
    for box in partition:
        wy, wx = (along[i] for along, i in zip(windows, box.position, strict=True))
        view = box.view(total)
        view += wy[:, None] * wx
    return total


# At most two windows per axis are not zero, so at most four products meet. One-dimensional windows are multiples of
# the type's epsilon and sum to one exactly. Of the four products at most one exceeds 1/2 (off by eps / 4), one more 1/4
# (eps / 8) and the others are off by eps / 16: eps / 2 together; two partial sums below one, eps / 4 each; the last sum
# eps / 2: 1.5 eps = 1.8e-7 in float32 and 3.3e-16 in float64.
@settings(max_examples=50, deadline=None)
@given(tilings())
@example(((1, 1), (1, 1), (0, 0)))
@example(((1, 67), (8, 8), (4, 4)))
@example(((61, 53), (7, 11), (3, 5)))
@example(((5, 5), (512, 512), (64, 64)))
@example(((41, 41), (40, 40), (20, 20)))
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-7), (np.float64, 5e-16)])
def test_windows_of_tiles_sum_to_one(dtype, bound, case):
    partition = Partition.tiles(*case)
    total = sum_of_windows(partition, dtype)
    assert np.abs(total.astype(np.float64) - 1).max() <= bound
    edges = (total[0], total[-1], total[:, 0], total[:, -1])
    for axis in partition.axes:  # a window is not tapered at the edge of the image
        assert sample_window(axis, 0, dtype)[0] == 1
        assert sample_window(axis, len(axis) - 1, dtype)[-1] == 1
    assert all((edge > 0.99).all() for edge in edges)


@pytest.mark.parametrize("size", [9, 101, 1009])
def test_windows_of_one_axis_sum_to_one_without_any_rounding(size):
    # Float32 windows added in float64, where their sum is exact: it is one, not one to within rounding.
    (axis,) = Partition.tiles((size,), size // 3, size // 7).axes
    total = np.zeros(size)
    for i in range(len(axis)):
        start, stop = axis.extent(i)
        total[start:stop] += sample_window(axis, i, np.float32)
    assert (total == 1).all()


@settings(max_examples=40, deadline=None)
@given(tilings())
@example(((1, 1), (1, 1), (0, 0)))
@example(((97, 89), (2, 3), (1, 1)))
def test_geometry_of_tiles(case):
    shape, tile, overlap = case
    partition = Partition.tiles(shape, tile, overlap)
    assert partition.shape == shape
    owners = np.zeros(shape, int)
    for box in partition:
        core = box.core_view(owners)
        assert core.size > 0
        core += 1
        for (start, stop), (first, last), size, length in zip(box.extent, box.core, shape, tile, strict=True):
            assert 0 <= start <= first < last <= stop <= size
            assert stop - start == min(length, size)
    assert (owners == 1).all()  # the cores are the image, each pixel once
    for axis, size, length, least in zip(partition.axes, shape, tile, overlap, strict=True):
        count = 1 if size <= length else int(np.ceil((size - least) / (length - least)))
        assert len(axis) == count  # as few tiles as the overlap allows
        steps = [later - start for start, later in itertools.pairwise(axis.starts)]
        assert all(length - step >= least for step in steps)
        assert not steps or max(steps) - min(steps) <= 1  # evenly spread: no sliver at the end
        assert axis.ramp <= least
        for i in range(count):
            first, last = axis.support(i)
            assert axis.starts[i] <= first <= last <= axis.stops[i]
        for i in range(count - 2):  # ramps do not meet: three tiles never mix
            assert axis.ramps[i] + axis.ramp <= axis.ramps[i + 1]


@settings(max_examples=40, deadline=None)
@given(tilings_in_steps())
def test_tiles_in_steps_cover_the_grown_image_evenly(case):
    shape, tile, overlap, multiple = case
    partition = Partition.tiles(shape, tile, overlap, multiple=multiple)
    for axis, length, size, width in zip(partition.axes, shape, tile, overlap, strict=True):
        whole = -(-length // multiple) * multiple
        assert (axis.lower, axis.upper) == (axis.starts[0], axis.stops[-1]) == (0, whole)
        assert {stop - start for start, stop in zip(axis.starts, axis.stops, strict=True)} == {min(size, whole)}
        steps = [b - a for a, b in itertools.pairwise(axis.starts)]
        assert all(start % multiple == 0 for start in axis.starts)
        assert not steps or (max(steps) - min(steps) <= multiple and max(steps) <= size - width)
        if len(axis) > 1:  # no fewer tiles would do
            room = -(-width // multiple) * multiple
            assert size + (len(axis) - 2) * (size - room) < whole
        for i in range(len(axis)):
            first, last = axis.support(i)
            assert axis.starts[i] <= first < last <= axis.stops[i]  # weight only where the tile has pixels
        assert axis.ramp == min([min(width, size // 2), *steps])
    total = sum_of_windows(partition, np.float64)
    assert np.abs(total - 1).max() <= 5e-16


@settings(max_examples=40, deadline=None)
@given(tilings())
@example(((9, 9), (3, 3), (0, 0)))
def test_indices_of_a_tile_are_those_of_the_image(case):
    partition = Partition.tiles(*case)
    image = np.arange(float(np.prod(partition.shape))).reshape(partition.shape)
    begins = [{box.position[axis]: box.extent[axis][0] for box in partition} for axis in range(len(partition.shape))]
    for box in partition:
        tile = image[box.slices]
        assert np.array_equal(tile, box.view(image))
        assert np.array_equal(tile[box.core_inside], image[box.core_slices])
        assert np.array_equal(image[box.core_slices], box.core_view(image))
        for axis, at in enumerate(box.position):
            assert box.extent[axis][0] == begins[axis][at]
            assert box.next_start[axis] == begins[axis].get(at + 1, partition.shape[axis])


@settings(max_examples=40, deadline=None)
@given(tilings(), st.data())
def test_number_and_box_are_a_bijection(case, data):
    partition = Partition.tiles(*case)
    boxes = list(partition)
    assert len(boxes) == len(partition) == len(set(boxes))
    assert [box.index for box in boxes] == list(range(len(partition)))
    index = data.draw(st.integers(0, len(partition) - 1))
    box = partition[index]
    assert box == boxes[index] == partition.at(box.position)
    assert partition.owner([start for start, _ in box.core]) == box
    assert partition.owner([stop - 1 for _, stop in box.core]) == box


@settings(max_examples=25, deadline=None)
@given(tilings(longest=24))
def test_neighbours_are_symmetric_and_hold_every_meeting_of_windows(case):
    partition = Partition.tiles(*case)
    lists = [partition.neighbours(box.index) for box in partition]
    supports = [[axis.support(i) for axis, i in zip(partition.axes, box.position, strict=True)] for box in partition]
    for a, found in enumerate(lists):
        assert list(found) == sorted(set(found) - {a})
        assert all(a in lists[b] for b in found)
        for b in set(range(len(partition))) - {a}:
            meet = all(p < s and r < q for (p, q), (r, s) in zip(supports[a], supports[b], strict=True))
            assert b in found or not meet


def test_known_tilings():
    full = Partition.tiles((7000, 9344), 512, 128)
    assert full.counts == (18, 24)  # 432 tiles; the loop that drops the remainder makes 17 x 24
    assert full[0].extent == ((0, 512), (0, 512))
    assert full[431].extent == ((6488, 7000), (8832, 9344))
    assert len(Partition.tiles((16384, 16384), 512, 64)) == 37 * 37
    assert len(Partition.tiles((5, 700), 512, 64)) == 2
    small = Partition.tiles((10,), 4, 2)
    assert small.axes[0].starts == (0, 2, 4, 6)
    assert small.axes[0].cuts == (3, 5, 7)
    assert small.neighbours(0) == (1,)
    assert Partition.tiles((9, 9), 3, 0).neighbours(4) == (0, 1, 2, 3, 5, 6, 7, 8)


def test_figures_quoted_in_the_documentation():
    # What a loop over range(0, size - tile + 1, step) leaves out of a 7000 x 9344 frame, tiles of 512 overlapping by 128.
    tops, lefts = (range(0, size - 512 + 1, 512 - 128) for size in (7000, 9344))
    assert (len(tops), len(lefts)) == (17, 24)
    assert tops[-1] + 512 == 6656
    assert round(100 * (7000 - 6656) / 7000, 1) == 4.9
    # Pixels computed for one of the image, in the limit of a large image and at this size.
    for overlap, limit in ((256, 4.0), (128, 16 / 9)):
        computed = len(Partition.tiles((7000, 9344), 512, overlap)) * 512**2 / (7000 * 9344)
        assert computed <= limit
        assert (512 / (512 - overlap)) ** 2 == pytest.approx(limit)


def test_halo_without_blend_reaches_half_the_overlap_beyond_the_core():
    partition = Partition.tiles((101, 57), (20, 16), (7, 6), ramp=0)
    for box in partition:
        for (start, stop), (first, last), size, halo in zip(box.extent, box.core, (101, 57), (3, 3), strict=True):
            assert start == 0 or first - start >= halo
            assert stop == size or stop - last >= halo
    assert np.array_equal(sum_of_windows(partition, np.float32), np.ones((101, 57)))


def test_views_are_views_of_the_last_axes():
    image = np.arange(3 * 11 * 7.0).reshape(3, 11, 7)
    for box in Partition.tiles((11, 7), (4, 5), (2, 1)):
        (y0, y1), (x0, x1) = box.extent
        tile = box.view(image)
        assert tile.shape == (3, *box.shape)
        assert np.shares_memory(tile, image)
        assert np.array_equal(tile, image[:, y0:y1, x0:x1])


@pytest.mark.parametrize(
    ("shape", "tile", "overlap", "ramp", "text"),
    [
        ((100, 100), 64, 64, None, "overlap 64 is not below the tile 64: give at most 63"),
        ((100, 100), (64, 10), (20, 12), None, "overlap 12 is not below the tile 10"),
        ((100, 100), 64, 48, 40, "ramp 40 is more than half of the tile 64: give at most 32"),
        ((100, 100), 64, 16, 17, "ramp 17 is longer than the overlap 16"),
        ((100, 100), 0, 0, None, "tile 0 is too small"),
        ((100, 100), 8, -1, None, "overlap -1 is too small"),
        ((0, 100), 8, 0, None, "image shape (0, 100) is too small"),
        ((100, 100), 8.0, 0, None, "tile 8.0 is not made of whole numbers"),
        ((100, 100), "512", 0, None, "tile '512' is not made of whole numbers"),
        ((100, 100), (8, 8, 8), 0, None, "tile (8, 8, 8) has 3 entries for 2 axes"),
        ((), 8, 0, None, "has 0 entries"),
    ],
)
def test_bad_tilings_are_refused_in_one_line(shape, tile, overlap, ramp, text):
    with pytest.raises(InputError) as caught:
        Partition.tiles(shape, tile, overlap, ramp=ramp)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tile", "overlap", "multiple", "text"),
    [
        (60, 16, 8, "tile 60 is no multiple of 8, which the model needs: give 56"),
        (64, 60, 16, "tile 64 has no room for the overlap 60 in steps of 16, which the model needs: give a tile of 80"),
    ],
)
def test_tiles_that_are_not_made_of_steps_are_refused(tile, overlap, multiple, text):
    with pytest.raises(InputError) as caught:
        Partition.tiles((300, 300), tile, overlap, multiple=multiple)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_boxes_outside_are_refused():
    partition = Partition.tiles((10, 10), 5, 0)
    for index in (-1, 4):
        with pytest.raises(IndexError):
            partition[index]
    with pytest.raises(ValueError, match="coordinates"):
        partition.at((2, 0))


@st.composite
def domains(draw):
    axes = draw(st.integers(1, 3))
    lower = [draw(st.floats(-100, 100)) for _ in range(axes)]
    upper = [low + draw(st.floats(0.01, 200)) for low in lower]
    counts = [draw(st.integers(1, 5)) for _ in range(axes)]
    return Partition.subdomains(lower, upper, counts, draw(st.just(0.0) | st.floats(1e-6, 1))), lower, upper


# In coordinates the same exact one-dimensional sums hold. In three dimensions eight products of two multiplications
# meet: each within eps / 4 twice, seven sums within eps / 4 and the last within eps / 2, so 6 eps at the very most.
@settings(max_examples=70, deadline=None)
@given(domains(), st.integers(0, 2**32 - 1))
def test_windows_of_subdomains_sum_to_one_and_their_derivatives_to_zero(domain, seed):
    partition, lower, upper = domain
    spread = np.subtract(upper, lower)
    points = lower + spread * np.random.default_rng(seed).uniform(-0.1, 1.1, (50, len(lower)))  # also just outside
    jets = [partition.window(box.index, points) for box in partition]
    bound = 5e-16 if len(lower) < 3 else 6 * np.finfo(float).eps
    assert np.abs(sum(jet.value for jet in jets) - 1).max() <= bound
    assert min(jet.value.min() for jet in jets) >= 0
    for part in ("d1", "d2"):
        parts = np.array([getattr(jet, part) for jet in jets])
        scale = np.abs(parts).max() + 1e-300
        assert np.abs(parts.sum(axis=0)).max() <= 16 * np.finfo(float).eps * scale  # eight products and their sums
    for point in points[:5]:
        best = partition.owner(point)
        alone = partition.window(best.index, point[None]).value[0]
        assert alone >= 0.5 ** len(lower) - 1e-12  # the owner weighs at least half on each axis


def test_a_window_has_the_derivatives_it_says():
    partition = Partition.subdomains([0.0, -1.0], [2.0, 1.0], [3, 2], 0.7)
    rng = np.random.default_rng(3)
    points = rng.uniform([0, -1], [2, 1], (400, 2))
    step = 1e-4
    for box in partition:
        jet = partition.window(box.index, points)
        for axis in range(2):
            shift = np.eye(2)[axis] * step
            after = partition.window(box.index, points + shift)
            before = partition.window(box.index, points - shift)
            # Central differences err by step^2 / 6 and, where it jumps, step times the third derivative: for the ramp
            # at most 60 over the cube of its width (0.4667), which is 590.
            assert np.abs((after.value - before.value) / (2 * step) - jet.d1[:, axis]).max() < 600 * step**2
            assert np.abs((after.d1[:, axis] - before.d1[:, axis]) / (2 * step) - jet.d2[:, axis]).max() < 600 * step


def test_windows_are_twice_continuously_differentiable():
    partition = Partition.subdomains([0.0], [1.0], [4], 1.0)
    x = np.linspace(0, 1, 4_000_01)
    for box in partition:
        jet = partition.window(box.index, x[:, None])
        # Each moves by no more than its slope (1.875, 5.77, 60 over powers of the width 1/4) times the step.
        step = x[1]
        assert np.abs(np.diff(jet.value)).max() <= 1.9 * 4 * step
        assert np.abs(np.diff(jet.d1[:, 0])).max() <= 5.8 * 4**2 * step
        assert np.abs(np.diff(jet.d2[:, 0])).max() <= 60.1 * 4**3 * step


def test_float32_points_stay_float32():
    partition = Partition.subdomains([0.0], [1.0], [3], 0.5)
    points = np.linspace(0, 1, 1001, dtype=np.float32)[:, None]
    jets = [partition.window(box.index, points) for box in partition]
    assert {part.dtype for jet in jets for part in jet} == {np.dtype(np.float32)}
    assert np.abs(sum(jet.value for jet in jets) - 1).max() == 0


def test_sharp_subdomains_own_their_points():
    partition = Partition.subdomains([0.0], [3.0], [3], 0.0)
    points = np.array([[0.0], [0.999], [1.0], [2.5], [3.0]])
    owned = [int(np.argmax([partition.window(k, points).value[n] for k in range(3)])) for n in range(5)]
    assert owned == [0, 0, 1, 2, 2]
    assert [partition.owner(p).index for p in points] == owned


@pytest.mark.parametrize(
    ("lower", "upper", "counts", "overlap", "text"),
    [
        ([0], [1], [2], 1.5, "overlap 1.5 is no usable share"),
        ([0], [1], [2], 1e-9, "overlap 1e-09 is no usable share"),
        ([0], [1], [2], float("nan"), "overlap nan"),
        ([1], [1], [2], 0.5, "domain from 1 to 1 is empty"),
        ([0], [float("inf")], [2], 0.5, "domain from 0 to inf"),
        ([0, 0], [1], [2], 0.5, "2, 1 and 1 entries"),
        ([0], [1], [0], 0.5, "counts [0] is too small"),
        ([1.0], [np.nextafter(1.0, 2)], [9], 0.5, "is too short for 9 pieces"),
    ],
)
def test_bad_domains_are_refused(lower, upper, counts, overlap, text):
    with pytest.raises(InputError) as caught:
        Partition.subdomains(lower, upper, counts, overlap)
    assert text in str(caught.value)

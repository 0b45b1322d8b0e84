"""Rows of any number in, whole multiples of the writer's alignment out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cpikan.storage.writers.layout import RowAssembler


class Sheet:
    """A writer that keeps what it is given and insists on its alignment."""

    quantities = ("height_nm", "flags")

    def __init__(self, shape: tuple[int, int], align: int) -> None:
        self.row_align, self.shape = align, shape
        self.height = np.full(shape, -1.0, np.float32)
        self.flags = np.zeros(shape, np.uint8)
        self.calls: list[tuple[int, int]] = []

    def write_rows(self, start, rows):
        count = len(rows["height_nm"])
        assert start % self.row_align == 0
        assert count % self.row_align == 0 or start + count == self.shape[0]
        self.height[start : start + count] = rows["height_nm"]
        self.flags[start : start + count] = rows["flags"]
        self.calls.append((start, start + count))


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from([1, 2, 7, 16, 64]),
    st.lists(st.integers(1, 25), min_size=1, max_size=60),
    st.integers(0, 3),
)
def test_every_row_arrives_once_whatever_the_bands(height, width, align, bands, skipped):
    sheet = Sheet((height, width), align)
    assembler = RowAssembler(sheet, sheet.shape)
    truth = np.arange(height * width, dtype=np.float32).reshape(height, width)
    begin = start = min(skipped * align, height)  # a resumed run begins at a multiple
    handed = begin
    for count in (*bands, *[height] * 60):
        stop = min(start + count, height)
        if start == stop:
            break
        band = {"height_nm": truth[start:stop].copy(), "flags": np.full((stop - start, width), 3, np.uint8)}
        handed = assembler.write(start, band)
        assert handed == (sheet.calls[-1][1] if sheet.calls else begin)
        assert handed <= stop
        assert stop - handed < align
        band["height_nm"][:] = np.nan  # the caller may reuse its arrays at once
        start = stop
    assert handed == height
    np.testing.assert_array_equal(sheet.height[begin:], truth[begin:])
    assert (sheet.flags[begin:] == 3).all()
    assert (sheet.height[:begin] == -1).all()
    spans = [stop - start for start, stop in sheet.calls]
    assert sum(spans) == height - begin


def test_held_rows_take_no_more_than_one_alignment():
    sheet = Sheet((10, 3), 512)
    assembler = RowAssembler(sheet, sheet.shape)
    rows = {"height_nm": np.zeros((4, 3), np.float32), "flags": np.zeros((4, 3), np.uint8)}
    assert assembler.write(0, rows) == 0
    assert sheet.calls == []
    assert assembler._held["height_nm"].shape == (10, 3)
    assembler.write(4, rows)
    assert assembler.write(8, {name: array[:2] for name, array in rows.items()}) == 10
    assert sheet.calls == [(0, 10)]

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cpikan.surface.apertures.components import ComponentScan


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 20), st.floats(0, 1), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_bands_give_the_components_of_the_whole(height: int, width: int, fill: float, band: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < fill
    scan = ComponentScan()
    starts = range(0, height, band)
    for start in starts:
        scan.add(start, mask[start : start + band])
    scan.finish()
    found = np.concatenate([scan.rows(start, mask[start : start + band]) for start in starts])
    oracle, count = ndimage.label(mask)
    assert scan.count == count
    # the same parts under other numbers: the pairs of labels form a bijection
    pairs = np.unique(np.stack([found.ravel(), oracle.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(oracle))
    assert np.array_equal(np.unique(found), np.unique(oracle))
    assert np.array_equal(found == 0, ~mask)

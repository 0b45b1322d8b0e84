"""Rows of slopes and curvature on their way into an output: where pixels are measured, and without a form removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cpikan.psi.model.flags import Flag
from cpikan.storage.writers.layout import SLOPES
from cpikan.surface.grouped_form import GroupedForm

_INVALID = int(Flag.INVALID)
SlopeSource = Callable[[int, int], dict[str, np.ndarray]]


def put_slopes(found: Mapping[str, np.ndarray], flags: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """Copy rows by quantity into the buffers ``out``, NaN where the flags say that nothing was measured."""
    invalid = (flags & _INVALID) > 0
    for name, rows in out.items():
        rows[...] = found[name]
        rows[invalid] = np.nan


def levelled_slopes(source: SlopeSource, datum: GroupedForm, shape: tuple[int, int]) -> SlopeSource:
    """Take the derivatives of the form off the slopes of ``source``, exactly; the sigmas stay."""
    if not datum.basis.modes:
        return source
    from cpikan.surface.form_slopes import FormSlopes

    form = FormSlopes(datum, shape)

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        found = source(start, stop)
        for name, part in zip(SLOPES[:3], form.rows(start, stop), strict=True):
            found[name] = found[name] - part
        return found

    return rows

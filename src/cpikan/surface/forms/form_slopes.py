"""Slopes and curvature of a fitted form, exact: it is a polynomial, written as a tensor product of Chebyshev series."""

from __future__ import annotations

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from cpikan.fields.grid_evaluator import Piece, Place
from cpikan.fields.grid_slopes import TensorSlopes
from cpikan.partition.windows import Profile
from cpikan.surface.forms.grouped_form import GroupedForm


class FormSlopes:
    """Derivatives of the form of a `GroupedForm` on an image of ``shape`` (H, W), in nm per pixel and nm per pixel^2.

    A Zernike polynomial of radial order n is a polynomial of degree n in x and in y, so its values at n + 1 by n + 1 points of
    the square around the pupil are all there is to know. Meaningful in the pupil, as the form is.
    """

    def __init__(self, form: GroupedForm, shape: tuple[int, int]) -> None:
        self._shape = shape
        count = max(n for n, _ in form.basis.modes) + 1
        nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
        values = np.tensordot(form.coefficients_nm, form.basis.values(nodes[:, None], nodes[None]), 1)
        inverse = np.linalg.inv(chebvander(nodes, count - 1))
        pupil = form.pupil
        y, x = pupil.coordinates(np.arange(shape[0]), np.arange(shape[1]))
        windows = [Profile(np.ones_like(c), np.zeros_like(c), np.zeros_like(c)) for c in (y, x)]
        place = Place(0, shape[0], 0, shape[1], y, x, (pupil.aspect / pupil.radius, 1 / pupil.radius), *windows)
        self._slopes = TensorSlopes(Piece(place, [inverse @ values @ inverse.T], []))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Compute slopes in y and x and the sum of second derivatives in rows [start, stop), (3, rows, W) float32."""
        out = np.zeros((3, stop - start, self._shape[1]), np.float32)
        self._slopes.add(start, out)
        return out

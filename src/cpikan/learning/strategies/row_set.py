"""RowSet: residuals of one kind on many boxes, with their Jacobians by the coefficients of the series that hold them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.protocol import Jet, Second
from cpikan.learning.share import WHOLE, Share
from cpikan.learning.strategies.block_band import BlockRows
from cpikan.physics.linearise import contract, jet_at, pullback

Residual = Callable[[Jet, Tensor, Jet | None], list[Tensor]]
Place = tuple[Tensor, Tensor]


class RowSet:
    """R residuals at one or two ``places``: points (N, B, d) and the boxes (N,) that they lie in; (N, M) where the series of
    M boxes make the solution there, as a subclass has it.

    ``unit`` (outputs,) is the size of each output: coefficients are counted in it, so that outputs of different sizes weigh
    alike. ``weight`` is broadcast to (R, N, B). Groups of boxes from number ``used`` on have no rows: they stand for those
    that other processes have, where this one has none.
    """

    def __init__(
        self, series: ProductChebyshev, unit: Tensor, second: Second, function: Residual, *places: Place
    ) -> None:
        self._series, self._unit, self._function = series, unit, function
        self._points = places[0][0]
        self._boxes = [boxes.reshape(len(boxes), -1) for _, boxes in places]
        self._bases = [self._basis(second, *place) for place in places]
        self.weight = torch.ones(())
        self.used = len(self._points)

    def _basis(self, second: Second, points: Tensor, index: Tensor) -> Jet:
        with torch.no_grad():
            return features_on(self._series, index.flatten(), points, second)

    def rows(self) -> BlockRows:
        """Compute weighted residuals and Jacobian at the coefficients as they are."""
        residual, pushes = self._differentiated()
        n, weight = len(self._boxes[0]), self.weight.expand(residual.shape).movedim(0, 1)
        blocks = []
        for number, (basis, boxes) in enumerate(zip(self._bases, self._boxes, strict=True)):
            rows = torch.stack([contract([basis], [push[number]]) for push in pushes], dim=1)  # (N, R, B, M K)
            rows = (rows * weight[..., None]).unflatten(-1, (boxes.shape[1], -1, len(self._unit))) * self._unit
            blocks.append(rows.flatten(-2).movedim(3, 1).flatten(2, 3))
        weighted = (self.weight * residual).movedim(0, 1).reshape(n, -1)
        some = slice(self.used)
        return BlockRows(torch.cat(self._boxes, dim=1)[some], torch.cat(blocks, dim=1)[some], weighted[some])

    def row_scale(self, share: Share = WHOLE) -> Tensor:
        """Compute the RMS length of the rows over that of a value's rows, (R, 1, 1): slopes are brought to values.

        The mean is over the groups of boxes of all processes of a share.
        """
        _, pushes = self._differentiated()
        lengths = [self._bases[0].value.square().sum(-1)]
        for push in pushes:
            rows = contract([self._bases[0]], [push[0]]).unflatten(-1, (-1, len(self._unit))) * self._unit
            lengths.append(rows.square().sum((-2, -1)))
        plain, *means = share.means(torch.cat(self._boxes, dim=1), lengths)
        return _positive(torch.stack([(mean / plain).sqrt() for mean in means]))[:, None, None]

    def size_scale(self) -> Tensor:
        """Estimate the change of a residual per change of the solution over a box, (R, N, 1)."""
        _, pushes = self._differentiated()
        scaling = self._series.scaling
        slope = (2 / (scaling.upper - scaling.lower))[self._boxes[0][:, 0]][:, None, None, :]  # (N, 1, 1, d)
        scales = []
        for push in (one[0] for one in pushes):
            total = push.value.square() + (push.gradient * slope).square().sum(-1)
            bend = push.second
            if bend.ndim == push.gradient.ndim and bend.numel():
                total = total + (bend * slope.square()).square().sum(-1)
            elif bend.ndim > push.gradient.ndim:
                total = total + (bend * slope[..., None] * slope[..., None, :]).square().sum((-2, -1))
            elif bend.numel():
                total = total + (bend * slope.square().amax(-1)).square()
            scales.append((total * self._unit.square()).sum(-1).mean(-1).sqrt())
        return _positive(torch.stack(scales))[..., None]

    def time_scale(self, axis: int, span: float) -> Tensor:
        """Estimate the change of a residual per change of the solution over a time ``span``, (R, 1, 1).

        The quotient is a value. Of residuals without a derivative by time it is that of ``size_scale``.
        """
        _, pushes = self._differentiated()
        general, scales = self.size_scale(), []
        for push, other in zip((one[0] for one in pushes), general, strict=True):
            first = (push.gradient[..., axis] * self._unit).square().sum(-1).mean().sqrt() / span
            bend, curve = push.second, torch.zeros(())
            if bend.ndim > push.gradient.ndim:
                curve = bend[..., axis, axis]
            elif bend.ndim == push.gradient.ndim and bend.numel():
                curve = bend[..., axis]
            elif bend.numel() and self._points.shape[-1] == 1:
                curve = bend
            found = first + 8 * (curve * self._unit).square().sum(-1).mean().sqrt() / span**2
            scales.append(found.expand(other.shape) if float(found) > 0 else other)
        return torch.stack(scales)

    def _differentiated(self) -> tuple[Tensor, list[list[Jet]]]:
        """Compute residuals (R, N, B) and dr/djet at every place, for each of them."""
        coefficients = self._series.coefficients.detach()
        pairs = zip(self._bases, self._boxes, strict=True)
        jets = [jet_at(basis, coefficients[index].flatten(1, 2)) for basis, index in pairs]
        n, b = self._points.shape[:2]
        flat = [Jet(*(part.flatten(0, 1) for part in jet)) for jet in jets]
        with torch.enable_grad():
            found = self._function(flat[0], self._points.flatten(0, 1), flat[1] if len(flat) > 1 else None)
            found = [one.reshape(n, b) for one in found]
        return torch.stack([one.detach() for one in found]), [pullback(one, jets) for one in found]


def features_on(series: ProductChebyshev, boxes: Tensor, points: Tensor, second: Second) -> Jet:
    """Evaluate the features of the series on ``boxes`` (N,) at points (N, B, d) of each."""
    scaling = series.scaling
    some = ProductChebyshev(series.modes, (scaling.lower[boxes], scaling.upper[boxes]), networks=len(boxes))
    return some.features_jet(points, second)


def _positive(scale: Tensor) -> Tensor:
    """Replace zeros by one: what nothing depends on needs no scale."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))

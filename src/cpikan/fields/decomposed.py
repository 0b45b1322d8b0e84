"""DecomposedField: one field per subdomain of a partition, blended by windows that sum to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from cpikan.errors import InputError, check_type
from cpikan.fields.cover import Cover, Group, among, cover
from cpikan.fields.functional import functional
from cpikan.fields.protocol import Jet, Second, check_second
from cpikan.fields.start import Start
from cpikan.partition import Intervals, Partition

GroupJet = Callable[[Group, Tensor, Second], Jet]


class DecomposedField(nn.Module):
    """Sum fields of subdomains under windows, u(x) = sum w_j(x) u_j(x), twice continuously differentiable.

    Only subdomains that hold a point are evaluated, all in a few batched products. Derivatives follow by the product rule,
    those of the windows included. Moseley, Markham and Nissen-Meyer, FBPINNs (2023), eq. 5, with windows that need no
    normalisation.

    Arguments:
        partition: the N subdomains and their windows. Tiles of an image are subdomains in pixels: pixel k sits at k + 1/2.
        parts: a field of N networks, usually with one box each, so that every subdomain has its own affine scaling
            (``DecomposedField.boxes(partition)`` is that domain).
        members: the numbers, rising, of the subdomains that ``parts`` are for; the field is zero in the others, which another
            field has networks for (`LevelledField` adds them up). None for all.

    Raises:
        InputError: for another number of networks or of axes than the partition, or its members, have.
    """

    networks = None  # those inside make one field

    def __init__(self, partition: Partition[Any], parts: nn.Module, members: Sequence[int] | None = None) -> None:
        super().__init__()
        check_type("partition", partition, Partition, "a Partition, as Partition.subdomains makes it")
        check_type("parts", parts, nn.Module, "a field of as many networks as the partition has subdomains")
        count = len(partition) if members is None else len(members)
        if parts.networks != count:
            raise InputError(f"{parts.networks} networks for {count} subdomains: give one each")
        if members is not None and not (list(members) == sorted({*members}) and {*members} <= {*range(len(partition))}):
            raise InputError(f"members {list(members)} of {len(partition)} subdomains: give numbers from 0, rising")
        if parts.dimension != len(partition.axes):
            raise InputError(
                f"networks of {parts.dimension} axes for a partition of {len(partition.axes)}: make them equal"
            )
        self.partition, self.parts = partition, parts
        self.members = None if members is None else tuple(members)
        self._forward, self.parts_jet = functional(parts), functional(parts, "jet")
        self._features = functional(parts, "features_jet")

    @staticmethod
    def boxes(partition: Partition[Any]) -> tuple[list[list[float]], list[list[float]]]:
        """List lower and upper bounds of every subdomain's extent, (N, d) each: the domain of the parts."""
        extents = [box.extent for box in partition]
        return (
            [[float(start) for start, _ in extent] for extent in extents],
            [[float(stop) for _, stop in extent] for extent in extents],
        )

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point."""
        return len(self.partition.axes)

    @property
    def outputs(self) -> int:
        """Count the components of the value."""
        return int(self.parts.outputs)  # type: ignore[arg-type]

    def cover(self, x: Tensor) -> Cover:
        """Sort points (..., d) into subdomains once; pass it back as ``covered`` while the points stay the same."""
        found = cover(self.partition, x)
        return found if self.members is None else among(found, self.members)

    def forward(self, x: Float[Tensor, "*points d"], covered: Cover | None = None) -> Float[Tensor, "*points outputs"]:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        points, covered = self._enter(x, covered)
        total = points.new_zeros(len(points), self.outputs)
        for group in covered.groups:
            value = self._forward(self.tensors(group), points[group.index])
            total = _add(total, group, group.window.unsqueeze(-1) * value)
        return total.reshape(*x.shape[:-1], self.outputs)

    def jet(self, x: Float[Tensor, "*points d"], second: Second = "axes", covered: Cover | None = None) -> Jet:
        """Evaluate value and exact derivatives, one pass; see ``Jet`` for ``second``."""
        return self.jet_through(self._group_jet, x, second, covered)

    def jet_through(self, parts: GroupJet, x: Tensor, second: Second, covered: Cover | None = None) -> Jet:
        """Evaluate the jet from what ``parts(group, points (G, M, d), second)`` gives of the networks, (G, M, ...)."""
        check_second(second)
        points, covered = self._enter(x, covered)
        size, outputs, d = len(points), self.outputs, self.dimension
        tails = {"axes": (d,), "full": (d, d), "laplacian": (), "none": (0,)}
        value = points.new_zeros(size, outputs)
        gradient = points.new_zeros(size, outputs, d)
        curve = points.new_zeros(size, outputs, *tails[second])
        for group in covered.groups:
            u = parts(group, points[group.index], second)
            product = windowed(group.window, group.window_gradient, group.window_hessian, u, second)
            value = _add(value, group, product.value)
            gradient = _add(gradient, group, product.gradient)
            curve = _add(curve, group, product.second)
        lead = x.shape[:-1]
        return Jet(*(part.reshape(*lead, *part.shape[1:]) for part in (value, gradient, curve)))

    def _group_jet(self, group: Group, points: Tensor, second: Second) -> Jet:
        found: Jet = self.parts_jet(self.tensors(group), points, second=second)
        return found

    def features(self, x: Float[Tensor, "*points d"]) -> Float[Tensor, "*points features"]:
        """Evaluate what the field is linear in, (..., N * F): the features of every subdomain under its window."""
        return self.features_jet(x, "none").value

    def features_jet(self, x: Float[Tensor, "*points d"], second: Second = "axes") -> Jet:
        """Evaluate ``features`` with their derivatives, (..., N * F), (..., N * F, d) and second ones as in `Jet`."""
        check_second(second)
        points, covered = self._enter(x, None)
        size, d = len(points), self.dimension
        number, features = self.parts.output_coefficients().shape[:2]  # type: ignore[operator]
        tails = {"axes": (d,), "full": (d, d), "laplacian": (), "none": (0,)}
        total = [points.new_zeros(size, number, features, *tail) for tail in ((), (d,), tails[second])]
        for group in covered.groups:
            jet = self._features(self.tensors(group), points[group.index], second=second)
            jet = windowed(group.window, group.window_gradient, group.window_hessian, jet, second)
            place = (group.index, group.boxes[:, None].expand_as(group.index))
            for whole, part in zip(total, jet, strict=True):
                whole.index_put_(place, part, accumulate=True)
        flat = [part.flatten(1, 2) for part in total]
        return Jet(*(part.reshape(*x.shape[:-1], *part.shape[1:]) for part in flat))

    def output_coefficients(self) -> Tensor:
        """Return the coefficients of the features, (N * F, outputs)."""
        found: Tensor = self.parts.output_coefficients().flatten(0, 1)  # type: ignore[operator]
        return found

    def set_output_coefficients(self, coefficients: Tensor) -> None:
        """Put the coefficients of the features in place; raises InputError for another shape."""
        shape = self.parts.output_coefficients().shape  # type: ignore[operator]
        if coefficients.shape != (shape[0] * shape[1], shape[2]):
            given = tuple(coefficients.shape)
            raise InputError(f"output coefficients of shape {given}: give {(shape[0] * shape[1], shape[2])}")
        self.parts.set_output_coefficients(coefficients.reshape(shape))  # type: ignore[operator]

    def restart(self, start: Start) -> None:
        """Draw the coefficients of all parts anew."""
        self.parts.restart(start)  # type: ignore[operator]

    def config(self) -> dict[str, Any]:
        """Write down the partition; the parts are stored with their own."""
        some = {} if self.members is None else {"members": list(self.members)}
        return {"axes": [asdict(axis) for axis in self.partition.axes], **some}

    @classmethod
    def from_config(cls, config: dict[str, Any], parts: nn.Module) -> DecomposedField:
        """Build the partition that ``config`` wrote down, of these parts."""

        def tuples(axis: dict[str, Any]) -> dict[str, Any]:
            return {name: tuple(value) if isinstance(value, list) else value for name, value in axis.items()}

        partition = Partition(tuple(Intervals(**tuples(axis)) for axis in config["axes"]))
        return cls(partition, parts, config.get("members"))

    def _enter(self, x: Tensor, covered: Cover | None) -> tuple[Tensor, Cover]:
        covered = self.cover(x) if covered is None else covered
        points = x.reshape(-1, x.shape[-1])
        if covered.points != len(points):
            raise InputError(f"cover of {covered.points} points for {len(points)}: sort these points with .cover(x)")
        return points, covered

    def tensors(self, group: Group) -> dict[str, Tensor]:
        """Pick parameters and boxes of the subdomains of a group."""
        tensors = {name: tensor[group.boxes] for name, tensor in self.parts.named_parameters()}
        boxes = {name: tensor[group.boxes] for name, tensor in self.parts.named_buffers() if tensor.ndim == 2}
        return tensors | boxes


def _add(total: Tensor, group: Group, part: Tensor) -> Tensor:
    """Add what the boxes (G, M, ...) give to their points (P, ...)."""
    return total.index_add(0, group.index.flatten(), part.flatten(0, 1))


def windowed(window: Tensor, gradient: Tensor, hessian: Tensor, u: Jet, second: Second) -> Jet:
    """Compute the jet of window (...) times field (..., outputs): (w u)_ab = w_ab u + w_a u_b + w_b u_a + w u_ab."""
    w, w1, w2 = window[..., None], gradient[..., None, :], hessian[..., None, :, :]
    value = w * u.value
    slope = w1 * u.value[..., None] + w[..., None] * u.gradient
    if second == "none":
        return Jet(value, slope, u.second)
    if second == "full":
        cross = w1[..., :, None] * u.gradient[..., None, :]
        curve = w2 * u.value[..., None, None] + cross + cross.mT + w[..., None, None] * u.second
        return Jet(value, slope, curve)
    pure = w2.diagonal(dim1=-2, dim2=-1)
    bend = pure * u.value[..., None] + 2 * w1 * u.gradient
    if second == "laplacian":
        return Jet(value, slope, bend.sum(dim=-1) + w * u.second)
    return Jet(value, slope, bend + w[..., None] * u.second)

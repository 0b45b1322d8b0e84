"""Sound of a point source outside a square with impedance walls: the complex Helmholtz equation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import box

_WAVE = 10.0
_SOURCE = (-0.4, 0.3)


def acoustic() -> Problem:
    """Pose Laplacian p + k^2 p = 0 on the unit square, dp/dn - i k p = g on its walls; outputs are Re p and Im p.

    p = i H_0(k r) / 4 of a source at (-0.4, 0.3); k = 10. Impedance data leave no resonance.
    """

    from scipy.special import hankel1

    def hankel(x: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """Evaluate H_order(k r) as real and imaginary parts (B, 2), and the direction away from the source (B, 2)."""
        arm = x.numpy() - np.asarray(_SOURCE)
        radius = np.hypot(arm[..., 0], arm[..., 1])
        found = hankel1(order, _WAVE * radius)  # torch's own Bessel functions are right to 1e-7 only
        parts = np.stack([found.real, found.imag], axis=-1)
        return torch.from_numpy(parts), torch.from_numpy(arm / radius[..., None])

    def exact(x: Tensor) -> Tensor:
        parts, _ = hankel(x, 0)
        return 0.25 * torch.stack([-parts[..., 1], parts[..., 0]], dim=-1)

    def outward(side: Side) -> Tensor:
        parts, along = hankel(side.points, 1)
        slope = 0.25 * _WAVE * torch.stack([parts[..., 1], -parts[..., 0]], dim=-1)
        return slope * (along * side.normals).sum(-1, keepdim=True)

    def wall(part: int) -> Condition:
        sign = 1.0 if part == 0 else -1.0  # -i k (a + i b) = k b - i k a

        def residual(p: Jet, side: Side) -> Tensor:
            truth, slope = exact(side.points), outward(side)
            found = (p.gradient[..., part, :] * side.normals).sum(-1) - slope[..., part]
            return found + sign * _WAVE * (p.value[..., 1 - part] - truth[..., 1 - part])

        return Condition(f"impedance, {'real' if part == 0 else 'imaginary'}", residual)

    def residual(p: Jet, x: Tensor) -> dict[str, Tensor]:
        found = p.second.sum(-1) + _WAVE**2 * p.value
        return {"real": found[..., 0], "imaginary": found[..., 1]}

    summary = "Laplacian p + 100 p = 0 on [0, 1]^2 with impedance walls: sound of a point source outside"
    region = box([0, 0], [1, 1])
    return Problem("acoustic", region, residual, [wall(0), wall(1)], exact, "Hankel function", summary, outputs=2)


PROBLEMS = {"acoustic": acoustic}

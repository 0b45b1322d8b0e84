"""ModuleField: any torch module as a field, its derivatives by automatic differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, check_type
from cpikan.fields.constrained import function_jet
from cpikan.fields.protocol import Jet, Second, check_second, flat_points
from cpikan.fields.scaling import AffineScaling, Domain

_PROBES, _FEWER = 7, 2
_ALONE = 1e-9  # of the largest value: what a point's value may differ by when others are not there


class ModuleField(nn.Module):
    """u(x) = module(scaled x) for a ``module`` that maps (B, d) to (B, outputs), row by row.

        net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        field = cpikan.ModuleField(net, ([0, 0], [1, 1]))
        solution = cpikan.solve("poisson-2d", field, "levenberg-marquardt")

    ``domain`` is the box (lower, upper); the module gets coordinates within [-1, 1]. It is made float64. Derivatives are
    nested reverse passes (``torch.func.vjp``), one for each output and one more for each axis of that. Raises InputError
    for a module without parameters, for values of another shape, for a value that is not the point's own (batch
    normalisation, dropout) and for values whose second derivatives vanish everywhere (relu).
    """

    networks = None

    def __init__(self, module: nn.Module, domain: Domain) -> None:
        super().__init__()
        check_type("module", module, nn.Module, "a torch module of points (B, d) to values (B, outputs)")
        if domain is None:
            raise InputError("a module's field without a box: give domain=(lower, upper), one number per axis each")
        self.scaling = AffineScaling(*domain)
        if self.scaling.networks is not None:
            raise InputError("a module is a single field: give one box, one number per axis")
        if not any(True for _ in module.parameters()):
            raise InputError(f"{type(module).__name__} has no parameters: there is nothing to find")
        self.module = module.double()
        self.outputs = self._probed()

    @property
    def dimension(self) -> int:
        """Count the coordinates of a point, d."""
        return self.scaling.dimension

    def config(self) -> dict[str, Any]:
        """Write down the box; what the module is made of is its own code."""
        return {"domain": self.scaling.config()}

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate values (..., outputs) at physical points (..., d)."""
        flat, batch = flat_points(x, None, self.scaling.lower.dtype)
        return self._flat(flat).reshape(*batch, self.outputs)

    def jet(self, x: Tensor, second: Second = "axes") -> Jet:
        """Evaluate value and derivatives by the physical coordinates; see ``Jet`` for ``second``."""
        check_second(second)
        flat, batch = flat_points(x, None, self.scaling.lower.dtype)
        found = function_jet(self._flat, flat, second)
        return Jet(*(part.reshape(*batch, *part.shape[1:]) for part in found))

    def _flat(self, x: Tensor) -> Tensor:
        found: Tensor = self.module(self.scaling(x))
        return found

    def _probed(self) -> int:
        """Count the outputs, at a few points; raises InputError for what is no field."""
        low, high = self.scaling.lower, self.scaling.upper
        drawn = torch.rand(_PROBES, len(low), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = low + drawn * (high - low)
        name = type(self.module).__name__
        try:
            value = self._flat(x).detach()
        except (RuntimeError, TypeError, ValueError, IndexError) as failure:
            reason = str(failure).splitlines()[0]
            raise InputError(
                f"{name} does not take points ({_PROBES}, {len(low)}) in float64 ({reason}): give a module from (B, "
                f"{len(low)}) to (B, outputs)"
            ) from failure
        if value.ndim != 2 or len(value) != _PROBES:
            raise InputError(f"{name} gives {tuple(value.shape)} for {_PROBES} points: give (B, outputs)")
        fewer = self._flat(x[:_FEWER]).detach()
        if not float((fewer - value[:_FEWER]).abs().max()) <= _ALONE * float(value.abs().max()):
            raise InputError(
                f"{name} gives a point another value when other points are not there, or every time another one: take "
                "batch normalisation and dropout out, or call .eval()"
            )
        jet = function_jet(self._flat, x)
        if bool(jet.gradient.any()) and not bool(jet.second.any()):
            raise InputError(f"{name} has no second derivatives, as with relu: take tanh, silu, gelu or softplus")
        return value.shape[1]

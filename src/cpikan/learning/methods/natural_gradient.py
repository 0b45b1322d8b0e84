"""NaturalGradient: Gauss-Newton's natural gradient in the smaller space, of residuals or of parameters; GaussNewtonCG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.damped_systems import LIMITS, DampedSystem, Limits, ProductSystem, damped_system
from cpikan.learning.jacobian_products import JacobianProducts
from cpikan.learning.krylov import Stopping
from cpikan.learning.methods.damped import Damped
from cpikan.learning.objective import Objective, Place


@dataclass(frozen=True)
class NaturalGradient(Damped):
    """Damped steps -J'(JJ' + m)^-1 r with fewer residuals than parameters, -(J'J + m)^-1 J'r else: the same step.

    A Jacobian within the ``limits`` is stored and its smaller square factored. Beyond, conjugate gradients need products
    with J and J' alone, behind a Nystroem preconditioner. Source: Jnini and Vella, Dual natural gradient descent, arXiv
    2505.21404 (2025).
    """

    limits: Limits = LIMITS
    name: str = "natural gradient"

    def system(self, place: Place, field: nn.Module) -> DampedSystem:
        """Linearise, or make ready for products."""
        assert isinstance(place, Objective)
        return damped_system(place, field, self.limits)


@dataclass(frozen=True)
class GaussNewtonCG(Damped):
    """Damped Gauss-Newton steps by conjugate gradients on J'J + m, from products with J and J' alone.

    The iteration ends where a product lowers the model by less than ``progress`` of all (Martens 2010), or after
    ``products``. Acceleration, a second iteration per step, is off.
    """

    accelerated: bool = False
    products: int = 250
    progress: float = 5e-4
    name: str = "gauss-newton by products"
    _TOLERANCE: ClassVar[float] = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.products < 1 or not 0 <= self.progress < 1:
            raise InputError(
                f"{self.products} products and progress {self.progress}: give at least 1, and from 0 to below 1"
            )

    def system(self, place: Place, field: nn.Module) -> DampedSystem:
        """Make ready for products."""
        assert isinstance(place, Objective)
        return ProductSystem(
            JacobianProducts(place, field), "columns", 0, Stopping(self._TOLERANCE, self.products, self.progress)
        )

"""Tucker kernels: equal to dense ones at full rank, as near as singular values allow below it, and never built whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cpikan.errors import InputError
from cpikan.images.models.fno import FNO, SpectralConv
from cpikan.images.models.tucker import TFNO, TuckerConv, tucker_ranks


def as_real(numbers: torch.Tensor, axes: int) -> torch.Tensor:
    """Write complex numbers as real parameters, the last ``axes`` axes and both parts as one axis."""
    return torch.view_as_real(numbers.contiguous()).flatten(-axes - 1)


@torch.no_grad()
def set_from_dense(tucker: TuckerConv, kernel: torch.Tensor) -> None:
    """Take over a dense complex kernel (in, out, 2 modes, modes), truncated to the ranks.

    Higher-order singular value decomposition (De Lathauwer, De Moor & Vandewalle, SIAM J. Matrix Anal. Appl. 21, 1253
    (2000)): the squared error is at most the sum of the squared singular values cut off, over all four axes.
    """
    factors = []
    for axis, rank in enumerate(tucker.ranks):
        unfolded = kernel.movedim(axis, 0).flatten(1)
        basis = torch.linalg.svd(unfolded, full_matrices=False).U[:, :rank]
        # where an axis has more entries than the others have together: fewer singular vectors than ranks
        factors.append(torch.nn.functional.pad(basis, (0, rank - basis.shape[1])))
    core = torch.einsum("ioxy,ia,ob,xc,yd->abcd", kernel, *(factor.conj() for factor in factors))
    tucker.core.copy_(as_real(core, 2))
    for parameter, factor in zip(tucker.factors, factors, strict=True):
        parameter.copy_(as_real(factor, 1))


def pair(rank: float, width: int = 6, modes: int = 5) -> tuple[SpectralConv, TuckerConv]:
    torch.manual_seed(4)
    dense, tucker = SpectralConv(width, width + 1, modes), TuckerConv(width, width + 1, modes, rank)
    set_from_dense(tucker, dense.dense())
    return dense, tucker


@pytest.mark.parametrize(("width", "modes"), [(6, 5), (2, 8), (9, 1)])
def test_full_rank_is_the_dense_layer(width, modes):
    dense, tucker = pair(1.0, width, modes)
    image = torch.randn(2, width, 2 * modes + 3, 2 * modes + 4)
    torch.testing.assert_close(tucker(image), dense(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0.05, 0.2, 0.6])
def test_the_truncated_kernel_is_as_near_as_the_singular_values_say(rank):
    dense, tucker = pair(rank)
    kernel = dense.dense()
    cut = 0.0
    for axis, kept in enumerate(tucker.ranks):
        cut += float(torch.linalg.svdvals(kernel.detach().movedim(axis, 0).flatten(1))[kept:].square().sum())
    error = float((tucker.dense() - kernel).detach().abs().square().sum())
    assert 0 < error <= cut * (1 + 1e-5)  # float32


def test_a_kernel_of_low_rank_is_found_exactly():
    torch.manual_seed(5)
    source, copy = TuckerConv(8, 7, 6, 0.1), TuckerConv(8, 7, 6, 0.1)
    wanted = source.dense().detach()
    set_from_dense(copy, wanted)
    torch.testing.assert_close(copy.dense(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


class Largest(TorchDispatchMode):
    """The most numbers that any tensor computed meanwhile has."""

    numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        answer = function(*arguments, **(options or {}))
        if isinstance(answer, torch.Tensor):
            self.numbers = max(self.numbers, answer.numel())
        return answer


def test_the_dense_kernel_is_never_built():
    layer = TuckerConv(32, 32, 8, 0.1)
    spectrum = torch.randn(1, 32, 16, 8, dtype=torch.complex64)
    with torch.no_grad(), Largest() as seen:
        mixed = layer.mix(spectrum)
    assert seen.numbers < 32 * 32 * 16 * 8 / 2
    torch.testing.assert_close(mixed, torch.einsum("nixy,ioxy->noxy", spectrum, layer.dense()), rtol=1e-4, atol=1e-5)


def test_the_size_of_the_answer_does_not_depend_on_the_rank():
    torch.manual_seed(6)
    for rank in (0.02, 0.1, 1.0):
        kernels = [TuckerConv(24, 24, 8, rank).dense().detach() for _ in range(8)]
        spreads = torch.stack([kernel.abs().square().mean() * 24 for kernel in kernels])
        # five factors multiply their fluctuations; a wrong exponent would be off by powers of ten
        assert 0.3 < float(spreads.mean()) < 3, rank


def test_parameters_shrink_with_the_rank():
    sizes = [sum(weights.numel() for weights in TFNO(6, 3, rank=rank).parameters()) for rank in (0.01, 0.1, 1.0)]
    dense = sum(weights.numel() for weights in FNO(6, 3).parameters())
    assert sizes[0] < 0.03 * dense < sizes[1] < 0.12 * dense < dense <= sizes[2]
    assert math.prod(tucker_ranks((24, 24, 24, 12), 0.1)) < 0.12 * 24 * 24 * 24 * 12


@pytest.mark.parametrize("rank", [0.0, -0.1, 1.5, float("nan")])
def test_a_rank_is_a_share(rank):
    with pytest.raises(InputError, match="give a share above 0 and up to 1"):
        TFNO(1, 1, rank=rank)

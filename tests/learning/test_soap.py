"""SOAP against a dense reference that is written out with Kronecker products, and as a stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.soap import Soap, SoapOptimizer
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem


def plain_soap(gradient, start, steps, frequency, lr=0.05, beta=0.95, eps=1e-8):
    """Vyas et al. (2024) on vec(W): Adam in the basis kron(Q_L, Q_R), the basis by power iteration and QR."""
    w, rows, columns = start.copy(), *start.shape
    g = gradient(w, 0)
    left, right = (1 - beta) * g @ g.T, (1 - beta) * g.T @ g
    ql, qr = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
    first, second = np.zeros(rows * columns), np.zeros(rows * columns)
    for step in range(1, steps):
        g = gradient(w, step)
        basis = np.kron(ql, qr)  # vec by rows: vec(Q_L A Q_R') = kron(Q_L, Q_R) vec(A)
        first = beta * first + (1 - beta) * g.ravel()
        second = beta * second + (1 - beta) * (basis.T @ g.ravel()) ** 2
        moment = basis.T @ first / (1 - beta**step)
        size = np.sqrt(second / (1 - beta**step)) + eps
        w = w - lr * (basis @ (moment / size)).reshape(rows, columns)
        left, right = beta * left + (1 - beta) * g @ g.T, beta * right + (1 - beta) * g.T @ g
        if step % frequency == 0:
            table = second.reshape(rows, columns)
            order_l = np.argsort(-np.diag(ql.T @ left @ ql), kind="stable")
            order_r = np.argsort(-np.diag(qr.T @ right @ qr), kind="stable")
            second = table[order_l][:, order_r].ravel()
            ql, qr = np.linalg.qr(left @ ql[:, order_l])[0], np.linalg.qr(right @ qr[:, order_r])[0]
    return w


@pytest.mark.parametrize("frequency", [1, 3, 1000])
def test_a_regression_takes_the_steps_of_the_dense_reference(frequency):
    random = np.random.default_rng(1)
    a, b, truth = random.standard_normal((30, 4)), random.standard_normal((4, 4)), random.standard_normal((4, 4))
    data = a @ truth @ b + 0.1 * random.standard_normal((30, 4))

    def gradient(w, step):  # a third of the data each: in its own basis a gradient would be zero but on the diagonal
        part = slice(step % 3, None, 3)
        return a[part].T @ (a[part] @ w @ b - data[part]) @ b.T / 10

    start = random.standard_normal((4, 4))  # square: a side of lower rank has directions that hold rounding alone
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = SoapOptimizer([parameter], lr=0.05, frequency=frequency)
    for step in range(40):
        parameter.grad = torch.from_numpy(gradient(parameter.detach().numpy(), step))
        optimizer.step()
    # signs of eigenvectors cancel; what is left is rounding, over the gaps between eigenvalues
    np.testing.assert_allclose(
        parameter.detach().numpy(), plain_soap(gradient, start, 40, frequency), rtol=0, atol=1e-9
    )


def test_vectors_take_the_steps_of_adam():
    start = torch.linspace(-2, 3, 7, dtype=torch.float64)
    ours, adams = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    pair = (
        SoapOptimizer([ours], lr=0.1, betas=(0.9, 0.999, 0.95)),
        torch.optim.Adam([adams], lr=0.1, betas=(0.9, 0.999)),
    )
    ours.grad = torch.cos(start)
    pair[0].step()  # a vector has no basis to be set first: it moves at once
    adams.grad = torch.cos(start)
    pair[1].step()
    for _ in range(10):
        for parameter, optimizer in zip((ours, adams), pair, strict=True):
            parameter.grad = torch.cos(parameter.detach())
            optimizer.step()
    assert torch.allclose(ours, adams, atol=1e-13)


def test_the_way_down_does_not_depend_on_the_axes():
    """Turning both sides of a matrix turns its bases with it: costs are the same on the way, which Adam's are not."""
    random = np.random.default_rng(0)
    turn_l, turn_r = (torch.from_numpy(np.linalg.qr(random.standard_normal((5, 5)))[0]) for _ in range(2))
    size = torch.from_numpy(random.uniform(0.5, 20, (5, 5)))
    start = torch.from_numpy(random.standard_normal((5, 5)))

    def costs(make, turned):
        parameter = torch.nn.Parameter(turn_l @ start @ turn_r if turned else start.clone())
        optimizer, found = make(parameter), []
        for _ in range(12):
            optimizer.zero_grad()
            plain = turn_l.mT @ parameter @ turn_r.mT if turned else parameter
            cost = 0.5 * (size * plain.square()).sum() + torch.sin(plain).sum()
            cost.backward()
            optimizer.step()
            found.append(float(cost.detach()))
        return np.array(found)

    # rounding is amplified as in the test above
    soap = [costs(lambda p: SoapOptimizer([p], lr=0.05, frequency=2), turned) for turned in (False, True)]
    np.testing.assert_allclose(soap[0], soap[1], rtol=1e-9)
    adam = [costs(lambda p: torch.optim.Adam([p], lr=0.05), turned) for turned in (False, True)]
    assert abs(adam[0][-1] / adam[1][-1] - 1) > 1e-2


def test_the_stage_lowers_the_residual_and_stops_for_a_reason():
    field = ScaledCPIKAN([1, 6, 1], 6, start=Start(1))
    run = Runner(problem("helmholtz-1d"))
    run.place(field, Points(120, 2))
    before = run.iterate.heldout_cost()
    assert run.run(Soap(200, 1e-2)) is StopReason.BUDGET
    assert run.iterate.heldout_cost() < 0.1 * before


def test_bad_settings():
    with pytest.raises(InputError, match="soap at rate -1"):
        Soap(10, -1)
    with pytest.raises(InputError, match="at least 1"):
        Soap(10, frequency=0)

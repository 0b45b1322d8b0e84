"""Embeddings: periods that hold for any parameters, frequencies of several scales, fields of every kind behind them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from field_contract import TORCH_WARNS, same
from torch.func import jacrev

import cpikan
from cpikan.errors import InputError
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import EvenEmbedding, FourierEmbedding, PeriodicEmbedding, WaveEmbedding, embedding_of
from cpikan.fields.files import load_field, save_field
from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.jet_tape import JetTape
from cpikan.fields.kinds import FIELDS, make_field
from cpikan.fields.start import Start

pytestmark = TORCH_WARNS
BOX = ([-1.0, 0.0], [2.0, 1.5])


def points(count=9):
    return torch.from_numpy(np.random.default_rng(6).uniform(*BOX, (count, 2)))


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "separable"])
def test_every_kind_has_the_box_as_its_period_whatever_its_parameters(name):
    field = make_field(name, [2, 6, 2], 3, BOX, 1, embedding=PeriodicEmbedding(2, [0], 2))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    x = points()
    for shifts in (1, -2):
        moved = field.jet(x + torch.tensor([3.0 * shifts, 0.0], dtype=torch.float64), "full")
        # coordinates of up to 8 lose 1e-15 in the shift, and each derivative multiplies by at most some tens
        for part, other in zip(field.jet(x, "full"), moved, strict=True):
            assert same(part, other) <= 1e-11
    ends = [torch.tensor([[end, 0.4]], dtype=torch.float64) for end in (-1.0, 2.0)]
    for part, other in zip(field.jet(ends[0], "full"), field.jet(ends[1], "full"), strict=True):
        assert same(part, other) <= 1e-12
    assert not same(field(x), field(x + torch.tensor([0.0, 0.1], dtype=torch.float64))) <= 1e-3


def test_nodes_of_a_periodic_embedding_are_waves_and_the_other_axis():
    embedding = PeriodicEmbedding(2, [1], 2)
    x = torch.tensor([[0.3, 0.25]], dtype=torch.float64)
    angle = math.pi / 4
    waves = [math.cos(angle), math.sin(angle), math.cos(2 * angle), math.sin(2 * angle)]
    assert embedding.width == 5
    assert embedding(x)[0].tolist() == pytest.approx([0.3, *waves], abs=1e-15)


def test_nodes_of_a_wave_embedding_are_the_coordinates_and_waves_from_end_to_end():
    embedding = WaveEmbedding(2, [(1, 2.5), (0, 7.0)])
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    pairs = [f(count * math.pi * at) for count, at in ((2.5, -0.2), (7.0, 0.3)) for f in (math.cos, math.sin)]
    assert embedding.width == 6
    assert embedding(x)[0].tolist() == pytest.approx([0.3, -0.2, *pairs], abs=1e-15)


@pytest.mark.parametrize("second", ["full", "axes", "laplacian", "none"])
def test_jets_of_a_network_behind_waves_are_those_of_autograd(second):
    field = EmbeddedField(
        make_field("scaled-cpikan", [6, 5, 2], [2, 3], None, 1), WaveEmbedding(2, [(0, 4.5), (1, 3.0)]), BOX
    )
    x = points(5)
    jet = field.jet(x, second)
    gradient = torch.stack([jacrev(lambda p: field(p[None])[0])(one) for one in x])
    hessian = torch.stack([jacrev(jacrev(lambda p: field(p[None])[0]))(one) for one in x])
    axes = hessian.diagonal(dim1=-2, dim2=-1)
    wanted = {"full": hessian, "axes": axes, "laplacian": axes.sum(-1), "none": hessian[..., 0, :0]}[second]
    assert same(jet.gradient, gradient) <= 1e-12
    assert jet.second.shape == wanted.shape
    assert not wanted.numel() or same(jet.second, wanted) <= 1e-11


def test_a_network_behind_an_even_embedding_is_even_and_periodic():
    inner = make_field("scaled-cpikan", [2, 6, 2], 3, None, 1)
    field = EmbeddedField(inner, EvenEmbedding(2, [0]), BOX)
    x = points()
    mirrored, shifted = x.clone(), x + torch.tensor([3.0, 0.0], dtype=torch.float64)
    mirrored[:, 0] = 1.0 - x[:, 0]  # the middle is 0.5, the period 3
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    jet, turned, moved = (field.jet(at, "full") for at in (x, mirrored, shifted))
    assert same(jet.value, turned.value) <= 1e-13
    assert same(jet.gradient * sign, turned.gradient) <= 1e-12
    assert same(jet.second * sign[:, None] * sign, turned.second) <= 1e-11
    assert same(jet.second, moved.second) <= 1e-11
    truth = torch.func.vmap(torch.func.hessian(lambda at: field(at[None])[0]))(x)
    assert same(jet.second, truth) <= 1e-11
    assert not same(field(x), field(x + torch.tensor([0.1, 0.0], dtype=torch.float64))) <= 1e-3
    assert EvenEmbedding(2, [1])(x)[0].tolist() == pytest.approx(
        [float(x[0, 0]), math.cos(math.pi * x[0, 1])], abs=1e-15
    )


def test_products_of_fourier_features_are_the_kernel_of_their_scale():
    # E[cos 2 pi b (x - y)] over b of deviation sigma is exp(-2 pi^2 sigma^2 |x - y|^2)
    sigma, count = 0.6, 20_000
    embedding = FourierEmbedding(2, 2 * count, sigma, start=Start(5))
    x, y = torch.tensor([[0.1, -0.3]], dtype=torch.float64), torch.tensor([[0.35, -0.1]], dtype=torch.float64)
    found = float((embedding(x) * embedding(y)).sum()) / count
    truth = math.exp(-2 * math.pi**2 * sigma**2 * float((x - y).square().sum()))
    assert found == pytest.approx(truth, abs=4 * math.sqrt(0.5 / count))


def test_scales_come_in_turn():
    drawn = FourierEmbedding(1, 4000, [0.1, 10.0]).phases.frequencies[0, 0]
    assert float(drawn[0::2].std()) == pytest.approx(0.1, rel=0.1)
    assert float(drawn[1::2].std()) == pytest.approx(10.0, rel=0.1)


def test_forty_waves_are_fitted_where_the_scale_matches_and_not_where_it_is_1():
    x = torch.linspace(-1, 1, 801, dtype=torch.float64)[:, None]
    wave = torch.sin(2 * math.pi * 20 * x)  # 20 cycles a unit of the scaled coordinate
    missed = []
    for sigma in (20.0, 1.0):
        features = FourierEmbedding(1, 400, sigma, start=Start(1))(x)
        missed.append(
            float((features @ torch.linalg.lstsq(features, wave, driver="gelsd").solution - wave).norm() / wave.norm())
        )
    assert missed[0] < 1e-3
    assert missed[1] > 0.9


def test_trained_frequencies_have_columns_on_the_tape():
    embedding = FourierEmbedding(2, 6, 0.4, trained=True)
    field = make_field("residual", [2, 4, 2], 3, BOX, 2, embedding=embedding)
    with torch.no_grad():
        for gate in field.field.gates:
            gate.fill(0.5)
    x = points(5)

    def residual(jet):
        return jet.value[:, 0] * jet.gradient[:, 1, 0] + jet.second.flatten(1).sum(-1)

    tape = JetTape(field, x)
    truth = jacrev(lambda v: residual(functional(field, "jet")(named_parameters(field, v), x)))(parameter_vector(field))
    found = tape.rows(residual(tape.jet))
    assert float((found - truth).abs().max()) <= 1e-12 * float(truth.abs().max())
    # those of the frequencies among them are not zero
    names = [name for name, _ in field.named_parameters()]
    assert "embedding.phases.frequencies" in names
    first = sum(
        p.numel() for n, p in field.named_parameters() if names.index(n) < names.index("embedding.phases.frequencies")
    )
    assert bool((found[:, first : first + 6].abs().amax(0) > 0).all())


def test_settings_come_back_and_change_the_nodes():
    x = points()
    for one, other in (
        (PeriodicEmbedding(2, [0], 2), PeriodicEmbedding(2, [1], 2)),
        (PeriodicEmbedding(2, [0, 1], 2), PeriodicEmbedding(2, [0, 1], 3)),
        (EvenEmbedding(2, [0]), EvenEmbedding(2, [0, 1])),
        (WaveEmbedding(2, [(0, 3.5)]), WaveEmbedding(2, [(1, 3.5)])),
        (WaveEmbedding(2, [(0, 3.5)]), WaveEmbedding(2, [(0, 4)])),
        (FourierEmbedding(2, 4), FourierEmbedding(2, 6)),
        (FourierEmbedding(2, 4), FourierEmbedding(2, 4, 0.7)),
        (FourierEmbedding(2, 4), FourierEmbedding(2, 4, start=Start(1))),
    ):
        assert one(x).tolist() != other(x).tolist()
        assert embedding_of(one.config()).config() == one.config()
    parameters = [list(FourierEmbedding(2, 4, trained=trained).parameters()) for trained in (False, True)]
    assert [len(p) for p in parameters] == [0, 1]
    field = EmbeddedField(cpikan.MLP([4, 3, 1]), FourierEmbedding(2, 4))
    before = field(x).detach()
    field.restart(Start(4))
    assert not torch.equal(field(x), before)
    field.restart(Start(0))
    assert torch.equal(field(x), before)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PeriodicEmbedding(2, []), r"periodic axes \[\] of 2: give some of 0 to 1, each once"),
        (lambda: PeriodicEmbedding(2, [0, 0]), r"periodic axes \[0, 0\] of 2"),
        (lambda: PeriodicEmbedding(2, [2]), r"periodic axes \[2\] of 2"),
        (lambda: PeriodicEmbedding(2, [0], 0), "0 waves of a period: give at least 1"),
        (lambda: EvenEmbedding(2, [2]), r"even axes \[2\] of 2: give some of 0 to 1, each once"),
        (lambda: EvenEmbedding(2, [0.5]), "an even axis is 0.5: give numbers of axes"),
        (lambda: WaveEmbedding(2, []), r"wave axes \[\] of 2: give some of 0 to 1"),
        (lambda: WaveEmbedding(2, [(2, 4.0)]), r"wave axes \[2\] of 2"),
        (lambda: WaveEmbedding(2, [(0.5, 4.0)]), "a wave axis is 0.5: give numbers of axes"),
        (
            lambda: WaveEmbedding(2, [(0, -4.0)]),
            r"\(0, -4.0\) for waves along an axis: give its number and a positive one",
        ),
        (lambda: WaveEmbedding(2, [4.0]), "a wave is 4.0: give an axis and a number"),
        (lambda: WaveEmbedding(2, [(0, math.inf)]), r"\(0, inf\) for waves"),
        (lambda: FourierEmbedding(2, 5), "5 Fourier features: give an even number"),
        (lambda: FourierEmbedding(2, 4, [1.0, -1.0]), r"sigma \[1.0, -1.0\] of Fourier features"),
        (
            lambda: EmbeddedField(cpikan.MLP([2, 3, 1]), PeriodicEmbedding(2, [0])),
            r"with 3 nodes: give widths \[3, ...\]",
        ),
        (lambda: EmbeddedField.from_config({"domain": {}, "embedding": {}}), "needs the field behind it"),
        (
            lambda: make_field("mlp", [1, 3, 1], 3, None, embedding=PeriodicEmbedding(2, [0])),
            r"embedding of 2 axes for widths \[1, 3, 1\]: make them equal",
        ),
        (
            lambda: EmbeddedField(cpikan.SeparableCKAN([3, 1]), PeriodicEmbedding(2, [0])),
            "SeparableCKAN behind an embedding: its parts are functions of one coordinate each",
        ),
        (lambda: embedding_of({"kind": "Fourier"}), "unknown embedding 'Fourier'"),
        (lambda: cpikan.AdaptiveMLP([2, 3, 1], slopes="nodes"), "unknown kind of slopes 'nodes'.*did you mean 'node'"),
    ],
)
def test_bad_input_is_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()


def test_a_fourier_network_calls_its_frequencies_in_files_as_it_always_did(tmp_path):
    field = cpikan.FourierCKAN([2, 4, 3, 1], 3, start=Start(2))
    assert "frequencies" in field.state_dict()
    assert not any("embedding" in name for name in field.state_dict())
    save_field(field, tmp_path / "one.safetensors")
    found, x = load_field(tmp_path / "one.safetensors"), torch.rand(5, 2, dtype=torch.float64)
    assert torch.equal(found.embedding.phases.frequencies, field.embedding.phases.frequencies)
    assert torch.equal(found(x), field(x))

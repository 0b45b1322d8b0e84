"""The fields beside Scaled-cPIKAN: each inherits the contract; what is special to it is checked against formulas."""

from __future__ import annotations

import field_formulas
import torch
from field_contract import LOWER, TORCH_WARNS, UPPER, FieldContract

from cpikan.fields.adaptive import AdaptiveCKAN, AdaptiveMLP
from cpikan.fields.blend import BlendField
from cpikan.fields.deep_galerkin import DeepGalerkinField
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import FourierEmbedding, PeriodicEmbedding
from cpikan.fields.fourier_ckan import FourierCKAN
from cpikan.fields.gated_ckan import GatedCKAN
from cpikan.fields.layered import Start
from cpikan.fields.mlp import MLP
from cpikan.fields.random_feature import RandomFeatureCKAN
from cpikan.fields.residual_ckan import ResidualCKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.separable import SeparableCKAN
from cpikan.fields.siren import Siren
from cpikan.fields.wavelet_kan import WaveletKAN

pytestmark = TORCH_WARNS
BOX = (LOWER, UPPER)


class TestMLP(FieldContract):
    formula = staticmethod(field_formulas.mlp)

    def make(self, networks=None):
        return MLP([2, 6, 5, 2], domain=BOX, networks=networks, start=Start(1))


class TestSiren(FieldContract):
    formula = staticmethod(field_formulas.siren(3))

    def make(self, networks=None):
        return Siren([2, 6, 5, 2], 3.0, BOX, networks=networks, start=Start(1))


class TestFourierCKAN(FieldContract):
    formula = staticmethod(field_formulas.fourier)

    def make(self, networks=None):
        return FourierCKAN([2, 6, 4, 2], 3, BOX, sigma=[0.2, 0.5], networks=networks, start=Start(1))


class TestWaveletKAN(FieldContract):
    formula = staticmethod(field_formulas.wavelet_kan)

    def make(self, networks=None):
        return WaveletKAN([2, 4, 2], (3, 4), BOX, networks=networks, start=Start(1))


class TestRandomFeatureCKAN(FieldContract):
    formula = staticmethod(field_formulas.scaled_cpikan)

    def make(self, networks=None):
        return RandomFeatureCKAN([2, 6, 5, 2], 3, BOX, networks=networks, start=Start(1))


class TestSeparableCKAN(FieldContract):
    formula = staticmethod(field_formulas.separable)

    def make(self, networks=None):
        return SeparableCKAN([2, 4, 2], 3, BOX, rank=3, networks=networks, start=Start(1))


class TestBlendField(FieldContract):
    formula = staticmethod(field_formulas.blend(3))

    def make(self, networks=None):
        return BlendField([2, 4, 3, 2], 3, BOX, networks=networks, start=Start(1))


class TestResidualCKAN(FieldContract):
    compiled = False
    formula = staticmethod(field_formulas.residual)

    def make(self, networks=None):
        return ResidualCKAN([2, 3, 3, 3, 2], (3, 2, 3, 4), BOX, gate=0.4, networks=networks, start=Start(1))


class TestGatedCKAN(FieldContract):
    formula = staticmethod(field_formulas.gated)

    def make(self, networks=None):
        field = GatedCKAN([2, 3, 3, 2], (3, 2, 3), BOX, gate=0.4, networks=networks, start=Start(1))
        for block in field.blocks:
            block.inside.fill(0.7)
        return field


class TestDeepGalerkinField(FieldContract):
    formula = staticmethod(field_formulas.deep_galerkin)

    def make(self, networks=None):
        return DeepGalerkinField([2, 3, 3, 2], BOX, networks=networks, start=Start(1))


def with_slopes(field):
    with torch.no_grad():
        for slope in field.steepness:
            slope.scale.mul_(torch.linspace(0.7, 1.4, slope.scale.shape[-1]))
    return field


class TestAdaptiveCKAN(FieldContract):
    formula = staticmethod(field_formulas.steep(field_formulas.chebyshev, field_formulas.mp.tanh))

    def make(self, networks=None):
        return with_slopes(AdaptiveCKAN([2, 4, 3, 2], (3, 2, 3), BOX, networks=networks, start=Start(1)))


class TestAdaptiveMLP(FieldContract):
    compiled = False
    formula = staticmethod(field_formulas.steep(field_formulas.dense, field_formulas.mp.tanh))

    def make(self, networks=None):
        return with_slopes(AdaptiveMLP([2, 4, 3, 2], domain=BOX, slopes="layer", networks=networks, start=Start(1)))


class TestPeriodicField(FieldContract):
    compiled = False
    formula = staticmethod(field_formulas.periodic)

    def make(self, networks=None):
        inner = ScaledCPIKAN([5, 3, 2], 2, networks=networks, start=Start(1))
        return EmbeddedField(inner, PeriodicEmbedding(2, [1], 2), BOX)


class TestTrainedFrequencies(FieldContract):
    formula = staticmethod(field_formulas.frequencies)

    def make(self, networks=None):
        inner = ScaledCPIKAN([6, 3, 2], 2, networks=networks, start=Start(1))
        return EmbeddedField(inner, FourierEmbedding(2, 6, [0.2, 0.4], trained=True, networks=networks), BOX)

"""Scaled-cPIKAN: phase-shifting interferometry at camera speed, and the Chebyshev networks behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.errors import InputError as InputError
    from cpikan.fields.blend import BlendField as BlendField
    from cpikan.fields.fourier_ckan import FourierCKAN as FourierCKAN
    from cpikan.fields.higher import higher_derivatives as higher_derivatives
    from cpikan.fields.kinds import make_field as make_field
    from cpikan.fields.mlp import MLP as MLP
    from cpikan.fields.random_feature import RandomFeatureCKAN as RandomFeatureCKAN
    from cpikan.fields.scaled_cpikan import ScaledCPIKAN as ScaledCPIKAN
    from cpikan.fields.separable import SeparableCKAN as SeparableCKAN
    from cpikan.fields.siren import Siren as Siren
    from cpikan.fields.wavelet_kan import WaveletKAN as WaveletKAN
    from cpikan.images.model_file import load_model as load_model
    from cpikan.images.patches.dataset import WaferPatchDataset as WaferPatchDataset
    from cpikan.images.training.config import TrainConfig as TrainConfig
    from cpikan.learning.solver import Solution as Solution
    from cpikan.learning.solver import SolveSettings as SolveSettings
    from cpikan.learning.solver import solve as solve
    from cpikan.physics.catalogue import problem as problem
    from cpikan.physics.catalogue import problems as problems
    from cpikan.physics.problem import Problem as Problem
    from cpikan.pipeline.jobs.job import Job as Job
    from cpikan.pipeline.jobs.job import run as run
    from cpikan.pipeline.maps.height_map import HeightMap as HeightMap
    from cpikan.pipeline.maps.height_map import open_height_map as open_height_map
    from cpikan.pipeline.reconstruction.reconstruct import reconstruct as reconstruct
    from cpikan.pipeline.stacks.stack import FrameStack as FrameStack
    from cpikan.pipeline.stacks.stack import open_stack as open_stack
    from cpikan.pipeline.training.finetune import finetune as finetune
    from cpikan.pipeline.training.train import train as train
    from cpikan.psi.model.acquisition import Acquisition as Acquisition
    from cpikan.streaming.tiling.helpers import blend_tiles as blend_tiles
    from cpikan.streaming.tiling.helpers import tile_image as tile_image
    from cpikan.streaming.tiling.infer import TiledResult as TiledResult
    from cpikan.streaming.tiling.infer import infer_tiled as infer_tiled
    from cpikan.streaming.tiling.model import TileFunction as TileFunction
    from cpikan.streaming.tiling.model import TileModel as TileModel
    from cpikan.streaming.tiling.settings import TilingSettings as TilingSettings
    from cpikan.streaming.tiling.torch_model import TorchTiles as TorchTiles

__version__ = VERSION

_HOMES = {
    "Acquisition": "cpikan.psi.model.acquisition",
    "BlendField": "cpikan.fields.blend",
    "FourierCKAN": "cpikan.fields.fourier_ckan",
    "FrameStack": "cpikan.pipeline.stacks.stack",
    "HeightMap": "cpikan.pipeline.maps.height_map",
    "InputError": "cpikan.errors",
    "Job": "cpikan.pipeline.jobs.job",
    "MLP": "cpikan.fields.mlp",
    "Problem": "cpikan.physics.problem",
    "RandomFeatureCKAN": "cpikan.fields.random_feature",
    "ScaledCPIKAN": "cpikan.fields.scaled_cpikan",
    "SeparableCKAN": "cpikan.fields.separable",
    "Siren": "cpikan.fields.siren",
    "Solution": "cpikan.learning.solver",
    "SolveSettings": "cpikan.learning.solver",
    "TileFunction": "cpikan.streaming.tiling.model",
    "TileModel": "cpikan.streaming.tiling.model",
    "TiledResult": "cpikan.streaming.tiling.infer",
    "TilingSettings": "cpikan.streaming.tiling.settings",
    "TorchTiles": "cpikan.streaming.tiling.torch_model",
    "TrainConfig": "cpikan.images.training.config",
    "WaferPatchDataset": "cpikan.images.patches.dataset",
    "WaveletKAN": "cpikan.fields.wavelet_kan",
    "blend_tiles": "cpikan.streaming.tiling.helpers",
    "finetune": "cpikan.pipeline.training.finetune",
    "higher_derivatives": "cpikan.fields.higher",
    "infer_tiled": "cpikan.streaming.tiling.infer",
    "load_model": "cpikan.images.model_file",
    "make_field": "cpikan.fields.kinds",
    "open_height_map": "cpikan.pipeline.maps.height_map",
    "open_stack": "cpikan.pipeline.stacks.stack",
    "problem": "cpikan.physics.catalogue",
    "problems": "cpikan.physics.catalogue",
    "reconstruct": "cpikan.pipeline.reconstruction.reconstruct",
    "run": "cpikan.pipeline.jobs.job",
    "solve": "cpikan.learning.solver",
    "tile_image": "cpikan.streaming.tiling.helpers",
    "train": "cpikan.pipeline.training.train",
}

__all__ = [
    "MLP",
    "Acquisition",
    "BlendField",
    "FourierCKAN",
    "FrameStack",
    "HeightMap",
    "InputError",
    "Job",
    "Problem",
    "RandomFeatureCKAN",
    "ScaledCPIKAN",
    "SeparableCKAN",
    "Siren",
    "Solution",
    "SolveSettings",
    "TileFunction",
    "TileModel",
    "TiledResult",
    "TilingSettings",
    "TorchTiles",
    "TrainConfig",
    "WaferPatchDataset",
    "WaveletKAN",
    "__version__",
    "blend_tiles",
    "finetune",
    "higher_derivatives",
    "infer_tiled",
    "load_model",
    "make_field",
    "open_height_map",
    "open_stack",
    "problem",
    "problems",
    "reconstruct",
    "run",
    "solve",
    "tile_image",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing the package stays fast, and the pixel path never imports torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cpikan' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

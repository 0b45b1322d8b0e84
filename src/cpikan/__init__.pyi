"""The public names of the package and the rooms they live in; each is loaded on first use."""

from .errors import InputError as InputError
from .errors import ResumeError as ResumeError
from .fields.blend import BlendField as BlendField
from .fields.decomposed import DecomposedField as DecomposedField
from .fields.fourier_ckan import FourierCKAN as FourierCKAN
from .fields.higher import higher_derivatives as higher_derivatives
from .fields.kinds import make_field as make_field
from .fields.mlp import MLP as MLP
from .fields.protocol import Field as Field
from .fields.protocol import Jet as Jet
from .fields.random_feature import RandomFeatureCKAN as RandomFeatureCKAN
from .fields.scaled_cpikan import ScaledCPIKAN as ScaledCPIKAN
from .fields.separable import SeparableCKAN as SeparableCKAN
from .fields.siren import Siren as Siren
from .fields.wavelet_kan import WaveletKAN as WaveletKAN
from .images.model_file import load_model as load_model
from .images.patches.dataset import WaferPatchDataset as WaferPatchDataset
from .images.training.config import TrainConfig as TrainConfig
from .learning.recipes import Recipe as Recipe
from .learning.solver import Solution as Solution
from .learning.solver import SolveSettings as SolveSettings
from .learning.solver import solve as solve
from .partition import Partition as Partition
from .physics.catalogue import problem as problem
from .physics.catalogue import problems as problems
from .physics.problem import Problem as Problem
from .physics.problem import dirichlet as dirichlet
from .physics.problem import initial as initial
from .physics.problem import neumann as neumann
from .physics.problem import periodic as periodic
from .physics.regions import box as box
from .physics.regions import disc as disc
from .pipeline.jobs.job import Job as Job
from .pipeline.jobs.job import run as run
from .pipeline.maps.height_map import HeightMap as HeightMap
from .pipeline.maps.height_map import open_height_map as open_height_map
from .pipeline.reconstruction.reconstruct import reconstruct as reconstruct
from .pipeline.stacks.stack import FrameStack as FrameStack
from .pipeline.stacks.stack import open_stack as open_stack
from .pipeline.training.finetune import finetune as finetune
from .pipeline.training.train import train as train
from .psi.model.acquisition import Acquisition as Acquisition
from .streaming.tiling.helpers import blend_tiles as blend_tiles
from .streaming.tiling.helpers import tile_image as tile_image
from .streaming.tiling.infer import TiledResult as TiledResult
from .streaming.tiling.infer import infer_tiled as infer_tiled
from .streaming.tiling.model import TileFunction as TileFunction
from .streaming.tiling.model import TileModel as TileModel
from .streaming.tiling.settings import TilingSettings as TilingSettings
from .streaming.tiling.torch_model import TorchTiles as TorchTiles

__version__: str
__all__: list[str]

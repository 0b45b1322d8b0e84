"""Every public door, called with five kinds of wrong argument: shape, type, name, range, and one that is missing.

What comes back is one line that says what was given and what to give, never an error from inside. A new name of
``cpikan.__all__`` fails here until it has its line.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import cpikan
from cpikan.errors import InputError

KINDS = ("shape", "type", "name", "range", "missing")
# made by the package and not by its users, or without arguments of their own: errors, protocols
NOT_CALLED = {
    *("Field", "HeightMap", "InputError", "Jet", "ResumeError", "Solution", "TileModel", "TiledResult", "FrameStack"),
}
Call = Callable[[], Any] | str  # or why there is none


class Wrong(NamedTuple):
    """A call for each kind of wrong argument, or what makes it impossible."""

    shape: Call
    type: Call
    name: Call
    range: Call
    missing: Call


HERE = Path(__file__)
UNIT = ([0.0, 0.0], [1.0, 1.0])
LINE = cpikan.box([0], [1])
POINTS = cpikan.Points(40, 4)
HEIGHT = np.zeros((8, 9))


def bar(jet, x):
    return jet.second[..., 0, 0]


def network(kind: Any) -> Wrong:
    """The calls of a network that takes widths, a degree and a domain."""
    return Wrong(
        lambda: kind([2, 4, 1], 3, ([0.0], [1.0])),
        lambda: kind("wide", 3),
        lambda: kind([2, 4, 1], 3, UNIT, networkz=3),
        lambda: kind([2, 0, 1], 3),
        lambda: kind(),
    )


def condition(kind: Any) -> Wrong:
    """The calls of a condition with a value on parts of the boundary."""
    return Wrong(
        lambda: cpikan.solve(cpikan.Problem("p", LINE, bar, [kind(lambda x: torch.zeros(3, 7))])),
        lambda: kind("one"),
        lambda: cpikan.Problem("p", LINE, bar, [kind(0.0, "x=mid")]),
        lambda: kind(0.0, output=-1),
        "every argument has a default",
    )


TABLE: dict[str, Wrong] = {
    "Acquisition": Wrong(
        lambda: cpikan.Acquisition((632.8,), ((0.0, 90.0), (0.0, 90.0))),
        lambda: cpikan.Acquisition("red"),
        lambda: cpikan.Acquisition((632.8,), steps="trustd"),
        lambda: cpikan.Acquisition((-5.0,)),
        lambda: cpikan.Acquisition(),
    ),
    "AdaptiveCKAN": network(cpikan.AdaptiveCKAN),
    "AdaptiveMLP": Wrong(
        lambda: cpikan.AdaptiveMLP([2, 4, 1], "tanh", ([0.0], [1.0])),
        lambda: cpikan.AdaptiveMLP(5),
        lambda: cpikan.AdaptiveMLP([2, 4, 1], slopes="nod"),
        lambda: cpikan.AdaptiveMLP([2, -4, 1]),
        lambda: cpikan.AdaptiveMLP(),
    ),
    "AdaptiveResidualSampler": Wrong(
        "no argument has a shape",
        lambda: cpikan.AdaptiveResidualSampler(5),
        lambda: cpikan.AdaptiveResidualSampler(POINTS, "rda"),
        lambda: cpikan.AdaptiveResidualSampler(POINTS, every=0),
        lambda: cpikan.AdaptiveResidualSampler(),
    ),
    "BlendField": network(cpikan.BlendField),
    "CausalSlabSampler": Wrong(
        lambda: cpikan.CausalSlabSampler(POINTS, spans=()),
        lambda: cpikan.CausalSlabSampler("points"),
        "no argument is a name",
        lambda: cpikan.CausalSlabSampler(POINTS, slabs=0),
        lambda: cpikan.CausalSlabSampler(),
    ),
    "Circle": Wrong(
        lambda: cpikan.Circle([1, 2], 3, 4),
        lambda: cpikan.Circle("a", 3, 4),
        "no argument is a name",
        lambda: cpikan.Circle(1, 2, -4),
        lambda: cpikan.Circle(1, 2),
    ),
    "Curriculum": Wrong(
        lambda: cpikan.Curriculum([cpikan.problem("beam"), cpikan.problem("poisson-1d")]),
        lambda: cpikan.Curriculum(["poisson-1d"]),
        "no argument is a name",
        lambda: cpikan.Curriculum([]),
        lambda: cpikan.Curriculum(),
    ),
    "DecomposedField": Wrong(
        lambda: cpikan.DecomposedField(halves(), cpikan.ScaledCPIKAN([2, 4, 1], 3)),
        lambda: cpikan.DecomposedField("halves", cpikan.ScaledCPIKAN([1, 4, 1], 3, networks=2)),
        "no argument is a name",
        lambda: cpikan.DecomposedField(halves(), cpikan.ScaledCPIKAN([1, 4, 1], 3, networks=3)),
        lambda: cpikan.DecomposedField(halves()),
    ),
    "DeepGalerkinField": Wrong(
        lambda: cpikan.DeepGalerkinField([2, 4, 1], ([0.0], [1.0])),
        lambda: cpikan.DeepGalerkinField(5),
        lambda: cpikan.DeepGalerkinField([2, 4, 1], networkz=1),
        lambda: cpikan.DeepGalerkinField([2, 0, 1]),
        lambda: cpikan.DeepGalerkinField(),
    ),
    "EmbeddedField": Wrong(
        lambda: cpikan.EmbeddedField(cpikan.MLP([3, 4, 1]), cpikan.PeriodicEmbedding(1, [0])),
        lambda: cpikan.EmbeddedField("field", cpikan.PeriodicEmbedding(1, [0])),
        "no argument is a name",
        lambda: cpikan.EmbeddedField(cpikan.MLP([2, 4, 1]), cpikan.PeriodicEmbedding(1, [0]), ([1.0], [0.0])),
        lambda: cpikan.EmbeddedField(cpikan.MLP([2, 4, 1])),
    ),
    "FourierCKAN": network(cpikan.FourierCKAN),
    "FourierEmbedding": Wrong(
        "no argument has a shape",
        lambda: cpikan.FourierEmbedding("two", 8),
        "no argument is a name",
        lambda: cpikan.FourierEmbedding(2, 7),
        lambda: cpikan.FourierEmbedding(2),
    ),
    "FreshPoints": Wrong(
        "no argument has a shape",
        lambda: cpikan.FreshPoints("points"),
        "no argument is a name",
        lambda: cpikan.FreshPoints(POINTS, every=0),
        lambda: cpikan.FreshPoints(),
    ),
    "GatedCKAN": network(cpikan.GatedCKAN),
    "Job": Wrong(
        lambda: cpikan.Job("solve", "beam", settings=["seed"]),
        lambda: cpikan.Job("solve", 3),
        lambda: cpikan.Job("slove", "beam"),
        lambda: cpikan.Job("solve", "beam", settings={"seeds": 0}),
        lambda: cpikan.Job("solve"),
    ),
    "MLP": Wrong(
        lambda: cpikan.MLP([2, 4, 1], "tanh", ([0.0], [1.0])),
        lambda: cpikan.MLP(5),
        lambda: cpikan.MLP([2, 4, 1], "tahn"),
        lambda: cpikan.MLP([2, -4, 1]),
        lambda: cpikan.MLP(),
    ),
    "Mask": Wrong(
        lambda: cpikan.Mask(np.ones(5, bool)),
        lambda: cpikan.Mask("mask"),
        "no argument is a name",
        lambda: cpikan.Mask(np.zeros((0, 4), bool)),
        lambda: cpikan.Mask(),
    ),
    "MeasureSettings": Wrong(
        lambda: cpikan.MeasureSettings(combinations=((),)),
        lambda: cpikan.MeasureSettings(pupil="circle"),
        lambda: cpikan.MeasureSettings(remove=("tlit",)),
        lambda: cpikan.MeasureSettings(pixel_um=-1.0),
        "every argument has a default",
    ),
    "ModuleField": Wrong(
        lambda: cpikan.ModuleField(torch.nn.Linear(2, 1), ([0.0], [1.0])),
        lambda: cpikan.ModuleField("module", UNIT),
        "no argument is a name",
        lambda: cpikan.ModuleField(torch.nn.Linear(2, 1), ([0.0, 0.0], [0.0, 1.0])),
        lambda: cpikan.ModuleField(torch.nn.Linear(2, 1)),
    ),
    "MultiResolution": Wrong(
        lambda: cpikan.MultiResolution(POINTS, (100, 500), (5,) * 7),
        lambda: cpikan.MultiResolution("points"),
        "no argument is a name",
        lambda: cpikan.MultiResolution(POINTS, (0, 10), (5,)),
        lambda: cpikan.MultiResolution(),
    ),
    "Partition": Wrong(
        lambda: cpikan.Partition(()),
        lambda: cpikan.Partition(5),
        "no argument is a name",
        lambda: cpikan.Partition.tiles((8, 9), -4, 2),
        lambda: cpikan.Partition(),
    ),
    "PeriodicEmbedding": Wrong(
        lambda: cpikan.PeriodicEmbedding(2, [0, 0]),
        lambda: cpikan.PeriodicEmbedding(2, "x"),
        "no argument is a name",
        lambda: cpikan.PeriodicEmbedding(2, [0], waves=0),
        lambda: cpikan.PeriodicEmbedding(2),
    ),
    "Points": Wrong(
        "no argument has a shape",
        lambda: cpikan.Points("many", 3),
        lambda: cpikan.Points(40, 4, "chebishev"),
        lambda: cpikan.Points(0, 4),
        lambda: cpikan.Points(40),
    ),
    "Problem": Wrong(
        lambda: cpikan.solve(cpikan.Problem("p", LINE, lambda u, x: torch.zeros(3, 2), [])),
        lambda: cpikan.Problem("p", "box", bar, []),
        lambda: cpikan.Problem("p", LINE, bar, [], second="diagonal"),
        lambda: cpikan.Problem("p", LINE, bar, [], outputs=0),
        lambda: cpikan.Problem("p", LINE, bar),
    ),
    "RandomFeatureCKAN": network(cpikan.RandomFeatureCKAN),
    "Recipe": Wrong(
        lambda: cpikan.solve("poisson-1d", recipe=cpikan.Recipe("r", "", (), hidden=(8, 0))),
        lambda: cpikan.solve("poisson-1d", recipe=cpikan.Recipe("r", "", ("adam",))),
        lambda: cpikan.Recipe("r", "", (), rule="chebishev"),
        lambda: cpikan.Recipe("r", "", (), degree=0),
        lambda: cpikan.Recipe("r", ""),
    ),
    "Rectangle": Wrong(
        "no argument has a shape",
        lambda: cpikan.Rectangle("a", 1, 2, 3),
        "no argument is a name",
        lambda: cpikan.Rectangle(5, 5, 2, 2),
        lambda: cpikan.Rectangle(1, 2, 3),
    ),
    "ResidualCKAN": network(cpikan.ResidualCKAN),
    "Ritz": Wrong(
        "no argument has a shape",
        lambda: cpikan.Ritz("six"),
        lambda: cpikan.Ritz(quadrature="gaus-legendre"),
        lambda: cpikan.Ritz(penalty=-1.0),
        "every argument has a default",
    ),
    "ScaledCPIKAN": network(cpikan.ScaledCPIKAN),
    "SeparableCKAN": network(cpikan.SeparableCKAN),
    "Siren": Wrong(
        lambda: cpikan.Siren([2, 4, 1], 6.0, ([0.0], [1.0])),
        lambda: cpikan.Siren([2, 4, 1], "high"),
        lambda: cpikan.Siren([2, 4, 1], networkz=1),
        lambda: cpikan.Siren([2]),
        lambda: cpikan.Siren(),
    ),
    "Sobolev": Wrong(
        "no argument has a shape",
        lambda: cpikan.Sobolev("heavy"),
        "no argument is a name",
        lambda: cpikan.Sobolev(-0.1),
        "the weight has a default",
    ),
    "StackLevel": Wrong(
        lambda: cpikan.solve_stack("poisson-1d", [cpikan.StackLevel(subdomains=(2, 2))]),
        lambda: cpikan.solve_stack("poisson-1d", [cpikan.StackLevel(3)]),
        lambda: cpikan.solve_stack("poisson-1d", [cpikan.StackLevel("traned")]),
        lambda: cpikan.solve_stack("poisson-1d", [cpikan.StackLevel(subdomains=(0,))]),
        "every field has a default",
    ),
    "solve_stack": Wrong(
        "levels are a list of any length",
        lambda: cpikan.solve_stack("poisson-1d", "trained"),
        lambda: cpikan.solve_stack("poison-1d", [cpikan.StackLevel()]),
        lambda: cpikan.solve_stack("poisson-1d", []),
        lambda: cpikan.solve_stack("poisson-1d"),
    ),
    "Local": Wrong(
        "a width is a number",
        lambda: cpikan.Local(("two",)),
        lambda: cpikan.Local(width=3),
        lambda: cpikan.Local(points=0),
        "every field has a default",
    ),
    "HarmonicBox": Wrong(
        "the cells of a side are one number",
        lambda: cpikan.HarmonicBox("four"),
        lambda: cpikan.HarmonicBox(cell=4),
        lambda: cpikan.HarmonicBox(3),
        lambda: cpikan.HarmonicBox(),
    ),
    "MosaicFlow": Wrong(
        lambda: cpikan.MosaicFlow(cpikan.HarmonicBox(4), 4, (4,)),
        lambda: cpikan.MosaicFlow(cpikan.HarmonicBox(4), "four", (4, 4)),
        lambda: cpikan.MosaicFlow(cpikan.HarmonicBox(4), 4, half=(4, 4)),
        lambda: cpikan.MosaicFlow(cpikan.HarmonicBox(4), 4, (1, 4)),
        lambda: cpikan.MosaicFlow(cpikan.HarmonicBox(4)),
    ),
    "solve_mosaic": Wrong(
        lambda: cpikan.solve_mosaic(cpikan.MosaicFlow(cpikan.HarmonicBox(4), 4, (4, 4)), np.zeros((3, 3))),
        lambda: cpikan.solve_mosaic("flow", np.zeros((9, 9))),
        "it takes no names",
        lambda: cpikan.solve_mosaic(
            cpikan.MosaicFlow(cpikan.HarmonicBox(4), 4, (4, 4)), np.zeros((9, 9)), tolerance=-1.0
        ),
        lambda: cpikan.solve_mosaic(cpikan.MosaicFlow(cpikan.HarmonicBox(4), 4, (4, 4))),
    ),
    "Subdomains": Wrong(
        lambda: cpikan.solve("poisson-2d", settings=cpikan.SolveSettings(subdomains=cpikan.Subdomains((2, 2, 2)))),
        lambda: cpikan.Subdomains(("two", 2)),
        lambda: cpikan.Subdomains((2, 2), "xpin"),
        lambda: cpikan.Subdomains((0, 2)),
        "numbers or knots: every argument has a default",
    ),
    "SolveSettings": Wrong(
        "no argument has a shape",
        lambda: cpikan.SolveSettings(points=5),
        lambda: cpikan.SolveSettings(clock="sun"),
        lambda: cpikan.SolveSettings(seconds=-1.0),
        "every argument has a default",
    ),
    "TileFunction": Wrong(
        lambda: cpikan.infer_tiled(cpikan.TileFunction(lambda a: a[..., :3], 2), HEIGHT),
        lambda: cpikan.TileFunction("function"),
        lambda: cpikan.infer_tiled(cpikan.TileFunction(np.sin, "globl"), HEIGHT),
        lambda: cpikan.infer_tiled(cpikan.TileFunction(np.sin, multiple_px=0), HEIGHT),
        lambda: cpikan.TileFunction(),
    ),
    "TilingSettings": Wrong(
        lambda: cpikan.TilingSettings(tile=(4, 5, 6)),
        lambda: cpikan.TilingSettings(tile="wide"),
        lambda: cpikan.TilingSettings(window="han"),
        lambda: cpikan.TilingSettings(tile=0),
        "every argument has a default",
    ),
    "TorchTiles": Wrong(
        lambda: cpikan.TorchTiles(torch.nn.Identity(), receptive_field_px=2, channels=(1,)),
        lambda: cpikan.TorchTiles("net", receptive_field_px=2, channels=(1, 1)),
        lambda: cpikan.TorchTiles(torch.nn.Identity(), receptive_field_px=2, channels=(1, 1), device="gpu"),
        lambda: cpikan.TorchTiles(torch.nn.Identity(), receptive_field_px=-2, channels=(1, 1)),
        lambda: cpikan.TorchTiles(torch.nn.Identity()),
    ),
    "TrainConfig": Wrong(
        "no argument has a shape",
        lambda: cpikan.TrainConfig(data=3),
        lambda: cpikan.TrainConfig(model={"kind": 3}),
        lambda: cpikan.TrainConfig(seed=-1),
        "every argument has a default",
    ),
    "VolumeWeightedSampler": Wrong(
        "no argument has a shape",
        lambda: cpikan.VolumeWeightedSampler("points"),
        lambda: cpikan.VolumeWeightedSampler(POINTS, "neighbors"),
        "no argument has a range",
        lambda: cpikan.VolumeWeightedSampler(),
    ),
    "WaferPatchDataset": Wrong(
        "no argument has a shape",
        lambda: cpikan.WaferPatchDataset("stacks", None),
        "no argument is a name",
        lambda: cpikan.WaferPatchDataset([], patch_settings()),
        lambda: cpikan.WaferPatchDataset(),
    ),
    "WaveEmbedding": Wrong(
        lambda: cpikan.WaveEmbedding(2, [(0, [1.0, 2.0])]),
        lambda: cpikan.WaveEmbedding(2, [("x", 4.0)]),
        "no argument is a name",
        lambda: cpikan.WaveEmbedding(2, [(0, -1.0)]),
        lambda: cpikan.WaveEmbedding(2),
    ),
    "WaveletKAN": network(cpikan.WaveletKAN),
    "Weak": Wrong(
        lambda: cpikan.solve(
            "poisson-1d", recipe="adam", settings=cpikan.SolveSettings(loss_mode=cpikan.Weak(elements=(2, 2)))
        ),
        lambda: cpikan.Weak("six"),
        lambda: cpikan.Weak(quadrature="gaus-legendre"),
        lambda: cpikan.Weak(0),
        "every argument has a default",
    ),
    "blend_tiles": Wrong(
        lambda: cpikan.blend_tiles([np.zeros(3)] * 4, tiles()[1]),
        lambda: cpikan.blend_tiles(tiles()[0], "partition"),
        lambda: cpikan.blend_tiles(*tiles(), window="han"),
        lambda: cpikan.blend_tiles(tiles()[0][:1], tiles()[1]),
        lambda: cpikan.blend_tiles(),
    ),
    "box": Wrong(
        lambda: cpikan.box([0, 0], [1]),
        lambda: cpikan.box("a", "b"),
        lambda: cpikan.box([0], [1], breaks={"q": [0.5]}),
        lambda: cpikan.box([1], [0]),
        lambda: cpikan.box([0]),
    ),
    "dirichlet": condition(cpikan.dirichlet),
    "disc": Wrong(
        lambda: cpikan.disc([1.0, 2.0]),
        lambda: cpikan.disc("wide"),
        "no argument is a name",
        lambda: cpikan.disc(-1.0),
        "the radius has a default",
    ),
    "finetune": Wrong(
        "no argument has a shape",
        lambda: cpikan.finetune("wafer", 3, "out"),
        lambda: cpikan.finetune("wafr", "stack", "out"),
        lambda: cpikan.finetune("wafer", "nowhere", "out"),
        lambda: cpikan.finetune("wafer"),
    ),
    "fit_form": Wrong(
        lambda: cpikan.fit_form(np.zeros(5)),
        lambda: cpikan.fit_form("map"),
        lambda: cpikan.fit_form(HEIGHT, terms="tlit"),
        lambda: cpikan.fit_form(HEIGHT, terms="noll:0"),
        lambda: cpikan.fit_form(),
    ),
    "higher_derivatives": Wrong(
        lambda: cpikan.higher_derivatives(cpikan.ScaledCPIKAN([2, 4, 1], 3), torch.zeros(5, 3, dtype=torch.float64)),
        lambda: cpikan.higher_derivatives("field", torch.zeros(5, 1)),
        "no argument is a name",
        lambda: cpikan.higher_derivatives(cpikan.ScaledCPIKAN([1, 4, 1], 3), torch.zeros(5, 1).double(), order=0),
        lambda: cpikan.higher_derivatives(cpikan.ScaledCPIKAN([1, 4, 1], 3)),
    ),
    "infer_tiled": Wrong(
        lambda: cpikan.infer_tiled(cpikan.TileFunction(np.sin, 2), np.zeros(5)),
        lambda: cpikan.infer_tiled("model", HEIGHT),
        lambda: cpikan.infer_tiled(cpikan.TileFunction(np.sin, 2), HEIGHT, tyle=4),
        lambda: cpikan.infer_tiled(cpikan.TileFunction(np.sin, 2), HEIGHT, overlap=-1),
        lambda: cpikan.infer_tiled(cpikan.TileFunction(np.sin, 2)),
    ),
    "initial": Wrong(
        lambda: cpikan.solve(
            cpikan.Problem("p", cpikan.box([0], [1], ["t"]), bar, [cpikan.initial(lambda x: torch.zeros(3, 7))])
        ),
        lambda: cpikan.initial("one"),
        lambda: cpikan.Problem("p", LINE, bar, [cpikan.initial(0.0)]),
        lambda: cpikan.initial(0.0, output=-1),
        lambda: cpikan.initial(),
    ),
    "load_model": Wrong(
        "no argument has a shape",
        lambda: cpikan.load_model(3),
        lambda: cpikan.load_model("wafr"),
        "no argument has a range",
        lambda: cpikan.load_model(),
    ),
    "load_solution": Wrong(
        "no argument has a shape",
        lambda: cpikan.load_solution(3),
        lambda: cpikan.load_solution("nothing"),
        "no argument has a range",
        lambda: cpikan.load_solution(),
    ),
    "make_field": Wrong(
        lambda: cpikan.make_field("mlp", [2, 4, 1], 3, ([0], [1])),
        lambda: cpikan.make_field("mlp", 5, 3, UNIT),
        lambda: cpikan.make_field("mlq", [2, 4, 1], 3, UNIT),
        lambda: cpikan.make_field("scaled-cpikan", [2, 4, 1], -3, UNIT),
        lambda: cpikan.make_field("mlp"),
    ),
    "neumann": condition(cpikan.neumann),
    "open_height_map": Wrong(
        "no argument has a shape",
        lambda: cpikan.open_height_map(3),
        lambda: cpikan.open_height_map("nothing.npy"),
        "no argument has a range",
        lambda: cpikan.open_height_map(),
    ),
    "open_stack": Wrong(
        lambda: cpikan.open_stack(saved(np.zeros(5)), wavelengths=["632.8 nm"]),
        lambda: cpikan.open_stack(3),
        lambda: cpikan.open_stack("nothing"),
        lambda: cpikan.open_stack(saved(np.zeros((4, 8, 8))), wavelengths=["-5 nm"]),
        lambda: cpikan.open_stack(),
    ),
    "periodic": Wrong(
        "no argument has a shape",
        lambda: cpikan.periodic("box"),
        lambda: cpikan.periodic(LINE, "y"),
        lambda: cpikan.periodic(LINE, output=-1),
        lambda: cpikan.periodic(),
    ),
    "problem": Wrong(
        "no argument has a shape",
        lambda: cpikan.problem(3),
        lambda: cpikan.problem("poison-1d"),
        lambda: cpikan.problem("burgers", nu=-1.0),
        lambda: cpikan.problem(),
    ),
    "problems": Wrong(*["it takes no argument"] * 5),
    "reconstruct": Wrong(
        "the stack brings its shape",
        lambda: cpikan.reconstruct("stack", "out.npy"),
        lambda: cpikan.reconstruct(stack(), "out.npy", metod="pixel"),
        lambda: cpikan.reconstruct(stack(), "out.npy", tile=-3),
        lambda: cpikan.reconstruct(stack()),
    ),
    "run": Wrong(
        "no argument has a shape",
        lambda: cpikan.run("solve beam"),
        lambda: cpikan.run(cpikan.Job("solve", "beem")),
        lambda: cpikan.run(cpikan.Job("solve", "beam", settings={"seconds": -1.0})),
        lambda: cpikan.run(),
    ),
    "solve": Wrong(
        lambda: cpikan.solve("poisson-1d", cpikan.ScaledCPIKAN([2, 4, 1], 3).double()),
        lambda: cpikan.solve(3),
        lambda: cpikan.solve("poisson-1d", recipe="adm"),
        lambda: cpikan.solve("poisson-1d", seed=-1),
        lambda: cpikan.solve(),
    ),
    "solve_curriculum": Wrong(
        lambda: cpikan.solve_curriculum(waves(), cpikan.ScaledCPIKAN([2, 4, 1], 3).double()),
        lambda: cpikan.solve_curriculum("poisson-1d"),
        lambda: cpikan.solve_curriculum(waves(), recipe="adm"),
        lambda: cpikan.solve_curriculum(waves(), settings=cpikan.SolveSettings(steps=1)),
        lambda: cpikan.solve_curriculum(),
    ),
    "surface_parameters": Wrong(
        lambda: cpikan.surface_parameters(np.zeros(5)),
        lambda: cpikan.surface_parameters("map"),
        "no argument is a name",
        lambda: cpikan.surface_parameters(np.full((4, 4), np.nan)),
        lambda: cpikan.surface_parameters(),
    ),
    "tile_image": Wrong(
        lambda: cpikan.tile_image(np.zeros(5), 4, 2),
        lambda: cpikan.tile_image("image", 4, 2),
        "no argument is a name",
        lambda: cpikan.tile_image(HEIGHT, -4, 2),
        lambda: cpikan.tile_image(HEIGHT),
    ),
    "WaferSettings": Wrong(
        "no argument has a shape",
        lambda: cpikan.WaferSettings(sectors="many"),
        lambda: cpikan.WaferSettings(axes="nocth"),
        lambda: cpikan.WaferSettings(sectors=0),
        "every field has a default",
    ),
    "wafer_numbers": Wrong(
        "a map has any shape",
        lambda: cpikan.wafer_numbers(3),
        lambda: cpikan.wafer_numbers("nothing.npy"),
        lambda: cpikan.wafer_numbers("nothing.npy", cpikan.WaferSettings(sites="0x8mm")),
        lambda: cpikan.wafer_numbers(),
    ),
    "train": Wrong(
        "no argument has a shape",
        lambda: cpikan.train(3, "out"),
        lambda: cpikan.train("nothing.toml", "out"),
        lambda: cpikan.train(HERE, "out"),
        lambda: cpikan.train("config.toml"),
    ),
}


def halves() -> Any:
    return cpikan.Partition.subdomains([0.0], [1.0], [2], 0.1)


def tiles() -> tuple[list[np.ndarray], Any]:
    return cpikan.tile_image(HEIGHT, 5, 2)


def patch_settings() -> Any:
    from cpikan.images.patches.dataset import PatchSettings

    return PatchSettings()


def waves() -> cpikan.Curriculum:
    return cpikan.Curriculum.of("helmholtz-1d", "k", (1.0, 2.0))


def saved(frames: np.ndarray) -> Path:
    np.save("frames.npy", frames.astype("f4"))
    return Path("frames.npy")


def stack() -> Any:
    return cpikan.open_stack(saved(np.zeros((4, 64, 64))), wavelengths=["632.8 nm"], phase_steps=[0, 90, 180, 270])


def calls() -> Iterator[Any]:
    for door, wrong in TABLE.items():
        for kind, call in zip(KINDS, wrong, strict=True):
            if not isinstance(call, str):
                yield pytest.param(call, id=f"{door}-{kind}")


def test_every_door_is_tried():
    assert set(TABLE) | NOT_CALLED == set(cpikan.__all__)
    assert not set(TABLE) & NOT_CALLED
    assert all(isinstance(getattr(cpikan, name), type) for name in NOT_CALLED)  # a function is always tried


@pytest.mark.parametrize("call", list(calls()))
def test_a_wrong_argument_is_told_in_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, TypeError)) as caught:
        call()
    told = str(caught.value)
    assert "\n" not in told
    if isinstance(caught.value, TypeError):  # Python's own words for a call that is none, by the name of the door
        assert re.match(r"[\w.]+\(\) (missing \d+ required|got an unexpected keyword)", told), told
    else:
        assert any(word in told for word in (": ", "; ")), told  # what was given: what to give
    assert [path.name for path in tmp_path.iterdir()] in ([], ["frames.npy"])


def test_a_reason_stands_only_where_there_is_no_such_argument():
    for door, wrong in TABLE.items():
        given = inspect.signature(getattr(cpikan, door)).parameters.values()
        needed = [
            one
            for one in given
            if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        ]
        assert isinstance(wrong.missing, str) == (not needed), door

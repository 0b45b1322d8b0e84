"""Pictures of solutions: every kind of region, with and without a reference, and what the panels hold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.learning.solution_figure import residual_size, sliced, solution_figure
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, Unknown, dirichlet, measured
from cpikan.physics.regions import box


@pytest.fixture(scope="module")
def line():
    return solve("poisson-1d")


@pytest.fixture(scope="module")
def disc():
    return solve("poisson-disc", settings=SolveSettings(seconds=10))


def test_a_line_shows_the_solution_and_its_error(line):
    figure = solution_figure(line)
    left, middle, residual, right = figure.axes
    x, u = left.lines[0].get_data()
    np.testing.assert_allclose(u, np.sin(np.pi * x) + np.sin(8 * np.pi * x) / 10, atol=1e-9)  # as the catalogue has it
    assert np.abs(middle.lines[0].get_ydata()).max() < 1e-9
    assert residual.get_yscale() == "log"
    assert residual.lines[0].get_ydata().max() < 1e-6 * (8 * np.pi) ** 2 / 10  # of the load
    seconds, heldout = right.lines[0].get_data()
    assert len(seconds) == len(line.history.records)
    assert heldout[-1] < heldout[0]
    assert "poisson-1d" in figure.get_suptitle()
    assert f"{line.metrics['relative_l2']:.1e}" in figure.get_suptitle()


def test_maps_leave_out_what_is_not_in_the_region(disc):
    figure = solution_figure(disc)
    shown = figure.axes[0].images[0].get_array()
    assert shown.mask[0, 0]  # a corner of the square around the disc
    assert not shown.mask[shown.shape[0] // 2, shown.shape[1] // 2]
    assert figure.axes[0].get_aspect() == 1.0  # space is not stretched
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high


def test_time_may_be_stretched():
    figure = solution_figure(solve("advection", settings=SolveSettings(seconds=5)))
    assert figure.axes[0].get_aspect() == "auto"
    assert figure.axes[0].get_ylabel() == "t"


def test_without_a_reference_there_is_no_error(line):
    one = replace(problem("poisson-1d"), exact=None)
    figure = solution_figure(replace(line, problem=one, metrics={**line.metrics, "relative_l2": None}))
    assert [axes.get_title() for axes in figure.axes] == ["solution", "residual", "held-out residual"]
    assert "error" not in figure.get_suptitle()


def test_three_axes_are_cut_where_one_says_and_planes_to_lines():
    cube = problem("poisson-3d")
    middle, low, line = sliced(cube, {}), sliced(cube, {"y": 0.0}), sliced(cube, {"x": 0.25, "z": 1.0})
    assert (middle.names, middle.fixed) == (("x", "y"), {"z": 0.5})
    assert (low.names, low.fixed) == (("x", "z"), {"y": 0.0})
    assert (line.names, line.fixed) == (("y",), {"x": 0.25, "z": 1.0})
    assert set(low.points[:, 1]) == {0.0}
    image = low.shaped(low.points[:, 2])  # rows go up the second axis
    assert image.shape == (len(low.ticks[1]), len(low.ticks[0]))
    np.testing.assert_array_equal(image[:, 7], low.ticks[1])
    for at, words in (
        ({"w": 0.5}, "unknown axis 'w'"),
        ({"z": 3.0}, "z = 3.0: give a place from 0.0 to 1.0"),
        ({"x": 0.5, "y": 0.5, "z": 0.5}, "leaves no axis"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            sliced(cube, at)
        assert "\n" not in str(caught.value)


def test_a_line_through_a_plane(disc):
    axes = disc.plot(at={"x": 0.6}).axes[0]
    y, shown = axes.lines[0].get_data()
    inside = np.abs(y) < 0.8
    points = np.column_stack([np.full(len(y), 0.6), y])
    np.testing.assert_array_equal(shown[inside], disc(points)[inside, 0])
    assert np.isnan(shown[np.abs(y) > 0.81]).all()
    assert (axes.get_title(), axes.get_xlabel()) == ("solution, x = 0.6", "y")


def test_another_output():
    found = solve("beam", settings=SolveSettings(steps=1))
    axes = found.plot(output=1).axes[0]
    x, shown = axes.lines[0].get_data()
    np.testing.assert_array_equal(shown, found(x)[:, 1])
    assert axes.get_title() == "output 1 of 2"
    with pytest.raises(InputError, match="output 2 of beam: give 0 to 1"):
        found.plot(output=2)


def test_the_residual_is_that_of_the_coefficients_that_were_found():
    def residual(u, x, unknown):
        return u.second[..., 0, 0] + unknown["k"] * torch.sin(x[..., 0])

    at = torch.linspace(0, 3, 9, dtype=torch.float64)[:, None]
    conditions = [dirichlet(0.0, "x=min"), measured(at, 2 * torch.sin(at[:, 0]))]
    posed = Problem("load", box([0], [3]), residual, conditions, unknowns=[Unknown("k")])
    found = solve(posed)
    assert found.metrics["coefficients"] == pytest.approx([2.0], abs=1e-6)
    assert found.metrics["coefficients_true"] == [None]  # nobody knows it
    assert residual_size(found, at.numpy()).max() < 1e-6
    assert json.loads(json.dumps(found.summary()))["coefficients_true"] == [None]
    assert len(found.plot().axes) == 3


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_files(line, tmp_path, ending):
    path = tmp_path / f"solution{ending}"
    assert len(line.plot(path).axes) == 4
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")


def test_other_endings_are_refused(line, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.png"):
        line.plot(tmp_path / "solution.gif")

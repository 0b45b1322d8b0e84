"""Pictures of solutions: every kind of region, with and without a reference, and what the panels hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem
from cpikan.report.solution_figures import save_solution_figures, solution_figure


@pytest.fixture(scope="module")
def line():
    return solve("poisson-1d")


@pytest.fixture(scope="module")
def disc():
    return solve("poisson-disc", settings=SolveSettings(seconds=10))


def test_a_line_shows_the_solution_and_its_error(line):
    figure = solution_figure(line)
    left, middle, right = figure.axes
    x, u = left.lines[0].get_data()
    np.testing.assert_allclose(u, np.sin(np.pi * x) + np.sin(8 * np.pi * x) / 10, atol=1e-9)  # as the catalogue has it
    assert np.abs(middle.lines[0].get_ydata()).max() < 1e-9
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
    assert figure.axes[1].get_title() == "no reference"
    assert "error" not in figure.get_suptitle()


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_files(line, tmp_path, ending):
    path = tmp_path / f"solution{ending}"
    save_solution_figures(line, path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")


def test_other_endings_are_refused(line, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.png"):
        save_solution_figures(line, tmp_path / "solution.gif")

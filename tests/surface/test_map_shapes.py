"""Shapes and types in the signatures of surfaces hold: beartype checks them in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

CHECKED = """
    from jaxtyping import TypeCheckError, install_import_hook

    forms = ("forms.form", "forms.grouped_form", "forms.zernike")  # of modules without kernels
    plain = (*forms, "apertures.aperture", "sums.measure", "sums.registry", "sums.tallies", "spectra.ripple")
    with install_import_hook([f"cpikan.surface.{name}" for name in plain], "beartype.beartype"):
        import numpy as np
        from cpikan.surface.apertures.aperture import Circle, Mask, Rectangle
        from cpikan.surface.forms.form import fit_form, form_modes
        from cpikan.surface.forms.grouped_form import GroupedFormFit
        from cpikan.surface.sums.measure import MeasureSettings, surface_parameters
        from cpikan.surface.spectra.ripple import fringe_ripple
        from cpikan.surface.sums.tallies import ErrorTally

    def refused(call):
        try:
            call()
        except TypeCheckError:
            return
        raise AssertionError("taken")

    heights = np.add.outer(0.4 * np.arange(70.0), np.cos(np.arange(90.0)))
    for kind in (np.float32, np.float64):
        given = heights.astype(kind)
        aperture = (Circle(40.0, 30.0, 25.0, 4.0) & Mask(heights > 3)) | ~Rectangle(0, 0, 60, 60)
        aperture.check(heights.shape), aperture.cut(0, given)
        form = fit_form(given, None, "order:3")
        form.remove(given), form.rows(3, 9, 90)
        surface_parameters(given, MeasureSettings(("power",), Circle(40.0, 30.0, 60.0, 4.0), pixel_um=2.0))
        fit = GroupedFormFit(form_modes("tilt"), Circle(44.0, 34.0, 60.0), 2)
        fit.add(0, given, np.ones(given.shape, np.int32), given > 2)
        fit.solve().remove(0, given), fit.solve().at(np.arange(3), np.arange(3))
        ErrorTally(9.0).add(given, given, given)
        fringe_ripple(given, np.angle(np.exp(1j * heights)).astype(kind))
    refused(lambda: fit_form(heights[0]))
    refused(lambda: form.remove(heights.astype(int)))
    refused(lambda: fit_form(heights, np.ones((3, 3))))
    refused(lambda: ErrorTally(9.0).add(heights, heights[:3]))
    refused(lambda: fringe_ripple(heights, heights[:-1]))
    print("checked")
"""


def test_signatures_of_surfaces_are_checked():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(CHECKED)], capture_output=True, text=True, timeout=300)
    assert done.stdout == "checked\n", done.stderr[-3000:]

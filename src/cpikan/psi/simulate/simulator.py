"""Heights and frames of any image rows of one simulated acquisition."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.simulate.frames import expose_rows, make_light, make_optics
from cpikan.psi.simulate.settings import SimulationSettings, draw_faults
from cpikan.psi.simulate.surface import Surface


class Simulator:
    """An acquisition that can be evaluated row by row; what it holds is O(H + W).

    Every pixel depends on the settings and its own position alone: bands and threads change no bit.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        self.settings = settings
        self.surface = Surface(settings.resolved_surface, settings.shape, settings.sampling_um, settings.seed)
        self.faults = draw_faults(settings.instrument, np.array(settings.steps_deg), settings.seed)
        self._light = make_light(settings, self.faults, self.surface.grid)
        self._optics = make_optics(settings)

    def fill_surface(self, start: int, height: np.ndarray, kind: np.ndarray) -> None:
        """Fill ``height`` (n, W) float32 nm and ``kind`` (n, W) uint8 with image rows [start, start + n).

        Outside the wafer the height is NaN; the kinds are 0 good, 1 outside, 2 particle (no fringes on the last two).
        """
        self.surface.fill_rows(start, height, kind)

    def fill_frames(
        self, start: int, height: np.ndarray, kind: np.ndarray, out: np.ndarray, rows: tuple[int, int] | None = None
    ) -> None:
        """Fill ``out`` (L * K, n, W), wavelength-major, from what ``fill_surface`` gave for the same rows.

        ``rows`` limits the work to a range of the n rows, so that threads can share a band.
        """
        expose_rows(height, kind, start, rows or (0, height.shape[0]), self._light, self._optics, out)

    def surface_rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute height and kind of rows [start, stop) in new arrays."""
        height, width = self.settings.shape
        if not 0 <= start <= stop <= height:
            raise InputError(
                f"rows {start} to {stop} are not in an image of {height} rows: give 0 <= start <= stop <= {height}"
            )
        rows_nm = np.empty((stop - start, width), np.float32)
        kind = np.empty((stop - start, width), np.uint8)
        self.fill_surface(start, rows_nm, kind)
        return rows_nm, kind

    def frame_rows(self, start: int, stop: int) -> np.ndarray:
        """Compute frames (L, K, stop - start, W) of rows [start, stop) in a new array."""
        rows_nm, kind = self.surface_rows(start, stop)
        wavelengths, count, _, width = self.settings.stack_shape
        out = np.empty((wavelengths * count, stop - start, width), self.settings.dtype)
        self.fill_frames(start, rows_nm, kind, out)
        return out.reshape(wavelengths, count, stop - start, width)


def surface_rows(settings: SimulationSettings, start: int, stop: int) -> np.ndarray:
    """Compute the true height of image rows [start, stop): (stop - start, W) float32 nm, NaN outside the wafer."""
    return Simulator(settings).surface_rows(start, stop)[0]


def frame_rows(settings: SimulationSettings, start: int, stop: int) -> np.ndarray:
    """Compute frames of image rows [start, stop): (L, K, stop - start, W), uint8 or uint16."""
    return Simulator(settings).frame_rows(start, stop)


def simulate_stack(settings: SimulationSettings) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a small acquisition in memory: frames (L, K, H, W), true height (H, W) in nm, NaN outside the wafer.

    >>> frames, truth_nm = simulate_stack(SimulationSettings(shape=(128, 160), surface="smooth", seed=1))
    >>> frames.shape, truth_nm.shape
    ((1, 4, 128, 160), (128, 160))
    """
    simulator = Simulator(settings)
    return simulator.frame_rows(0, settings.shape[0]), simulator.surface_rows(0, settings.shape[0])[0]

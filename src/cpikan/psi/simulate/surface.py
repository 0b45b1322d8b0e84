"""Surfaces by rows: form, nanotopography, dies, bumps, scratches, particles, all from the seed and the position."""

from __future__ import annotations

import math

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.simulate.random import generator
from cpikan.psi.simulate.settings import SurfaceSettings
from cpikan.psi.simulate.wafer import Dies, Grid, cut_disc

_FORM, _WAVES, _BUMPS, _SCRATCHES, _PARTICLES = 22, 23, 24, 25, 26
_WAVE_COUNT = 48
_MIN_WAVE_PX = 12.0
# shares of max_slope_nm; they sum to one, so the parts together stay below it
_FORM_SHARE, _NANO_SHARE, _BUMP_SHARE, _SCRATCH_SHARE = 0.5, 0.2, 0.15, 0.15
_GAUSSIAN_SLOPE = math.exp(-0.5)  # steepest slope of exp(-r^2/2)
_NANO_PEAK = 4.5  # largest slope of a sum of many waves, in units of its rms


# what count_heights keeps: number of finite heights, their sum, sum of squares, smallest, largest
NO_STATISTICS = np.array([0.0, 0.0, 0.0, np.finfo(np.float64).max, -np.finfo(np.float64).max])
NO_STATISTICS.setflags(write=False)


class Surface:
    """Height in nm of any rows of a seeded surface, ``shape`` (H, W) pixels of ``pixel_um``.

    The tables held are O(H + W); a row depends on nothing but the settings, the seed and its number.
    """

    def __init__(self, settings: SurfaceSettings, shape: tuple[int, int], pixel_um: float, seed: int) -> None:
        self.settings = settings
        self.grid = Grid.of(shape, pixel_um, settings)
        limit = settings.max_slope_nm
        self._slope_nm_per_mm = math.inf if limit is None else limit / self.grid.pixel_mm
        self._form = self._draw_form(seed)
        self._wave_rows, self._wave_columns = self._draw_waves(seed)
        self._dies = Dies.draw(settings, self.grid, seed) if settings.die_step_nm else None
        self._bumps = self._draw_bumps(seed)
        self._scratches = self._draw_scratches(seed)
        self._particles = self._draw_particles(seed)

    def fill_rows(self, start: int, height: np.ndarray, kind: np.ndarray) -> None:
        """Fill ``height`` (n, W) float32 nm (NaN outside) and ``kind`` (n, W) uint8 with rows [start, start + n)."""
        kind.fill(0)
        unit_x, unit_y = self.grid.x_mm / self.grid.radius_mm, self.grid.y_mm / self.grid.radius_mm
        _set_form(height, start, unit_x, unit_y, self._form)
        _add_waves(height, start, self._wave_rows, self._wave_columns)
        if self._dies is not None:
            self._dies.add(height, start)
        x_mm, y_mm = self.grid.x_mm, self.grid.y_mm
        _add_bumps(height, start, x_mm, y_mm, self._bumps)
        _add_scratches(height, start, x_mm, y_mm, self._scratches)
        _add_particles(height, kind, start, x_mm, y_mm, self._particles)
        if self.settings.disc:
            cut_disc(height, kind, start, self.grid, self.settings)

    def _draw_form(self, seed: int) -> np.ndarray:
        """Draw bow and warp as coefficients [i, j] of y^i x^j on the unit disc, from -form_peak_nm to form_peak_nm."""
        draw = generator(seed, _FORM)
        bow = np.zeros((5, 5))
        bow[2, 0] = bow[0, 2] = 2.0
        terms = [
            {(0, 2): 1.0, (2, 0): -1.0},  # astigmatism, both axes
            {(1, 1): 2.0},
            {(0, 3): 1.0, (2, 1): -3.0},  # trefoil
            {(1, 2): 3.0, (3, 0): -1.0},
            {(0, 3): 3.0, (2, 1): 3.0, (0, 1): -2.0},  # coma
            {(1, 2): 3.0, (3, 0): 3.0, (1, 0): -2.0},
            {(0, 4): 1.0, (2, 2): -6.0, (4, 0): 1.0},  # quadrafoil
            {(0, 4): 6.0, (2, 2): 12.0, (4, 0): 6.0, (0, 2): -6.0, (2, 0): -6.0},  # spherical
        ]
        weights = draw.standard_normal(len(terms))
        weights *= self.settings.warp_share * math.sqrt(2) / np.linalg.norm(weights)
        form = bow * (1.0 if draw.integers(2) else -1.0)
        for weight, term in zip(weights, terms, strict=True):
            for power, factor in term.items():
                form[power] += weight * factor
        return self._scale_form(form)

    def _scale_form(self, form: np.ndarray) -> np.ndarray:
        """Centre and scale the form on a fixed grid over what is seen, so that the size in pixels does not matter."""
        half_mm = (len(position) * self.grid.pixel_mm / 2 for position in (self.grid.y_mm, self.grid.x_mm))
        ends = [half / self.grid.radius_mm for half in half_mm]
        y, x = np.meshgrid(*(np.linspace(-end, end, 129) for end in ends), indexing="ij")
        seen = np.hypot(x, y) <= 1.0
        value = np.polynomial.polynomial.polyval2d(y, x, form)[seen]
        slopes = [np.polynomial.polynomial.polyder(form, axis=axis) for axis in (0, 1)]
        slope = np.hypot(*(np.polynomial.polynomial.polyval2d(y, x, part)[seen] for part in slopes)).max()
        form = form.copy()
        form[0, 0] -= (value.max() + value.min()) / 2
        peak = (value.max() - value.min()) / 2
        scale = self.settings.form_peak_nm / peak
        return form * min(scale, _FORM_SHARE * self._slope_nm_per_mm * self.grid.radius_mm / slope)

    def _draw_waves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw nanotopography: random plane waves, cos(ax + by + p) = cos(ax + p) cos(by) - sin(ax + p) sin(by)."""
        rms, band = self.settings.nano_rms_nm, self.settings.nano_band_mm
        if rms == 0:
            return np.zeros((len(self.grid.y_mm), 0), np.float32), np.zeros((0, len(self.grid.x_mm)), np.float32)
        draw = generator(seed, _WAVES)
        longest = min(band[1], 2 * self.grid.inner_mm)
        longest = max(longest, 1.5 * _MIN_WAVE_PX * self.grid.pixel_mm)
        shortest = min(max(band[0], _MIN_WAVE_PX * self.grid.pixel_mm), longest / 1.5)
        wave_mm = np.exp(draw.uniform(math.log(shortest), math.log(longest), _WAVE_COUNT))
        angle, phase = draw.uniform(0, np.pi, _WAVE_COUNT), draw.uniform(0, 2 * np.pi, _WAVE_COUNT)
        amplitude = np.sqrt(wave_mm)
        amplitude *= rms * math.sqrt(2 / np.sum(amplitude**2))
        slope = _NANO_PEAK * math.sqrt(np.sum((amplitude * 2 * np.pi / wave_mm) ** 2) / 2)
        amplitude *= min(1.0, _NANO_SHARE * self._slope_nm_per_mm / slope)
        kx, ky = 2 * np.pi / wave_mm * np.cos(angle), 2 * np.pi / wave_mm * np.sin(angle)
        along_x = self.grid.x_mm * kx[:, None] + phase[:, None]
        along_y = self.grid.y_mm[:, None] * ky
        columns = np.concatenate([np.cos(along_x), -np.sin(along_x)]).astype(np.float32)
        rows = np.concatenate([amplitude * np.cos(along_y), amplitude * np.sin(along_y)], axis=1).astype(np.float32)
        return rows, columns

    def _draw_points(self, draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw points evenly over 90 % of what is seen."""
        radius = 0.9 * self.grid.inner_mm * np.sqrt(draw.uniform(0, 1, count))
        angle = draw.uniform(0, 2 * np.pi, count)
        return radius * np.cos(angle), radius * np.sin(angle)

    def _draw_bumps(self, seed: int) -> np.ndarray:
        """Draw Gaussian bumps as rows of x, y, sigma (mm), height (nm)."""
        draw = generator(seed, _BUMPS)
        x, y = self._draw_points(draw, self.settings.bumps)
        sigma = np.maximum(self.settings.bump_mm * draw.uniform(0.4, 1.0, len(x)), 3 * self.grid.pixel_mm)
        height = self.settings.bump_nm * draw.uniform(0.4, 1.0, len(x))
        height = np.minimum(height, _BUMP_SHARE * self._slope_nm_per_mm * sigma / _GAUSSIAN_SLOPE)
        return np.stack([x, y, sigma, height], axis=1)

    def _draw_scratches(self, seed: int) -> np.ndarray:
        """Draw scratches as rows of x0, y0, x1, y1, sigma (mm), depth (nm)."""
        draw = generator(seed, _SCRATCHES)
        x, y = self._draw_points(draw, self.settings.scratches)
        length = self.grid.inner_mm * draw.uniform(0.2, 0.7, len(x))
        angle = draw.uniform(0, np.pi, len(x))
        sigma = np.maximum(self.settings.scratch_mm * draw.uniform(0.4, 1.0, len(x)), 0.8 * self.grid.pixel_mm)
        depth = self.settings.scratch_nm * draw.uniform(0.5, 1.0, len(x))
        depth = np.minimum(depth, _SCRATCH_SHARE * self._slope_nm_per_mm * sigma / _GAUSSIAN_SLOPE)
        dx, dy = length * np.cos(angle) / 2, length * np.sin(angle) / 2
        return np.stack([x - dx, y - dy, x + dx, y + dy, sigma, depth], axis=1)

    def _draw_particles(self, seed: int) -> np.ndarray:
        """Draw particles as rows of x, y, radius (mm), height (nm)."""
        draw = generator(seed, _PARTICLES)
        x, y = self._draw_points(draw, self.settings.particles)
        radius = np.maximum(self.settings.particle_mm * draw.uniform(0.4, 1.0, len(x)), 1.2 * self.grid.pixel_mm)
        return np.stack([x, y, radius, self.settings.particle_nm * draw.uniform(0.5, 1.0, len(x))], axis=1)


@compiled
def _set_form(height: np.ndarray, start: int, unit_x: np.ndarray, unit_y: np.ndarray, form: np.ndarray) -> None:
    order = form.shape[0]
    line = np.empty(order)
    for r in range(height.shape[0]):
        y = unit_y[start + r]
        for j in range(order):
            line[j] = 0.0
            for i in range(order - 1, -1, -1):
                line[j] = line[j] * y + form[i, j]
        a, b, c, d, e = line
        for x in range(height.shape[1]):
            u = unit_x[x]
            height[r, x] = np.float32(a + u * (b + u * (c + u * (d + u * e))))


@compiled
def _add_waves(height: np.ndarray, start: int, rows: np.ndarray, columns: np.ndarray) -> None:
    # blocks of columns stay in the cache over all rows; the sum of a pixel always runs over the waves in the same order
    count, width = columns.shape
    block = 1024
    total = np.empty(block, np.float32)
    for left in range(0, width if count else 0, block):
        right = min(left + block, width)
        for r in range(height.shape[0]):
            line = total[: right - left]
            line[:] = np.float32(0.0)
            for m in range(0, count, 4):
                a, b = rows[start + r, m], rows[start + r, m + 1]
                c, d = rows[start + r, m + 2], rows[start + r, m + 3]
                first, second = columns[m, left:right], columns[m + 1, left:right]
                third, fourth = columns[m + 2, left:right], columns[m + 3, left:right]
                for x in range(line.shape[0]):
                    line[x] += (a * first[x] + b * second[x]) + (c * third[x] + d * fourth[x])
            out = height[r, left:right]
            for x in range(line.shape[0]):
                out[x] += line[x]


@compiled
def _add_bumps(height: np.ndarray, start: int, x_mm: np.ndarray, y_mm: np.ndarray, bumps: np.ndarray) -> None:
    for n in range(bumps.shape[0]):
        x0, y0, sigma, peak = bumps[n]
        reach = 6.5 * sigma  # exp(-21) of the height: nothing in float32
        left, right = np.searchsorted(x_mm, x0 - reach), np.searchsorted(x_mm, x0 + reach)
        for r in range(height.shape[0]):
            dy = y_mm[start + r] - y0
            if abs(dy) <= reach:
                for x in range(left, right):
                    dx = x_mm[x] - x0
                    height[r, x] += np.float32(peak * math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma)))


@compiled
def _add_scratches(height: np.ndarray, start: int, x_mm: np.ndarray, y_mm: np.ndarray, scratches: np.ndarray) -> None:
    for n in range(scratches.shape[0]):
        x0, y0, x1, y1, sigma, depth = scratches[n]
        dx, dy = x1 - x0, y1 - y0
        square = dx * dx + dy * dy
        reach = 6.5 * sigma
        for r in range(height.shape[0]):
            y = y_mm[start + r]
            if y < min(y0, y1) - reach or y > max(y0, y1) + reach:
                continue
            # the line crosses the rows y -+ reach between these two columns; the segment clips them
            low, high = min(x0, x1) - reach, max(x0, x1) + reach
            if abs(dy) > 1e-9:
                middle = x0 + (y - y0) * dx / dy
                half = reach * math.sqrt(square) / abs(dy)
                low, high = max(low, middle - half), min(high, middle + half)
            for x in range(np.searchsorted(x_mm, low), np.searchsorted(x_mm, high)):
                t = ((x_mm[x] - x0) * dx + (y - y0) * dy) / square
                t = min(max(t, 0.0), 1.0)
                ex, ey = x_mm[x] - x0 - t * dx, y - y0 - t * dy
                height[r, x] -= np.float32(depth * math.exp(-(ex * ex + ey * ey) / (2 * sigma * sigma)))


@compiled
def _add_particles(
    height: np.ndarray, kind: np.ndarray, start: int, x_mm: np.ndarray, y_mm: np.ndarray, particles: np.ndarray
) -> None:
    for n in range(particles.shape[0]):
        x0, y0, radius, peak = particles[n]
        left, right = np.searchsorted(x_mm, x0 - radius), np.searchsorted(x_mm, x0 + radius)
        for r in range(height.shape[0]):
            dy = y_mm[start + r] - y0
            for x in range(left, right):
                dx = x_mm[x] - x0
                if dx * dx + dy * dy <= radius * radius:
                    height[r, x] += np.float32(peak)
                    kind[r, x] = 2  # PARTICLE


@compiled
def count_heights(height: np.ndarray, statistics: np.ndarray) -> None:
    """Add rows of heights (n, W), NaN left out, to ``statistics`` (see NO_STATISTICS), row by row in order."""
    for r in range(height.shape[0]):
        count, total, squares = 0, 0.0, 0.0
        for x in range(height.shape[1]):
            value = np.float64(height[r, x])
            if value == value:
                count += 1
                total += value
                squares += value * value
                statistics[3] = min(statistics[3], value)
                statistics[4] = max(statistics[4], value)
        statistics[0] += count
        statistics[1] += total
        statistics[2] += squares

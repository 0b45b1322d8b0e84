"""Is the acquisition what was given? Other wavelengths and other steps, tried where the given ones do not fit.

Each guess is another acquisition. It is judged by what the phases of a few hundred pixels leave over under it, relative to one
of them, with pistons and tilts free: a guess is an answer when it alone leaves noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.calibration.wavelengths.alignment import Guess, decode, improve, thin, trimmed_mean
from cpikan.psi.calibration.wavelengths.order_model import MeasuredPhases
from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution

_LONGER = (1, 4, 12)  # times the range that most surfaces lie in: high ones need more
_PIXELS = 600
_ORIGINS = 6
_GOOD = 2.0  # misfit per degree of freedom of a guess that is worth the full calibration
_CLEARLY = 0.4  # of the given acquisition's misfit, at most
_ALONE = 1.5  # times the misfit of the best that any other guess has, at least
_TWINS = 2.0  # misfit of a wavelength taken for a copy of another
_ROUND = 0.5  # |mean exp(i phi)| of phases that go round
_LARGEST_ERROR = 0.015  # of a wavelength that is questioned
_UNIQUE = 1.3  # times the least misfit, below which all wavelengths must lie together
_MANY = 5  # wavelengths from which only pairs are exchanged


@dataclass(frozen=True)
class Answer:
    """The acquisition that fits, and what to tell the user."""

    acquisition: Acquisition
    caution: Caution


@dataclass(frozen=True)
class _Guessed:
    answer: Answer
    phases: MeasuredPhases


def check_copies(phases: MeasuredPhases) -> None:
    """Refuse phases of which one wavelength is a copy of another: the laser did not tune."""
    for i, j in itertools.combinations(range(len(phases.wavelengths_nm)), 2):
        first, second = phases.phase_rad[[i, j]]
        if abs(np.exp(1j * first).mean()) > _ROUND:
            continue
        apart = np.exp(1j * (second - first))
        left = np.angle(apart * np.conj(apart.mean()))
        if float((left**2 / phases.variance_rad2[[i, j]].sum(axis=0)).mean()) < _TWINS:
            raise InputError(
                f"wavelengths {i + 1} and {j + 1} ({phases.wavelengths_nm[i]:g} and {phases.wavelengths_nm[j]:g} nm) show "
                "the same fringes: the laser did not tune, or frames were stored twice; take them again, or leave one of the "
                "two out"
            )


def questioned(phases: MeasuredPhases, acquisition: Acquisition) -> Iterator[Answer]:
    """Give the acquisitions that fit the phases clearly better than the given one, likeliest kind first."""
    shortest, longest = trial_range_nm(phases), planning.default_range_nm(phases.wavelengths_nm, phases.sigma_rad)
    for range_nm in sorted({max(shortest, min(times * shortest, longest)) for times in _LONGER}):
        given = misfit_of(phases, range_nm)
        for guesses in (list(_exchanged(phases, acquisition)), list(_turned(phases, acquisition))):
            found = sorted(((misfit_of(guess.phases, range_nm), n) for n, guess in enumerate(guesses)))
            if found and _is_answer(found[0][0], given) and (len(found) == 1 or found[1][0] > _ALONE * found[0][0]):
                yield guesses[found[0][1]].answer
        if range_nm == shortest:
            yield from _retuned(phases, acquisition, given)


def _is_answer(misfit: float, given: float) -> bool:
    return misfit < _GOOD and misfit < _CLEARLY * given


def misfit_of(phases: MeasuredPhases, range_nm: float, pixels: int = _PIXELS, origins: int = _ORIGINS) -> float:
    """Measure what phases leave over relative to a pixel, per degree of freedom; the best of a few such pixels."""
    samples = thin(phases.samples, pixels)
    search, dof = search_orders(samples.ratio), max(len(samples.ratio) - 1, 1)
    span = range_nm / phases.half_wave_nm
    count = samples.turns.shape[1]
    radius = (samples.position**2).sum(axis=1)
    inner = np.argsort(radius, kind="stable")[: max(1, count // 2)]
    found = []
    for origin in inner[np.linspace(0, inner.size - 1, min(origins, inner.size)).astype(int)]:
        guess = Guess(samples.turns[:, origin].copy(), np.zeros((len(samples.ratio), 2)), 0.0, span)
        for _ in range(2):
            guess = improve(samples, decode(samples, search, guess, 0.008), guess)
        found.append(trimmed_mean(decode(samples, search, guess).misfit) / dof)
    return min(found)


def trial_range_nm(phases: MeasuredPhases) -> float:
    """Choose a range that phase errors of a tenth of a radian do not confuse, and that most surfaces lie in."""
    loose = [math.hypot(s, 0.1) for s in phases.sigma_rad]
    return planning.default_range_nm(phases.wavelengths_nm, loose)


def _exchanged(phases: MeasuredPhases, acquisition: Acquisition) -> Iterator[_Guessed]:
    """Guess that wavelengths were given in another order."""
    waves = acquisition.wavelengths_nm
    count = len(waves)
    orders: Iterator[tuple[int, ...]] = itertools.permutations(range(count))
    if count >= _MANY:
        orders = (_swapped(count, i, j) for i, j in itertools.combinations(range(count), 2))
    for order in orders:
        if order == tuple(range(count)):
            continue
        other = tuple(waves[i] for i in order)
        named = ", ".join(f"{wave:g} nm" for wave in other)
        line = ", ".join(f'"{wave:g} nm"' for wave in other)
        text = (
            f"the frames fit the wavelengths in another order and not as given: {named} is used; check which frames belong to "
            f"which, and say wavelengths = [{line}]"
        )
        answer = Answer(replace(acquisition, wavelengths_nm=other), Caution("wavelengths-exchanged", text))
        yield _Guessed(answer, replace(phases, wavelengths_nm=other))


def _swapped(count: int, i: int, j: int) -> tuple[int, ...]:
    order = list(range(count))
    order[i], order[j] = j, i
    return tuple(order)


def _turned(phases: MeasuredPhases, acquisition: Acquisition) -> Iterator[_Guessed]:
    """Guess that the frames of one wavelength are in reverse; of two wavelengths, the second."""
    steps = acquisition.phase_steps_deg
    if steps is None:
        return
    count = len(steps)
    for i in range(1 if count == 2 else 0, count):
        rows = tuple(tuple(row[::-1]) if n == i else row for n, row in enumerate(steps))
        written = ", ".join(f"{step:g}" for step in rows[i])
        sign = (
            "; of two wavelengths it may as well be the other, and heights then have the other sign"
            if count == 2
            else ""
        )
        text = (
            f"the frames of wavelength {i + 1} fit its steps in reverse and not as given: {written} deg are used{sign}; check "
            "the order of the frames, and give phase_steps as a list per wavelength"
        )
        answer = Answer(replace(acquisition, phase_steps_deg=rows), Caution("steps-reversed", text))
        turned = np.where(np.arange(count)[:, None] == i, -phases.phase_rad, phases.phase_rad)
        yield _Guessed(answer, replace(phases, phase_rad=turned))


def _retuned(phases: MeasuredPhases, acquisition: Acquisition, given: float) -> Iterator[Answer]:
    """Fit one wavelength to the phases; of two, the second."""
    count = len(phases.wavelengths_nm)
    range_nm = trial_range_nm(phases)
    apart = planning.smallest_distance_rad(phases.wavelengths_nm, range_nm)
    # over half the range, on either side of a pixel, a step then moves phases by an eighth of what parts orders
    step = max(min(apart, 1.0) / (4 * math.pi * range_nm / phases.half_wave_nm), 2e-5)
    best = []
    for i in range(1 if count == 2 else 0, count):
        errors = np.arange(-_LARGEST_ERROR, _LARGEST_ERROR + step, step)
        misfits = [misfit_of(_with_error(phases, i, float(e)), range_nm, 300, 4) for e in errors]
        least = int(np.argmin(misfits))
        if not _is_one_valley(np.array(misfits), least):
            continue  # other wavelengths fit as well
        error = float(errors[least])
        for finer, pixels in ((step / 5, 600), (step / 25, 1500)):
            around = error + finer * np.arange(-5, 6)
            misfits = [misfit_of(_with_error(phases, i, float(e)), range_nm, pixels, 3) for e in around]
            error = float(around[int(np.argmin(misfits))])
        best.append((min(misfits), i, error))
    if not best:
        return
    best.sort()
    misfit, i, error = best[0]
    if not _is_answer(misfit, given) and not (misfit < _GOOD and given > 1.3 * misfit):
        return
    fitted = _with_error(phases, i, error).wavelengths_nm
    which = "; of two wavelengths the other may be wrong instead, and all heights by that share" if count == 2 else ""
    text = (
        f"the phases fit {fitted[i]:.7g} nm for wavelength {i + 1} and not {phases.wavelengths_nm[i]:g} nm ({100 * error:+.3g} "
        f"%): the fitted one is used{which}; calibrate the laser"
    )
    yield Answer(replace(acquisition, wavelengths_nm=fitted), Caution("wavelength-off", text))


def _is_one_valley(misfits: np.ndarray, least: int) -> bool:
    """Tell whether the misfits that are about the least lie together."""
    low = np.flatnonzero(misfits <= _UNIQUE * misfits[least])
    return bool(low[-1] - low[0] + 1 == low.size)


def _with_error(phases: MeasuredPhases, i: int, error: float) -> MeasuredPhases:
    waves = tuple(wave * (1 + error) if n == i else wave for n, wave in enumerate(phases.wavelengths_nm))
    return replace(phases, wavelengths_nm=waves)

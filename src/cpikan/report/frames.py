"""What the frames were: their steps, tilts and gains with a few words and pictures, one section per wavelength."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.psi.model.frame_model import Response
from cpikan.report import frame_figures, numbers
from cpikan.report.content import Content, Judged, Part, Section, columns, drawing, legend, remark
from cpikan.report.fits import FrameFacts, array, effect_name, finite, fits_of
from cpikan.report.survey import MAIN_PIXELS, reduction
from cpikan.units import format_length


def frame_sections(content: Content) -> Iterator[Section]:
    """Yield a section per wavelength with fitted steps, or one on how far trusted steps are from the frames."""
    fits = fits_of(content.part("summary"), content.part("calibration"))
    if not fits:
        yield from _trusted_section(content)
        return
    names = _wavelength_names(content, len(fits))
    for i, facts in enumerate(fits):
        if facts is None:
            continue
        title = f"Frames, {names[i]}" if len(fits) > 1 else "Frames"
        rim_px = None if facts.pivot_px is None else _rim_px(content, facts.pivot_px)
        left = [_table(facts, rim_px), *_about_tilt(facts, rim_px)]
        beside = Part("beside", {"left": left, "pictures": list(_pictures(facts, i))})
        note = "Steps from frame 0, which is the zero of steps and tilts and the one of gains; increments to the frame before."
        yield Section(title, note, [_words(facts), beside], wide=True, centred=False)


def _wavelength_names(content: Content, count: int) -> list[str]:
    found = array(content.part("acquisition").get("wavelengths_nm"), (count,))
    if found is None:
        return [f"wavelength {i + 1}" for i in range(count)]
    return [format_length(float(value)).replace(" um", " µm") for value in found]


def _rim_px(content: Content, pivot_px: tuple[float, float]) -> float | None:
    """Find the distance of the farthest valid pixel (of the reduced picture, a block) from the pivot in pixels."""
    picture, shape = content.survey.height, content.survey.shape
    step = reduction(shape, MAIN_PIXELS)
    y, x = np.nonzero(np.isfinite(picture))
    if not y.size:
        return None
    middle = 0.5 * (step - 1)
    return float(np.hypot(step * y + middle - pivot_px[0], step * x + middle - pivot_px[1]).max())


# --- the table -------------------------------------------------------------------------------------------------------


def _table(facts: FrameFacts, rim_px: float | None) -> Part:
    places = _places(facts.error_deg)
    steps = [f"{step:.{places}f}" for step in facts.step_deg]
    if facts.error_deg is not None:
        errors = [f" ± {error:.{places}f}" if error > 0 else "" for error in facts.error_deg]
        steps = [step + error for step, error in zip(steps, errors, strict=True)]
    change = np.mod(np.diff(facts.step_deg) + 180, 360) - 180
    shown: dict[str, Sequence[str]] = {
        "frame": [str(k) for k in range(len(steps))],
        "step / deg": steps,
        "increment / deg": ["", *(f"{value:.{places}f}" for value in change)],
    }
    tilts, bows = facts.tilt_size_rad_px, facts.defocus_rad_px2
    if tilts is not None:
        shown |= _scaled(tilts, "tilt", rim_px)
    if bows is not None and bows.any():
        shown |= _scaled(bows, "defocus", rim_px, power=2)
    if facts.gain is not None:
        shown["gain"] = [f"{value:.4f}" for value in facts.gain]
    if facts.offset_dn is not None and facts.offset_dn.any():
        shown["offset / DN"] = [f"{value:.2f}" for value in facts.offset_dn]
    return columns(shown)


def _scaled(values: NDArray[np.float64], name: str, rim_px: float | None, power: int = 1) -> dict[str, list[str]]:
    """Format a column that grows with the distance from the pivot: at the rim in mrad, or per pixel without a rim."""
    if rim_px is None:
        return {f"{name} / (mrad/px{'²' if power == 2 else ''})": [f"{1e3 * value:.3g}" for value in values]}
    return {f"{name} at the rim / mrad": [f"{1e3 * rim_px**power * value:.1f}" for value in values]}


def _about_tilt(facts: FrameFacts, rim_px: float | None) -> Iterator[Part]:
    if facts.tilt_rad_px is not None and rim_px is not None and facts.pivot_px is not None:
        y, x = facts.pivot_px
        yield remark(f"The rim is the farthest valid pixel, {rim_px:.0f} px from the pivot at x {x:.1f}, y {y:.1f}.")


def _places(error_deg: NDArray[np.float64] | None) -> int:
    """Choose the decimals that show two digits of the largest error."""
    largest = 0.0 if error_deg is None else float(error_deg.max())
    return int(np.clip(1 - np.floor(np.log10(largest)), 1, 4)) if largest > 0 else 2


# --- the words -------------------------------------------------------------------------------------------------------


def _words(facts: FrameFacts) -> Part:
    fitted = ", ".join(["steps", *facts.effects])
    told = [f"Fitted: {fitted}."]
    told += [f"{name} {share} of the modulation." for name, share in _harmonic_shares(facts)]
    omitted = [f"{effect_name(name)}: {reason}" for name, reason in facts.part("omitted").items()]
    if omitted:
        told.append(f"Left out: {'; '.join(omitted)}.")
    measured = ", ".join(_measured(facts))
    if measured:
        told.append(f"{measured[0].upper()}{measured[1:]}.")
    if facts.sign is not None:
        told.append(f"Sign of the height {facts.sign}.")
    return Part("words", {"text": " ".join(told), "verdicts": list(_verdicts(facts))})


def _verdicts(facts: FrameFacts) -> Iterator[Judged]:
    reason = facts.entry.get("reason")
    if facts.undetermined:
        yield Judged("bad", f"Steps not determined{f': {numbers.plain(reason)}' if reason else ''}.")
    elif facts.entry.get("determined") is True:
        yield Judged("good", "Steps determined.")
    if facts.entry.get("converged") is False:
        yield Judged("bad", "The fit did not converge.")


def _harmonic_shares(facts: FrameFacts) -> Iterable[tuple[str, str]]:
    for order, share in facts.part("harmonic_ratio").items():
        value = finite(share)
        if value is not None:
            yield f"Harmonic {order}:", " ".join(numbers.percent(value))


def _measured(facts: FrameFacts) -> Iterable[str]:
    fringes, residual, over_three = (facts.number(k) for k in ("fringes", "residual_dn", "residual_over_three_dn"))
    coverage, conditioning = facts.number("circle_coverage"), facts.number("conditioning")
    expected = facts.number("ripple_expected_mrad")
    if fringes is not None:
        yield f"{fringes:.1f} fringes"
    if coverage is not None:
        yield f"steps cover {100 * coverage:.0f} % of the circle"
    if conditioning is not None:
        yield f"conditioning {conditioning:.2f} (1 is best)"
    if residual is not None:
        told = "" if over_three in (None, residual) else f" ({numbers.digits(over_three or 0.0, 3)} over K − 3)"
        yield f"residual {numbers.digits(residual, 3)} DN{told}"
    if expected is not None:
        yield f"2× ripple expected {numbers.digits(expected, 2)} mrad"


# --- the pictures ----------------------------------------------------------------------------------------------------


def _pictures(facts: FrameFacts, index: int) -> Iterator[list[Part]]:
    circle = frame_figures.circle_figure(facts.step_deg, facts.error_deg)
    yield [drawing(circle, f"circle{index}-", "phase steps on the circle", "Steps on the circle")]
    response = _response(facts.part("response"))
    if response is not None:
        drawn = frame_figures.response_figure(response)
        yield [drawing(drawn, f"response{index}-", "light minus sample over the sample", "Response of the camera")]
    before, after = (_ripple(facts.part(f"ripple_{name}_mrad")) for name in ("before", "after"))
    if before or after:
        drawn = frame_figures.ripple_figure(before, after)
        names = (("before", "var(--second)", before), ("after", "var(--accent)", after))
        title = "Ripple by multiple of the fringe"
        keys = legend((colour, f"{name} the fit") for name, colour, values in names if values)
        yield [drawing(drawn, f"ripple{index}-", title, title), keys]


def _response(entry: Mapping[str, Any]) -> Response | None:
    low, high = finite(entry.get("low_dn")), finite(entry.get("high_dn"))
    bends = array(entry.get("coefficients_dn"), (None,))
    if low is None or high is None or low >= high or bends is None or not bends.size:
        return None
    return Response(low, high, tuple(bends.tolist()))


def _ripple(entry: Mapping[str, Any]) -> dict[str, float]:
    found = {str(name): finite(value) for name, value in entry.items() if str(name) in ("1", "2", "3", "4")}
    return {name: value for name, value in found.items() if value is not None}


# --- trusted steps ---------------------------------------------------------------------------------------------------


def _trusted_section(content: Content) -> Iterator[Section]:
    deviations = content.part("calibration").get("step_deviation_deg")
    steps = content.part("calibration").get("phase_steps_deg")
    if not isinstance(deviations, list | tuple) or not isinstance(steps, list | tuple):
        return
    names = _wavelength_names(content, len(deviations))
    shown: dict[str, list[str]] = {}
    for name, given, found in zip(names, steps, deviations, strict=False):
        step = array(given, (None,))
        off = None if step is None else array(found, (step.size,))
        if step is not None and off is not None:
            label = f"{name}: " if len(names) > 1 else ""
            shown[f"{label}step / deg"] = [numbers.plain(float(value)) for value in step]
            shown[f"{label}deviation / deg"] = [f"{value:+.2f}" for value in off]
    if shown:
        count = max(map(len, shown.values()))
        shown = {"frame": [str(k) for k in range(count)]} | shown
        note = "Steps were trusted and used as given; beside them how far the frames say that they are off."
        yield Section("Frames", note, [columns(shown)], wide=len(shown) > 3, centred=False)

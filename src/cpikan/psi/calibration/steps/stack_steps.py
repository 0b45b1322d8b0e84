"""Phase steps of a stack: as given, or fitted to the frames, with one sign for all wavelengths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.steps.carrier import Carrier, WholeRows, carrier_of
from cpikan.psi.calibration.steps.fit import FitOptions, fit_phase_steps
from cpikan.psi.calibration.steps.model import EFFECTS
from cpikan.psi.calibration.steps.step_fit import StepFit
from cpikan.psi.calibration.steps.structure import Structure, fitted_structure
from cpikan.psi.calibration.steps.trusted_steps import (
    TrustedCheck,
    check_trusted,
    exchanged_frames,
    left_over,
    sign_is_open,
    step_change_deg,
)
from cpikan.psi.calibration.steps.two_frames import fit_two_frames
from cpikan.psi.model.acquisition import Acquisition, StepState
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel

Sign = Literal["given", "nominal", "assumed"]
_STATES: dict[Sign, StepState] = {"given": "trusted", "nominal": "nominal", "assumed": "unknown"}
_DEVIATION_DEG = 3.0  # of trusted steps that is worth a warning
_SAME_DEG = 4.0  # between the steps of two frames of which one repeats the other
_LEAST_TOLD = 0.003  # of the fringe: a harmonic
_LEAST_TOLD_DEG = 0.2
_FEWEST_CHECKED = 5  # frames from which all steps are determined
_CARRIER_DEG = 5.0  # what the few rows that show a carrier are good for
_LESS = 0.5  # of what the fit leaves: the carrier's steps leave clearly less
_AGREES = 0.1  # correlation of the slopes of two wavelengths' phases that is more than noise


@dataclass(frozen=True)
class StackSteps:
    """One `FrameModel` per wavelength; ``fits`` where they were fitted, None where steps are taken as given.

    ``deviation_deg``: how far trusted steps lie from what the frames say, a list per wavelength, None where the frames do
    not say. ``floor_rad2``: the phase variance that trusted steps leave beside the noise, one per wavelength, None where the
    frames do not say: then what they leave counts as noise. ``unexplained``: the largest share, of the power that a model
    leaves of the frames, that is structure and not noise.
    """

    models: tuple[FrameModel, ...]
    sign: Sign
    fits: tuple[StepFit, ...] | None = None
    deviation_deg: tuple[tuple[float, ...] | None, ...] | None = None
    floor_rad2: tuple[float | None, ...] | None = None
    unexplained: float = 0.0
    warnings: tuple[Caution, ...] = field(default=())

    @property
    def state(self) -> StepState:
        """Tell how the steps were used: trusted, nominal or unknown."""
        return _STATES[self.sign]

    @property
    def sign_is_guess(self) -> bool:
        """Tell whether the sign of the phase rests on no step that was given."""
        return self.sign == "assumed" or any(one.name == "sign-assumed" for one in self.warnings)

    @property
    def steps_deg(self) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(step) for step in np.degrees(model.steps_rad)) for model in self.models)


def stack_steps(
    frames: np.ndarray,
    position: np.ndarray,
    rows: WholeRows,
    acquisition: Acquisition,
    effects: tuple[str, ...] | None = None,
) -> StackSteps:
    """Find the models of frames (L, K, P) at ``position`` (P, 2), whole ``rows`` (samples (L, K, n, W)) to compare signs on.

    Trusted steps are checked and used as given, or taken for nominal where the frames contradict them and nobody said that
    they are trusted; others are fitted together with the ``effects`` (None: those the frames show). Raises InputError where
    unknown steps are not determined by the frames; nominal ones are then kept, with a warning.
    """
    given = acquisition.phase_steps_deg
    known: tuple[StepFit | None, ...] = (None,) * len(frames)
    warnings: list[Caution] = []
    if acquisition.steps == "trusted" and given is not None:
        checks = tuple(check_trusted(frames[i], position, steps) for i, steps in enumerate(given))
        kept = acquisition.steps_said or not any(check.contradicted for check in checks)
        warnings += _said_of(checks, given, kept=kept)
        if kept:
            return _trusted(checks, given, tuple(warnings))
        known = tuple(check.fit for check in checks)
    fitted = None if effects is None else frozenset(effect for effect in EFFECTS if effect in effects)
    options = FitOptions(effects=fitted, response=effects is not None and "response" in effects)
    fits: list[StepFit] = []
    models: list[FrameModel] = []
    unexplained = 0.0
    opened: list[int] = []  # wavelengths whose sign is a guess
    for i, samples in enumerate(frames):
        start = None if given is None else given[i]
        carrier = carrier_of(replace(rows, samples=rows.samples[i]))
        fit = known[i] or _fitted(samples, position, start, replace(options, carrier=carrier))
        model = fit.model
        if not fit.determined:
            if start is None:
                which = f"wavelength {i + 1}: " if len(frames) > 1 else ""
                raise InputError(
                    f"{which}the frames do not determine their phase steps (estimate "
                    f"{[round(s, 1) for s in fit.steps_deg]} deg): {fit.reason}; or give --phase-steps"
                )
            text = f"nominal steps are used as given, the frames do not determine them: {fit.reason}"
            warnings.append(Caution("steps-undetermined", text).of_wavelength(i, len(frames)))
            model = FrameModel.plain(tuple(step - start[0] for step in start))
        if fit.determined and start is not None and len(start) > 2 and sign_is_open(fit, start):
            opened.append(i)
        rest = fitted_structure(fit, samples, position) if fit.determined else None
        unexplained = max(unexplained, _share(rest))
        told = () if rest is None or not rest.significant else (_structured(rest),)
        seen = (*fit.warnings, *_contradiction(fit, carrier, samples), *told)
        warnings += [caution.of_wavelength(i, len(frames)) for caution in seen]
        fits.append(fit)
        models.append(model)
    if given is not None:
        sure = next((i for i in range(len(frames)) if i not in opened), None)
        for i in opened:
            if sure is None:
                warnings.append(_sign_open().of_wavelength(i, len(frames)))
            else:
                fits[i] = _agreeing(fits, rows, i, warnings, sure)
                models[i] = fits[i].model
        return StackSteps(tuple(models), "nominal", tuple(fits), unexplained=unexplained, warnings=tuple(warnings))
    fits = [fits[0], *(_agreeing(fits, rows, i, warnings, 0) for i in range(1, len(fits)))]
    models = [fit.model for fit in fits]
    return StackSteps(tuple(models), "assumed", tuple(fits), unexplained=unexplained, warnings=tuple(warnings))


def _sign_open() -> Caution:
    text = (
        "the fitted steps agree with the given ones no better than their negatives do, as where frames were exchanged: the "
        "sign of the phase, and which side of the map is up, is a guess; check the order of the frames"
    )
    return Caution("sign-assumed", text)


def _fitted(samples: np.ndarray, position: np.ndarray, start: tuple[float, ...] | None, options: FitOptions) -> StepFit:
    if len(samples) > 2:
        return fit_phase_steps(samples, position, start, options)
    if options.effects or options.response:
        raise InputError("two frames show nothing but their step: leave --fit out")
    return fit_two_frames(samples, position, start)


def _contradiction(fit: StepFit, carrier: Carrier | None, samples: np.ndarray) -> tuple[Caution, ...]:
    """Warn where the steps that the fringes' carrier shows, of either sign, leave less of the frames than the fit.

    A carrier is a guess: curved fringes, tilts and uneven light move it by tens of degrees. It has something to say where
    the fit has stuck in a false minimum, and then its own steps explain the frames better.
    """
    if carrier is None or len(samples) < 4 or not fit.model.is_uniform:
        return ()
    said = np.degrees(carrier.steps_at(fit.model.pivot))
    off = min(float(np.abs((np.subtract(fit.steps_deg, sign * said) + 180) % 360 - 180).max()) for sign in (1, -1))
    if off <= _CARRIER_DEG + 3 * float(np.degrees(fit.step_error_rad.max())):
        return ()
    left = [left_over(samples, tuple(map(float, steps))) for steps in (said, fit.steps_deg)]
    if not left[0] < _LESS * left[1]:
        return ()
    said_deg = ", ".join(f"{step % 360:.0f}" for step in said)
    text = (
        f"the carrier of the fringes shows steps of {said_deg} deg (or their negatives), {off:.0f} deg from the fit, and they "
        "explain the frames better: give them as --phase-steps with --steps nominal"
    )
    return (Caution("carrier-contradicts", text),)


def _share(rest: Structure | None) -> float:
    """Give the share of what a model leaves of the frames that is structure; 0 where that may be noise."""
    return rest.share if rest is not None and rest.significant else 0.0


def _structured(found: Structure) -> Caution:
    text = (
        f"{found.share:.0%} of what the model leaves of the frames is no noise: it follows the {found.kind}; sigma counts it "
        "as noise, steps and heights may be off by more; look at light, vibration and linearity of the camera, or try other "
        "--fit"
    )
    return Caution("frames-unexplained", text)


def _agreeing(fits: list[StepFit], rows: WholeRows, i: int, warnings: list[Caution], sure: int) -> StepFit:
    """Give a fit the sign under which its phase rises where that of wavelength ``sure`` does."""
    agreement = _slope_agreement(rows.samples, fits, sure, i)
    if agreement < -_AGREES:
        return mirrored(fits[i])
    if agreement < _AGREES:
        text = (
            f"the sign of its phase against that of wavelength {sure + 1} is a guess (slopes correlate by {agreement:.2f}): "
            "give --phase-steps with --steps nominal"
        )
        warnings.append(Caution("sign-assumed", text).of_wavelength(i, len(fits)))
    return fits[i]


def mirrored(fit: StepFit) -> StepFit:
    """Change the sign of phase, steps, tilts and defocus: the frames are the same."""
    model = fit.model
    turned = replace(
        model,
        steps_rad=-model.steps_rad % (2 * np.pi),
        tilt_rad_px=-model.tilt_rad_px,
        defocus_rad_px2=-model.defocus_rad_px2,
    )
    return replace(fit, model=turned)


def _slope_agreement(rows: np.ndarray, fits: list[StepFit], i: int, j: int) -> float:
    """Correlate the phase's slopes along image rows, wavelength i against j, in [-1, 1]; 0 where nothing shows."""
    slopes = [_row_slopes(rows[w], fits[w].model) for w in (i, j)]
    power = float(np.sqrt((slopes[0] ** 2).sum() * (slopes[1] ** 2).sum()))
    return float((slopes[0] * slopes[1]).sum() / power) if power > 0 else 0.0


def _row_slopes(rows: np.ndarray, model: FrameModel) -> np.ndarray:
    """Estimate the sine of the mean phase step to the right neighbour, over runs of 16 pixels, times the modulation."""
    samples = np.nan_to_num(model.light_dn(rows)) - model.offset_dn[:, None, None]
    weights = np.linalg.pinv(
        replace(model, harmonics=()).design_at(*np.array(model.pivot))
    )  # tilts change slopes alike
    phasor = np.einsum("k,knx->nx", weights[1] + 1j * weights[2], samples)
    product = phasor[:, 1:] * phasor[:, :-1].conj()
    runs = product.shape[1] // 16
    return product[:, : 16 * runs].reshape(len(product), runs, 16).sum(axis=2).imag


def _trusted(
    checks: tuple[TrustedCheck, ...], given: tuple[tuple[float, ...], ...], warnings: tuple[Caution, ...]
) -> StackSteps:
    """Take the steps as given, with the phase variance that they leave where the frames contradict them."""
    return StackSteps(
        tuple(FrameModel.plain(steps) for steps in given),
        "given",
        deviation_deg=tuple(check.deviation_deg for check in checks),
        floor_rad2=tuple(
            None if check.fit is None else check.harm_rad**2 if check.contradicted else 0.0 for check in checks
        ),
        unexplained=max(_share(check.structure) for check in checks),
        warnings=warnings,
    )


def _said_of(
    checks: tuple[TrustedCheck, ...], given: tuple[tuple[float, ...], ...], *, kept: bool
) -> tuple[Caution, ...]:
    """Say what the frames have against trusted steps, ``kept`` or taken for nominal."""
    against = [i for i, check in enumerate(checks) if check.contradicted]
    told = [
        caution.of_wavelength(i, len(checks))
        for i, check in enumerate(checks)
        if not check.contradicted and (caution := _deviating(check, given[i])) is not None
    ]
    if not against:
        return tuple(told)
    worst = max(against, key=lambda i: checks[i].harm_rad)
    caution = _contradicted(checks[worst], given[worst], kept=kept)
    if len(against) == len(checks) > 1:  # the same fault, as a rule: told once
        return (*told, Caution(caution.name, f"all wavelengths, {worst + 1} most: {caution.text}"))
    return (*told, *(_contradicted(checks[i], given[i], kept=kept).of_wavelength(i, len(checks)) for i in against))


def _contradicted(check: TrustedCheck, given: tuple[float, ...], *, kept: bool) -> Caution:
    assert check.fit is not None
    mrad = f"phase errors of {1e3 * check.harm_rad:.0f} mrad RMS"
    found = "; ".join(_findings(check.fit, given))
    if kept:
        text = f"the frames contradict the trusted steps, which leave {mrad}: {found}; --steps nominal repairs that"
        return Caution("steps-off", text)
    text = (
        f"the frames contradict the given steps, which would leave {mrad}: {found}; the run goes on as with --steps "
        "nominal; say --steps trusted to keep the steps as given"
    )
    return Caution("steps-replaced", text)


def _findings(fit: StepFit, given: tuple[float, ...]) -> list[str]:
    """List in words what the frames show that given steps do not tell."""
    found = []
    off, error = float(np.abs(step_change_deg(fit, given)).max()), float(np.degrees(fit.step_error_rad.max()))
    if off > max(_LEAST_TOLD_DEG, 5 * error):
        steps = ", ".join(f"{step:.1f}" for step in fit.steps_deg)
        found.append(f"they show steps of {steps} deg, off by up to {off:.1f} deg (+- {error:.2g})")
    exchanged = exchanged_frames(fit.steps_deg, given)
    if exchanged is not None:
        found.append(
            f"frames {exchanged[0] + 1} and {exchanged[1] + 1} stand for each other, as if they were exchanged"
        )
    found += [
        f"frames {j + 1} and {k + 1} show the same step, as if one was taken twice"
        for j, k in (_repeated(fit, given) if exchanged is None else ())
    ]
    if "tilt" in fit.effects:
        largest = float(np.abs(fit.model.tilt_rad_px).max())
        found.append(f"they are tilted against each other by up to {1e3 * largest:.2g} mrad per pixel")
    if "gain" in fit.effects:
        found.append(f"their light is {', '.join(f'{gain:.3g}' for gain in fit.model.gain)} times that of the first")
    if "contrast" in fit.effects:
        contrast = ", ".join(f"{one:.3g}" for one in fit.model.fringe_contrast)
        found.append(
            f"the contrast of their fringes is {contrast} times that of the first, as where something trembles"
        )
    strong = [f"{abs(q):.1%} at {order} times" for order, q in fit.harmonic_ratio.items() if abs(q) > _LEAST_TOLD]
    if strong or fit.model.response is not None:
        found.append(f"the fringes are no cosines ({', '.join(strong) or 'bent by the camera'})")
    return found or ["together, small deviations of steps and light"]


def _repeated(fit: StepFit, given: tuple[float, ...]) -> list[tuple[int, int]]:
    """List pairs of frames whose fitted steps are the same though their given ones differ."""
    pairs = [(j, k) for k in range(len(given)) for j in range(k)]
    apart = [_apart_deg(given[j], given[k]) for j, k in pairs]
    seen = [_apart_deg(fit.steps_deg[j], fit.steps_deg[k]) for j, k in pairs]
    return [pair for pair, told, found in zip(pairs, apart, seen, strict=True) if told > 3 * _SAME_DEG > 3 * found]


def _apart_deg(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def _deviating(check: TrustedCheck, given: tuple[float, ...]) -> Caution | None:
    """Warn of steps that one iterative estimate calls wrong where the joint fit had no verdict."""
    worst = max((abs(d) for d in check.deviation_deg), default=0.0) if check.deviation_deg is not None else 0.0
    structure = check.structure
    if check.fit is not None or structure is None or not structure.significant:
        return None
    if worst <= _DEVIATION_DEG:
        return _structured(structure)
    if len(given) < _FEWEST_CHECKED:
        worst_text = f"at least {worst:.1f}"
    else:
        worst_text = f"up to {worst:.1f}"
    text = f"the frames say that trusted steps are off by {worst_text} deg: check them, or say --steps nominal"
    return Caution("steps-off", text)

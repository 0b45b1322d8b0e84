"""Phase steps of a stack: as given, or fitted to the frames, with one sign for all wavelengths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.steps.aia import estimate_steps
from cpikan.psi.calibration.steps.carrier import Carrier, WholeRows, carrier_of
from cpikan.psi.calibration.steps.fit import FitOptions, fit_phase_steps
from cpikan.psi.calibration.steps.layout import EFFECTS
from cpikan.psi.calibration.steps.step_fit import StepFit
from cpikan.psi.calibration.steps.two_frames import fit_two_frames
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel

Sign = Literal["given", "nominal", "assumed"]
_CHECKED_PIXELS = 3000  # of trusted stacks: milliseconds, and steps to a tenth of a degree
_ONE_SIDED = 0.5  # |mean exp(i k phi)|, k = 1, 2, of pixels that do not fill the circle: their steps are not to be had
_DEVIATION_DEG = 3.0  # of trusted steps that is worth a warning
_FEWEST_CHECKED = 5  # frames from which all steps are determined
_CARRIER_DEG = 5.0  # what the few rows that show a carrier are good for
_AGREES = 0.1  # correlation of the slopes of two wavelengths' phases that is more than noise


@dataclass(frozen=True)
class StackSteps:
    """One `FrameModel` per wavelength; ``fits`` where they were fitted, None where steps are taken as given.

    ``deviation_deg``: how far trusted steps lie from what the frames say, a list per wavelength, None where the frames do
    not say.
    """

    models: tuple[FrameModel, ...]
    sign: Sign
    fits: tuple[StepFit, ...] | None = None
    deviation_deg: tuple[tuple[float, ...] | None, ...] | None = None
    warnings: tuple[Caution, ...] = field(default=())

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

    Trusted steps are used as given and checked; others are fitted together with the ``effects`` (None: those the frames
    show). Raises InputError where unknown steps are not determined by the frames; nominal ones are then kept, with a warning.
    """
    given = acquisition.phase_steps_deg
    if acquisition.steps == "trusted" and given is not None:
        return _trusted(frames, given)
    fitted = None if effects is None else frozenset(effect for effect in EFFECTS if effect in effects)
    options = FitOptions(effects=fitted, response=effects is not None and "response" in effects)
    fits: list[StepFit] = []
    models: list[FrameModel] = []
    warnings: list[Caution] = []
    for i, samples in enumerate(frames):
        start = None if given is None else given[i]
        carrier = carrier_of(replace(rows, samples=rows.samples[i]))
        fit = _fitted(samples, position, start, replace(options, carrier=carrier))
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
        warnings += [told.of_wavelength(i, len(frames)) for told in (*fit.warnings, *_contradiction(fit, carrier))]
        fits.append(fit)
        models.append(model)
    if given is not None:
        return StackSteps(tuple(models), "nominal", tuple(fits), warnings=tuple(warnings))
    fits = [fits[0], *(_agreeing(fits, rows, i, warnings) for i in range(1, len(fits)))]
    return StackSteps(tuple(fit.model for fit in fits), "assumed", tuple(fits), warnings=tuple(warnings))


def _fitted(samples: np.ndarray, position: np.ndarray, start: tuple[float, ...] | None, options: FitOptions) -> StepFit:
    if len(samples) > 2:
        return fit_phase_steps(samples, position, start, options)
    if options.effects or options.response:
        raise InputError("two frames show nothing but their step: leave --fit out")
    return fit_two_frames(samples, position, start)


def _contradiction(fit: StepFit, carrier: Carrier | None) -> tuple[Caution, ...]:
    """Warn where the fit contradicts the steps that the fringes' carrier shows, of either sign."""
    if carrier is None or len(fit.steps_deg) < 3:
        return ()
    said = np.degrees(carrier.steps_at(fit.model.pivot))
    off = min(float(np.abs((np.subtract(fit.steps_deg, sign * said) + 180) % 360 - 180).max()) for sign in (1, -1))
    if off <= _CARRIER_DEG + 3 * float(np.degrees(fit.step_error_rad.max())):
        return ()
    said_deg = ", ".join(f"{step % 360:.0f}" for step in said)
    text = f"the carrier of the fringes shows steps of {said_deg} deg (or their negatives), {off:.0f} deg from the fit"
    return (Caution("carrier-contradicts", text),)


def _agreeing(fits: list[StepFit], rows: WholeRows, i: int, warnings: list[Caution]) -> StepFit:
    """Give a blind fit the sign under which its phase rises where that of the first wavelength does."""
    agreement = _slope_agreement(rows.samples, fits[0].model, fits[i].model, i)
    if agreement < -_AGREES:
        return mirrored(fits[i])
    if agreement < _AGREES:
        text = (
            f"the sign of its phase against that of wavelength 1 is a guess (their slopes correlate by {agreement:.2f}): give "
            "--phase-steps with --steps nominal"
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


def _slope_agreement(rows: np.ndarray, first: FrameModel, other: FrameModel, i: int) -> float:
    """Correlate the phase's slopes along image rows, wavelength 0 against i, in [-1, 1]; 0 where nothing shows."""
    slopes = [_row_slopes(rows[w], model) for w, model in ((0, first), (i, other))]
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


def _trusted(frames: np.ndarray, given: tuple[tuple[float, ...], ...]) -> StackSteps:
    """Take the steps as given, with what the frames have to say about them."""
    few = frames[:, :, :: max(1, frames.shape[2] // _CHECKED_PIXELS)]
    deviations = tuple(_deviation(few[i], steps) for i, steps in enumerate(given))
    warnings = []
    for i, found in enumerate(deviations):
        worst = max((abs(d) for d in found), default=0.0) if found is not None else 0.0
        if worst > _DEVIATION_DEG and len(given[i]) >= _FEWEST_CHECKED:
            text = f"the frames say that trusted steps are off by up to {worst:.1f} deg: check them, or say --steps nominal"
            warnings.append(Caution("steps-off", text).of_wavelength(i, len(given)))
    models = tuple(FrameModel.plain(steps) for steps in given)
    return StackSteps(models, "given", deviation_deg=deviations, warnings=tuple(warnings))


def _deviation(samples: np.ndarray, given: tuple[float, ...]) -> tuple[float, ...] | None:
    """Compute fitted minus given steps, in degrees; a lower bound with four frames, None with three."""
    if len(given) < 4:
        return None
    _, u, v = np.linalg.pinv(FrameModel.plain(given).design_at(np.zeros(()), np.zeros(()))) @ np.asarray(
        samples, np.float64
    )
    unit = np.exp(1j * np.arctan2(v, u))
    if max(abs(unit.mean()), abs((unit**2).mean())) > _ONE_SIDED:
        return None
    try:
        found = estimate_steps(samples, given)
    except (InputError, np.linalg.LinAlgError):
        return None
    if not found.converged:
        return None
    # steps are relative to frame 0: the given ones may start anywhere
    off = np.subtract(found.steps_deg, np.subtract(given, given[0]))
    return tuple(float(d) for d in (off + 180) % 360 - 180)

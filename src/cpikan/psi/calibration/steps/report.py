"""The report of a fit of steps: the frames' model, its errors, and whether to trust it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cpikan.psi.calibration.steps.fringes import unwrap_scattered
from cpikan.psi.calibration.steps.iterate import Solution
from cpikan.psi.calibration.steps.layout import EFFECTS
from cpikan.psi.calibration.steps.model import Samples
from cpikan.psi.calibration.steps.step_fit import StepFit, sample_squares
from cpikan.psi.calibration.steps.uncertainty import covariance_of
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.fringes import fringe_columns
from cpikan.psi.model.response import Response

_RESIDUALS = 3000  # pixels for the median residual
_LIT = 0.15  # of the change from frame to frame of bright pixels
_LARGEST_ERROR_DEG = 6.0  # of a step that still counts as determined
_DOUBTFUL_ERROR_DEG = 2.0  # of a step that a user is warned of
_FEWEST_FRINGES = 0.75
_WORST_CONDITION = 0.05
_DEAREST_HARMONIC = 1.5  # times the phase noise: what a harmonic left free in every pixel may cost


@dataclass(frozen=True)
class Context:
    """Facts for the report beside the solution: all ``values`` (K, P) ``where`` (P, 2) they were taken, the pixels ``seen`` by
    the fit, the pivot, the units of values and positions, why effects were omitted, whether steps were given, and the curve
    that makes light of values."""

    values: np.ndarray
    where: np.ndarray
    seen: np.ndarray
    pivot: tuple[float, float]
    scale: float
    radius: float
    omitted: dict[str, str]
    nominal: bool
    response: Response | None = None


def report(samples: Samples, solution: Solution, context: Context) -> StepFit:
    layout, theta = solution.layout, solution.state.theta
    covariance = covariance_of(samples, solution)
    error = np.sqrt(np.maximum(np.diag(covariance), 0))
    at, table = layout.unpack(theta), layout.table
    steps = table(theta, "step")[:, 0] % (2 * np.pi)
    of_steps = layout.blocks["step"][:, 0]
    model = FrameModel(
        steps,
        table(theta, "tilt") / context.radius,
        table(theta, "defocus")[:, 0] / context.radius**2,
        at.gain,
        at.offset * context.scale,
        context.pivot,
        response=context.response,
        contrast=at.contrast,
    )
    free = _free_harmonics(model, layout.orders, context.where)
    shares = {order: float(at.harmonic[i]) for i, order in enumerate(layout.orders)}
    locked = tuple((order, share) for order, share in shares.items() if order not in free)
    model = replace(model, harmonics=free, locked=locked)
    singular = np.linalg.svd(fringe_columns(steps), compute_uv=False)
    scattered = unwrap_scattered(solution.state.pixel[2], context.seen)
    spread = solution.spread
    fit = StepFit(
        model=model,
        step_error_rad=table(error, "step")[:, 0],
        tilt_error_rad_px=table(error, "tilt") / context.radius,
        gain_error=table(error, "gain")[:, 0],
        harmonic_ratio=shares,
        noise_dn=spread.noise * context.scale,
        background_dn=spread.background * context.scale,
        modulation_dn=spread.modulation * context.scale,
        ripple_rad=_ripple(steps, covariance[np.ix_(of_steps, of_steps)]),
        effects=tuple(effect for effect in EFFECTS if effect in layout.effects),
        omitted=context.omitted,
        conditioning=float(singular[-1] / singular[0]),
        fringes=scattered.fringes,
        iterations=solution.iterations,
        converged=solution.converged,
        sign="nominal" if context.nominal else "assumed",
    )
    return _judged(_with_residual(fit, context), samples, resolved=scattered.resolved)


def _with_residual(fit: StepFit, context: Context) -> StepFit:
    every = max(1, len(context.where) // _RESIDUALS)
    values, where = context.values[:, ::every], context.where[::every]
    swing = values.std(axis=0)
    lit = swing > _LIT * np.quantile(swing, 0.9)  # a dark background has noise of its own, and may be most of the frame
    rss = sample_squares(fit, values[:, lit], where[lit])
    left = fit.model.frames - 3 - 2 * len(fit.model.harmonics)
    middle = float(np.median(rss))
    return replace(
        fit,
        residual_dn=float(np.sqrt(middle / left)) if left > 0 else float("nan"),
        residual_over_three_dn=float(np.sqrt(middle / (left + 2 * len(fit.model.harmonics))))
        if left > 0
        else float("nan"),
    )


def _judged(fit: StepFit, samples: Samples, *, resolved: bool) -> StepFit:
    """Add the verdict: whether the data determine the steps, and what else a user must know."""
    worst = float(np.degrees(fit.step_error_rad).max())
    reasons = []
    if fit.fringes < _FEWEST_FRINGES:
        least = "" if resolved else "at least "  # pixels lie too far apart to count fringes that are denser
        reasons.append(
            f"the field holds {least}{fit.fringes:.2f} fringes, steps need {_FEWEST_FRINGES:g}: tilt the part"
        )
    if worst > _LARGEST_ERROR_DEG:
        reasons.append(
            f"steps are uncertain by {worst:.1f} deg (allowed {_LARGEST_ERROR_DEG:g}): more frames or fringes"
        )
    if fit.conditioning < _WORST_CONDITION:
        reasons.append("the steps lie too close together to tell background, modulation and phase apart")
    return replace(fit, determined=not reasons, reason="; ".join(reasons), warnings=_cautions(fit, worst))


def _cautions(fit: StepFit, worst_deg: float) -> tuple[Caution, ...]:
    told = {}
    if _DOUBTFUL_ERROR_DEG < worst_deg <= _LARGEST_ERROR_DEG:
        told["steps-uncertain"] = (
            f"steps are uncertain by {worst_deg:.1f} deg: more frames or fringes would settle them"
        )
    if not fit.converged:
        told["steps-not-settled"] = f"the estimate of the steps had not settled after {fit.iterations} iterations"
    if fit.model.frames <= 4:
        told["steps-few-frames"] = (
            f"{fit.model.frames} frames: the steps rest on a background and modulation that do not follow the fringes"
        )
    if fit.sign == "assumed" and abs(np.sin(fit.model.steps_rad[1])) < 3 * fit.step_error_rad[1]:
        told["sign-assumed"] = "the first step is near 0 or 180 deg: the sign of the phase is a guess"
    return tuple(Caution(name, text) for name, text in told.items())


def _free_harmonics(model: FrameModel, orders: tuple[int, ...], where: np.ndarray) -> tuple[int, ...]:
    """Choose harmonics that may be free in every pixel: there are frames for it and the phase stays quiet."""
    some = where[:: max(1, len(where) // 300)]
    delta = model.steps_at(some[:, 0], some[:, 1]).T
    plain = _phase_cost(delta, ())
    free: tuple[int, ...] = ()
    for order in orders:
        wanted = (*free, order)
        if model.frames >= 5 + 2 * len(wanted) and _phase_cost(delta, wanted) < _DEAREST_HARMONIC**2 * plain:
            free = wanted
    return free


def _phase_cost(delta: np.ndarray, harmonics: tuple[int, ...]) -> float:
    columns = fringe_columns(delta, harmonics)
    normal = columns.transpose(0, 2, 1) @ columns
    inverse = np.linalg.inv(normal + 1e-9 * np.eye(normal.shape[-1]))
    return float((inverse[:, 1, 1] + inverse[:, 2, 2]).max())


def _ripple(steps: np.ndarray, covariance: np.ndarray) -> float:
    """Predict the standard deviation of the amplitude of the phase error at twice the fringes, from that of the steps.

    To first order a step error e_k changes the phasor by sum_k w_k e_k B sin(phi + delta_k), w_k = the weights of
    exp(i phi); relative to exp(i phi) its part at -2 phi has the amplitude |sum_k w_k e_k exp(-i delta_k)| / 2.
    """
    weights = np.linalg.pinv(fringe_columns(steps))
    pull = ((weights[1] + 1j * weights[2]) * np.exp(-1j * steps) / 2)[1:]
    return float(np.sqrt(np.real(pull @ covariance @ pull.conj())))

"""The result of a fit of the frames: their model and its errors, the phase under it, and whether to trust it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from cpikan.psi.calibration.steps.bending import FEWEST_FRAMES
from cpikan.psi.calibration.steps.fringes import unwrap_scattered
from cpikan.psi.calibration.steps.iterate import Solution
from cpikan.psi.calibration.steps.model import EFFECTS, Effect, Samples
from cpikan.psi.calibration.steps.selection import covariance_of
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.frame_model import FrameModel, Response, fringe_columns


@dataclass(frozen=True)
class StepFit:
    """The frames' model and how far to trust it.

    ``step_error_rad`` (K,), ``tilt_error_rad_px`` (K, 2) and ``gain_error`` (K,) are predicted standard errors, zero for frame
    0 and for what was not fitted; those of steps hold what harmonics beyond the third may do. ``harmonic_ratio`` maps fitted
    orders to their share of the modulation: ``model.harmonics`` lists only those that may be left free in every pixel.
    ``residual_dn`` is the median over pixels of sqrt(RSS / (K - p)),
    p the columns of the model (nan where none is left), ``residual_over_three_dn`` that of sqrt(RSS / (K - 3));
    ``noise_dn``, ``background_dn`` and ``modulation_dn`` are the scatter of samples, and of A and B about smooth fields.
    ``ripple_rad`` is the predicted amplitude of the phase error at twice the fringes. ``omitted`` says why each effect that
    was considered is not in the model.
    """

    model: FrameModel
    step_error_rad: np.ndarray
    tilt_error_rad_px: np.ndarray
    gain_error: np.ndarray
    noise_dn: float
    background_dn: float
    modulation_dn: float
    ripple_rad: float
    conditioning: float
    fringes: float
    iterations: int
    sign: str
    harmonic_ratio: dict[int, float] = field(default_factory=dict)
    residual_dn: float = float("nan")
    residual_over_three_dn: float = float("nan")
    effects: tuple[Effect, ...] = ()
    omitted: dict[str, str] = field(default_factory=dict)
    converged: bool = True
    determined: bool = True
    reason: str = ""
    warnings: tuple[Caution, ...] = ()

    @property
    def circle_coverage(self) -> float:
        """Compute the share of the circle outside the widest gap of the steps."""
        steps = np.sort(self.model.steps_rad % (2 * np.pi))
        gaps = np.diff(steps, append=steps[0] + 2 * np.pi)
        return float(1 - gaps.max() / (2 * np.pi))

    @property
    def steps_deg(self) -> tuple[float, ...]:
        return tuple(float(step) for step in np.degrees(self.model.steps_rad))

    def phase_rad(self, frames: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Compute the phase (P,) of frames (K, P) at ``position`` (P, 2); free harmonics stay, others are taken off."""
        _, u, v = demodulated(self, np.asarray(frames, np.float64), np.asarray(position, float))[0][:3]
        return np.arctan2(v, u)


def demodulated(fit: StepFit, values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve for coefficients (columns, P) and residual squares (P,) of light, without harmonics that are not free."""
    found, rest = resolved(fit, values, where)
    return found, (rest**2).sum(axis=1)


def sample_squares(fit: StepFit, values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Compute the residual squares (P,) in DN^2 of the samples themselves, bent as they are."""
    _, rest = resolved(fit, values, where)
    response = fit.model.response
    return ((rest if response is None else rest / response.slope(values).T) ** 2).sum(axis=1)


def resolved(fit: StepFit, values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve for coefficients (columns, P) of light, and what is left of each sample (P, K), in DN of light."""
    model = fit.model
    design = model.design_at(where[:, 0], where[:, 1])
    samples = model.light_dn(values) - model.offset_dn[:, None]
    normal = design.transpose(0, 2, 1) @ design
    right = design.transpose(0, 2, 1) @ samples.T[..., None]
    if model.background is not None:
        normal[:, 0, 0] += model.background_weight
        right[:, 0, 0] += model.background_weight * model.background.at(where[:, 0], where[:, 1])
    normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(normal.shape[-1])
    inverse = np.linalg.inv(normal)
    found = (inverse @ right)[..., 0]
    if not model.locked:
        return found.T, samples.T - (design @ found[..., None])[..., 0]
    phasor = model.unlocked(found[:, 1] + 1j * found[:, 2], where[:, 0], where[:, 1])
    delta = model.steps_at(where[:, 0], where[:, 1])
    light = sum(share * np.cos(order * (np.angle(phasor) + delta)) for order, share in model.locked)
    taken = (model.gain * model.fringe_contrast)[:, None] * np.abs(phasor) * light
    found = (inverse @ (right - design.transpose(0, 2, 1) @ taken.T[..., None]))[..., 0]
    return found.T, (samples - taken).T - (design @ found[..., None])[..., 0]


_RESIDUALS = 3000  # pixels for the median residual
_LIT = 0.15  # of the change from frame to frame of bright pixels
_LARGEST_ERROR_DEG = 6.0  # of a step that still counts as determined
_DOUBTFUL_ERROR_DEG = 2.0  # of a step that a user is warned of
_BIAS = (
    0.15  # rad of a step for a fourth harmonic as large as the fringe; bent cameras of all shapes have up to as much
)
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
        step_error_rad=_with_bias(table(error, "step")[:, 0], shares, model.frames),
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


def _with_bias(error_rad: np.ndarray, shares: dict[int, float], frames: int) -> np.ndarray:
    """Add to the errors of steps (K,) what harmonics beyond the third may do, which are not fitted and leave no residual.

    Harmonics of a bent camera fall off as powers: the fourth is about the square of the third over the second. Few steps of a
    quarter turn take it, and the next, for the fringe and its double. Of more frames a response curve is fitted.
    """
    second, third = abs(shares.get(2, 0.0)), abs(shares.get(3, 0.0))
    fourth = third * min(third / max(second, 1e-12), 1.0)
    bias = _BIAS * fourth * (np.arange(len(error_rad)) > 0) if frames < FEWEST_FRAMES else 0.0
    return np.hypot(error_rad, bias)


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

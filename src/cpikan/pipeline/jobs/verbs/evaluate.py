"""The verb ``evaluate``: the map ``source`` against the truth, or its surface numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpikan.errors import InputError, check_name
from cpikan.option import FORM_HELP, option
from cpikan.pipeline.jobs.job import AreaOptions, Job, Verb
from cpikan.streaming.events import Events

if TYPE_CHECKING:
    from cpikan.surface.apertures.aperture import Aperture


@dataclass(frozen=True)
class EvaluateOptions:
    """``truth`` is a .npy of heights in nm; without it surface numbers are measured."""

    truth: str | None = None
    remove: str | None = option(
        None,
        f"take off the error (a piston always goes), or the map (default: piston): {FORM_HELP}",
        metavar="TERMS",
    )
    s_filter: str | None = option(
        None, 'keep what is larger than this nesting index: a length, or pixels ("80 px")', metavar="LENGTH"
    )
    l_filter: str | None = option(
        None, "keep what is smaller than this nesting index, after the S-filter", metavar="LENGTH"
    )
    filter: str = option(
        "gaussian", "kind of both filters: gaussian, gaussian2, robust, robust2, spline", metavar="KIND"
    )
    figures: str | None = option(
        None,
        "numbers that need the whole map in memory too: functional, spatial, features, or single ones; several with commas",
        metavar="NAMES",
    )

    def __post_init__(self) -> None:
        from cpikan.surface.filters.kinds import FILTERS
        from cpikan.surface.forms.form import check_form_terms  # compiled: help must not wait for it

        check_form_terms(self.remove or "")
        check_name("filter", self.filter, FILTERS)
        given = [name for name in ("s_filter", "l_filter", "figures") if getattr(self, name) is not None]
        if self.truth is not None and given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{flags} with a truth: errors are neither filtered nor measured so; leave the truth out")


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Compare the map with a truth, or measure its surface, and return the figures."""
    options, aperture = job.part(EvaluateOptions), job.part(AreaOptions).open()
    if options.truth is not None:
        from cpikan.pipeline.maps.evaluate import evaluate

        return evaluate(job.source, options.truth, remove=options.remove or "", aperture=aperture, progress=events)
    result = _measured(job.source, options, aperture, events)
    for warning in result["warnings"]:
        events.warning(warning)
    return result


def _measured(source: Any, options: EvaluateOptions, aperture: Aperture | None, events: Events) -> dict[str, Any]:
    """Measure the sums of a map, and what else is asked for, after its form was removed and it was filtered."""
    from cpikan.pipeline.maps.height_map import open_height_map
    from cpikan.pipeline.maps.numbers import chosen_figures, map_figures

    height_map = open_height_map(source)
    if aperture is not None:
        height_map = height_map.within(aperture)
    height_map = height_map.remove("piston" if options.remove is None else options.remove)
    if options.s_filter is not None or options.l_filter is not None:
        height_map = height_map.filtered(options.s_filter, options.l_filter, kind=options.filter)
    result = map_figures(height_map, progress=events)
    return result | (chosen_figures(height_map, options.figures) if options.figures else {})


VERB = Verb((EvaluateOptions, AreaOptions), ("source",), run)

"""The verb ``evaluate``: the map ``source`` against the truth, or its surface numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.option import FORM_HELP, option
from cpikan.pipeline.jobs.job import AreaOptions, Job, Verb
from cpikan.streaming.events import Events


@dataclass(frozen=True)
class EvaluateOptions:
    """``truth`` is a .npy of heights in nm; without it surface numbers are measured."""

    truth: str | None = None
    remove: str | None = option(
        None,
        f"take off the error (a piston always goes), or the map (default: piston): {FORM_HELP}",
        metavar="TERMS",
    )

    def __post_init__(self) -> None:
        from cpikan.surface.form import check_form_terms  # compiled: help must not wait for it

        check_form_terms(self.remove or "")


def run(job: Job, events: Events, seconds_before: float) -> dict[str, Any]:
    """Compare the map with a truth, or measure its surface, and return the figures."""
    options, aperture = job.part(EvaluateOptions), job.part(AreaOptions).open()
    if options.truth is not None:
        from cpikan.pipeline.maps.evaluate import evaluate

        return evaluate(job.source, options.truth, remove=options.remove or "", aperture=aperture, progress=events)
    from cpikan.pipeline.maps.surface import surface_figures

    remove = "piston" if options.remove is None else options.remove
    result = surface_figures(job.source, remove=remove, aperture=aperture, progress=events)
    for warning in result["warnings"]:
        events.warning(warning)
    return result


VERB = Verb((EvaluateOptions, AreaOptions), ("source",), run)

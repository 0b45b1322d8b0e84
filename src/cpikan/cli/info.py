"""The verb ``info``."""

from __future__ import annotations

from typing import Any

from cpikan.cli.reconstruct import STACK
from cpikan.cli.verb import CommandVerb
from cpikan.pipeline.stacks.acquisition_file import AcquisitionFlags
from cpikan.pipeline.stacks.frame_flags import FrameFlags


def _run(places: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    from cpikan.pipeline.reconstruction.plan import estimate_run
    from cpikan.pipeline.stacks.stack import describe_stack, open_stack

    with open_stack(places["source"], **settings) as stack:
        return {**describe_stack(stack), **estimate_run(stack)}


def _tell(result: dict[str, Any]) -> str:
    from cpikan.pipeline.reconstruction.plan import format_estimate
    from cpikan.pipeline.stacks.stack import format_description

    return f"{format_description(result)}\n{format_estimate(result)}"


VERB = CommandVerb((STACK,), (AcquisitionFlags, FrameFlags), _run, _tell)

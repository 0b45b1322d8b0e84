"""What goes in and out of the doors as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_ROWS = 1000
State = Literal["waiting", "running", "done", "failed", "cancelled"]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Submission(BaseModel):
    """A stack to measure by the recipe of the service, and who the wafer is."""

    model_config = ConfigDict(extra="forbid")
    source: Annotated[
        str, Field(min_length=1, max_length=4096, description="path below a folder that the service reads")
    ]
    lot: Text | None = None
    wafer: Text | None = None
    slot: Text | None = None
    tool: Text | None = None


class JobAnswer(BaseModel):
    """A job: its state, how far it is, why it failed, and the figures of its map."""

    id: str
    name: str
    source: str
    state: State
    reason: str
    submitted: str
    stage: str = Field(description="what is being done, while it runs")
    share: float | None = Field(description="of the stack that is done, 0 to 1; null where it was given up")
    figures: dict[str, float | None]
    warnings: list[str]
    map: str | None = Field(description="address of the map, once there is one")
    view: str | None = Field(description="address of a page that shows it, also while it is written")


class Problem(BaseModel):
    """Why a request was not served, in one sentence."""

    detail: str


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a door."""
    return {code: {"model": Problem} for code in codes}

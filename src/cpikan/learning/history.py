"""History: what happened in a solve."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpikan.learning.stop_reason import StopReason
from cpikan.storage.atomic import write_text


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended, and the best held-out cost by then."""

    stage: str
    reason: StopReason
    iterations: int
    seconds: float
    heldout: float


@dataclass
class History:
    """What happened: one record every so often (stage, iteration, seconds, cost, heldout), and the ends of stages."""

    records: list[dict[str, Any]] = field(default_factory=list)
    ends: list[StageEnd] = field(default_factory=list)

    def save(self, path: Path | str) -> None:
        """Write one JSON object per line, whole or not at all."""
        lines = [json.dumps(record) for record in self.records]
        lines += [json.dumps({**vars(end), "reason": end.reason.name.lower()}) for end in self.ends]
        write_text(path, "\n".join(lines) + "\n")

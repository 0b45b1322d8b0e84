"""Events that tests listen to."""

from __future__ import annotations


class Heard:
    """Events that are remembered; cancels at the call of that number."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.stages: list[str] = []
        self.warnings: list[str] = []
        self._cancel_at = cancel_at

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        assert 0 <= done <= of or of == 0
        self.stages.append(stage)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def cancelled(self) -> bool:
        return self._cancel_at is not None and len(self.stages) >= self._cancel_at

"""What happened, one JSON object per line, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cpikan.errors import InputError, need
from cpikan.storage.atomic import plain


class TrainLog:
    """Lines appended to ``path``; ``keep_bytes`` of what is there stay (those up to the state that is gone on from)."""

    def __init__(self, path: Path, *, keep_bytes: int = 0, tensorboard: Path | None = None) -> None:
        if tensorboard is not None:
            need("tensorboard", "train", "[training] tensorboard = true")
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = "r+b" if path.exists() else "w+b"
        try:
            self._file = open(path, mode)  # noqa: SIM115 - open as long as the run
        except OSError as failure:
            raise InputError(f"cannot write the log {path}: {failure.strerror}") from failure
        self._file.truncate(keep_bytes)
        self._file.seek(0, 2)
        self._board = self._open_board(tensorboard) if tensorboard is not None else None

    @staticmethod
    def _open_board(folder: Path) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line; numbers also go to TensorBoard."""
        line = json.dumps(plain({"kind": kind, "step": step, **values}), allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    @property
    def bytes(self) -> int:
        """Return the length of the file in bytes."""
        return self._file.tell()

    def close(self) -> None:
        """End the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

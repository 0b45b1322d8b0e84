"""The frames of a run, remembered: a resumed run must not go on with others, nor a finished one pass for theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpikan.errors import ResumeError
from cpikan.pipeline.stacks.frame_hash import FrameHash, hash_frames
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.streaming.journal import Journal


class FrameRecord:
    """The hash of the frames while they are read, kept block by block in the journal.

    ``hashed`` goes on from what the journal knows. Files that nobody has written to since are trusted; of any others the
    rows that were read before are read again. Raises ResumeError where these rows have changed.
    """

    def __init__(self, stack: FrameStack, journal: Journal) -> None:
        self._stack, self._stamp = stack, stack.stamp()
        known = [block for step in journal.steps for block in step.get("blocks", ())]
        stamps = [step["stamp"] for step in journal.steps if "stamp" in step]
        trusted = self._stamp is not None and stamps[-1:] == [self._stamp]
        self.hashed = FrameHash(stack, known) if trusted or not known else FrameHash.verified(stack, known)

    def notes(self, rows: int) -> dict[str, Any]:
        """Say what the journal is to keep once the output of ``rows`` rows is written."""
        return {"blocks": self.hashed.untold(rows), "stamp": self._stamp}

    def hexdigest(self) -> str:
        """Return the hash of all frames; what no pass has read is read now."""
        self.hashed.read(self._stack, self._stack.shape[2])
        return self.hashed.hexdigest()


def check_finished(stack: FrameStack, document: Mapping[str, Any]) -> None:
    """Check that a finished output was made of these frames; they are read where their files were written to since.

    Raises ResumeError for others.
    """
    stamp, known = stack.stamp(), document["summary"].get("frames_xxh3")
    if stamp is not None and document["provenance"].get("stamp") == stamp:
        return
    if known is not None and hash_frames(stack) != known:
        raise ResumeError(
            f"cannot resume: the output was made of other frames than {stack.source} holds now; choose another name, or "
            "add --overwrite to make it anew"
        )

"""A fast hash of all pixels of a stack, taken while its rows are read in order, whatever the bands and the file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from cpikan.errors import ResumeError
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.streaming.journal import Journal

BLOCK_ROWS = 64
_READ_BYTES = 2**24


class FrameHash:
    """XXH3-64 of the pixels of a stack as they are read: native byte order, (L, K, H, W), frames in the order of the file.

    A block is 64 rows; its hash is that of the hashes of its frames, in order. The hash of the stack is that of its shape
    and type and of all block hashes. So it does not depend on bands, and goes on from the ``known`` blocks of an earlier
    run. One thread adds rows; any may ask for the blocks.
    """

    def __init__(self, stack: FrameStack, known: Sequence[str] = ()) -> None:
        self._shape, self._dtype, self._stored = stack.shape, stack.dtype, stack.stored_order
        self.blocks = list(known)
        self._told = len(known)
        self.next_row = min(BLOCK_ROWS * len(self.blocks), self._shape[2])
        self._states = [xxhash.xxh3_64() for _ in range(self._shape[0] * self._shape[1])]

    def add(self, start: int, frames: np.ndarray) -> None:
        """Take rows (L, K, n, W) from ``start`` on; those taken before are passed over, later ones follow the last."""
        begin, stop = self.next_row, start + frames.shape[2]
        if stop <= begin:
            return
        assert start <= begin, f"rows {begin} to {start} were never hashed"
        flat = frames.reshape(len(self._states), frames.shape[2], frames.shape[3])
        ordered = flat if self._stored is None else [flat[i] for i in self._stored]
        while begin < stop:
            end = min(stop, (begin // BLOCK_ROWS + 1) * BLOCK_ROWS)
            for state, frame in zip(self._states, ordered, strict=True):
                state.update(np.ascontiguousarray(frame[begin - start : end - start]).data)
            begin = self.next_row = end
            if end % BLOCK_ROWS == 0 or end == self._shape[2]:
                self._close_block()

    def read(self, stack: FrameStack, stop: int) -> None:
        """Read and take the rows up to ``stop`` that are not taken yet."""
        row_bytes = max(1, stack.input_bytes // self._shape[2])
        rows = max(1, _READ_BYTES // row_bytes)
        while self.next_row < stop:
            start = self.next_row
            self.add(start, stack.rows(start, min(start + rows, stop)))

    def untold(self, rows: int) -> list[str]:
        """Return the block hashes of rows below ``rows`` that were not returned before, for a journal."""
        done = len(self.blocks) if rows >= self._shape[2] else min(rows // BLOCK_ROWS, len(self.blocks))
        first, self._told = self._told, max(self._told, done)
        return self.blocks[first : self._told]

    @classmethod
    def verified(cls, stack: FrameStack, known: Sequence[str]) -> FrameHash:
        """Read again the blocks that an earlier run read; ResumeError names the rows where the frames differ now."""
        found = cls(stack)
        found.read(stack, min(BLOCK_ROWS * len(known), stack.shape[2]))
        for index, (one, two) in enumerate(zip(found.blocks, known, strict=True)):
            if one != two:
                raise ResumeError(
                    f"cannot resume: rows from {BLOCK_ROWS * index} on of the frames are not those that the run began with; "
                    "put the frames back, or run without --resume"
                )
        found._told = len(known)
        return found

    def hexdigest(self) -> str:
        """Return the hash of the stack in 16 hexadecimal digits, once all rows were taken."""
        assert self.next_row == self._shape[2], "not all rows were hashed"
        text = f"{self._shape} {self._dtype.name} {' '.join(self.blocks)}"
        return str(xxhash.xxh3_64_hexdigest(text.encode()))

    def _close_block(self) -> None:
        self.blocks.append(xxhash.xxh3_64_hexdigest(b"".join(state.digest() for state in self._states)))
        for state in self._states:
            state.reset()


def hash_frames(stack: FrameStack) -> str:
    """Read all frames of a stack and hash them, as `FrameHash` does."""
    found = FrameHash(stack)
    found.read(stack, stack.shape[2])
    return found.hexdigest()


def sha256_of_frames(stack: FrameStack) -> str:
    """Read all frames and compute the SHA-256 of their own SHA-256 digests (32 bytes each), wavelength by wavelength."""
    wavelengths, steps, height, width = stack.shape
    states = [hashlib.sha256() for _ in range(wavelengths * steps)]
    rows = max(1, _READ_BYTES // max(1, stack.input_bytes // height))
    for start in range(0, height, rows):
        band = stack.rows(start, min(start + rows, height))
        for state, frame in zip(states, band.reshape(len(states), -1, width), strict=True):
            state.update(np.ascontiguousarray(frame).data)
    return hashlib.sha256(b"".join(state.digest() for state in states)).hexdigest()


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

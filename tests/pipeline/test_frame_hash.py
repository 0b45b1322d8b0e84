"""The hash of the frames: of all bytes, whatever the bands, the file and the method; what it keeps a resumed run from."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import cpikan
from cpikan.errors import ResumeError
from cpikan.pipeline.stacks.frame_hash import BLOCK_ROWS, FrameHash, hash_frames
from cpikan.storage.writers.npy import NpyWriter
from independent_frames import Scene
from small_stacks import contents, folder_of, stack_of

FRAMES = np.random.default_rng(8).integers(0, 4000, (2, 3, 200, 11), dtype=np.uint16)


def plain_hash(frames: np.ndarray) -> str:
    """The definition, written down once more."""
    blocks = []
    for start in range(0, frames.shape[2], BLOCK_ROWS):
        block = frames[:, :, start : start + BLOCK_ROWS].reshape(-1, *frames[0, 0, start : start + BLOCK_ROWS].shape)
        digests = [xxhash.xxh3_64_digest(np.ascontiguousarray(frame).tobytes()) for frame in block]
        blocks.append(xxhash.xxh3_64_hexdigest(b"".join(digests)))
    return xxhash.xxh3_64_hexdigest(f"{frames.shape} {frames.dtype.name} {' '.join(blocks)}".encode())


@settings(max_examples=25)
@given(cuts=st.sets(st.integers(1, 199), max_size=7), halo=st.integers(0, 20))
def test_bands_and_their_halo_do_not_matter(cuts: set[int], halo: int) -> None:
    found = FrameHash(stack_of(FRAMES, steps_deg=(0, 90, 200)))
    edges = [0, *sorted(cuts), 200]
    for start, stop in itertools.pairwise(edges):
        first = max(0, start - halo)
        found.add(first, FRAMES[:, :, first : min(200, stop + halo)])
    assert found.hexdigest() == plain_hash(FRAMES)


def test_every_pixel_counts() -> None:
    for at in np.ndindex(2, 3, 3, 2):
        other = FRAMES.copy()
        other[at[0], at[1], 99 * at[2], 10 * at[3]] ^= 1
        assert plain_hash(other) != plain_hash(FRAMES)
        assert hash_frames(stack_of(other, steps_deg=(0, 90, 200))) == plain_hash(other)


@pytest.mark.parametrize("method", ["pixel", "hybrid"])
@pytest.mark.parametrize("waves", [1, 4])
def test_the_summary_has_the_hash_of_all_frames(wafer: Scene, tmp_path: Path, waves: int, method: str) -> None:
    frames = np.asarray(wafer.frames[:waves])
    summary = cpikan.reconstruct(
        stack_of(frames), tmp_path / "a.npy", method=method, band_rows=37, hash_frames=waves == 1, progress=False
    ).summary
    assert summary["frames_xxh3"] == plain_hash(frames)
    digests = b"".join(hashlib.sha256(frame.tobytes()).digest() for frame in frames.reshape(-1, *frames.shape[2:]))
    assert summary["frames_sha256"] == (hashlib.sha256(digests).hexdigest() if waves == 1 else None)


def _record(folder: Path, output: Path) -> dict[str, Any]:
    with cpikan.open_stack(folder) as stack:
        return cpikan.reconstruct(stack, output, method="pixel", overwrite=True, progress=False).document


def test_the_fingerprint_is_of_the_content(wafer: Scene, tmp_path: Path) -> None:
    frames = np.asarray(wafer.frames)
    one = folder_of(tmp_path / "one", frames)
    copy = folder_of(tmp_path / "copy", frames)
    os.utime(copy / "frames.npy", (1.5e9, 1.5e9))
    other = frames.copy()
    other[2, 1, 77, 45] ^= 1
    changed = folder_of(tmp_path / "changed", other)
    os.utime(changed / "frames.npy", ns=(os.stat(one / "frames.npy").st_mtime_ns,) * 2)
    found = [_record(folder, tmp_path / "o.npy")["provenance"]["fingerprint"] for folder in (one, copy, changed)]
    assert found[0] == found[1] != found[2]


class Stop(Exception):
    """Injected in place of a kill."""


def _stopped(folder: Path, output: Path, after: int, **options: Any) -> None:
    original, count = NpyWriter.write_rows, [0]

    def stopping(self: NpyWriter, start: int, rows: Any) -> None:
        count[0] += 1
        if count[0] > after:
            raise Stop
        original(self, start, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NpyWriter, "write_rows", stopping)
        with pytest.raises(Stop), cpikan.open_stack(folder) as stack:
            cpikan.reconstruct(stack, output, method="pixel", band_rows=24, progress=False, **options)


def _resumed(folder: Path, output: Path) -> dict[str, Any]:
    with cpikan.open_stack(folder) as stack:
        return cpikan.reconstruct(stack, output, method="pixel", band_rows=40, resume=True, progress=False).summary


def test_a_resumed_run_has_the_hash_of_a_whole_one(wafer: Scene, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", np.asarray(wafer.frames))
    _stopped(folder, tmp_path / "o.npy", 5)
    assert _resumed(folder, tmp_path / "o.npy")["frames_xxh3"] == plain_hash(np.asarray(wafer.frames))


def test_a_copy_of_the_frames_goes_on_and_changed_ones_do_not(wafer: Scene, tmp_path: Path) -> None:
    """Row 30 was read before the stop and is none of the sampled ones: only reading it again shows the change."""
    frames = np.asarray(wafer.frames)
    folder = folder_of(tmp_path / "f", frames)
    _stopped(folder, tmp_path / "o.npy", 5)
    stat, other = os.stat(folder / "frames.npy"), frames.copy()
    other[0, 2, 30, 17] ^= 1
    np.save(folder / "frames.npy", other)
    os.utime(folder / "frames.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ResumeError, match=r"rows from 0 on of the frames are not those"):
        _resumed(folder, tmp_path / "o.npy")
    np.save(folder / "frames.npy", frames)
    assert _resumed(folder, tmp_path / "o.npy")["already_finished"] is False
    with cpikan.open_stack(folder) as stack:
        cpikan.reconstruct(stack, tmp_path / "w.npy", method="pixel", progress=False)
    assert list(contents(tmp_path, "o").values()) == list(contents(tmp_path, "w").values())


def test_a_finished_output_passes_for_its_own_frames_only(wafer: Scene, tmp_path: Path) -> None:
    frames = np.asarray(wafer.frames)
    folder = folder_of(tmp_path / "f", frames)
    _record(folder, tmp_path / "o.npy")
    np.save(folder / "frames.npy", frames)
    assert _resumed(folder, tmp_path / "o.npy")["already_finished"] is True
    other = frames.copy()
    other[3, 3, 61, 5] ^= 1
    np.save(folder / "frames.npy", other)
    with pytest.raises(ResumeError, match="made of other frames"):
        _resumed(folder, tmp_path / "o.npy")


def test_nothing_is_read_twice_where_the_files_were_left_alone(wafer: Scene, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", np.asarray(wafer.frames))
    _record(folder, tmp_path / "o.npy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameHash, "read", None)
        assert _resumed(folder, tmp_path / "o.npy")["already_finished"] is True

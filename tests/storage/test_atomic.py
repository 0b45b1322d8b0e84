from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.storage.atomic import StorageFull, check_disk_space, free_bytes, full_disk_named, write_json, write_text


def test_json_is_strict_and_plain(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(
        path, {"a": np.float32(1.5), "b": [np.nan, np.inf, 2], "c": (np.int64(3),), "d": np.arange(2), "µ": path}
    )

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert found == {"a": 1.5, "b": [None, None, 2], "c": [3], "d": [0, 1], "µ": str(path)}


def test_a_kill_before_the_rename_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    write_text(path, "old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "new")
    assert path.read_text() == "old"
    write_text(path, "newer")  # the leftover is no obstacle
    assert path.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_the_order_is_data_name_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        events.append(f"fsync {name}")
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append("replace")
        replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file is flushed")
    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    write_text(tmp_path / "a.json", "x")
    assert events == ["fsync a.json.tmp", "replace", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_the_old_text(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageFull, match=r"disk full while writing .*out\.json: free 1 MiB and run again with --resume"
    ):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_keep_their_name(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_named(tmp_path, 1):
        raise PermissionError(errno.EACCES, "no")


def test_the_space_that_is_lacking_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFull) as caught, full_disk_named(tmp_path, free_bytes(tmp_path) + 500 * 2**20):
        raise OSError(errno.ENOSPC, "full")
    # other programs write meanwhile: within 100 MiB of the 500 that are lacking
    assert int(str(caught.value).split("free ")[1].split()[0]) == pytest.approx(500, abs=100)
    assert isinstance(caught.value, InputError)


def test_disk_space_is_checked_beforehand(tmp_path: Path) -> None:
    check_disk_space(tmp_path / "not" / "there" / "out.npy", 1)
    with pytest.raises(InputError, match=r"out\.npy: \d+ MiB needed, \d+ MiB free; free \d+ MiB or"):
        check_disk_space(tmp_path / "out.npy", 2**60)

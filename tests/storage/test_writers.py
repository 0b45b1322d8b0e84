"""Every format keeps the same promises: one class of tests, inherited by each."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import StorageFull
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers import preallocated
from cpikan.storage.writers.layout import QUANTITIES, open_writer, output_paths, partial_paths, required_bytes

NAMES = ("height_nm", "flags", "sigma_nm", "component", "modulation")
TYPES = {name: QUANTITIES[name].dtype for name in NAMES}
ATTRIBUTES = {"pixel_um": 2.5, "settings": {"method": "pixel", "range_nm": np.float64(27000.0)}, "none": float("nan")}


def maps(shape: tuple[int, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Random maps of every quantity with holes."""
    rng = np.random.default_rng(seed)
    holes = rng.random(shape) < 0.1
    made: dict[str, np.ndarray] = {}
    for name, dtype in TYPES.items():
        if dtype.kind == "f":
            made[name] = np.where(holes, np.nan, rng.normal(0, 100, shape)).astype(dtype)
        else:
            made[name] = rng.integers(0, 50, shape).astype(dtype)
    return made


def cut(data: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: array[start:stop] for name, array in data.items()}


def fresh(path: Path, shape: tuple[int, int]) -> MapWriter:
    return open_writer(path, shape, TYPES, attributes=ATTRIBUTES, resume=False)


def resumed(path: Path, shape: tuple[int, int]) -> MapWriter:
    return open_writer(path, shape, TYPES, attributes=ATTRIBUTES, resume=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def same(found: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> None:
    assert set(found) == set(data)
    for name, array in data.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A real full disk in miniature: no file may grow or be written beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


# Writes bands for ever, the last one again and again, telling after each sync; the parent kills it.
_ENDLESS = """
import sys, pathlib
sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1]).parent)]
{prelude}
import test_writers as t
path, height, width = pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
data = t.maps((height, width))
writer = t.fresh(path, (height, width))
start = 0
while True:
    writer.write_rows(start, t.cut(data, start, start + 512))
    writer.sync()
    print(min(start + 512, height), flush=True)
    if start + 512 < height - 1:
        start += 512
"""


class WriterContract:
    """What MapWriter promises."""

    suffix: str
    prelude = ""  # of a process that writes: a format that is not in the table
    kills = (1, 5)  # lines of it: mid-run, and while a written band is written again

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """All maps by a reader that shares no code with the project."""
        raise NotImplementedError

    def test_is_a_map_writer(self, tmp_path: Path) -> None:
        writer = fresh(tmp_path / f"out{self.suffix}", (3, 4))
        assert isinstance(writer, MapWriter)
        assert writer.quantities == NAMES
        writer.close()

    def test_an_independent_reader_sees_what_was_written(self) -> None:
        @settings(max_examples=8, deadline=None)
        @given(st.data())
        def check(data: st.DataObject) -> None:  # inside: hypothesis wants one class per property
            side = st.one_of(st.sampled_from([1, 511, 512, 513]), st.integers(1, 1300))
            self.write_in_bands((data.draw(side, "height"), data.draw(side, "width")), data)

        check()

    def write_in_bands(self, shape: tuple[int, int], data: st.DataObject) -> None:
        made = maps(shape, data.draw(st.integers(0, 9), "seed"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"out{self.suffix}")
            writer = fresh(path, shape)
            align = writer.row_align
            marks = data.draw(st.sets(st.integers(1, max(1, shape[0] // align)), max_size=4), "cuts")
            edges = sorted({0, shape[0], *(mark * align for mark in marks if mark * align < shape[0])})
            bands = data.draw(st.permutations(list(itertools.pairwise(edges))), "bands")
            for start, stop in bands:
                buffers = {name: array.copy() for name, array in cut(made, start, stop).items()}
                writer.write_rows(start, buffers)
                for buffer in buffers.values():
                    buffer[:] = 7  # the caller may reuse its arrays at once
            assert not path.exists()
            writer.finish()
            same(self.read(path), made)
            assert not any(item.exists() for item in partial_paths(path))

    def test_a_resumed_output_is_byte_identical(self, tmp_path: Path) -> None:
        shape = (1200, 700)
        made = maps(shape)
        for name in ("once", "twice"):
            (tmp_path / name).mkdir()
        whole = tmp_path / "once" / f"out{self.suffix}"
        writer = fresh(whole, shape)
        writer.write_rows(0, made)
        writer.finish()
        parts = tmp_path / "twice" / f"out{self.suffix}"
        writer = fresh(parts, shape)
        writer.write_rows(512, cut(made, 512, 1024))
        writer.sync()
        writer.close()
        writer = resumed(parts, shape)
        writer.write_rows(1024, cut(made, 1024, 1200))
        writer.write_rows(0, cut(made, 0, 512))
        writer.finish()
        assert content(tmp_path / "twice") == content(tmp_path / "once")

    def test_a_killed_run_resumes_to_the_same_bytes(self, tmp_path: Path) -> None:
        shape = (1537, 300)
        made = maps(shape)
        (tmp_path / "clean").mkdir()
        writer = fresh(tmp_path / "clean" / f"out{self.suffix}", shape)
        writer.write_rows(0, made)
        writer.finish()
        for lines in self.kills:
            folder = tmp_path / f"killed{lines}"
            folder.mkdir()
            path = folder / f"out{self.suffix}"
            arguments = [str(Path(__file__).parent), str(path), *map(str, shape)]
            with subprocess.Popen(
                [sys.executable, "-c", _ENDLESS.replace("{prelude}", self.prelude), *arguments], stdout=subprocess.PIPE
            ) as child:
                assert child.stdout is not None
                safe = [int(child.stdout.readline()) for _ in range(lines)][-1]
                child.kill()
            assert not path.exists()
            writer = resumed(path, shape)
            start = min(safe, 1024) // 512 * 512
            writer.write_rows(start, cut(made, start, shape[0]))
            writer.finish()
            assert content(folder) == content(tmp_path / "clean")

    def test_resume_refuses_what_does_not_belong(self, tmp_path: Path) -> None:
        path = tmp_path / f"out{self.suffix}"
        with pytest.raises(ResumeError, match="missing"):
            resumed(path, (600, 30))
        assert list(tmp_path.iterdir()) == []  # never creates
        writer = fresh(path, (600, 30))
        writer.write_rows(0, maps((600, 30)))
        writer.sync()
        writer.close()
        before = content(tmp_path)
        for shape in ((600, 31), (599, 30), (30, 600)):
            with pytest.raises(ResumeError):
                resumed(path, shape)
        assert content(tmp_path) == before  # never truncates

    def test_rows_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        writer = fresh(tmp_path / f"out{self.suffix}", (600, 30))
        made = maps((600, 30))
        with pytest.raises(ValueError, match="ranges"):
            writer.write_rows(512, cut(made, 0, 100))  # past the end
        with pytest.raises(ValueError, match="given for"):
            writer.write_rows(0, {"height_nm": made["height_nm"]})
        with pytest.raises(ValueError, match="shape"):
            writer.write_rows(0, {name: array[:, :29] for name, array in made.items()})
        with pytest.raises(ValueError, match="type"):
            writer.write_rows(0, made | {"flags": made["height_nm"]})
        if writer.row_align > 1:
            with pytest.raises(ValueError, match="multiples"):
                writer.write_rows(1, cut(made, 1, 600))
            with pytest.raises(ValueError, match="multiples"):
                writer.write_rows(0, cut(made, 0, 100))
        writer.close()

    def test_a_full_disk_leaves_a_resumable_output(self, tmp_path: Path) -> None:
        shape = (1024, 600)
        made = maps(shape)
        path = tmp_path / f"out{self.suffix}"
        writer = fresh(path, shape)
        writer.write_rows(0, cut(made, 0, 512))
        writer.sync()
        with file_size_limit(2**15), pytest.raises(StorageFull, match=r"disk full while .* free \d+ MiB .* --resume"):
            writer.write_rows(512, cut(made, 512, 1024))
        writer.close()
        writer = resumed(path, shape)
        writer.write_rows(512, cut(made, 512, 1024))
        writer.finish()
        same(self.read(path), made)

    def test_sync_flushes_every_file_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc to see which file is flushed")
        flushed: set[Path] = set()

        def record(descriptor: int) -> None:
            flushed.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

        monkeypatch.setattr(os, "fsync", record)
        monkeypatch.setattr(preallocated, "_sync_data", record)
        shape = (1024, 40)
        writer = fresh(tmp_path / f"out{self.suffix}", shape)
        writer.write_rows(0, cut(maps(shape), 0, 512))
        writer.sync()
        assert flushed >= {tmp_path, *tmp_path.rglob("*")}
        flushed.clear()
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
        writer.write_rows(512, cut(maps(shape), 512, 1024))
        writer.sync()
        changed = {file for file in tmp_path.rglob("*") if file.stat().st_mtime_ns != before.get(file)}
        assert changed
        assert flushed >= changed
        writer.close()

    def test_a_new_run_replaces_a_stale_partial(self, tmp_path: Path) -> None:
        path = tmp_path / f"out{self.suffix}"
        fresh(path, (700, 9)).close()
        writer = fresh(path, (5, 6))
        writer.write_rows(0, maps((5, 6)))
        writer.finish()
        same(self.read(path), maps((5, 6)))

    def test_one_quantity(self, tmp_path: Path) -> None:
        path = tmp_path / f"out{self.suffix}"
        made = {"height_nm": maps((20, 30))["height_nm"]}
        writer = open_writer(path, (20, 30), {"height_nm": TYPES["height_nm"]}, attributes={}, resume=False)
        writer.write_rows(0, made)
        writer.finish()
        same(self.read(path), made)

    def test_required_bytes_is_an_upper_estimate(self, tmp_path: Path) -> None:
        shape = (700, 600)
        path = tmp_path / f"out{self.suffix}"
        writer = fresh(path, shape)
        rng = np.random.default_rng(1)  # random bytes: nothing compresses
        noise = {name: np.frombuffer(rng.bytes(420000 * t.itemsize), t).reshape(shape) for name, t in TYPES.items()}
        writer.write_rows(0, noise)
        writer.finish()
        assert sum(map(len, content(tmp_path).values())) <= required_bytes(path, shape, NAMES)

    def test_all_files_of_an_output_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / f"out{self.suffix}"
        writer = fresh(path, (5, 6))
        assert set(partial_paths(path, NAMES)) == set(tmp_path.iterdir())
        writer.write_rows(0, maps((5, 6)))
        writer.finish()
        assert set(output_paths(path, NAMES)) == set(tmp_path.iterdir())
        assert set(output_paths(path)) >= set(tmp_path.iterdir())


class PreallocatedContract(WriterContract):
    """What the formats promise whose files have their size from the start."""

    def test_no_space_at_all_is_told_at_once_and_leaves_nothing(self, tmp_path: Path) -> None:
        with file_size_limit(2**12), pytest.raises(StorageFull):
            fresh(tmp_path / f"out{self.suffix}", (100, 100))
        assert list(tmp_path.iterdir()) == []


class TestNpyWriter(PreallocatedContract):
    suffix = ".npy"

    def read(self, path: Path) -> dict[str, np.ndarray]:
        names = {"height_nm": path} | {
            name: path.with_name(f"{path.stem}.{name.removesuffix('_nm')}.npy") for name in NAMES if name != "height_nm"
        }
        return {name: np.load(file, allow_pickle=False) for name, file in names.items() if file.exists()}

    def test_the_file_is_what_numpy_would_have_written(self, tmp_path: Path) -> None:
        made = maps((5, 6))
        np.save(tmp_path / "oracle.npy", made["height_nm"])
        writer = fresh(tmp_path / "out.npy", (5, 6))
        writer.write_rows(0, made)
        writer.finish()
        assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "oracle.npy").read_bytes()

    def test_a_kill_between_the_renames_resumes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = maps((5, 6))
        path = tmp_path / "out.npy"
        writer = fresh(path, (5, 6))
        writer.write_rows(0, made)
        done: list[Path] = []
        replace = os.replace

        def replace_twice(source: Path, target: Path) -> None:
            if len(done) == 2:
                raise KeyboardInterrupt
            replace(source, target)
            done.append(target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_twice)
            with pytest.raises(KeyboardInterrupt):
                writer.finish()
        assert path not in done  # the height comes last
        resumed(path, (5, 6)).finish()
        same(self.read(path), made)

    def test_short_writes_are_continued(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:100], offset))
        made = maps((50, 60))
        writer = fresh(tmp_path / "out.npy", (50, 60))
        writer.write_rows(0, made)
        writer.finish()
        same(self.read(tmp_path / "out.npy"), made)

    def test_without_fallocate_the_file_is_still_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unsupported(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "not supported")

        monkeypatch.setattr(os, "posix_fallocate", unsupported)
        writer = fresh(tmp_path / "out.npy", (50, 60))
        assert (tmp_path / "out.npy.partial").stat().st_size == 128 + 50 * 60 * 4
        writer.close()


class TestTiffWriter(PreallocatedContract):
    suffix = ".tif"

    def read(self, path: Path) -> dict[str, np.ndarray]:
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff
            return {json.loads(page.description)["quantity"]: page.asarray() for page in file.pages}

    def test_plain_imread_gives_the_height(self, tmp_path: Path) -> None:
        made = maps((513, 700))
        writer = fresh(tmp_path / "out.tiff", (513, 700))
        writer.write_rows(0, made)
        writer.finish()
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tiff"), made["height_nm"])
        for index, name in enumerate(NAMES):
            np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tiff", key=index), made[name])

    def test_attributes_and_scale(self, tmp_path: Path) -> None:
        writer = fresh(tmp_path / "out.tif", (5, 6))
        writer.write_rows(0, maps((5, 6)))
        writer.finish()
        with tifffile.TiffFile(tmp_path / "out.tif") as file:
            page = file.pages.first
            assert json.loads(page.description)["attributes"] == {
                "pixel_um": 2.5,
                "settings": {"method": "pixel", "range_nm": 27000.0},
                "none": None,
            }
            over, under = page.tags["XResolution"].value
            assert over / under == pytest.approx(4000)  # pixels per cm at 2.5 um
            assert page.tags["ResolutionUnit"].value == 3  # centimetre
            assert [series.shape for series in file.series] == [(5, 6)] * len(NAMES)
            assert page.tile == (512, 512)
            assert page.compression == 1


class TestZarrWriter(WriterContract):
    suffix = ".zarr"

    def read(self, path: Path) -> dict[str, np.ndarray]:
        root = zarr.open_group(path, mode="r")
        return {name: np.asarray(root[f"{name}/0"][:]) for name in root.group_keys() if name != "OME"}

    def test_metadata(self, tmp_path: Path) -> None:
        writer = fresh(tmp_path / "out.zarr", (5, 6))
        writer.write_rows(0, maps((5, 6)))
        writer.finish()
        root = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())
        assert root["attributes"]["settings"] == {"method": "pixel", "range_nm": 27000.0}
        group = json.loads((tmp_path / "out.zarr" / "height_nm" / "zarr.json").read_text())
        (multiscale,) = group["attributes"]["ome"]["multiscales"]
        assert group["attributes"]["ome"]["version"] == "0.5"
        assert [axis["unit"] for axis in multiscale["axes"]] == ["micrometer", "micrometer"]
        assert multiscale["datasets"] == [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.5, 2.5]}]}
        ]

    def test_rows_equal_to_the_fill_value_are_stored(self, tmp_path: Path) -> None:
        writer = fresh(tmp_path / "out.zarr", (512, 600))
        writer.write_rows(0, {name: np.full((512, 600), QUANTITIES[name].fill, TYPES[name]) for name in NAMES})
        writer.finish()
        for name in NAMES:
            assert (tmp_path / "out.zarr" / name / "0" / "c" / "0" / "0").stat().st_size > 100

    def test_unfinished_shards_of_a_killed_run_are_swept(self, tmp_path: Path) -> None:
        path = tmp_path / "out.zarr"
        writer = fresh(path, (5, 6))
        writer.write_rows(0, maps((5, 6)))
        stray = tmp_path / "out.zarr.partial" / "flags" / "0" / "c" / "0" / "0.abc.partial"
        stray.write_bytes(b"half")
        resumed(path, (5, 6))
        assert not stray.exists()
        stray.write_bytes(b"half")
        writer.finish()
        assert not list(path.rglob("*.partial"))

    def test_an_existing_output_is_never_replaced(self, tmp_path: Path) -> None:
        """A folder cannot be replaced in one step: the old one stays until the caller takes it away."""
        (tmp_path / "out.zarr").mkdir()
        writer = fresh(tmp_path / "out.zarr", (5, 6))
        writer.write_rows(0, maps((5, 6)))
        with pytest.raises(InputError, match="exists already"):
            writer.finish()


def test_a_bad_request_says_what_is_allowed(tmp_path: Path) -> None:
    def ask(name: str, quantities: dict[str, object], shape: tuple[int, int] = (5, 6)) -> None:
        open_writer(tmp_path / name, shape, quantities, attributes={}, resume=False)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"out\.png.*\.npy, \.tif, \.tiff, \.zarr"):
        ask("out.png", TYPES)
    with pytest.raises(InputError, match=r"no/such.*does not exist"):
        ask("no/such/out.npy", TYPES)
    with pytest.raises(InputError, match="did you mean 'height_nm'"):
        ask("out.npy", {"height": np.dtype("f4")})
    with pytest.raises(InputError, match="float64 cannot be written: use float32"):
        ask("out.npy", {"height_nm": np.dtype("f8")})
    with pytest.raises(InputError, match="lack height_nm"):
        ask("out.npy", {"flags": np.dtype("u1")})
    with pytest.raises(InputError, match="at least 1"):
        ask("out.npy", TYPES, (0, 6))
    assert list(tmp_path.iterdir()) == []

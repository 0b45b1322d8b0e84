"""The kinds of files that `fuzz` damages: how a whole one is made, which of its files are damaged, and how it is read."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cpikan.cli import main

STEPS = "0,90,180,270"
WAVES = ("5um", "5.5um", "6.05um")
_METROPRO, _METROPRO_BYTES = 0x881B036F, 834


@dataclass(frozen=True)
class Kind:
    """A kind of file. ``make(folder)`` writes whole ones; ``patterns`` find the files of it that are damaged; ``arguments`` are
    those of the command line, run in the folder. ``may_leave``: a refusal may leave files (there were some to go on with).
    ``same``: where it is read, the output has to be that of the whole file, for what is damaged holds no measurement.
    """

    name: str
    make: Callable[[Path], None]
    patterns: Sequence[str]
    arguments: Sequence[str]
    weight: int = 4
    may_leave: bool = False
    same: bool = False

    def targets(self, work: Path) -> list[str]:
        """List the files that may be damaged."""
        return sorted({str(path.relative_to(work)) for p in self.patterns for path in work.glob(p) if path.is_file()})

    def read(self, work: Path) -> int:
        """Run the command line on what lies in ``work``."""
        os.chdir(work)
        return main(list(self.arguments))

    def right(self, work: Path) -> bool:
        """Tell whether the output is the one that whole files give, where it has to be."""
        return not self.same or (work / "o.npy").read_bytes() == (work / "right.npy").read_bytes()


def frames(waves: int = 1) -> np.ndarray:
    """Frames (L, 4, 40, 56) of a wavy slope, uint8."""
    y, x = np.mgrid[:40, :56]
    height = 300 * np.sin(x / 9) + 4.0 * x + 3.0 * y
    draw = np.random.default_rng(11)
    shots = [
        [
            110 + 80 * np.cos(4 * np.pi * height / w + np.deg2rad(s)) + draw.normal(0, 1.5, height.shape)
            for s in (0, 90, 180, 270)
        ]
        for w in (5000.0, 5500.0, 6050.0)[:waves]
    ]
    return np.rint(shots).clip(0, 255).astype(np.uint8)


def make_inputs(folder: Path, kinds: Sequence[Kind]) -> None:
    """Write the whole files of every kind into a folder of its own, and read each once: what is compiled is compiled now."""
    for kind in kinds:
        place = folder / kind.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        kind.make(place)
        probe = folder / "probe"
        shutil.rmtree(probe, ignore_errors=True)
        shutil.copytree(place, probe)
        before = Path.cwd()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
            code = kind.read(probe)
        os.chdir(before)
        if code:
            raise SystemExit(f"whole files of {kind.name} are not read: {told.getvalue()}")
        if kind.same:
            shutil.copy(probe / "o.npy", place / "right.npy")


def _npy(folder: Path) -> None:
    np.save(folder / "f.npy", frames())


def _npy_several(folder: Path) -> None:
    np.save(folder / "f.npy", frames(2))
    (folder / "f.toml").write_text(
        'wavelengths = ["5 um", "5.5 um"]\nphase_steps = [[0, 90, 180, 270], [0, 90, 180, 270]]\n'
        'steps = "nominal"\npixel_size = "5 um"\nbit_depth = 8\n'
    )


def _tif(compression: str | None, **more: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import tifffile

        tifffile.imwrite(folder / "f.tif", frames()[0], photometric="minisblack", compression=compression, **more)

    return make


def _images(suffix: str, dtype: str = "uint8") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from PIL import Image

        (folder / "s").mkdir()
        for i, frame in enumerate(frames()[0]):
            Image.fromarray(frame.astype(dtype) * (200 if dtype == "uint16" else 1)).save(
                folder / "s" / f"f{i}{suffix}"
            )

    return make


def _zarr(**more: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import zarr

        array = zarr.create_array(folder / "f.zarr", shape=(4, 40, 56), dtype="uint8", **more)
        array[...] = frames()[0]

    return make


def _hdf5(**more: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import h5py

        with h5py.File(folder / "f.h5", "w") as file:
            file.create_dataset("d", data=frames()[0], **more)

    return make


def _hdf5_labelled(folder: Path) -> None:
    """Names of axes are texts, which lie in a heap of the file."""
    import h5py

    with h5py.File(folder / "f.h5", "w") as file:
        dataset = file.create_dataset("d", data=frames().swapaxes(0, 1))
        for axis, name in zip(dataset.dims, ("step", "wavelength", "y", "x"), strict=True):
            axis.label = name


def _fits(unit: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from astropy.io import fits

        shots = frames()[0]
        units = {
            "cube": [fits.PrimaryHDU(shots.astype(np.uint16))],
            "images": [fits.PrimaryHDU(), *(fits.ImageHDU(shot) for shot in shots)],
            "packed": [fits.PrimaryHDU(), *(fits.CompImageHDU(shot) for shot in shots)],
        }
        fits.HDUList(units[unit]).writeto(folder / "f.fits")

    return make


def _matlab(compressed: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import scipy.io

        shots = np.moveaxis(frames()[0], 0, -1)
        scipy.io.savemat(folder / "f.mat", {"note": "run 3", "f": shots}, do_compression=compressed)

    return make


def _npz(folder: Path) -> None:
    np.savez_compressed(folder / "f.npz", f=frames())


def _npz_plain(folder: Path) -> None:
    np.savez(folder / "f.npz", f=frames())


def _pgm(plain: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "s").mkdir()
        for i, frame in enumerate(frames()[0]):
            pixels = " ".join(map(str, frame.ravel())).encode() if plain else frame.tobytes()
            (folder / "s" / f"f{i}.pgm").write_bytes(b"P%d\n# shot\n56 40\n255\n" % (2 if plain else 5) + pixels)

    return make


def _video(codec: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import av

        with av.open(str(folder / "f.avi"), "w") as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 56, 40, "gray"
            for shot in frames()[0]:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="gray")))
            file.mux(stream.encode())

    return make


def _buckets(folder: Path) -> None:
    head = bytearray(_METROPRO_BYTES)
    shots = frames()[0].astype(">u2")
    fields = ((0, ">IHI", _METROPRO, 1, _METROPRO_BYTES), (52, ">HHHHI", 56, 40, 4, 255, 2 * shots.size))
    for offset, form, *values in fields:
        struct.pack_into(form, head, offset, *values)
    (folder / "f.dat").write_bytes(bytes(head) + shots.tobytes())


def _datx(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "f.datx", "w") as file:
        file.create_dataset("Data/Intensity/{1}", data=frames()[0].astype("i4")).attrs["No Data"] = 2**31 - 1


def _told(folder: Path) -> None:
    """Bare pixels in sub-folders, with every key that says how frames lie and what is done to them."""
    for name, shots in zip(("5um", "5.5um"), frames(2), strict=True):
        (folder / "s" / name).mkdir(parents=True)
        for i, shot in enumerate(shots):
            (folder / "s" / name / f"f{i}.bin").write_bytes(b"head" + shot.tobytes())
    np.save(folder / "dark.npy", np.full((40, 56), 3, np.uint8))
    np.save(folder / "flat.npy", np.full((2, 40, 56), 200, np.uint8))
    (folder / "s" / "acquisition.toml").write_text(
        'wavelengths = ["5 um", "5.5 um"]\nphase_steps = [0, 90, 180, 270]\npattern = "{wavelength}/f{step}.bin"\n'
        'raw = {pixel = "Mono8", width = 56, height = 40, header = 4}\nrotate = 90\nflip = "vertical"\n'
        'dark = "../dark.npy"\nflat = ["../flat.npy"]\npixel_size = ["5 um", "6 um"]\n'
    )


def _metropro(folder: Path) -> None:
    rows, columns = 40, 56
    head = bytearray(_METROPRO_BYTES)
    fields = {
        0: (">I", _METROPRO),
        4: (">H", 1),
        6: (">I", _METROPRO_BYTES),
        68: (">HH", columns, rows),
        72: (">I", 4 * rows * columns),
        164: (">f", 0.5),
        168: (">f", 632.8e-9),
        176: (">f", 1.0),
        184: (">f", 5e-6),
        218: (">h", 1),
    }
    for offset, (form, *values) in fields.items():
        struct.pack_into(form, head, offset, *values)
    codes = np.arange(rows * columns) * 37
    (folder / "m.dat").write_bytes(bytes(head) + codes.astype(">i4").tobytes())


def _map(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        np.save(folder / "f.npy", frames())
        _quiet(["reconstruct", str(folder / "f.npy"), "-o", str(folder / f"m{suffix}"), *_ONE, "--all"])
        np.save(folder / "t.npy", np.zeros((40, 56)))

    return make


def _quiet(arguments: Sequence[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        code = main(list(arguments))
    if code:
        raise SystemExit(told.getvalue())


def _mask(folder: Path) -> None:
    np.save(folder / "f.npy", frames())
    np.save(folder / "mask.npy", np.ones((40, 56), bool))


def _killed(folder: Path) -> None:
    """What a run leaves that was killed before its output got its name."""
    from cpikan.pipeline.reconstruction.workspace import Workspace

    np.save(folder / "f.npy", frames())
    os.utime(folder / "f.npy", (10**9, 10**9))
    child = os.fork()
    if child == 0:
        Workspace.replace_old = lambda self: os._exit(0)  # type: ignore[method-assign]
        os.chdir(folder)
        _quiet(["reconstruct", "f.npy", "-o", "o.npy", *_ONE, "--remove", "tilt"])
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("the run was not killed where it should be")


def _finished(folder: Path) -> None:
    np.save(folder / "f.npy", frames())
    os.utime(folder / "f.npy", (10**9, 10**9))
    before = Path.cwd()
    os.chdir(folder)
    _quiet(["reconstruct", "f.npy", "-o", "o.npy", *_ONE, "--method", "pixel"])
    os.chdir(before)


def _model(folder: Path) -> None:
    import torch

    from cpikan.images.features import FeatureSpec
    from cpikan.images.model_file import ModelCard, save_model
    from cpikan.images.models.kinds import build_model

    np.save(folder / "f.npy", frames(3))
    features = FeatureSpec()
    torch.manual_seed(3)
    network = build_model("unet", {"channels_in": features.channels, "channels_out": 3, "widths": [4, 8]})
    save_model(network, ModelCard.of(network, features), folder / "net")


def _checkpoint(folder: Path) -> None:
    _quiet([*_SOLVE, "--checkpoint", str(folder / "ck"), "--seconds", "1"])


_ONE = ("--wavelength", "5um", "--phase-steps", STEPS)
_OUT = ("-o", "o.npy")
_SOLVE = ("solve", "poisson-2d", "--seed", "3")
_FRAMES = ("reconstruct", "f.npy", *_OUT, *_ONE)


def _frames_of(name: str) -> tuple[str, ...]:
    return ("reconstruct", name, *_OUT, *_ONE)


KINDS: tuple[Kind, ...] = (
    Kind("frames-npy", _npy, ["f.npy"], _FRAMES),
    Kind("acquisition-toml", _npy_several, ["f.toml"], ("reconstruct", "f.npy", *_OUT, "--method", "pixel")),
    Kind("frames-tif", _tif(None), ["f.tif"], _frames_of("f.tif")),
    Kind("frames-tif-deflate", _tif("zlib", tile=(16, 16)), ["f.tif"], _frames_of("f.tif")),
    Kind("frames-tif-lzw", _tif("lzw", predictor=True), ["f.tif"], _frames_of("f.tif"), 2),
    Kind("frames-png", _images(".png"), ["s/*"], _frames_of("s")),
    Kind("frames-png-16", _images(".png", "uint16"), ["s/*"], _frames_of("s")),
    Kind("frames-bmp", _images(".bmp"), ["s/*"], _frames_of("s")),
    Kind("frames-jpg", _images(".jpg"), ["s/*"], _frames_of("s"), 2),
    Kind("frames-zarr", _zarr(chunks=(1, 16, 56)), ["f.zarr/zarr.json", "f.zarr/c/**/*"], _frames_of("f.zarr")),
    Kind(
        "frames-zarr-sharded",
        _zarr(chunks=(1, 8, 56), shards=(1, 16, 56)),
        ["f.zarr/zarr.json", "f.zarr/c/**/*"],
        _frames_of("f.zarr"),
    ),
    Kind(
        "frames-zarr-2", _zarr(chunks=(1, 16, 56), zarr_format=2), ["f.zarr/.z*", "f.zarr/*"], _frames_of("f.zarr"), 2
    ),
    Kind("frames-hdf5", _hdf5(), ["f.h5"], _frames_of("f.h5::/d")),
    Kind("frames-hdf5-labelled", _hdf5_labelled, ["f.h5"], _frames_of("f.h5::/d")),
    Kind(
        "frames-hdf5-gzip",
        _hdf5(chunks=(1, 16, 56), compression="gzip", shuffle=True),
        ["f.h5"],
        _frames_of("f.h5::/d"),
    ),
    Kind("frames-fits", _fits("cube"), ["f.fits"], _frames_of("f.fits")),
    Kind("frames-fits-images", _fits("images"), ["f.fits"], _frames_of("f.fits"), 2),
    Kind("frames-fits-packed", _fits("packed"), ["f.fits"], _frames_of("f.fits"), 2),
    Kind("frames-matlab", _matlab(False), ["f.mat"], _frames_of("f.mat"), 2),
    Kind("frames-matlab-packed", _matlab(True), ["f.mat"], _frames_of("f.mat"), 2),
    Kind("frames-npz", _npz_plain, ["f.npz"], _frames_of("f.npz"), 2),
    Kind("frames-npz-packed", _npz, ["f.npz"], _frames_of("f.npz"), 2),
    Kind("frames-pgm", _pgm(False), ["s/*"], _frames_of("s"), 2),
    Kind("frames-pgm-plain", _pgm(True), ["s/*"], _frames_of("s"), 2),
    Kind("frames-video", _video("rawvideo"), ["f.avi"], _frames_of("f.avi"), 2),
    Kind("frames-video-ffv1", _video("ffv1"), ["f.avi"], _frames_of("f.avi"), 2),
    Kind("frames-metropro", _buckets, ["f.dat"], _frames_of("f.dat"), 2),
    Kind("frames-datx", _datx, ["f.datx"], _frames_of("f.datx"), 2),
    Kind("frames-told", _told, ["s/*.toml", "dark.npy", "flat.npy", "s/5um/f0.bin"], ("reconstruct", "s", *_OUT), 4),
    Kind("metropro", _metropro, ["m.dat"], ("evaluate", "m.dat")),
    Kind("map-npy", _map(".npy"), ["m*.npy", "m.json"], ("evaluate", "m.npy", "t.npy")),
    Kind("map-tif", _map(".tif"), ["m.tif", "m.json"], ("evaluate", "m.tif")),
    Kind("map-zarr", _map(".zarr"), ["m.zarr/**/*", "m.json"], ("evaluate", "m.zarr")),
    Kind("truth-npy", _map(".npy"), ["t.npy"], ("evaluate", "m.npy", "t.npy"), 2),
    Kind("compare-json", _map(".npy"), ["m.json"], ("compare", "m.npy", "t.npy"), 2),
    Kind("mask-npy", _mask, ["mask.npy"], (*_FRAMES, "--mask", "mask.npy"), 2),
    Kind("journal", _killed, ["o.npy.journal"], (*_FRAMES, "--remove", "tilt", "--resume"), 4, True, True),
    Kind("document-resume", _finished, ["o.json"], (*_FRAMES, "--method", "pixel", "--resume"), 3, True, True),
    Kind(
        "model",
        _model,
        ["net.*"],
        (
            "reconstruct",
            "f.npy",
            *_OUT,
            "--wavelength",
            *WAVES,
            "--phase-steps",
            STEPS,
            "--method",
            "learned",
            "--model",
            "net",
        ),
        3,
    ),
    Kind("checkpoint", _checkpoint, ["ck/*"], (*_SOLVE, "--checkpoint", "ck", "--resume", "--seconds", "1"), 2, True),
)


@dataclass(frozen=True)
class Document:
    """Text that is read back: a whole one, and the function that reads the file it is damaged in."""

    name: str
    file: str
    text: str
    read: Callable[[Path], object]

    def make(self, folder: Path) -> None:
        (folder / self.file).write_text(self.text)

    def targets(self, work: Path) -> list[str]:
        return [self.file]


def _checked(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read a journal whose second line has the damaged text, with a checksum that is right: what a reader has to look at."""

    def reads(path: Path) -> object:
        body = path.read_bytes().replace(b"\n", b" ")
        journal = path.with_name("journal")
        lines = (b'{"plan": {"queue": 1}, "boot": ""}', body)
        journal.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines))
        return read(journal)

    return reads


def _ledger(path: Path) -> object:
    from cpikan.fleet.ledger import Ledger
    from cpikan.streaming.journal import Journal

    journal = Journal.resume(path, {"queue": 1})
    try:
        return Ledger(journal)
    finally:
        journal.close()


def _queue(path: Path) -> object:
    from cpikan.fleet.batch import Batch, BatchSettings
    from cpikan.fleet.engines.serial import SerialEngine
    from cpikan.fleet.recipe import Recipe
    from cpikan.fleet.service.jobs import QUEUE, Jobs

    class NoLedger:
        entries: ClassVar[dict[str, object]] = {}

    path.replace(path.with_name(QUEUE))
    batch = Batch(path.parent, Recipe(), NoLedger(), SerialEngine(), BatchSettings(memory_mib=100.0))
    jobs = Jobs(path.parent, batch, NoLedger(), 10)
    jobs.stop(0.0)
    return jobs


def _documents() -> Iterator[Document]:
    from cpikan.fleet.limits import Limits
    from cpikan.fleet.progress import read_progress
    from cpikan.fleet.recipe import Recipe
    from cpikan.fleet.sources import find_sources
    from cpikan.pipeline.jobs.job import Job
    from cpikan.pipeline.maps.height_map import open_height_map
    from cpikan.pipeline.stacks.acquisition_file import read_acquisition_file
    from cpikan.viewer.remarks import read_remarks, remarks_path

    limits = "wafer.sfqr_max_um = { max = 0.05 }\nevaluate.rms_nm = { min = 0, max = 40 }\n"
    yield Document(
        "recipe-toml",
        "recipe.toml",
        '[reconstruct]\nrange = "27 um"\nband_rows = 64\n[evaluate]\nremove = "piston,tilt"\n[wafer]\ndiameter = "300mm"\n'
        '[output]\nformat = "npy"\nreport = true\n[identity]\npattern = "{lot}/{wafer}_{slot}"\ntool = "T1"\n[limits]\n'
        + limits,
        Recipe.from_file,
    )
    yield Document("limits-toml", "limits.toml", limits, Limits.from_file)
    yield Document(
        "acquisition-text",
        "acquisition.toml",
        'wavelengths = ["5 um", "5.5 um"]\nphase_steps = [[0, 90, 180, 270], [0, 90, 180, 270]]\nsteps = "nominal"\n'
        'pistons = [0, 12.5]\npixel_size = ["5 um", "6 um"]\nbit_depth = 8\norder = "wavelength-major"\nrotate = 90\n',
        read_acquisition_file,
    )
    yield Document(
        "job-json",
        "job.json",
        '{"verb": "reconstruct", "source": "w1", "output": "o.npy", "settings": {"range": "27 um", "tile": 512, '
        '"remove": ["piston", "tilt"], "wavelengths": ["5 um"], "phase_steps": "0,90,180,270"}}',
        lambda path: Job.from_json(path.read_text(errors="surrogateescape")),
    )
    yield Document(
        "map-json",
        "m.json",
        '{"acquisition": {"wavelengths_nm": [633.0], "pixel_um": [5.0, 6.0]}, "settings": {"threads": 2}, "summary": '
        '{"method": "pixel", "warnings": ["a"], "warning_names": ["b"], "rms_nm": 1.5, "valid_fraction": 1.0}, '
        '"provenance": {"cpikan": "0.1.0", "started": "2026-01-01T00:00:00Z"}}',
        _map_document(open_height_map),
    )
    yield Document(
        "remarks-json",
        remarks_path(Path("m.npy")).name,
        '{"notes": [{"x": 1.5, "y": 2, "text": "a"}], "masks": [{"name": "b", "corners": [[0, 0], [9, 0], [0, 9.5]]}]}',
        lambda path: read_remarks(path.with_name("m.npy")),
    )
    yield Document("progress-json", "m.progress", '{"stage": "demodulate", "share": 0.25}', read_progress)
    yield Document("sources-txt", "list.txt", "a/f.npy\n# words\n\nb/*.npy\nc d\n", _sources(find_sources))
    yield Document(
        "sources-csv", "list.csv", 'source,lot,wafer\n"a,b.npy",L1,w1\nc.npy,L2,w2\n', _sources(find_sources)
    )
    yield Document(
        "ledger-json",
        "entry",
        '{"name": "w1", "source": "a", "state": "done", "reason": "", "attempts": 1, "stamp": "s", "figures": {"a.b": 1.0}, '
        '"signature": "x", "synced": true}',
        _checked(_ledger),
    )
    yield Document(
        "queue-json",
        "entry",
        '{"id": "0123", "name": "w1-0123", "source": "a", "identity": {"lot": "L"}, "submitted": "2026", "synced": true}',
        _checked(_queue),
    )


def _map_document(read: Callable[[Path], Any]) -> Callable[[Path], object]:
    def reads(path: Path) -> object:
        if not path.with_suffix(".npy").exists():
            np.save(path.with_suffix(".npy"), np.ones((4, 5), np.float32))
        found = read(path.with_suffix(".npy"))
        return found.summary, found.pixel_um, found.wavelengths_nm, found.notes

    return reads


def _sources(read: Callable[..., Any]) -> Callable[[Path], object]:
    return lambda path: read([str(path)], {})


DOCUMENTS = tuple(_documents())

"""The table of file formats: every suffix, and what a file of each can be opened or written as."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpikan.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cpikan.storage.instruments.content import MapContent
    from cpikan.storage.maps import StoredMap
    from cpikan.storage.protocols import FrameReader, MapWriter

Door = Literal["frames", "heights", "image", "writer", "exporter"]
_LACKS = {
    "frames": "holds no frames that are read",
    "heights": "holds no heights that are read",
    "image": "holds no single grey image",
    "writer": "is only read",
    "exporter": "is only read",
}
_EXPORTED = "takes heights alone: write one of those that are allowed, then cpikan convert"


@dataclass(frozen=True)
class Format:
    """A file format; a door that is None is closed.

    ``frames(path)`` opens a stack of frames, ``heights(path)`` a height map with its
    quantities, ``image(path)`` one two-dimensional array, ``writer(layout, resume=...)`` an output, of which a quantity of
    ``shape`` takes at most ``bytes_for(shape, itemsize)`` on disk. ``array(path)`` and ``array_writer(path, shape,
    resume=...)`` read and write one array (H, W) or (C, H, W) of any meaning. ``sniff(path)`` knows a folder of the format,
    whatever its name. An output is one file, or a ``folder``, or with ``beside`` a file per quantity. Of the quantities of a
    reconstruction ``leaves_out`` are not stored, and all but the height only when asked for with ``height_alone``.
    ``exporter(content, path)`` writes the heights of a whole map into the new file ``path``, for a format that has no room
    for anything else; of ``pixel_um``, ``aspect`` (a pixel that is not square), ``wavelength_nm`` (one) and
    ``wavelengths_nm`` it ``holds`` some. With ``told`` the door ``frames(path, how)`` also takes what a user says of the file
    (`readers.read_as.ReadAs`).
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Path], bool] | None = None
    frames: Callable[..., FrameReader] | None = None
    heights: Callable[[Path], StoredMap] | None = None
    image: Callable[[Path], np.ndarray] | None = None
    writer: Callable[..., MapWriter] | None = None
    bytes_for: Callable[[tuple[int, int], int], int] | None = None
    array: Callable[[Path], Any] | None = None
    array_writer: Callable[..., MapWriter] | None = None
    folder: bool = False
    beside: bool = False
    leaves_out: frozenset[str] = frozenset()
    height_alone: bool = False
    told: bool = False
    exporter: Callable[[MapContent, Path], None] | None = None
    holds: frozenset[str] = frozenset()


def _lazy(module: str, name: str) -> Callable[..., Any]:
    """Call a function of a storage module that is imported on its first call: decoders load when a file needs them."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(f"cpikan.storage.{module}"), name)(*arguments, **options)

    return call


def _npy_bytes(shape: tuple[int, int], itemsize: int) -> int:
    return 128 + shape[0] * shape[1] * itemsize


def _tiff_bytes(shape: tuple[int, int], itemsize: int) -> int:
    tiles = -(-shape[0] // 512) * -(-shape[1] // 512)
    return tiles * (512 * 512 * itemsize + 16) + 2**16


def _zarr_bytes(shape: tuple[int, int], itemsize: int) -> int:
    """Estimate bytes of levels, a quarter each: padding compresses away; 64 KiB a level for metadata and the rest."""
    (height, width), size = shape, 0
    while True:
        size += int(1.01 * height * width * itemsize) + 2**16
        if max(height, width) <= 512:
            return size
        height, width = -(-height // 2), -(-width // 2)


def _bytes_of_pixels(each: int) -> Callable[[tuple[int, int], int], int]:
    return lambda shape, itemsize: 2**16 + shape[0] * shape[1] * each


def _exchange(name: str, suffix: str, pixel_bytes: int, *holds: str) -> Format:
    """Make a format of heights alone that is read and written by the file of its suffix in ``instruments``.

    A pixel takes ``pixel_bytes`` on disk at most.
    """
    room = f"instruments.{suffix}"
    return Format(
        name,
        (f".{suffix}",),
        heights=_lazy(room, f"open_{suffix}_map"),
        exporter=_lazy(room, f"export_{suffix}"),
        bytes_for=_bytes_of_pixels(pixel_bytes),
        holds=frozenset(holds),
    )


_TIFF = (".tif", ".tiff")
_DRAWN = (".png", ".svg", ".pdf")
IMAGE_SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".pgm", *_TIFF)  # of the frames of a folder, one each

FORMATS: tuple[Format, ...] = (
    Format(
        "NumPy file",
        (".npy",),
        frames=_lazy("readers.array", "open_npy"),
        told=True,
        heights=_lazy("maps", "open_npy_map"),
        image=_lazy("maps", "open_npy_image"),
        writer=_lazy("writers.npy", "NpyWriter"),
        bytes_for=_npy_bytes,
        array=_lazy("writers.arrays", "open_npy_array"),
        array_writer=_lazy("writers.arrays", "ArrayNpyWriter"),
        beside=True,
        leaves_out=frozenset({"modulation"}),
        height_alone=True,
    ),
    Format(
        "TIFF file",
        _TIFF,
        frames=_lazy("readers.tiff", "open_tiff"),
        heights=_lazy("maps", "open_tiff_map"),
        image=_lazy("readers.images", "read_image"),
        writer=_lazy("writers.tiff", "TiffWriter"),
        bytes_for=_tiff_bytes,
        leaves_out=frozenset({"component"}),
    ),
    Format("TIFF file", (".btf", ".tf8"), frames=_lazy("readers.tiff", "open_tiff")),
    Format(
        "Zarr array",
        (".zarr",),
        sniff=_lazy("readers.zarr", "is_zarr"),
        frames=_lazy("readers.zarr", "ZarrReader"),
        heights=_lazy("maps", "open_zarr_map"),
        writer=_lazy("writers.zarr", "ZarrWriter"),
        bytes_for=_zarr_bytes,
        array=_lazy("writers.arrays", "open_zarr_array"),
        array_writer=_lazy("writers.arrays", "ArrayZarrWriter"),
        folder=True,
    ),
    Format(
        "HDF5 dataset",
        (".h5", ".hdf5", ".hdf", ".he5", ".nxs"),
        frames=_lazy("readers.hdf5", "open_hdf5"),
        told=True,
    ),
    Format("single image", (".bmp", ".jpg", ".jpeg", ".pgm"), image=_lazy("readers.images", "read_image")),
    replace(
        _exchange("PNG picture", "png", 3, "pixel_um", "aspect", "wavelengths_nm"),
        image=_lazy("readers.images", "read_image"),
    ),
    _exchange("table of heights", "csv", 26, "pixel_um", "aspect", "wavelengths_nm"),
    _exchange("list of points", "xyz", 70, "pixel_um", "aspect", "wavelengths_nm"),
    *(
        Format(
            f"{name} mesh",
            (f".{name.lower()}",),
            exporter=_lazy("instruments.mesh", f"export_{name.lower()}"),
            bytes_for=_bytes_of_pixels(100),
            holds=frozenset({"pixel_um", "aspect"}),
        )
        for name in ("STL", "PLY")
    ),
    Format("NumPy archive", (".npz",), frames=_lazy("readers.npz", "open_npz"), told=True),
    Format("MATLAB file", (".mat",), frames=_lazy("readers.matlab", "open_matlab"), told=True),
    Format("FITS file", (".fits", ".fit", ".fts", ".fz"), frames=_lazy("readers.fits", "open_fits"), told=True),
    Format("video", (".avi", ".mp4", ".mov", ".mkv"), frames=_lazy("readers.video", "open_video")),
    Format("raw file", (".raw", ".bin"), frames=_lazy("readers.raw", "open_raw"), told=True),
    Format(
        "Zygo MetroPro file",
        (".dat",),
        frames=_lazy("readers.zygo_frames", "open_zygo_frames"),
        heights=_lazy("instruments.zygo", "open_zygo_map"),
        exporter=_lazy("instruments.zygo", "export_zygo"),
        bytes_for=_bytes_of_pixels(4),
        holds=frozenset({"pixel_um", "wavelength_nm"}),
    ),
    Format(
        "Zygo Mx file",
        (".datx",),
        frames=_lazy("readers.hdf5", "open_datx"),
        told=True,
        heights=_lazy("instruments.datx", "open_datx_map"),
        exporter=_lazy("instruments.datx", "export_datx"),
        bytes_for=_bytes_of_pixels(8),
        holds=frozenset({"pixel_um", "aspect", "wavelength_nm"}),
    ),
    _exchange("Wyko file", "opd", 4, "pixel_um", "aspect", "wavelength_nm"),
    _exchange("Digital Surf file", "sur", 4, "pixel_um", "aspect"),
    _exchange("ISO 25178-72 file", "x3p", 8, "pixel_um", "aspect"),
    Format("NanoFocus file", (".nms",), heights=_lazy("instruments.nms", "open_nms_map")),
    _exchange("Gwyddion simple field", "gsf", 4, "pixel_um", "aspect", "wavelength_nm"),
    _exchange("Gwyddion file", "gwy", 16, "pixel_um", "aspect", "wavelength_nm"),
    _exchange("ISO 25178-71 file", "sdf", 8, "pixel_um", "aspect"),
)


def format_of(path: Path) -> Format | None:
    """Find the format of a name by its suffix; None for one that is not in the table."""
    return next((known for known in FORMATS if path.suffix.lower() in known.suffixes), None)


def suffixes_of(*doors: Door) -> tuple[str, ...]:
    """List the suffixes of all formats that have one of the doors."""
    return tuple(
        suffix for known in FORMATS if any(getattr(known, door) for door in doors) for suffix in known.suffixes
    )


def require_format(path: Path, door: Door, what: str) -> Format:
    """Find the format of a file that must have a door; InputError, naming ``what``, when it lacks the door or is unknown."""
    found = format_of(path)
    if found is not None and getattr(found, door) is not None:
        return found
    allowed = f"allowed are {', '.join(suffixes_of(door))}"
    if found is not None:
        lacks = _EXPORTED if door == "writer" and found.exporter is not None else _LACKS[door]
        raise InputError(f"{what} is a {found.name}, which {lacks}: {allowed}")
    raise InputError(f"{what} has no known suffix: {allowed}")


def door_of(path: Path, door: Door, what: str) -> Callable[..., Any]:
    """Return the door of a file's format; InputError as `require_format`."""
    opener: Callable[..., Any] = getattr(require_format(path, door, what), door)
    return opener


def picture(path: Path | str) -> Path:
    """Check the name of a picture that is to be drawn; InputError for another ending."""
    if Path(path).suffix.lower() not in _DRAWN:
        raise InputError(f"picture {path}: give a name that ends in .png, .svg or .pdf")
    return Path(path)

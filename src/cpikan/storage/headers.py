"""Is what a file header claims plausible?  Asked before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import one_line

MAX_FRAME_PIXELS = 2**32
MAX_FRAMES = 2**16
MAX_EXPANSION = 10_000  # bytes claimed per byte stored; deflate reaches 1032, zstd on a constant frame a few thousand


def check_frame_size(label: str, height: int, width: int, frames: int = 1) -> None:
    """Refuse frames without pixels, frames of more than 2**32 pixels and more than 65536 frames."""
    if frames > MAX_FRAMES:
        raise InputError(f"{label} claims {frames} frames: at most {MAX_FRAMES} are read; the header is damaged")
    if height < 1 or width < 1:
        raise InputError(f"{label} claims frames of {height} x {width} pixels: give frames that hold pixels")
    if height * width > MAX_FRAME_PIXELS:
        raise InputError(
            f"{label} claims frames of {height} x {width} pixels: at most 2**32 pixels a frame are read; "
            "the header is damaged, or cut the frames into parts"
        )


def check_raw_size(label: str, claimed_bytes: int, stored_bytes: int) -> None:
    """Refuse uncompressed data that is shorter or longer than its header says (bytes without the header)."""
    if claimed_bytes == stored_bytes:
        return
    problem = "it is truncated" if stored_bytes < claimed_bytes else "its header does not belong to its data"
    raise InputError(
        f"{label} claims {claimed_bytes} bytes of pixels but holds {stored_bytes}: {problem}; copy or write it again"
    )


def check_compressed_size(label: str, claimed_bytes: int, stored_bytes: int) -> None:
    """Refuse compressed data that would expand more than 10 000 times."""
    if claimed_bytes > MAX_EXPANSION * stored_bytes:
        raise InputError(
            f"{label} claims {claimed_bytes} bytes of pixels but stores {stored_bytes}: at most {MAX_EXPANSION} times "
            "the stored size is believed; it is truncated or damaged"
        )


# the smallest float that holds every value of an integer exactly; light below zero (a dark frame taken off) stays below
_WIDENED = {"int8": "float32", "int16": "float32", "int32": "float64", "uint32": "float64"}


def check_pixel_type(label: str, dtype: np.dtype) -> np.dtype:
    """Return the type that pixels are read as, in native byte order; integers that are no DN are read as exact floats.

    uint8, uint16, float32 and float64 stay; int8 and int16 become float32, int32 and uint32 float64. Raises InputError for
    any other.
    """
    native = dtype.newbyteorder("=")
    if native in (np.uint8, np.uint16, np.float32, np.float64):
        return native
    if str(native) in _WIDENED:
        return np.dtype(_WIDENED[str(native)])
    hint = "convert the frames"
    if native in (np.int64, np.uint64):
        hint = "save the frames with .astype('float64'), which keeps light below zero"
    elif native == np.float16:
        hint = "half precision is too coarse for phases, save the frames as float32 or the camera's integers"
    name = "Python objects" if dtype.hasobject else str(dtype)
    raise InputError(f"{label} holds {name}: allowed are integers of 8 to 32 bits, float32 and float64; {hint}")


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, Fortran order and type; NumPy parses the header as literals and limits its length.

    Raises InputError for a version other than 1.0 and 2.0, and what NumPy raises for what is no header.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise InputError(
        f"{file.name} is a .npy of version {version[0]}.{version[1]}: 1.0 and 2.0 hold plain numbers, save them with "
        "numpy.save"
    )


@contextmanager
def decoding(label: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged or hostile bytes into one InputError that names the file.

    Decoders give no list of their exceptions (index, struct, overflow and memory errors all occur), so all are caught
    here and nowhere else; the original stays as the cause.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{label} does not exist: check the path") from error
    except PermissionError as error:
        raise InputError(f"{label} may not be read: check its permissions") from error
    except Exception as error:
        reason = one_line((str(error).strip().splitlines() or [""])[0][:200])  # words of the file may be in it
        raise InputError(f"{label} is damaged or not what its name says ({type(error).__name__}: {reason})") from error

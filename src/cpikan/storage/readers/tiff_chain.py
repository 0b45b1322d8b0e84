"""The chain of page directories of a TIFF file: followed to its end, so that no lost page goes unnoticed."""

from __future__ import annotations

import struct
from pathlib import Path

from cpikan.errors import InputError
from cpikan.storage.headers import MAX_FRAMES

_CLASSIC, _BIG = 42, 43


def count_pages(path: Path) -> int:
    """Count the page directories of a TIFF or BigTIFF file (TIFF 6.0, section 2).

    Raises InputError when the chain leaves the file or runs in a circle (decoders end it silently), or for no TIFF.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(header[:2])
        if order is None or len(header) < 16:
            raise InputError(f"{path} is not a TIFF file: its first bytes say otherwise")
        version = struct.unpack(order + "H", header[2:4])[0]
        if version not in (_CLASSIC, _BIG):
            raise InputError(f"{path} is a TIFF of unknown version {version}: 42 and 43 (BigTIFF) are read")
        big = version == _BIG
        count_format, link_format, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
        count_bytes, link_bytes = struct.calcsize(count_format), struct.calcsize(link_format)
        place = struct.unpack(link_format, header[8:16] if big else header[4:8])[0]
        seen: set[int] = set()
        while place:
            if place in seen or place + count_bytes > size:
                raise InputError(
                    f"{path} loses its pages after {len(seen)}: it is truncated or damaged, write it again"
                )
            seen.add(place)
            if len(seen) > MAX_FRAMES:
                raise InputError(f"{path} has more than {MAX_FRAMES} pages: it is damaged")
            file.seek(place)
            entries = struct.unpack(count_format, file.read(count_bytes))[0]
            link = place + count_bytes + entries * entry
            if link + link_bytes > size:
                raise InputError(f"{path} ends within page {len(seen) - 1}: it is truncated or damaged, write it again")
            file.seek(link)
            place = struct.unpack(link_format, file.read(link_bytes))[0]
    if not seen:
        raise InputError(f"{path} has no pages: write the frames again")
    return len(seen)

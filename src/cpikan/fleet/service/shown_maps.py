"""Maps of the service as pages of the viewer: opened when one is asked for, the last few kept."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from pathlib import Path

from cpikan.errors import InputError
from cpikan.viewer.exhibit import Exhibit, check_pair
from cpikan.viewer.running import is_running
from cpikan.viewer.showing import Showing

_KEPT = 8  # each may hold half of its map in files without names
_PATH = re.compile(r"(?s)(.+?\.(?:zarr|npy|tif))/(.*)")


def split(path: str) -> tuple[str, str] | None:
    """Part ``MAP.zarr/REST`` or ``MAP.zarr,OTHER.zarr/REST`` into what is shown and what is asked of it."""
    found = _PATH.fullmatch(path)
    return None if found is None else (found[1], found[2])


class ShownMaps:
    """The pages of maps below ``folder``, from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, Showing] = OrderedDict()

    def there(self, name: str) -> bool:
        """Tell whether a map is there, or as many rows of it as are written."""
        path = self._folder / name
        return path.exists() or is_running(path)

    def page(self, names: str) -> Showing:
        """Open the page of one map, or of two with a comma between.

        Raises FileNotFoundError for one that is not there, InputError for one that is damaged, or two that have no difference.
        """
        with self._lock:  # nobody opens a map twice
            found = self._pages.get(names)
            if found is None:
                exhibits = [Exhibit.open(self._inside(name)) for name in names.split(",")]
                if len(exhibits) > 2:
                    raise InputError("a page shows one map, or two to compare")
                if len(exhibits) == 2:
                    check_pair(*exhibits)
                found = self._pages[names] = Showing(exhibits)
            self._pages.move_to_end(names)
            if len(self._pages) > _KEPT:
                self._pages.popitem(last=False)
        return found

    def _inside(self, name: str) -> Path:
        folder = self._folder.resolve()
        try:
            path = (folder / name).resolve()
            if path.is_relative_to(folder) and self.there(name):
                return path
        except (OSError, ValueError, RuntimeError):
            pass
        raise FileNotFoundError(name)

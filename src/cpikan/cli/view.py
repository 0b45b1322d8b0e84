"""The verb ``view``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpikan.cli.verb import CommandVerb, Place
from cpikan.errors import InputError
from cpikan.messages import say
from cpikan.option import option
from cpikan.streaming.events import ProgressLine

if TYPE_CHECKING:
    from cpikan.viewer.exhibit import Exhibit

_WAIT_S = 0.2
_PATIENCE = 100  # looks at files that are being made


@dataclass(frozen=True)
class ViewOptions:
    """``port`` 0 takes a free one."""

    port: int = option(0, "port on 127.0.0.1 (default: a free one)", metavar="N")
    no_browser: bool = option(False, "only say the address; open no browser")
    export: str | None = option(
        None,
        "write the page and the maps into a folder instead, for any web server or to open from disk",
        metavar="DIR",
    )
    overwrite: bool = option(False, "with --export: replace a folder that is there")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port {self.port}: give 1 to 65535, or leave it out for a free one")


def _run(places: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Serve the maps until Ctrl-C; those of a service it shows by itself."""
    from cpikan.viewer.exhibit import check_pair
    from cpikan.viewer.remote import is_address
    from cpikan.viewer.server import ViewServer

    options = ViewOptions(**settings)
    paths = [places[name] for name in ("map", "other") if places[name] is not None]
    if any(is_address(path) for path in paths):
        return _remote(paths, options)
    exhibits = [_opened(path) for path in paths]
    if len(exhibits) > 1:
        check_pair(*exhibits)
    if options.export is not None:
        from cpikan.viewer.export import export_page

        for exhibit in exhibits:
            if exhibit.running is not None:
                raise InputError(f"{exhibit.map.path} is still being written: export it when the run has ended")
        folder = Path(options.export)
        export_page(exhibits, folder, overwrite=options.overwrite, progress=ProgressLine())
        return {"output": options.export, "address": str((folder / "index.html").resolve())}
    server = ViewServer(exhibits, options.port)
    say(f"cpikan: {', '.join(paths)} at {server.address} (Ctrl-C ends it)")
    server.start()
    for exhibit in exhibits:  # while the browser starts
        exhibit.prepare("height_nm")
    try:
        if not options.no_browser:
            import webbrowser

            webbrowser.open(server.address)
        while True:
            time.sleep(3600)
    finally:
        server.close()


def _remote(addresses: Sequence[str], options: ViewOptions) -> dict[str, Any]:
    from cpikan.viewer.remote import is_address, page_of

    if not all(is_address(address) for address in addresses):
        raise InputError("two maps are compared where both lie: give two paths, or two addresses of one service")
    if options.export is not None:
        raise InputError("--export takes a map from disk: give its path")
    address = page_of(addresses)
    if not options.no_browser:
        import webbrowser

        webbrowser.open(address)
    return {"output": None, "address": address}


def _opened(path: str) -> Exhibit:
    """Open a map; where a run has begun that will write it, wait for its first rows: all its files are there then."""
    from cpikan.storage.writers.layout import partial_of
    from cpikan.viewer.exhibit import Exhibit
    from cpikan.viewer.running import is_running

    place, waiting, patience = Path(path), False, _PATIENCE
    while is_running(place):
        if partial_of(place).exists():
            try:
                exhibit = Exhibit.open(path)
                if exhibit.running is None or exhibit.running.rows:
                    return exhibit
            except InputError:  # its files are being made
                patience -= 1
                if not patience or not place.with_name(place.name + ".journal").exists():
                    raise
        if not waiting:
            say(f"cpikan: waiting for the first rows of {path} (Ctrl-C ends it)")
            waiting = True
        time.sleep(_WAIT_S)
    return Exhibit.open(path)


VERB = CommandVerb(
    (
        Place(
            "map",
            "MAP",
            "a height map of any format that is read, also one that a run is writing, or the address of one of a service",
        ),
        Place("other", "OTHER", "a second one of the same size, linked and compared", needed=False),
    ),
    (ViewOptions,),
    _run,
    lambda result: f"open {result['address']}",
)

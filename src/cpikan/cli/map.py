"""The verb ``map``: work on maps, written as a new one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from cpikan.cli.verb import OUTPUT, CommandVerb, Place
from cpikan.errors import InputError, check_name
from cpikan.messages import one_line, say
from cpikan.option import FORM_HELP, option

ACTIONS = ("subtract", "average", "stitch", "register", "crop", "fill")


@dataclass(frozen=True)
class MapOptions:
    remove: str | None = option(None, f"take off every map first: {FORM_HELP}", metavar="TERMS")
    grid: str | None = option(
        None, "stitch: rows and columns of the maps, one row after the other", metavar="ROWSxCOLUMNS"
    )
    overlap: float = option(0.15, "stitch: share of a map that its neighbour covers", metavar="SHARE")
    most_off: int = option(32, "stitch: how far neighbours may lie from their places, in pixels", metavar="N")
    shift_only: bool = option(False, "register: the map is neither turned nor scaled")
    box: str | None = option(None, "crop: columns and rows to keep", metavar="LEFT,TOP,RIGHT,BOTTOM")
    polygon: str | None = option(None, "crop: keep what lies in this polygon, in pixels", metavar="X,Y X,Y X,Y ...")
    below: str | None = option(None, "crop: keep heights below, such as 300nm", metavar="HEIGHT")
    above: str | None = option(None, "crop: keep heights above, such as -300nm", metavar="HEIGHT")
    grow: int = option(0, "crop: missing pixels spread by N pixels", metavar="N")
    reach: float = option(16.0, "fill: about the size of the largest hole, in pixels", metavar="PIXELS")
    overwrite: bool = option(False, "replace an output that exists")


def _run(places: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    from cpikan.pipeline.maps import combine
    from cpikan.pipeline.maps.height_map import open_height_map

    options, action = MapOptions(**settings), places["action"]
    check_name("action", action, ACTIONS)
    maps = [open_height_map(path) for path in places["inputs"]]
    if options.remove:
        maps = [one.remove(options.remove) for one in maps]
    facts: dict[str, Any] = {}
    if action == "average":
        found = combine.average(maps)
    elif action == "stitch":
        found, placement = combine.stitch(maps, _pair(options.grid), options.overlap, most_px=options.most_off)
        sigma = [row if all(map(math.isfinite, row)) else None for row in placement.sigma_px.tolist()]
        facts = {"places_px": placement.places.tolist(), "matched": placement.matched.tolist(), "sigma_px": sigma}
    elif action == "register":
        found, how = combine.register(*_two(action, maps), turned=not options.shift_only)
        facts = {"turn_deg": how.turn_deg, "scale": how.scale, "shift_px": list(how.shift_px)}
    elif action == "subtract":
        found = combine.subtract(*_two(action, maps))
    else:
        found = (
            _cropped(_one(action, maps), options)
            if action == "crop"
            else combine.fill(_one(action, maps), options.reach)
        )
    saved = found.save(places["output"], overwrite=options.overwrite)
    for warning in found.notes:
        say(f"cpikan: warning: {one_line(warning)}")
    return {"action": action, "output": str(saved.path), "shape": list(saved.shape), **facts}


def _cropped(source: Any, options: MapOptions) -> Any:
    from cpikan.pipeline.maps import combine
    from cpikan.surface.apertures.polygon import Polygon

    if options.polygon is not None:
        source = source.within(Polygon.parse(options.polygon))
    low, high = (
        (-float("inf") if options.above is None else _height(options.above)),
        (float("inf") if options.below is None else _height(options.below)),
    )
    if options.above is not None or options.below is not None:
        source = combine.keep_between(source, low, high)
    if options.grow:
        source = combine.grow(source, options.grow)
    if options.box is None:
        return source
    return combine.crop(source, *_numbers(options.box, 4, "box", "LEFT,TOP,RIGHT,BOTTOM"))


def _height(text: str) -> float:
    from cpikan.units import parse_length_nm

    return -parse_length_nm(text[1:], "height") if text.startswith("-") else parse_length_nm(text, "height")


def _pair(grid: str | None) -> tuple[int, int] | None:
    if grid is None:
        return None
    rows, columns = _numbers(grid.replace("x", ","), 2, "grid", "ROWSxCOLUMNS")
    return rows, columns


def _numbers(text: str, count: int, what: str, form: str) -> list[int]:
    parts = re.split(r"\s*[, ]\s*", text.strip())
    if len(parts) != count or not all(re.fullmatch(r"\d+", part) for part in parts):
        raise InputError(f"{what} {text!r} is not {form}: give whole numbers")
    return [int(part) for part in parts]


def _two(action: str, maps: list[Any]) -> list[Any]:
    if len(maps) != 2:
        raise InputError(f"{action} takes two maps, {len(maps)} are given")
    return maps


def _one(action: str, maps: list[Any]) -> Any:
    if len(maps) != 1:
        raise InputError(f"{action} takes one map, {len(maps)} are given")
    return maps[0]


def _tell(result: dict[str, Any]) -> str:
    height, width = result["shape"]
    lines = [f"{result['action']}: {result['output']}, {height} x {width} pixels"]
    if "turn_deg" in result:
        down, across = result["shift_px"]
        lines.append(
            f"it lay {across:.3f} right and {down:.3f} down, turned {result['turn_deg']:.4f} deg, scale {result['scale']:.6f}"
        )
    if "matched" in result:
        lines.append(f"{sum(result['matched'])} of {len(result['matched'])} maps found their place by an overlap")
    return "\n".join(lines)


VERB = CommandVerb(
    (
        Place("action", "ACTION", ", ".join(ACTIONS)),
        Place("inputs", "IN", "maps; register lays the second on the first, subtract takes it off", many=True),
        Place("output", "OUT", "where the new map goes: any format that can be written", OUTPUT),
    ),
    (MapOptions,),
    _run,
    _tell,
)

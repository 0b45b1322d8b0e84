"""What a page is made from, and the parts that its sections consist of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from cpikan.report import numbers
from cpikan.report.scales import Lateral
from cpikan.report.survey import Survey
from cpikan.report.svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Content:
    """All that a page is made of: the name of the output, its document, what was gathered, and the evaluation."""

    name: str
    document: Mapping[str, Any]
    survey: Survey
    evaluation: Mapping[str, Any] | None

    def part(self, name: str) -> Mapping[str, Any]:
        """A mapping of the document (acquisition, settings, summary); empty when it is not there."""
        found = self.document.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def lateral(self) -> Lateral:
        """The scale of the axes, in pixels when the sampling is not known."""
        pixel = self.part("acquisition").get("pixel_um")
        return Lateral.of(self.survey.shape, pixel if isinstance(pixel, int | float) else None)

    @property
    def tilted(self) -> bool:
        """Whether the tilt hides the surface: it makes up more than a tenth of the variance."""
        raw, flat = self.survey.raw.rms_nm, self.survey.flat.rms_nm
        return raw is not None and flat is not None and flat**2 < 0.9 * raw**2

    @property
    def slope(self) -> str:
        """The tilt along x and y in words."""
        origin, right, below = self.survey.plane.at(np.array([0, 0, 1]), np.array([0, 1, 0]))
        return f"{numbers.digits(right - origin)} and {numbers.digits(below - origin)}"


class Judged(NamedTuple):
    """Words in the colour of a verdict, "good" or "bad"."""

    verdict: str
    text: str


class Part(NamedTuple):
    """A piece of a section: the macro of templates/parts.html that shows it, and what that is given."""

    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A card with a title, a remark and parts; a ``wide`` one spans the page, its pictures in the middle."""

    title: str
    note: str = ""
    parts: Sequence[Part] = ()
    wide: bool = False
    centred: bool = True


def table(rows: Iterable[tuple[str, str]]) -> Part:
    """Two columns, names and values."""
    return Part("table", {"rows": [(name.replace("_", " "), value) for name, value in rows]})


def columns(shown: Mapping[str, Sequence[str | Judged]]) -> Part:
    """A table with a head, the cells by column; short columns are filled up with empty cells."""
    return Part("columns", {"heads": list(shown), "rows": list(zip_longest(*shown.values(), fillvalue=""))})


def drawing(figure: Figure, name: str, label: str, title: str = "") -> Part:
    """A figure; ``name`` is unique on the page, ``label`` is read to those who do not see it."""
    return Part("drawing", {"title": title, "svg": Markup(inline_svg(figure, name, label))})


def legend(entries: Iterable[tuple[str, str]]) -> Part:
    """Squares of a colour and what they stand for."""
    return Part("legend", {"entries": list(entries)})


def remark(text: str) -> Part:
    """A small paragraph."""
    return Part("remark", {"text": text})

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
from cpikan.units import pixel_pair

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
        """Return a mapping of the document (acquisition, settings, summary), empty when the document lacks it."""
        found = self.document.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def lateral(self) -> Lateral:
        """Give the scale of the axes, in pixels when the sampling is not known."""
        return Lateral.of(self.survey.shape, pixel_pair(self.part("acquisition").get("pixel_um")))

    @property
    def tilted(self) -> bool:
        """Tell whether the tilt hides the surface: the tilt makes up more than a tenth of the variance."""
        raw, flat = self.survey.raw.rms_nm, self.survey.flat.rms_nm
        return raw is not None and flat is not None and flat**2 < 0.9 * raw**2

    @property
    def slope(self) -> str:
        """Format the tilt along x and y in nm per pixel."""
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
    """Make a table of two columns, names and values."""
    return Part("table", {"rows": [(name.replace("_", " "), value) for name, value in rows]})


def columns(shown: Mapping[str, Sequence[str | Judged]]) -> Part:
    """Make a table with a head, the cells by column; short columns are filled up with empty cells."""
    return Part("columns", {"heads": list(shown), "rows": list(zip_longest(*shown.values(), fillvalue=""))})


def drawing(figure: Figure, name: str, label: str, title: str = "") -> Part:
    """Embed a figure; ``name`` is unique on the page, ``label`` is read to those who do not see the figure."""
    return Part("drawing", {"title": title, "svg": Markup(inline_svg(figure, name, label))})


def legend(entries: Iterable[tuple[str, str]]) -> Part:
    """Make a legend of colours, each with what it stands for."""
    return Part("legend", {"entries": list(entries)})


def remark(text: str) -> Part:
    """Make a small paragraph."""
    return Part("remark", {"text": text})

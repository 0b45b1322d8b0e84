"""What a page is made from, and the pieces of HTML that all its sections share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import Any

import numpy as np

from cpikan.report import numbers
from cpikan.report.scales import Lateral
from cpikan.report.survey import Survey


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


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns; the values are HTML already."""
    body = "".join(f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<table>{body}</table>" if body else ""


def columns(shown: Mapping[str, Sequence[str]]) -> str:
    """A table with a head; the cells, HTML already, by column; short columns are filled up with empty cells."""
    head = "".join(f"<th>{escape(name)}</th>" for name in shown)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in zip_longest(*shown.values(), fillvalue="")
    )
    return f'<table class="columns"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def section(title: str, note: str, body: str, *, wide: bool = False, centred: bool = True) -> str:
    """A card with a title, a remark and a body of HTML; a ``wide`` one spans the page, its pictures in the middle."""
    kind = f' class="wide{" centred" if centred else ""}"' if wide else ""
    shown = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section{kind}><h2>{escape(title)}</h2>{shown}{body}</section>"


def legend(colour: str, text: str) -> str:
    """A square of a colour and what it stands for."""
    return f'<span><span class="swatch" style="background:{colour}"></span>{escape(text)}</span>'

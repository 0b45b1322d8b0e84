"""What a page is made from, and the parts that its sections consist of."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from cpikan.report import numbers
from cpikan.report.figures import ACCENT, INK, RULE, SECOND, Lateral
from cpikan.report.survey import Survey
from cpikan.units import pixel_pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_THEME = {INK: "var(--ink)", RULE: "var(--rule)", ACCENT: "var(--accent)", SECOND: "var(--second)"}
_SMALL_PX = 450
_PX_PER_IN = 100  # CSS pixels of a figure's inch, so that text of 8.4 pt reads as 11.7 px


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """Draw a figure as SVG for a page.

    ``name`` makes its identifiers unique there, ``label`` is read to those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for unwanted in (r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>", r"<defs>\s*</defs>", r"<!--.*?-->"):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<image[^>]*>", _smooth_when_large, text)
    text = re.sub(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", _with_palette, text)
    text = _rename(text, name)
    for colour, role in _THEME.items():
        text = text.replace(colour, role)
    width = figure.get_figwidth() * _PX_PER_IN
    head = f'<svg role="img" aria-label="{label}" style="width:{width:.0f}px"'
    return re.sub(
        r'<svg\b( width="[^"]*"| height="[^"]*")*', head, re.sub(r' (width|height)="[\d.]+pt"', "", text), count=1
    )


def _rename(text: str, name: str) -> str:
    """Number the identifiers that something refers to, in order of appearance, and drop the others.

    So the result does not change from run to run.
    """
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\"\)]+)", text))
    numbers: dict[str, str] = {}

    def declared(match: re.Match[str]) -> str:
        if match[1] not in used:
            return ""
        return f' id="{numbers.setdefault(match[1], f"{name}{len(numbers)}")}"'

    def referred(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], f"{name}{len(numbers)}")

    text = re.sub(r'\sid="([^"]*)"', declared, text)
    return re.sub(r"(href=\"#|url\(#)([^\"\)]+)", referred, text)


def _smooth_when_large(match: re.Match[str]) -> str:
    """Let small pictures keep their hard pixels; large ones are shown reduced, where that would only alias."""
    width = re.search(r' width="(\d+)"', match[0])
    if width is None or int(width[1]) < _SMALL_PX:
        return match[0]
    return re.sub(r' style="image-rendering[^"]*"', "", match[0])


def _with_palette(match: re.Match[str]) -> str:
    png = palette_png(base64.b64decode(match[1]))
    return "data:image/png;base64," + base64.b64encode(png).decode()


def palette_png(png: bytes) -> bytes:
    """Convert a PNG image exactly to one byte per pixel if it has at most 256 colours; else return it as it was."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        pixels = np.array(image.convert("RGBA"))
    packed = np.ascontiguousarray(pixels).view("<u4")[..., 0]
    colours, index = np.unique(packed, return_inverse=True)
    if colours.size > 256:
        return png
    table = colours.view(np.uint8).reshape(-1, 4)
    reduced = Image.fromarray(index.reshape(packed.shape).astype(np.uint8), "P")
    reduced.putpalette(table[:, :3].tobytes())
    buffer = io.BytesIO()
    reduced.save(buffer, format="png", optimize=True, transparency=table[:, 3].tobytes())
    return buffer.getvalue()


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

"""A card for notebooks: a small picture and key numbers, as HTML that needs nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape


def card(title: str, rows: Sequence[tuple[str, str]], png: bytes | None, about: str) -> str:
    """Write a table of names and values beside a picture; ``about`` is read to those who do not see it. All text is escaped."""
    cells = "".join(
        f'<tr><th style="text-align:left;font-weight:normal;opacity:.7">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows
    )
    picture = ""
    if png is not None:
        data = base64.b64encode(png).decode()
        picture = f'<img alt="{escape(about)}" style="max-width:100%" src="data:image/png;base64,{data}">'
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:center">'
        f"{picture}<div><b>{escape(title)}</b><table>{cells}</table></div></div>"
    )

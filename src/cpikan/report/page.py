"""The look of a report: one style sheet for screen (light and dark) and paper, and the frame of the page."""

from __future__ import annotations

from string import Template

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2836; --muted: #5c6a79; --rule: #d5dce4; --ground: #f4f6f8; --card: #ffffff;
  --accent: #1f66ad; --second: #b4531a; --good: #17734a; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #dde4ec; --muted: #94a2b1; --rule: #33404d; --ground: #11171d; --card: #1a222b;
    --accent: #6cb0f2; --second: #f09a5f; --good: #5fc795; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 2px; }
h3 { font-size: 13px; font-weight: 400; color: var(--muted); margin: 0 0 2px; }
p { margin: 0; }
.lead, .note { color: var(--muted); }
.note { font-size: 13px; margin-bottom: 8px; max-width: 90ch; }
.keys { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 18px 0; }
.key { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; }
.key span { display: block; color: var(--muted); font-size: 12.5px; }
.key b { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.key b small { font-size: 14px; font-weight: 400; color: var(--muted); }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; grid-auto-flow: dense; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px; min-width: 0;
} section.wide { grid-column: 1 / -1; }
section.wide .note { max-width: none; }
section.centred svg { margin: 0 auto; }
svg { display: block; max-width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--rule); }
th { font-weight: 400; color: var(--muted); width: 42%; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
thead th { font-size: 12.5px; width: auto; }
.columns { width: auto; }
.columns th, .columns td { width: auto; text-align: right; padding: 3px 14px 3px 0; white-space: nowrap; }
.columns th:first-child, .columns td:first-child { text-align: left; }
.columns + .note { margin-top: 6px; }
.words { font-size: 14px; margin: 4px 0 12px; max-width: 110ch; overflow-wrap: anywhere; }
.beside { display: flex; flex-wrap: wrap; gap: 18px 36px; align-items: flex-start; }
.beside > div { min-width: 0; max-width: 100%; overflow-x: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 14px 18px; flex: 1 1 300px; }
.warnings { border: 1px solid var(--bad); border-left-width: 5px; border-radius: 8px; padding: 8px 14px; margin-top: 14px;
  background: var(--card); overflow-wrap: anywhere; }
.warnings ul { margin: 0; padding-left: 20px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; margin-top: 8px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.bar { display: flex; height: 22px; border-radius: 4px; overflow: hidden; margin: 8px 0; background: var(--rule); }
.bar i { display: block; min-width: 1px; }
.good { color: var(--good); } .bad { color: var(--bad); }
footer { color: var(--muted); font-size: 12.5px; margin-top: 16px; }
@media (max-width: 760px) { .grid { grid-template-columns: minmax(0, 1fr); } main { padding: 16px 12px; } }
@media print {
  @page { size: A4; margin: 12mm; }
  :root {
    color-scheme: light;
    --ink: #000000; --muted: #444444; --rule: #cccccc; --ground: #ffffff; --card: #ffffff;
    --accent: #1f66ad; --second: #b4531a; --good: #17734a; --bad: #b3261e;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  .keys { grid-template-columns: repeat(4, 1fr); gap: 6px; }
  .grid { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  section { padding: 8px 10px; }
  table { font-size: 9pt; }
  section, .key { break-inside: avoid; border-radius: 0; }
}
"""

PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="lead">$lead</p>
$warnings
<div class="keys">
$keys
</div>
<div class="grid">
$sections
</div>
<footer>$footer</footer>
</main>
</body>
</html>
"""
)

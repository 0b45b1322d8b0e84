"""Tables of docs/how-to/choose.md from what the solver's benchmarks found: ``python benchmarks/pde_docs.py [--check]``.

They are results/pde.csv, pde_success.csv, pde_peers.csv, pde_published.csv and affine_scaling.csv. Tables go between
``<!-- pde:NAME:begin -->`` and ``<!-- pde:NAME:end -->``; one that is not measured keeps what stands there.
``--picture`` draws docs/images/solution.png anew.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "how-to" / "choose.md"
PICTURE = ROOT / "docs" / "images" / "solution.png"
TIMES = ("s_1e-2", "s_1e-4", "s_1e-6", "s_1e-8", "s_1e-10")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Row = dict[str, str]
Key = tuple[str, ...]


def read(name: str) -> list[Row]:
    """Rows of one CSV; none where it has not been measured yet."""
    path = RESULTS / name
    if not path.exists():
        print(f"benchmarks/results/{name} is missing: run benchmarks/{path.stem}.py", file=sys.stderr)
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def power(text: str | float) -> str:
    """A number in two digits with a power of ten."""
    value = float(text)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} · 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def seconds(text: str | float) -> str:
    """Seconds in two digits."""
    value = float(text)
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def middle(values: Iterable[str]) -> float | None:
    """The median of what is there, where most of it is there: a seed that never got so far counts as infinite."""
    every = [float(value) if value else float("inf") for value in values]
    found = statistics.median_low(every) if every else float("inf")
    return None if found == float("inf") else found


def table(heads: list[str], lines: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    out = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join(out + [f"| {' | '.join(line)} |" for line in lines]) + "\n"


def grouped(rows: list[Row], *columns: str) -> dict[Key, list[Row]]:
    """Seeds of one case together: of one problem and method, or of what is equal in other columns."""
    out: dict[Key, list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[column] for column in columns or ("problem", "method")), []).append(row)
    return out


def crossed(rows: list[Row], down: str, across: str, error: str) -> tuple[list[str], dict[str, list[str]]]:
    """Heads of a table and its lines: medians of errors over seeds, a dash where there is no figure."""
    groups = grouped(rows, down, across)
    heads = list(dict.fromkeys(head for _, head in groups))
    lines: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for name, _ in groups):
        cells = [[row[error] for row in groups.get((name, head), []) if row[error]] for head in heads]
        lines[name] = [power(middle(found) or float("nan")) if found else "–" for found in cells]
    return heads, lines


def default_table() -> str:
    """Every problem by the default recipe; how many seeds succeed is counted by runs of their own where there are any."""
    rows, seeds = read("pde.csv"), grouped(read("pde_success.csv"), "problem")
    groups, lines = grouped(rows), []
    for (name, method), runs in groups.items():
        if method != "default":
            continue
        plain = [
            run for (other, label), found in groups.items() if other == name and "colloc" in label for run in found
        ]
        plain.sort(key=lambda run: float(run["relative_l2"]))
        counted = [run["success"] == "True" for run in seeds.get((name,), [])]
        counted = counted or [run["within_10x"] == "True" for run in runs if run["target"]]
        share = f"{sum(counted)} of {len(counted)}" if counted else ""
        target = f"{power(runs[0]['target'])} in {seconds(runs[0]['target_seconds'])} s" if runs[0]["target"] else ""
        steps = [middle(run[column] for run in runs) for column in TIMES]
        lines.append(
            [
                *(f"`{name}`", target, power(middle(run["relative_l2"] for run in runs) or float("nan"))),
                *(seconds(middle(run["seconds"] for run in runs) or 0.0), share),
                *("" if step is None else seconds(step) for step in steps),
                *(runs[0]["interior_points"], power(plain[0]["relative_l2"]) if plain else ""),
            ]
        )
    heads = ["problem", "target", "relative L2", "s", "seeds within 10 ×"]
    powers = [f"s to 10{str(-2 * n).translate(_SUPERSCRIPTS)}" for n in range(1, 6)]
    return table([*heads, *powers, "interior points at once", "collocation"], lines)


def inverse_table() -> str:
    """Coefficients that were found."""
    groups = grouped([row for row in read("pde.csv") if row["coefficient"] and row["method"] == "default"])
    lines = []
    for (name, _), runs in groups.items():
        true = float(runs[0]["coefficient_true"])
        wrong = [abs(float(run["coefficient"]) / true - 1) for run in runs]
        took = seconds(middle(run["seconds"] for run in runs) or 0.0)
        shown = [power(value) if value > 1e-6 else "< 10⁻⁶" for value in (statistics.median_low(wrong), max(wrong))]
        lines.append([f"`{name}`", f"{true:g}", *shown, took])
    return table(["problem", "coefficient", "relative error", "worst seed", "s"], lines)


def nonlinear_table() -> str:
    """Recipes that never solve for the output layer."""
    groups = grouped(read("pde.csv"))
    names = list(dict.fromkeys(name for name, _ in groups if name.startswith("helmholtz") and "inverse" not in name))
    names = [name for name in names if (name, "paper") in groups]
    recipes = list(dict.fromkeys(method for name, method in groups if name in names and "nodes" not in method))
    lines = []
    for recipe in recipes:
        cells = [groups.get((name, recipe), []) for name in names]
        found = [middle(run["relative_l2"] for run in runs) for runs in cells]
        lines.append([f"`{recipe}`" if recipe != "collocation" else "Chebyshev collocation", *map(_power, found)])
    return table(["recipe", *(f"`{name}`" for name in names)], lines)


def scaling_table() -> str:
    """Diffusion with and without the scaling of its domain."""
    groups = grouped(read("pde.csv"))
    names = ["diffusion", "diffusion-600"]
    methods = list(dict.fromkeys(method for name, method in groups if name in names))
    lines = []
    for method in methods:
        cells = [groups.get((name, method), []) for name in names]
        found = [middle(run["relative_l2"] for run in runs) for runs in cells]
        took = [middle(run["seconds"] for run in runs) for runs in cells]
        cell = [f"{_power(e)} in {seconds(s)} s" if e and s else "" for e, s in zip(found, took, strict=True)]
        lines.append([method, *cell])
    return table(["method", *(f"`{name}`" for name in names)], lines)


def widths_table() -> str:
    """Networks behind the affine map and without it, trained on wider and wider boxes."""
    rows = [row | {"trained": f"{row['method']}, {row['network']}"} for row in read("affine_scaling.csv")]
    heads, lines = crossed(rows, "trained", "width", "relative_l2")
    order = sorted(lines, key=lambda name: name.split(", ")[0])  # stable: networks stay in their order
    return table(["trained by, network", *(f"{head} wide" for head in heads)], [[name, *lines[name]] for name in order])


def published_table() -> str:
    """The published network on its problems, by its own settings, and recipes of this package."""
    heads, lines = crossed(read("pde_published.csv"), "problem", "recipe", "relative_l2")
    return table(["problem", *heads], [[f"`{name}`", *cells] for name, cells in lines.items()])


def peers_table() -> str:
    """Other packages, same seconds."""
    heads, lines = crossed(read("pde_peers.csv"), "problem", "method", "error")
    return table(["problem", *heads], [[f"`{name}`", *cells] for name, cells in lines.items()])


def _power(value: float | None) -> str:
    return "" if value is None else power(value)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "default": ("pde.csv", default_table),
    "inverse": ("pde.csv", inverse_table),
    "nonlinear": ("pde.csv", nonlinear_table),
    "scaling": ("pde.csv", scaling_table),
    "widths": ("affine_scaling.csv", widths_table),
    "published": ("pde_published.csv", published_table),
    "peers": ("pde_peers.csv", peers_table),
}


def filled(text: str) -> str:
    """The document with its tables brought up to date."""
    for name, (source, make) in TABLES.items():
        if not read(source):
            continue
        marks = re.compile(rf"(<!-- pde:{name}:begin -->\n).*?(<!-- pde:{name}:end -->)", re.DOTALL)
        made = make()
        text = marks.sub(lambda match, made=made: match[1] + made + match[2], text)  # type: ignore[misc]
    return text


def picture() -> None:
    """The solution that the README shows."""
    from cpikan.learning.solver import solve

    solve("helmholtz-2d-1-4").plot(PICTURE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail when the document is out of date")
    parser.add_argument("--picture", action="store_true", help="draw docs/images/solution.png anew")
    given = parser.parse_args()
    if given.picture:
        picture()
    old = DOCUMENT.read_text(encoding="utf-8")
    new = filled(old)
    if new != old and not given.check:
        DOCUMENT.write_text(new, encoding="utf-8")
    print(
        f"docs/how-to/choose.md: {'up to date' if new == old else 'out of date' if given.check else 'brought up to date'}"
    )
    return 1 if given.check and new != old else 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables of docs/how-to/choose.md from results/pde.csv and results/pde_peers.csv: ``python benchmarks/pde_docs.py [--check]``.

Tables go between ``<!-- pde:NAME:begin -->`` and ``<!-- pde:NAME:end -->``; one that is not measured keeps what stands there.
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


def grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Seeds of one problem and method together."""
    out: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        out.setdefault((row["problem"], row["method"]), []).append(row)
    return out


def default_table(rows: list[Row], peers: list[Row]) -> str:
    """Every problem by the default recipe."""
    groups, lines = grouped(rows), []
    for (name, method), runs in groups.items():
        if method != "default":
            continue
        plain = [
            run for (other, label), found in groups.items() if other == name and "colloc" in label for run in found
        ]
        plain.sort(key=lambda run: float(run["relative_l2"]))
        share = sum(run["within_10x"] == "True" for run in runs) / len(runs)
        target = f"{power(runs[0]['target'])} in {seconds(runs[0]['target_seconds'])} s" if runs[0]["target"] else ""
        steps = [middle(run[column] for run in runs) for column in TIMES]
        lines.append(
            [
                *(f"`{name}`", target, power(middle(run["relative_l2"] for run in runs) or float("nan"))),
                *(seconds(middle(run["seconds"] for run in runs) or 0.0), f"{share:.0%}" if target else ""),
                *("" if step is None else seconds(step) for step in steps),
                *(runs[0]["interior_points"], power(plain[0]["relative_l2"]) if plain else ""),
            ]
        )
    heads = ["problem", "target", "relative L2", "s", "seeds within 10 ×"]
    powers = [f"s to 10{str(-2 * n).translate(_SUPERSCRIPTS)}" for n in range(1, 6)]
    return table([*heads, *powers, "interior points at once", "collocation"], lines)


def inverse_table(rows: list[Row], peers: list[Row]) -> str:
    """Coefficients that were found."""
    groups = grouped([row for row in rows if row["coefficient"] and row["method"] == "default"])
    lines = []
    for (name, _), runs in groups.items():
        true = float(runs[0]["coefficient_true"])
        wrong = [abs(float(run["coefficient"]) / true - 1) for run in runs]
        took = seconds(middle(run["seconds"] for run in runs) or 0.0)
        shown = [power(value) if value > 1e-6 else "< 10⁻⁶" for value in (statistics.median_low(wrong), max(wrong))]
        lines.append([f"`{name}`", f"{true:g}", *shown, took])
    return table(["problem", "coefficient", "relative error", "worst seed", "s"], lines)


def nonlinear_table(rows: list[Row], peers: list[Row]) -> str:
    """Recipes that never solve for the output layer."""
    groups = grouped(rows)
    names = list(dict.fromkeys(name for name, _ in groups if name.startswith("helmholtz") and "inverse" not in name))
    names = [name for name in names if (name, "paper") in groups]
    recipes = list(dict.fromkeys(method for name, method in groups if name in names and "nodes" not in method))
    lines = []
    for recipe in recipes:
        cells = [groups.get((name, recipe), []) for name in names]
        found = [middle(run["relative_l2"] for run in runs) for runs in cells]
        lines.append([f"`{recipe}`" if recipe != "collocation" else "Chebyshev collocation", *map(_power, found)])
    return table(["recipe", *(f"`{name}`" for name in names)], lines)


def scaling_table(rows: list[Row], peers: list[Row]) -> str:
    """Diffusion with and without the scaling of its domain."""
    groups = grouped(rows)
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


def peers_table(rows: list[Row], peers: list[Row]) -> str:
    """Other packages, same seconds: medians over seeds; a dash where there is no figure."""
    groups = grouped(peers)
    methods = list(dict.fromkeys(method for _, method in groups))
    names = list(dict.fromkeys(name for name, _ in groups))
    lines = []
    for name in names:
        cells = [[run["error"] for run in groups.get((name, method), []) if run["error"]] for method in methods]
        lines.append([f"`{name}`", *(power(middle(found) or float("nan")) if found else "–" for found in cells)])
    return table(["problem", *methods], lines)


def _power(value: float | None) -> str:
    return "" if value is None else power(value)


TABLES: dict[str, Callable[[list[Row], list[Row]], str]] = {
    "default": default_table,
    "inverse": inverse_table,
    "nonlinear": nonlinear_table,
    "scaling": scaling_table,
    "peers": peers_table,
}


def filled(text: str, rows: list[Row], peers: list[Row]) -> str:
    """The document with its tables brought up to date."""
    for name, make in TABLES.items():
        if not (peers if name == "peers" else rows):
            continue
        marks = re.compile(rf"(<!-- pde:{name}:begin -->\n).*?(<!-- pde:{name}:end -->)", re.DOTALL)
        made = make(rows, peers)
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
    new = filled(old, read("pde.csv"), read("pde_peers.csv"))
    if new != old and not given.check:
        DOCUMENT.write_text(new, encoding="utf-8")
    print(
        f"docs/how-to/choose.md: {'up to date' if new == old else 'out of date' if given.check else 'brought up to date'}"
    )
    return 1 if given.check and new != old else 0


if __name__ == "__main__":
    sys.exit(main())

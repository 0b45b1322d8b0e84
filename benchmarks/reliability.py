"""The thirty tests of reliability in their long form: how many hold, and the figures they record.

    python benchmarks/reliability.py [--only NUMBER ...]

The tests that tests/reliability/README.md names run once, with 400 examples where Hypothesis draws them and 10 000 requests or
100 power cuts where the suite has fewer. results/reliability.csv keeps a line a number: how many cases of its tests passed,
failed or were left out, and the largest value of each figure that they record.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "reliability.csv"
sys.path.insert(0, str(ROOT / "tests" / "reliability"))

from test_table import rows  # noqa: E402


def run(places: list[str], report: Path) -> list[ElementTree.Element]:
    """Run tests by file and name; the cases of the report."""
    told = {"RELIABILITY": "long", "EXAMPLES": "long"}
    files = sorted({place.partition("::")[0] for place in places})
    names = sorted({place.partition("::")[2] for place in places})
    command = [sys.executable, "-m", "pytest", "-q", *files, "-k", " or ".join(names), f"--junitxml={report}"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **told}, check=False)
    return list(ElementTree.parse(report).iter("testcase"))


def line(number: int, tests: list[tuple[str, str]], cases: list[ElementTree.Element]) -> dict[str, object]:
    """Count the cases of a number, and collect its figures."""
    found = defaultdict(int)
    figures: dict[str, float] = {}
    wanted = {(Path(file).stem, name) for file, name in tests}
    for case in cases:
        place = case.get("classname", "").split(".")
        if not any(file in place and case.get("name", "").partition("[")[0] == name for file, name in wanted):
            continue
        ended = {child.tag for child in case}
        found["failed" if ended & {"failure", "error"} else "skipped" if "skipped" in ended else "passed"] += 1
        for one in case.iter("property"):
            name = one.get("name", "")
            figures[name] = max(figures.get(name, 0.0), float(one.get("value", "nan")))
    told = "; ".join(f"{name}: {value:.3g}" for name, value in figures.items())
    return {"number": number, **{key: found[key] for key in ("passed", "failed", "skipped")}, "figures": told}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+")
    given = parser.parse_args()
    table = {number: tests for number, tests in rows().items() if tests and (not given.only or number in given.only)}
    places = sorted({f"tests/{file}::{name}" for tests in table.values() for file, name in tests})
    with tempfile.TemporaryDirectory() as folder:
        cases = run(places, Path(folder, "report.xml"))
    lines = [line(number, tests, cases) for number, tests in table.items()]
    for one in lines:
        print(one, flush=True)
    if not given.only:
        with open(RESULTS, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    return int(any(one["failed"] for one in lines))


if __name__ == "__main__":
    sys.exit(main())

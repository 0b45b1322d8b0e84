"""Change places of the package drawn by a seed, one at a time, and see whether the tests notice.

    python benchmarks/mutations.py [--count 60] [--seed 1] [--workers 1] [--only N ...] [--again] [--near] [--list] [--csv FILE]

Places are drawn in equal numbers over the rooms: operators, comparisons, signs, constants, dropped terms. Every change is made
in a copy of the tree; first the tests run that name the changed module, then those of its room, then all of them, each to the
first failure. results/mutations.csv has a line a place: what was changed and which test noticed ("none": to be explained).
``--again`` draws nothing: places of that file are looked for in the code as it stands, and their lines are written anew.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/cpikan")
CSV = ROOT / "benchmarks" / "results" / "mutations.csv"
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Place:
    """One change: a span of a file (bytes of UTF-8 lines) and what takes its place."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str

    @property
    def room(self) -> str:
        """Folder or module directly in the package."""
        return Path(self.file).relative_to(PACKAGE).parts[0].removesuffix(".py")


def changes(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Give the changes of one expression: their kind and the changed expression."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _text(node):
        yield "operator", ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            yield "dropped term", node.left
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        yield "bound", ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "operator", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield "sign", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "constant", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "constant", ast.Constant(node.value * 1.5 or 1.0)


def _text(node: ast.BinOp) -> bool:
    """Whether an operand is a text, whose sum is one and whose remainder is formatting."""
    return any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def places(file: Path) -> list[Place]:
    """Every place of a file that can be changed; annotations, decorators and texts are left alone."""
    source = file.read_text(encoding="utf-8")
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text.encode()))
    raw = source.encode()
    found = []
    for node in _expressions(ast.parse(source)):
        for kind, new in changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            text = ast.unparse(ast.fix_missing_locations(new))
            name = file.relative_to(ROOT).as_posix()
            found.append(Place(name, node.lineno, kind, start, end, raw[start:end].decode(), f"({text})"))
    return found


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.JoinedStr):
            continue
        if isinstance(node, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr):
                yield child
            if isinstance(child, ast.AST):
                yield from _expressions(child)


def draw(count: int, seed: int) -> list[Place]:
    """Draw places over the rooms in turn."""
    rooms: dict[str, list[Place]] = {}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        for place in places(file):
            rooms.setdefault(place.room, []).append(place)
    rng = random.Random(seed)
    big = [found for _, found in sorted(rooms.items()) if len(found) >= 100]
    for found in big:
        rng.shuffle(found)
    return [big[i % len(big)][i // len(big)] for i in range(count)]


def again(rows: Sequence[dict[str, str]]) -> list[tuple[int, Place]]:
    """Find the places of rows of the CSV in the code as it stands: the same change of the same text, nearest to its line."""
    found = []
    for row in rows:
        alike = [
            place
            for place in places(ROOT / row["file"])
            if (place.kind, " ".join(place.old.split()), place.new) == (row["kind"], row["old"], row["new"])
        ]
        if not alike:
            sys.exit(f"{row['old']!r} is no longer in {row['file']}: draw places anew")
        found.append((int(row["number"]), min(alike, key=lambda place: abs(place.line - int(row["line"])))))
    return found


def tests_of(place: Place, tree: Path) -> list[list[str]]:
    """Three sets of tests: that name the changed module, of its room, and all."""
    module = Path(place.file).relative_to("src").with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    tests = sorted((tree / "tests").rglob("test_*.py"))
    near = [str(t.relative_to(tree)) for t in tests if module in t.read_text(encoding="utf-8")]
    rooms = (
        Path(place.file).relative_to(PACKAGE).with_suffix("").parts[::-1]
    )  # the innermost first, as far as tests have it
    room = [
        str(t.relative_to(tree)) for inner in rooms for t in tests if inner in t.relative_to(tree / "tests").parts[:1]
    ]
    return [group for group in (near, [t for t in room if t not in near], ["tests"]) if group]


def noticed(place: Place, tree: Path, near: bool) -> tuple[str, float]:
    """Change one place of a tree, run the tests, put it back; which test failed first, and after how many seconds."""
    file, begun = tree / place.file, time.perf_counter()
    raw = file.read_bytes()
    file.write_bytes(raw[: place.start] + place.new.encode() + raw[place.end :])
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "EXAMPLES": "steady",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        for group in tests_of(place, tree)[: -1 if near else None]:
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *group]
            try:
                done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=1800)
            except subprocess.TimeoutExpired:
                return "time limit", time.perf_counter() - begun
            if done.returncode not in (0, 5):
                failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return (failed or ["collection"])[0].split(" - ")[0], time.perf_counter() - begun
    finally:
        file.write_bytes(raw)
    return "none", time.perf_counter() - begun


def _copy(place: Path) -> Path:
    for name in ("src", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, place / name, symlinks=True)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, place)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="N")
    parser.add_argument(
        "--again", action="store_true", help="change places of the CSV once more, in the code as it stands"
    )
    parser.add_argument("--near", action="store_true", help="run the tests of the module and of its room only")
    parser.add_argument("--list", action="store_true", help="show the places and change nothing")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    kept = list(csv.DictReader(given.csv.open(newline=""))) if given.again else []
    wanted = [row for row in kept if given.only is None or int(row["number"]) in given.only]
    drawn = again(wanted) if given.again else list(enumerate(draw(given.count, given.seed)))
    drawn = [one for one in drawn if given.only is None or one[0] in given.only]
    if given.list:
        for number, place in drawn:
            print(f"{number:3d} {place.file}:{place.line} {place.kind}: {place.old!r} -> {place.new!r}")
        return
    with tempfile.TemporaryDirectory(prefix="mutations_") as folder:
        trees = [_copy(Path(folder) / str(i)) for i in range(given.workers) if (Path(folder) / str(i)).mkdir() is None]

        def one(numbered: tuple[int, Place]) -> dict[str, object]:
            number, place = numbered
            tree = trees.pop()
            try:
                by, seconds = noticed(place, tree, given.near)
            finally:
                trees.append(tree)
            print(
                f"{number:3d} {seconds:5.0f} s {place.file}:{place.line} {place.old!r} -> {place.new!r}: {by}",
                flush=True,
            )
            row = {"number": number, "file": place.file, "line": place.line, "kind": place.kind}
            return {**row, "old": " ".join(place.old.split()), "new": place.new, "noticed_by": by}

        with ThreadPoolExecutor(given.workers) as pool:
            rows = list(pool.map(one, drawn))
    rows = sorted([*rows, *(row for row in kept if row not in wanted)], key=lambda row: int(str(row["number"])))
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{sum(row['noticed_by'] != 'none' for row in rows)} of {len(rows)} noticed")


if __name__ == "__main__":
    main()

"""Count the lines of code of the package: no blank lines, comments or docstrings.

python benchmarks/code_lines.py [FOLDER] [--rooms]
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(text: str) -> int:
    """Count the lines of ``text`` that hold code."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docs.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[1] / "src" / "cpikan")
    parser.add_argument("--rooms", action="store_true", help="also by room")
    given = parser.parse_args()
    rooms: Counter[str] = Counter()
    for path in sorted(given.folder.rglob("*.py")):
        rooms[path.relative_to(given.folder).parts[0]] += code_lines(path.read_text(encoding="utf-8"))
    if given.rooms:
        for room, lines in sorted(rooms.items()):
            print(f"{lines:6d}  {room}")
    print(f"{sum(rooms.values()):6d}  in all")


if __name__ == "__main__":
    main()

"""Puts the measured figures into the documentation: ``python benchmarks/figures_table.py [--check]``.

Between ``<!-- figures:begin -->`` and ``<!-- figures:end -->`` of the two READMEs comes a table of results/psi.csv and some of
results/calibration.csv; between
``<!--psi:NAME-->`` and ``<!--/psi-->`` anywhere in the documents comes one of its figures with its unit, and between
``<!--claims:NAME-->`` and ``<!--/claims-->`` one of results/claims.csv; for any other CSV see `inline_figures`. Empty CSVs,
CSVs that nothing reads and documents that name a measurement without a marked figure of it are refused.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import inline_figures

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
READMES = {"en": ROOT / "README.md", "ko": ROOT / "README.ko.md"}
DOCUMENTS = tuple(sorted((ROOT / "docs").rglob("*.md")))

_TABLE = re.compile(r"(<!-- figures:begin -->\n).*?(<!-- figures:end -->)", re.DOTALL)
_INLINE = re.compile(r"<!--(psi|claims):([\w.]+)-->.*?<!--/\1-->")
Figures = Mapping[str, Mapping[str, str]]
_HEADS = {
    "en": ("figure", "measured", "target", "met", "measured against"),
    "ko": ("항목", "측정값", "목표", "달성", "비교 기준"),
}
_POWER = re.compile(r"\b(\d+(?:\.\d+)?)e([+-]?)0*(\d+)\b")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_SIGNS = {
    "<=": "≤",
    ">=": "≥",
    "10^6 x 10^6": "10⁶ × 10⁶",
    "94-96": "94–96",
    "9344x7000": "9344 × 7000",
}
_KOREAN = {
    "about": "약",
    "read all, write one map, flush": "전체 읽기, 맵 1장 쓰기, flush",
    "Cramer-Rao, 16 frames": "크라메르-라오, 프레임 16장",
    "brute-force ML": "전수 탐색 최대우도",
    "independent least squares": "독립 최소제곱 구현",
    "independent run": "독립 구현",
    "AIA + tilt": "AIA와 기울기",
    " nominal": " 공칭 스텝",
    "15 % of predicted": "예측의 15 %",
    "floor": "최소 입출력",
}


class Label(NamedTuple):
    """How a figure is called in English and Korean, and its unit where that of the CSV does not read well."""

    en: str
    ko: str
    unit: str | None = None


_FULL_EN, _FULL_KO = "9344 × 7000, 4 wavelengths × 4 frames, 8 bit", "9344 × 7000, 4파장 × 4프레임, 8비트"
_SIGMAS = ("0.2", "0.25", "0.3", "0.35")
_NOISES = ("2", "4", "7")
LABELS: Mapping[str, Label] = {
    "seconds_npy": Label(f"{_FULL_EN}: frames to `.npy` height", f"{_FULL_KO}: 프레임에서 `.npy` 높이까지"),
    "floor_seconds": Label(
        "floor: read every input byte, write one map, flush", "최소 입출력: 입력 전체 읽기, 맵 1장 쓰기, flush"
    ),
    "seconds_over_floor": Label("the two as a ratio", "위 두 값의 비"),
    "process_npy": Label("whole process, `.npy`", "프로세스 전체, `.npy`"),
    "process_zarr": Label(
        "whole process, `.zarr` with all maps and pyramids", "프로세스 전체, `.zarr`(모든 맵과 피라미드)"
    ),
    "memory_full": Label("peak anonymous memory, `.npy`", "최대 익명 메모리, `.npy`"),
    "memory_full_zarr": Label("peak anonymous memory, `.zarr`", "최대 익명 메모리, `.zarr`"),
    "memory_growth_npy": Label("its growth at 16384 × 16384, `.npy`", "16384 × 16384에서 메모리 증가, `.npy`"),
    "memory_growth_zarr": Label("its growth at 16384 × 16384, `.zarr`", "16384 × 16384에서 메모리 증가, `.zarr`"),
    "rms_full": Label("height error of the same run, RMS", "같은 실행의 높이 오차, RMS"),
    **{
        f"noise_over_crb_{n}dn": Label(
            f"height noise over the Cramér–Rao bound, {n} DN per sample",
            f"높이 잡음 / 크라메르-라오 하한, 표본 잡음 {n} DN",
        )
        for n in _NOISES
    },
    **{
        f"coverage_{n}dn": Label(
            f"pixels whose 95 % interval holds, {n} DN per sample",
            f"95 % 구간이 참값을 포함하는 픽셀, 표본 잡음 {n} DN",
        )
        for n in _NOISES
    },
    "coverage_simulated": Label(
        "the same on a simulated wafer with shot noise", "같은 비율, 샷 잡음이 있는 모의 웨이퍼"
    ),
    **{
        f"wrong_orders_{s}rad": Label(
            f"wrong orders, excess over brute force, phase noise {s} rad",
            f"차수 오류, 전수 탐색 대비 초과분, 위상 잡음 {s} rad",
        )
        for s in _SIGMAS
    },
    "wrong_orders_0.1rad": Label(
        "wrong orders in 10⁷ pixels, phase noise 0.1 rad", "픽셀 10⁷개 중 차수 오류, 위상 잡음 0.1 rad", ""
    ),
    "relative_l2": Label("relative L2 error, surface of at least 4 µm RMS", "상대 L2 오차, RMS 4 µm 이상의 표면"),
    "identical_heights": Label(
        "different results over tiles, bands and threads (1 = bit-identical)",
        "타일·밴드·스레드 수를 바꾼 결과의 가짓수(1 = 비트 단위 동일)",
        "",
    ),
    "one_wavelength_wrong": Label(
        "one wavelength, 5 frames, 2048 × 2048: share of wrong orders",
        "단일 파장, 5프레임, 2048 × 2048: 차수 오류 비율",
    ),
    "one_wavelength_speed": Label("its unwrapping, speed against scikit-image", "위상 펼치기 속도, scikit-image 대비"),
    "one_wavelength_seconds": Label("the same, frames to height", "같은 자료, 프레임에서 높이까지"),
    "one_wavelength_full": Label(
        "one wavelength, 5 frames, 9344 × 7000, frames to height",
        "단일 파장, 5프레임, 9344 × 7000, 프레임에서 높이까지",
    ),
    "bomb_seconds": Label(
        "until a header that claims 10⁶ × 10⁶ pixels is refused", "10⁶ × 10⁶ 픽셀이라고 주장하는 헤더를 거부하기까지"
    ),
    "bomb_memory": Label("memory that takes", "그때 쓰는 메모리"),
    "mirror_ripple_2x": Label(
        "real telescope mirror, 12 frames: ripple at twice the fringe",
        "실측 망원경 거울, 12프레임: 무늬 두 배 주파수의 리플",
    ),
    "mirror_pv": Label("real telescope mirror: PV of the phase", "실측 망원경 거울: 위상 PV"),
    "calibration.mirror_increments": Label(
        "the same frames, steps unknown: increments from an independent fit, at most",
        "같은 프레임, 스텝 모름: 독립 구현과의 스텝 차이 최댓값",
    ),
    "calibration.mirror_ripple_2x": Label(
        "the same: ripple at twice the fringe", "같은 실행: 무늬 두 배 주파수의 리플"
    ),
    "calibration.mirror_halves_scatter": Label(
        "the same: first six frames against the last six, scatter (predicted within 15 %)",
        "같은 프레임: 앞 6장과 뒤 6장의 차이, 산포(예측의 15 % 이내)",
    ),
    "calibration.nzhagen_steps": Label(
        "fringe projection, 4 frames, steps unknown: off 90°, at most",
        "무늬 투영 4프레임, 스텝 모름: 90°와의 차이 최댓값",
    ),
    "calibration.blind_within_3_sigma": Label(
        "200 random stacks, steps unknown: steps within 3 predicted sigmas",
        "무작위 스택 200개, 스텝 모름: 예측 시그마 3배 이내의 스텝",
    ),
    "calibration.blind_ripple_worst": Label(
        "the same: worst ripple at twice the fringe", "같은 스택: 무늬 두 배 주파수의 리플 최댓값"
    ),
    "calibration.full_size_calibrate": Label("fit of the frames, 9344 × 7000 × 16", "프레임 맞춤, 9344 × 7000 × 16"),
}


def read_figures(name: str) -> Figures:
    """Lines of one CSV by the name of the figure; none where it has not been measured yet."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        print(f"benchmarks/results/{name}.csv is missing: run benchmarks/{name}.py", file=sys.stderr)
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {line["figure"]: line for line in csv.DictReader(file)}


def _power(match: re.Match[str]) -> str:
    exponent = (match[2].replace("+", "") + match[3]).translate(_SUPERSCRIPTS)
    return f"10{exponent}" if float(match[1]) == 1 else f"{match[1]} · 10{exponent}"


def with_unit(value: str, unit: str) -> str:
    """A value and its unit as they are printed."""
    for plain, sign in _SIGNS.items():
        value = value.replace(plain, sign)
    value = _POWER.sub(_power, value)
    unit = {"x": "×", "um": "µm"}.get(unit, unit)
    return f"{value} {unit}".strip()


def table(figures: Figures, language: str) -> str:
    """The Markdown table in one language: figures in the order of LABELS, others after them under their own names."""
    heads = _HEADS[language]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|--:|:-:|---|"]
    names = [name for name in LABELS if name in figures] + [name for name in figures if name not in LABELS]
    for name in names:
        line, label = figures[name], LABELS.get(name, Label(f"`{name}`", f"`{name}`"))
        unit = line["unit"] if label.unit is None else label.unit
        target = with_unit(line["target"], unit if line["target"][-1:].isdigit() else "") or "–"
        met = {"True": "✓", "False": "✗"}.get(line["met"], "")
        against = with_unit(line["baseline"], "")
        if language == "ko":
            target, against = _korean(target), _korean(against)
        text = label.ko if language == "ko" else label.en
        lines.append(f"| {text} | {with_unit(line['value'], unit)} | {target} | {met} | {against} |")
    return "\n".join(lines) + "\n"


def _korean(text: str) -> str:
    for english, korean in _KOREAN.items():
        text = text.replace(english, korean)
    return re.sub(r"within (.*)", r"\1 이내", text)


def filled(text: str, sources: Mapping[str, Figures], language: str) -> str:
    """A document with its table and its single figures brought up to date; figures not measured keep what stands there."""

    def inline(match: re.Match[str]) -> str:
        source, name = match[1], match[2]
        line = sources[source].get(name)
        if line is None:
            return match[0]
        label = LABELS.get(name)
        unit = line["unit"] if label is None or label.unit is None else label.unit
        return f"<!--{source}:{name}-->{with_unit(line['value'], unit)}<!--/{source}-->"

    if sources["psi"]:
        text = _TABLE.sub(lambda match: match[1] + table(sources["psi"], language) + match[2], text)
    return _INLINE.sub(inline, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a document is out of date")
    given = parser.parse_args()
    sources = {name: read_figures(name) for name in ("psi", "claims")}
    fitted = {f"calibration.{name}": line for name, line in read_figures("calibration").items()}
    sources["psi"] = {**sources["psi"], **{name: line for name, line in fitted.items() if name in LABELS}}
    for name in sources["psi"].keys() - LABELS.keys():
        print(f"figure {name} has no label here: it is shown under its own name", file=sys.stderr)
    stale = []
    for path, language in [*((path, name) for name, path in READMES.items()), *((path, "en") for path in DOCUMENTS)]:
        old = path.read_text(encoding="utf-8")
        new = inline_figures.filled(filled(old, sources, language), RESULTS)
        if new != old:
            stale.append(path.relative_to(ROOT))
            if not given.check:
                path.write_text(new, encoding="utf-8")
    scripts = [Path(__file__), *sorted(Path(__file__).parent.glob("*_docs.py"))]
    wrong = list(inline_figures.problems(RESULTS, [*READMES.values(), *DOCUMENTS], scripts))
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    print(f"{'out of date' if given.check else 'brought up to date'}: {', '.join(map(str, stale)) or 'nothing'}")
    return 1 if wrong or (given.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())

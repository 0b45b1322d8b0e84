"""The heat map and the page of an ablation: every cell and every paragraph says what the runs say."""

from __future__ import annotations

import pytest

from cpikan.pipeline.jobs.ablation.results import summarised
from cpikan.pipeline.jobs.ablation.run import COLUMNS
from cpikan.report.ablation import heat_map, number
from cpikan.report.ablation_page import page

FACTORS = {"": 1.0, "sampler=rad": 0.1, "recipe=soap": 4.0, "recipe=soap+sampler=rad": 0.05}


def row(problem, part, seed, error):
    done = {"problem": problem, "part": part, "seed": str(seed), "error": error, "status": "done"}
    return dict.fromkeys(COLUMNS, "") | done | {"plain": "recipe=adam", "limit_s": "7"}


@pytest.fixture(scope="module")
def found():
    rows = [
        row(problem, part, seed, f"{10.0**-seed * factor:.6g}")
        for problem in ("p", "q")
        for seed in range(4)
        for part, factor in FACTORS.items()
    ]
    refused = row("p", "balancer=causal", 0, "") | {"status": "refused", "reason": "no time"}
    same = [row(problem, "field=mlp", seed, f"{10.0**-seed:.6g}") for problem in "pq" for seed in range(4)]
    return summarised([*rows, *same, refused])


def test_every_cell_has_its_ratio(found):
    axes = heat_map(found).axes[0]
    told = {(int(one.get_position()[1]), int(one.get_position()[0])): one.get_text() for one in axes.texts}
    assert [text.get_text() for text in axes.get_yticklabels()] == [*list(FACTORS)[1:], "field=mlp", "balancer=causal"]
    assert told[0, 0] == told[0, 1] == "0.1"
    assert told[1, 1] == "4"
    assert told[0, 2] == "0.1  (p = 0.0078)"  # 8 of 8: 2 / 2^8
    assert told[4, 0] == "refused"
    assert axes.get_xticklabels()[0].get_text() == "p\n5.5e-02"
    colours = axes.images[0].get_array()
    assert colours[0, 0] == pytest.approx(-1)
    assert colours.mask[4, 0]


def test_a_paragraph_for_every_part(found):
    text = page(found)
    paragraphs = {block.split("`")[1]: block for block in text.split("\n## ")[1:]}
    assert list(paragraphs) == ["sampler=rad", "recipe=soap", "field=mlp", "balancer=causal"]
    assert "Helps: median ratio 0.1 over 8 pairs (lower in 8, higher in 0, p = 0.0078)" in paragraphs["sampler=rad"]
    assert "Together with `recipe=soap` 8 times better than the product of both" in paragraphs["sampler=rad"]
    assert paragraphs["recipe=soap"].count("Harms: median ratio 4") == 1
    assert "Together with `sampler=rad` 8 times better" in paragraphs["recipe=soap"]
    assert "p 4 (lower in 0 of 4), q 4 (lower in 0 of 4)" in paragraphs["recipe=soap"]
    assert "Changes nothing" in paragraphs["field=mlp"]
    assert "On p refused (no time)." in paragraphs["balancer=causal"]
    assert "| p | 0.055 |" in text


@pytest.mark.parametrize(
    ("ratio", "told"), [(0.1234, "0.12"), (31.6, "32"), (2e-7, "2e-07"), (5e6, "5e+06"), (1.0, "1")]
)
def test_numbers_have_two_digits(ratio, told):
    assert number(ratio) == told

"""Drawing without replacement: counts, probabilities, strata."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from cpikan.learning.samplers.draw import draw, inclusion


def test_probabilities_sum_to_the_count_and_never_exceed_one():
    density = np.random.default_rng(1).random(500) ** 8  # a few candidates have most of it
    for count in (1, 20, 250, 500):
        found = inclusion(density, count)
        assert found.sum() == pytest.approx(count, rel=1e-12)
        assert found.max() <= 1 + 1e-12
        free = found < 1
        assert np.allclose(found[free] * density[free].sum(), density[free] * found[free].sum(), rtol=1e-9)
    assert (inclusion(density, 250) == 1).any()


def test_what_a_density_leaves_out_is_drawn_evenly_once_the_rest_is_used_up():
    assert inclusion(np.array([2.0, 0, 1, 0, 0]), 2).tolist() == [1, 0, 1, 0, 0]
    assert inclusion(np.array([2.0, 0, 1, 0, 0]), 3) == pytest.approx([1, 1 / 3, 1, 1 / 3, 1 / 3])
    assert inclusion(np.zeros(4), 2) == pytest.approx([0.5] * 4)


def test_every_candidate_is_drawn_as_often_as_its_probability_says_and_never_twice():
    density = np.array([0.3, 1.0, 2.0, 0.1, 0.7, 4.0, 0.9, 0.5])
    probabilities = inclusion(density, 3)
    rounds, counts = 4000, np.zeros(8)
    for seed in range(rounds):
        drawn = draw(probabilities, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) == 3
        counts[drawn] += 1
    free = probabilities < 1
    spread = rounds * probabilities[free] * (1 - probabilities[free])
    statistic = ((counts[free] - rounds * probabilities[free]) ** 2 / spread).sum()  # each a square of unit variance
    assert statistic < free.sum() + 6 * np.sqrt(2 * free.sum())
    assert (counts[~free] == rounds).all()


def test_places_in_the_drawn_list_are_in_no_order():
    probabilities = inclusion(np.ones(200), 100)
    drawn = draw(probabilities, np.random.default_rng(5), np.repeat(np.arange(10), 20))
    halves = [np.mean(part < 100) for part in (drawn[:50], drawn[50:])]
    assert max(halves) < 0.5 + 4 * np.sqrt(0.25 / 50)


@pytest.mark.parametrize("seed", range(5))
def test_every_stratum_gets_its_sum_rounded_up_or_down(seed):
    random = np.random.default_rng(seed)
    strata = random.integers(0, 7, 900)
    probabilities = inclusion(random.random(900) * (strata + 0.2), 301)
    counts = np.bincount(strata[draw(probabilities, random, strata)], minlength=7)
    assert counts.sum() == 301
    assert (np.abs(counts - np.bincount(strata, weights=probabilities)) < 1).all()


def test_even_probabilities_draw_evenly():
    """Counts of tenths against the uniform law: the statistic of draws without replacement lies below chi-square."""
    probabilities = inclusion(np.full(2000, 3.0), 500)
    counts = np.histogram(draw(probabilities, np.random.default_rng(2)), bins=10, range=(0, 2000))[0]
    assert ((counts - 50) ** 2 / 50).sum() < chi2.ppf(0.999, 9)


def test_even_draws_take_every_pair_equally_often():
    """Without a random order, candidates side by side would never be drawn together: 3 of 14 pairs of 8 in draws of 4."""
    probabilities, rounds = inclusion(np.ones(8), 4), 3000
    drawn = [draw(probabilities, np.random.default_rng(seed)) for seed in range(rounds)]
    for pair in ({0, 1}, {2, 7}):
        share = np.mean([pair <= set(one.tolist()) for one in drawn])
        assert share == pytest.approx(3 / 14, abs=4 * np.sqrt(3 / 14 * 11 / 14 / rounds))
    assert any((np.diff(one) < 0).any() for one in drawn)

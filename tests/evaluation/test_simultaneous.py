from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulation import Design, measure, moments_of
from lora_clf.errors import UsageError
from lora_clf.evaluation.intervals import crossed_mean, paired_difference
from lora_clf.evaluation.noninferiority import items_needed, shortfalls
from lora_clf.evaluation.simultaneous import FEW_SEEDS, all_pairs, draws, letters, moments, power


def drawn(design: Design, seed: int = 0):
    correct, groups = design.draw(np.random.default_rng(seed))
    return moments_of(correct, groups), correct, groups


def test_the_variance_of_a_pair_is_that_of_the_crossed_mean() -> None:
    """With two classifiers nothing is shared out among pairs, so both ways of counting agree."""
    for seed in range(4):
        found, correct, groups = drawn(Design(2, 300, 4, 0.02, copies=0.3), seed)
        alone = crossed_mean(correct[0] - correct[1], groups.tolist())
        assert found.error[0, 1] == pytest.approx(alone.standard_error, rel=1e-9)
        assert found.means[0] - found.means[1] == pytest.approx(alone.value)
        assert (found.clusters, found.seeds, found.counted) == (alone.clusters, 4, 300)


def test_seeds_with_items_of_their_own() -> None:
    random = np.random.default_rng(0)
    right = random.random((3, 600)) < 0.9
    seeds = np.repeat(np.arange(3), 200)
    found = moments(right, np.arange(600), seeds)
    assert found.counted == 200 and found.clusters == 600
    # Nothing but items varies: the error is theirs, and seeds add some of what three of them show by chance.
    items = np.sqrt(found.items_apart[0, 1])
    assert items <= found.error[0, 1] < 3 * items
    split = moments(right + 0.2 * (seeds == 0) * np.array([[1], [0], [0]]), np.arange(600), seeds)
    assert split.error[0, 1] > 2 * found.error[0, 1] and split.seeds_apart[0, 1] > found.seeds_apart[0, 1]


def test_the_critical_value_is_tukeys_for_independent_classifiers() -> None:
    """Five classifiers with one seed that err on items of their own: the studentised range, q / sqrt 2."""
    from scipy.stats import studentized_range

    random = np.random.default_rng(0)
    found = moments(random.random((5, 4000)) < 0.8, np.arange(4000), np.zeros(4000))
    expected = studentized_range.ppf(0.95, 5, np.inf) / 2**0.5
    assert all_pairs(found, count=20_000).critical == pytest.approx(expected, rel=0.02)
    # One-sided against one: Dunnett's table for four others, 2.16 (Dunnett 1955, infinite degrees of freedom).
    assert draws(found, 20_000).one_sided(0, 0.95) == pytest.approx(2.16, abs=0.04)


def test_classifiers_that_err_alike_need_less_than_bonferroni() -> None:
    from statistics import NormalDist

    found, *_ = drawn(Design(12, 1500, 1, accuracy=0.9))
    assert all_pairs(found).critical < NormalDist().inv_cdf(1 - 0.025 / 66)


def test_the_same_results_give_the_same_interval() -> None:
    found, *_ = drawn(Design(4, 200, 3, 0.01))
    assert all_pairs(found).critical == all_pairs(found).critical != all_pairs(found, seed=1).critical
    value, interval = all_pairs(found).difference(1, 2)
    mirrored, other = all_pairs(found).difference(2, 1)
    assert (value, interval.low, interval.high) == pytest.approx((-mirrored, -other.high, -other.low))


# Monte-Carlo slack: 5 % plus 2.6 standard errors of the number of repeats (one-sided 0.5 %), so that a method that
# keeps its promise fails one of these once in some twenty choices of the seed; the seed is fixed. By default one of
# each kind: seeds that vary alike, unlike or not at all, one seed alone, copies, few strategies and many.
REPEATS, MANY = 1200, 240


@pytest.mark.parametrize(
    "design",
    [
        Design(2, 300, 3, 0.0),
        pytest.param(Design(2, 1100, 3, 0.011), marks=pytest.mark.slow),
        Design(3, 1100, 3, (0.011, 0.011, 0.0)),
        pytest.param(Design(5, 300, 3, 0.0055), marks=pytest.mark.slow),
        pytest.param(Design(5, 1100, 5, 0.011), marks=pytest.mark.slow),
        pytest.param(Design(5, 1100, 3, (0.011, 0.011, 0.0, 0.0, 0.0)), marks=pytest.mark.slow),
        Design(5, 1100, 3, (0.011, 0.0, 0.0, 0.0, 0.0)),
        Design(5, 400, 3, 0.0055, copies=0.3),
        Design(5, 300, 1),
        pytest.param(Design(16, 300, 3, 0.0), marks=pytest.mark.slow),
        pytest.param(Design(16, 1100, 3, 0.011), marks=pytest.mark.slow),
        Design(16, 1100, 3, (0.011,) * 8 + (0.0,) * 8),
    ],
    ids=str,
)
def test_equal_strategies_are_rarely_told_apart(design: Design) -> None:
    repeats = REPEATS if design.strategies < 16 else MANY
    slack = 2.6 * (0.05 * 0.95 / repeats) ** 0.5
    assert measure(design, repeats, seed=2, count=400).family_error <= 0.05 + slack


def test_a_real_difference_is_found_and_the_power_is_foretold() -> None:
    design = Design(3, 1100, 5, 0.003, gap=0.02)
    found = measure(design, 60, seed=1, count=400)
    assert found.power is not None and found.power > 0.8 and found.family_error <= 0.15
    assert found.recommendation_error is not None and found.recommendation_error <= 0.05
    same = Design(3, 1100, 5, 0.003)
    told = np.mean([power(drawn(same, number)[0], 0.02, count=1000) for number in range(20)])
    assert told == pytest.approx(found.power, abs=0.1)
    assert power(drawn(same)[0], 0.001) < 0.1


def test_a_strategy_at_the_margin_is_rarely_recommended() -> None:
    """Four strategies 1 point below the best: each would be wrong; none may be called within 1 point too often."""
    for design in (Design(5, 2000, 3, 0.003, gap=0.01), Design(2, 1100, 5, 0.011, gap=0.01)):
        found = measure(design, 400, seed=3, count=400)
        assert found.recommendation_error is not None
        assert found.recommendation_error <= 0.05 + 2.6 * (0.05 * 0.95 / 400) ** 0.5


def test_few_seeds_widen_what_is_asked_for() -> None:
    for seeds, factor in ((1, 1.0), (2, 1 + FEW_SEEDS), (5, 1 + FEW_SEEDS / 2)):
        drawn_ones = draws(drawn(Design(4, 200, seeds, 0.005))[0], 500)
        assert drawn_ones.widening == pytest.approx(factor)
        plain = np.quantile(np.abs(drawn_ones.ratios).max(axis=1), 0.95)
        assert drawn_ones.two_sided(0.95) == pytest.approx(factor * plain)


def test_letters_say_what_can_be_told_apart() -> None:
    random = np.random.default_rng(0)
    for size in (1, 2, 5, 9):
        for _ in range(20):
            means = random.random(size)
            apart = np.triu(random.random((size, size)) < 0.4, 1)
            apart = apart | apart.T
            words = letters(apart, means)
            assert len(words) == size and "a" in words[int(means.argmax())]
            for one in range(size):
                for other in range(size):
                    shared = set(words[one]) & set(words[other])
                    assert bool(shared) == (one == other or not apart[one, other])
    assert letters(np.zeros((3, 3), bool), [0.3, 0.2, 0.1]) == ["a", "a", "a"]
    chain = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=bool)
    assert letters(chain, [0.1, 0.2, 0.3]) == ["b", "ab", "a"]


def test_a_bound_holds_for_all_and_is_no_less_than_what_was_seen() -> None:
    found, *_ = drawn(Design(4, 500, 3, 0.005, gap=0.02), 4)
    loss = shortfalls(found)
    assert (loss.bounds >= loss.observed).all() and loss.observed.min() == 0.0
    assert loss.critical.shape == (4,) and (loss.critical < all_pairs(found).critical).all()
    assert shortfalls(moments(np.ones((1, 50)), np.arange(50), np.zeros(50))).bounds.tolist() == [0.0]


def test_the_number_of_items_that_would_decide_does() -> None:
    """With as many items as were asked for, most comparisons decide."""
    design = Design(2, 400, 1, accuracy=0.95)
    first = next(
        loss
        for seed in range(50)
        if (loss := shortfalls(drawn(design, seed)[0])).observed[1] == 0.0 and loss.bounds[1] > 0.01
    )
    needed = items_needed(first, 1, 0.01)
    assert 800 < needed < 10_000
    larger = Design(2, round(needed), 1, accuracy=0.95)
    decided = [shortfalls(drawn(larger, seed)[0], count=500).bounds[1] <= 0.01 for seed in range(60)]
    assert 0.6 <= np.mean(decided) <= 0.97
    assert items_needed(first, 0, 0.0) == float("inf")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: moments([], [], []), "expected"),
        (lambda: moments([[1, 0]], [1], [1, 1]), "1 clusters and 2 seeds came for 2"),
        (lambda: moments([[1, 0]], [1, 1], [1, 2]), "one cluster"),
        (lambda: all_pairs(moments([[1, 0]], [1, 2], [1, 1]), confidence=95), "Confidence 95"),
    ],
)
def test_wrong_input_is_refused(call, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()


@pytest.mark.parametrize("seeds", [1, 3])
def test_opposite_errors_on_near_copies_say_little_and_break_nothing(seeds: int) -> None:
    items = 40
    right = np.ones((3, items))
    right[0, 1] = right[1, 0] = 0.0  # two copies of one text: one strategy errs on the one, one on the other
    right[2, 20:25] = 0.0
    clusters = np.tile(np.maximum(np.arange(items), 1), seeds)
    found = moments(np.tile(right, seeds), clusters, np.repeat(np.arange(seeds), items))
    same = moments(np.tile(right[[0, 0, 2]], seeds), clusters, np.repeat(np.arange(seeds), items))
    family = all_pairs(found, count=500)
    assert found.error[0, 1] == pytest.approx(same.error[0, 1]) and found.error[0, 1] > 0.01
    assert np.isfinite(family.critical) and not family.apart[0, 1]
    bounds = shortfalls(found, count=500).bounds
    assert np.isfinite(bounds).all() and bounds[0] > 0
    one = paired_difference(np.tile(right[0], (seeds, 1)), np.tile(right[1], (seeds, 1)), clusters[:items])
    assert one.low < -0.01 and one.high > 0.01

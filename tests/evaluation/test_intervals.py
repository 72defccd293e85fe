from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_clf.errors import UsageError
from lora_clf.evaluation.intervals import clustered, crossed_mean, mean_spread, paired_difference, wilson


def test_wilson_equals_published_numbers() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        interval = wilson(successes, n)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    z = 1.959964
    assert wilson(29, 29).low == pytest.approx(29 / (29 + z * z)) and wilson(29, 29).high == 1.0


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_holds_the_rate_and_is_symmetric(hits: int, misses: int) -> None:
    interval, mirrored = wilson(hits, hits + misses), wilson(misses, hits + misses)
    assert 0 <= interval.low <= (hits / (hits + misses) if hits + misses else 0.5) <= interval.high <= 1
    assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    wider = wilson(hits, hits + misses, confidence=0.99)
    assert wider.low <= interval.low and wider.high >= interval.high


def test_mean_spread() -> None:
    spread = mean_spread([0.96, 0.97, 0.98])
    assert spread.mean == pytest.approx(0.97) and spread.sd == pytest.approx(0.01) and spread.n == 3
    assert spread.interval is not None
    assert spread.interval.high - spread.mean == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-4)
    alone = mean_spread([0.97])
    assert alone.mean == 0.97 and alone.sd is None and alone.interval is None


def near_copies(random: np.random.Generator, groups: int, rate: float, together: float):
    """Groups of 1 to 8 items; a share ``together`` of the groups is right or wrong as one."""
    group = np.repeat(np.arange(groups), np.minimum(random.geometric(0.6, groups), 8))
    as_one = (random.random(groups) < together)[group]
    return np.where(as_one, (random.random(groups) < rate)[group], random.random(group.size) < rate), group


@pytest.mark.parametrize(("rate", "together"), [(0.03, 0.0), (0.03, 0.5), (0.03, 1.0), (0.01, 1.0)])
def test_clustered_keeps_its_promise(rate: float, together: float) -> None:
    random = np.random.default_rng(3)
    runs, held, held_alone = 800, 0, 0
    for _ in range(runs):
        errors, group = near_copies(random, 250, rate, together)
        interval, alone = clustered(errors, group), wilson(int(errors.sum()), errors.size)
        held += interval.low <= rate <= interval.high
        held_alone += alone.low <= rate <= alone.high
    assert held / runs >= 0.935
    if together == 1.0:
        assert held_alone / runs < 0.9  # what it is for: the plain interval does not hold here


def test_clustered_without_clusters_is_about_wilson() -> None:
    errors = np.zeros(3000)
    errors[:60] = 1
    interval, plain = clustered(errors), wilson(60, 3000)
    assert (interval.low, interval.high) == pytest.approx((plain.low, plain.high), rel=0.01)


def test_clustered_without_errors_counts_clusters_not_items() -> None:
    # 100 texts, each there three times: no error among them is no error among 100
    interval = clustered(np.zeros(300), np.repeat(np.arange(100), 3))
    assert interval.low == 0.0 and interval.high == pytest.approx(wilson(0, 100).high, rel=0.03)
    assert clustered([0, 0, 0], ["a", "a", "a"]) == clustered([]) == wilson(0, 0)


def test_the_same_answers_from_more_seeds_are_no_more_items() -> None:
    errors = np.arange(50) < 2
    once, often = clustered(errors), clustered(np.tile(errors, (3, 1)))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    right = clustered(np.zeros((3, 50)))
    assert (right.low, right.high) == pytest.approx((0.0, wilson(0, 50).high), rel=0.06)


@pytest.mark.parametrize(("rate", "items", "seeds"), [(0.02, 100, 3), (0.02, 300, 3), (0.01, 1000, 5)])
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_the_rate_lies_in_the_interval_near_its_end(rate: float, items: int, seeds: int, alike: float) -> None:
    """Seeds that err on the same items, on others, and half and half."""
    random = np.random.default_rng(3)
    runs, held = 400, 0
    for _ in range(runs):
        drawn = np.where(random.random(items) < alike, random.random(items), random.random((seeds, items)))
        interval = clustered(drawn < rate)
        held += interval.low <= rate <= interval.high
    assert held / runs >= 0.93  # 95 % and two standard errors of this simulation


def test_seeds_that_differ_as_a_whole_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    alike = random.random((3, 400)) < 0.1
    apart = random.random((3, 400)) < np.array([[0.05], [0.1], [0.15]])
    one, other = clustered(alike), clustered(apart)
    assert other.high - other.low > 2 * (one.high - one.low)


def classifier(random: np.random.Generator, hardness: np.ndarray, seeds: int, seed_effect: float) -> np.ndarray:
    """Right or wrong, (S, N): items differ, classifiers have a view of each, seeds shift a whole run."""
    own = 0.5 * random.normal(size=hardness.size)
    shift = seed_effect * random.normal(size=(seeds, 1))
    return (3.0 - hardness + own + shift + random.normal(size=(seeds, hardness.size)) > 0).astype(float)


# With one seed nothing is said of other seeds, so there an effect of seeds is not asked for.
@pytest.mark.parametrize(("seeds", "seed_effect"), [(1, 0.0), (3, 0.0), (3, 0.3), (5, 0.0), (5, 0.3)])
def test_equal_classifiers_are_rarely_told_apart(seeds: int, seed_effect: float) -> None:
    random = np.random.default_rng(5)
    runs, apart = 600, 0
    for _ in range(runs):
        hardness = random.normal(size=300)
        pair = [classifier(random, hardness, seeds, seed_effect) for _ in "ab"]
        difference = paired_difference(*pair)
        apart += not difference.low <= 0 <= difference.high
    assert apart / runs <= 0.065  # 5 % and two standard errors of this simulation


def test_a_real_difference_is_found() -> None:
    random = np.random.default_rng(7)
    found = 0
    for _ in range(100):
        hardness = random.normal(size=1000)
        a, b = classifier(random, hardness, 3, 0.05), classifier(random, hardness + 0.6, 3, 0.05)
        difference = paired_difference(a, b)
        found += difference.low > 0
    assert found >= 90


def test_seeds_are_no_more_items() -> None:
    """Ten identical runs say what one says: the same interval, not one a third as wide."""
    random = np.random.default_rng(0)
    difference = random.integers(-1, 2, 400)
    once, often = crossed_mean(difference), crossed_mean(np.tile(difference, (10, 1)))
    assert once.value == often.value and once.standard_error == pytest.approx(often.standard_error)
    assert (often.items, often.clusters, often.seeds) == (400, 400, 10)


def test_copies_are_no_more_items() -> None:
    random = np.random.default_rng(0)
    difference = random.integers(-1, 2, (3, 200)).astype(float)
    once = crossed_mean(difference)
    twice = crossed_mean(np.repeat(difference, 2, axis=1), clusters=np.repeat(np.arange(200), 2))
    assert twice.clusters == 200 and twice.items == 400
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_classifiers_that_agree_everywhere_are_not_surely_equal() -> None:
    right = np.ones((3, 300))
    difference = paired_difference(right, right)
    assert difference.value == 0.0 and difference.high == -difference.low == pytest.approx(0.0066, abs=1e-4)
    assert paired_difference(right[0], right[0]).high == pytest.approx(difference.high)


def test_the_sides_can_be_exchanged() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 2, (2, 3, 50))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: wilson(5, 4), "5 successes of 4"),
        (lambda: wilson(1, 4, confidence=95), "Confidence 95 came"),
        (lambda: mean_spread([]), "at least one number"),
        (lambda: clustered([0, 2]), "from 0 to 1"),
        (lambda: clustered([0, 1], ["a"]), "1 cluster ids came for 2"),
        (lambda: crossed_mean([[0, 1]], clusters=[7, 7]), "one cluster"),
        (lambda: crossed_mean([]), "at least one of each"),
        (lambda: paired_difference([1, 0], [1]), r"\(2,\) and \(1,\)"),
    ],
)
def test_wrong_input_is_refused(call, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from lora_clf.errors import UsageError
from lora_clf.metrics.thresholds import (
    RULES,
    apply_threshold,
    best_threshold,
    chosen,
    precise_threshold,
    precision_bound,
    rows_for,
    sweep,
)

# Few different scores, so that there are ties; 0.5 among them.
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=40)
REFERENCE = {
    "f1": lambda truth, guess: reference.f1_score(truth, guess, zero_division=0),
    "mcc": reference.matthews_corrcoef,
    "balanced-accuracy": reference.balanced_accuracy_score,
}


def columns(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    hits, scores = zip(*rows, strict=True)
    return np.array(hits), np.array(scores) / 10


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=60)
@given(rows=ROWS)
def test_the_best_threshold_is_that_of_trying_all(rule: str, rows: list[tuple[bool, int]]) -> None:
    hits, scores = columns(rows)
    found = best_threshold(hits, scores, rule)
    if hits.all() or not hits.any():
        assert found is None
        return
    assert found is not None and 0 <= found.value <= 1
    tried = [REFERENCE[rule](hits, scores >= value) for value in np.unique(scores)]
    assert REFERENCE[rule](hits, scores >= found.value) == pytest.approx(max(tried))
    assert found.flagged == int((scores >= found.value).sum()) and found.hits == int(hits[scores >= found.value].sum())
    if REFERENCE[rule](hits, scores >= 0.5) == pytest.approx(max(tried)):
        assert found.value == 0.5


@settings(deadline=None)
@given(rows=ROWS, percent=st.integers(1, 100))
def test_the_precise_threshold_is_the_lowest_that_will_do(rows: list[tuple[bool, int]], percent: int) -> None:
    hits, scores = columns(rows)
    found = precise_threshold(hits, scores, percent / 100)
    enough = [v for v in np.unique(scores) if hits[scores >= v].sum() * 100 >= percent * (scores >= v).sum()]
    if not enough:
        assert found is None
        return
    assert found is not None and found.precision >= percent / 100 - 1e-9
    assert ((scores >= found.value) == (scores >= min(enough))).all()  # the same rows, with room for rounding
    assert found.target == percent / 100 and found.positives == hits.sum() and found.rows == len(hits)
    assert 0 < found.bound <= found.precision or found.bound == pytest.approx(found.precision)
    json.dumps(found.as_dict())


def test_it_lies_between_rows_and_not_on_one() -> None:
    """A probability differs in its last bits between batches; a row must not fall out for that."""
    hits, scores = np.array([True, True, False]), np.array([0.9, 0.8000000001, 0.7])
    found = precise_threshold(hits, scores, 1.0)
    assert found is not None and found.value == 0.75
    close = precise_threshold(hits, np.array([0.9, 0.7 + 2e-16, 0.7]), 1.0)
    assert close is not None and close.flagged == 2 and 0.7 < close.value <= 0.7 + 2e-16
    everything = precise_threshold([True, True], [0.4, 0.2], 0.9)
    assert everything is not None and everything.value == 0.1 and everything.recall == 1.0


@pytest.mark.parametrize(("hits", "flagged"), [(0, 0), (0, 5), (1, 1), (18, 18), (41, 42), (299, 299), (7, 20)])
def test_the_bound_is_that_of_clopper_and_pearson(hits: int, flagged: int) -> None:
    bound = precision_bound(hits, flagged)
    if not hits:
        assert bound == 0.0
        return
    expected = binomtest(hits, flagged, alternative="greater").proportion_ci(0.95, method="exact").low
    assert bound == pytest.approx(expected)
    assert binomtest(hits, flagged, bound, alternative="greater").pvalue == pytest.approx(0.05)


def test_how_many_rows_a_precision_takes() -> None:
    for target in (0.5, 0.9, 0.95, 0.99):
        needed = rows_for(target)
        assert needed is not None
        assert precision_bound(needed, needed) >= target > precision_bound(needed - 1, needed - 1)
    assert rows_for(1.0) is None


def test_a_sweep_holds_every_value() -> None:
    draw = np.random.default_rng(0)
    scores = draw.random(300)
    hits = draw.random(300) < scores
    found = sweep(hits, scores)
    assert len(found) == 12 and [each.value for each in found] == sorted(each.value for each in found)
    for each in found:
        guess = scores >= each.value
        assert each.precision == pytest.approx(reference.precision_score(hits, guess, zero_division=0))
        assert each.recall == pytest.approx(reference.recall_score(hits, guess))
    assert sweep([], [])[0].flagged == 0


def test_chosen_labels() -> None:
    table = np.array([[0.5, 0.5], [0.7, 0.3], [0.2, 0.8]])
    assert chosen(table, 1, None).tolist() == [0, 0, 1]
    assert chosen(table, 1, 0.3).tolist() == [1, 1, 1] and chosen(table, 1, 0.9).tolist() == [0, 0, 0]
    assert chosen(table, 0, 0.7).tolist() == [1, 0, 1] and chosen(np.zeros((0, 2)), 1, 0.5).size == 0
    assert chosen(np.array([[0.2, 0.3, 0.5]]), None, 0.5).tolist() == [2]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UsageError, match="f2"):
        best_threshold([True, False], [0.1, 0.2], "f2")
    with pytest.raises(UsageError, match=r"precision aimed at is 1\.5"):
        precise_threshold([True, False], [0.1, 0.2], 1.5)
    with pytest.raises(UsageError, match="threshold is 0"):
        apply_threshold([True], [0.1], 0)
    with pytest.raises(UsageError, match=r"scores of shape \(3,\)"):
        precise_threshold([True, False], [0.1, 0.2, 0.3], 0.5)
    with pytest.raises(UsageError, match="3 hits of 2"):
        precision_bound(3, 2)
    assert precise_threshold([], [], 0.5) is None and precise_threshold([False], [0.9], 0.5) is None

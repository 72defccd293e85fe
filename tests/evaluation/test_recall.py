from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from lora_clf.errors import UsageError
from lora_clf.evaluation.intervals import wilson
from lora_clf.evaluation.recall import recall_at


def made(positives: int, negatives: int, seed: int = 0, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    hits = np.repeat([True, False], [positives, negatives])
    return hits, draw.normal(size=hits.size) + apart * hits


def test_too_few_negatives_give_no_number() -> None:
    hits, scores = made(200, 999)
    found = recall_at(hits, scores, 0.01)
    assert found.recall is None and found.interval is None and found.threshold is None
    assert found.text == "needs 1,000 negatives, has 999"
    assert recall_at(*made(200, 1000), 0.01, draws=20).recall is not None
    assert recall_at(*made(0, 1000), 0.01).text == "needs positives, has none"
    assert recall_at([], [], 0.1).text == "needs 100 negatives, has 0"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_recall_and_threshold_are_those_of_the_roc_curve(seed: int, ties: bool) -> None:
    hits, scores = made(40, 210, seed)
    if ties:
        scores = np.round(scores)
    found = recall_at(hits, scores, 0.05, draws=5)
    false, true, cuts = roc_curve(hits, scores, drop_intermediate=False)
    best = np.flatnonzero(false <= 0.05 + 1e-12)[-1]
    assert found.recall == pytest.approx(true[best]) and found.false_positives == pytest.approx(false[best] * 210)
    if np.isfinite(cuts[best]):
        assert found.threshold == cuts[best]
    else:
        assert found.recall == 0.0 and found.threshold is not None and found.threshold > scores.max()
    assert (scores[~hits] >= found.threshold).mean() <= 0.05
    assert found.interval == wilson(int((scores[hits] >= found.threshold).sum()), 40)
    assert found.whole is not None and found.whole.low <= found.interval.low < found.interval.high <= found.whole.high
    json.dumps(found.as_dict())


def test_groups_widen_the_interval() -> None:
    """Forty positives that are eight texts, five copies each, say as little as eight."""
    hits, scores = made(8, 60, 3, apart=1.0)
    copies, group = np.repeat(hits, 5), np.repeat(np.arange(68), 5)
    tight = recall_at(copies, np.repeat(scores, 5), 0.1)
    wide = recall_at(copies, np.repeat(scores, 5), 0.1, [f"group {number}" for number in group])
    assert tight.recall == wide.recall and 0 < tight.recall < 1  # type: ignore[operator]
    for name in ("interval", "whole"):
        one, other = getattr(tight, name), getattr(wide, name)
        assert other.high - other.low > 1.3 * (one.high - one.low)


def test_the_whole_interval_keeps_its_promise() -> None:
    """Known truth: two normals; the recall at the true threshold for 5 %, over draws of both classes."""
    from scipy.stats import norm

    truth = float(norm.sf(norm.isf(0.05) - 2.0))
    inside = {"interval": 0, "whole": 0}
    for seed in range(150):
        found = recall_at(*made(300, 200, seed), 0.05, draws=200, seed=seed)
        for name in inside:
            interval = getattr(found, name)
            inside[name] += interval.low <= truth <= interval.high
    assert inside["whole"] >= 0.9 * 150
    assert inside["interval"] < 0.85 * 150  # the threshold's own doubt is not small


def test_same_seed_same_interval() -> None:
    hits, scores = made(50, 300)
    assert recall_at(hits, scores, 0.05, seed=4) == recall_at(hits, scores, 0.05, seed=4)
    order = np.random.default_rng(0).permutation(350)
    shuffled = recall_at(hits[order], scores[order], 0.05)
    plain = recall_at(hits, scores, 0.05)
    assert (shuffled.recall, shuffled.threshold) == (plain.recall, plain.threshold)


@pytest.mark.parametrize(
    ("hits", "scores", "rate", "groups", "said"),
    [
        ([True, False], [0.1], 0.1, None, r"scores of shape \(1,\)"),
        ([True, False], [0.1, float("nan")], 0.1, None, "not finite"),
        ([True, False], [0.1, 0.2], 1.0, None, "between 0 and 1"),
        ([True, False], [0.1, 0.2], 0.1, ["a"], "1 groups came for 2"),
    ],
)
def test_wrong_input_is_refused(hits, scores, rate, groups, said) -> None:
    with pytest.raises(UsageError, match=said):
        recall_at(hits, scores, rate, groups)

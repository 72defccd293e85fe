from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from lora_clf.errors import UsageError
from lora_clf.metrics.classification import (
    accuracy,
    average_precision,
    confusion_matrix,
    false_positive_rate,
    macro_f1,
    matthews,
    per_class,
    summarise,
)

CLASSES = 4
PAIRS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60)


@settings(deadline=None)
@given(PAIRS)
def test_scores_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    every = list(range(CLASSES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes that one side does not have
        assert accuracy(labels, predicted) == pytest.approx(reference.accuracy_score(labels, predicted))
        assert matthews(labels, predicted) == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-12)
        assert macro_f1(labels, predicted) == pytest.approx(
            reference.f1_score(labels, predicted, average="macro", zero_division=0)
        )
        matrix = reference.confusion_matrix(labels, predicted, labels=every)
        columns = reference.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    assert (confusion_matrix(labels, predicted, CLASSES) == matrix).all()
    ours = per_class(labels, predicted, [f"class {number}" for number in every])
    assert len(ours) == CLASSES
    for number, scores in enumerate(ours.values()):
        assert list(scores.values()) == pytest.approx([column[number] for column in columns])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=50))
def test_average_precision_equals_scikit_learn_with_ties(rows: list[tuple[bool, int]]) -> None:
    hits, scores = (np.array(side) for side in zip(*rows, strict=True))
    if not hits.any():
        assert average_precision(hits, scores) == 0.0
        return
    assert average_precision(hits, scores) == pytest.approx(reference.average_precision_score(hits, scores))


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(pairs: list[tuple[int, int]], random) -> None:
    shuffled = pairs.copy()
    random.shuffle(shuffled)
    for score in (accuracy, macro_f1, matthews):
        first, second = (score(*map(list, zip(*rows, strict=True))) for rows in (pairs, shuffled))
        assert first == pytest.approx(second)


def test_nothing_below_the_line_is_zero() -> None:
    assert accuracy([], []) == macro_f1([], []) == matthews([], []) == 0.0
    assert matthews([0, 0, 1], [1, 1, 1]) == 0.0  # says the same always
    assert false_positive_rate([1, 1], [0, 1], positive=1) == 0.0  # no other class there
    assert per_class([0, 0], [0, 0], ["a", "b"])["b"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_known_numbers() -> None:
    labels, predicted = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    assert confusion_matrix(labels, predicted, 2).tolist() == [[2, 1], [1, 1]]
    assert false_positive_rate(labels, predicted, positive=1) == pytest.approx(1 / 3)
    assert matthews(labels, predicted) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_large_counts_do_not_overflow() -> None:
    labels = np.tile(np.array([0, 1], dtype=np.int8), 150_000)
    assert matthews(labels, labels) == pytest.approx(1.0)
    assert confusion_matrix(labels, labels, 2).tolist() == [[150_000, 0], [0, 150_000]]


PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]], dtype=np.float32)


def test_summary_is_whole_and_json() -> None:
    summary = summarise(np.array([0, 0, 1, 1]), PROBABILITIES, ["ham", "spam"], positive="spam")
    assert json.loads(json.dumps(summary)) == summary
    assert summary["n"] == 4 and summary["accuracy"] == 0.5  # the tie goes to the first class
    assert summary["confusion_matrix"] == [[1, 1], [1, 1]] and summary["labels"] == ["ham", "spam"]
    assert summary["loss"] == pytest.approx(-np.log([0.9, 0.4, 0.5, 0.8]).mean(), rel=1e-6)
    assert summary["pr_auc"] == pytest.approx(reference.average_precision_score([0, 0, 1, 1], PROBABILITIES[:, 1]))
    assert (summary["precision"], summary["recall"], summary["f1"]) == (0.5, 0.5, 0.5)
    assert summary["false_positive_rate"] == 0.5
    assert set(summary) == {
        *(
            "n",
            "accuracy",
            "balanced_accuracy",
            "macro_f1",
            "mcc",
            "macro_pr_auc",
            "loss",
            "brier",
            "calibration_error",
            "calibration_error_equal_mass",
            "confusion_matrix",
            "labels",
            "per_class",
        ),
        *("precision", "recall", "f1", "pr_auc", "false_positive_rate"),
    }
    assert "pr_auc" not in summarise([0, 0, 1, 1], PROBABILITIES, ["ham", "spam"])


def test_summary_of_nothing() -> None:
    summary = summarise([], np.zeros((0, 2)), ["ham", "spam"], positive="spam")
    assert summary["n"] == 0 and summary["accuracy"] == 0.0 and summary["loss"] == 0.0


@pytest.mark.parametrize(
    ("probabilities", "names", "positive", "says"),
    [
        (PROBABILITIES[:3], ["ham", "spam"], None, r"\(3, 2\) came; expected \(4, 2\)"),
        (np.log(PROBABILITIES), ["ham", "spam"], None, "use softmax"),
        (np.full((4, 2), np.nan), ["ham", "spam"], None, "use softmax"),
        (PROBABILITIES, ["ham", "spam"], "Spam", "'Spam' came; there are: ham, spam"),
    ],
)
def test_wrong_input_is_refused(probabilities, names, positive, says) -> None:
    with pytest.raises(UsageError, match=says):
        summarise([0, 0, 1, 1], probabilities, names, positive)


def test_unequal_lengths_and_unknown_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shape \(2,\)"):
        accuracy([0, 1], [0])
    with pytest.raises(UsageError, match="expected 0 to 1"):
        confusion_matrix([0, 2], [0, 1], 2)

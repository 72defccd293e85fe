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
    assess,
    average_precision,
    balanced_accuracy,
    confusion_matrix,
    false_positive_rate,
    macro_f1,
    matthews,
    per_class,
    summarise,
)
from lora_clf.metrics.probability import softmax

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
        ours = confusion_matrix(labels, predicted, CLASSES)
        assert matthews(ours) == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-12)
        assert macro_f1(ours) == pytest.approx(reference.f1_score(labels, predicted, average="macro", zero_division=0))
        assert balanced_accuracy(ours) == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
        matrix = reference.confusion_matrix(labels, predicted, labels=every)
        columns = reference.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    assert (ours == matrix).all()
    named = per_class(ours, [f"class {number}" for number in every])
    assert len(named) == CLASSES
    for number, scores in enumerate(named.values()):
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
    first, second = (list(zip(*rows, strict=True)) for rows in (pairs, shuffled))
    assert accuracy(*first) == accuracy(*second)
    assert (confusion_matrix(*first, CLASSES) == confusion_matrix(*second, CLASSES)).all()


def test_nothing_below_the_line_is_zero() -> None:
    assert accuracy([], []) == 0.0
    for nothing in (confusion_matrix([], [], classes) for classes in (0, 2)):
        assert macro_f1(nothing) == balanced_accuracy(nothing) == matthews(nothing) == 0.0
    assert matthews(confusion_matrix([0, 0, 1], [1, 1, 1], 2)) == 0.0  # says the same always
    assert false_positive_rate([1, 1], [0, 1], positive=1) == 0.0  # no other class there
    found = per_class(confusion_matrix([0, 0], [0, 0], 2), ["a", "b"])
    assert found["b"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_known_numbers() -> None:
    labels, predicted = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    matrix = confusion_matrix(labels, predicted, 2)
    assert matrix.tolist() == [[2, 1], [1, 1]]
    assert false_positive_rate(labels, predicted, positive=1) == pytest.approx(1 / 3)
    assert matthews(matrix) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_large_counts_do_not_overflow() -> None:
    labels = np.tile(np.array([0, 1], dtype=np.int8), 150_000)
    matrix = confusion_matrix(labels, labels, 2)
    assert matthews(matrix) == pytest.approx(1.0)
    assert matrix.tolist() == [[150_000, 0], [0, 150_000]]


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
    assert summary["brier"] == pytest.approx(np.mean([0.01, 0.36, 0.25, 0.04]), rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 40))
def test_areas_of_each_class_equal_scikit_learn(seed: int, classes: int, rows: int) -> None:
    """Few rows, so that classes are absent; few different probabilities, so that there are ties."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    table = softmax(draw.integers(0, 3, (rows, classes)).astype(np.float64))
    summary = summarise(labels, table, [f"c{number}" for number in range(classes)])
    areas = [scores["pr_auc"] for scores in summary["per_class"].values()]  # type: ignore[attr-defined]
    there = [number for number in range(classes) if (labels == number).any()]
    expected = {n: reference.average_precision_score(labels == n, table[:, n]) for n in there}
    assert areas == pytest.approx([expected.get(number, 0.0) for number in range(classes)])
    assert summary["macro_pr_auc"] == pytest.approx(np.mean(list(expected.values())))


def test_a_threshold_decides_and_a_temperature_only_scales() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0], [0.0, 0.2]], dtype=np.float32)
    plain = assess(labels, logits, ["ham", "spam"], "spam")
    assert plain == summarise(labels, softmax(logits), ["ham", "spam"], "spam")
    scaled = assess(labels, logits, ["ham", "spam"], "spam", temperature=2.0)
    calibrated = scaled.pop("calibrated")
    assert scaled == plain and calibrated["temperature"] == 2.0  # type: ignore[index]
    assert calibrated["loss"] == summarise(labels, softmax(logits / 2), ["ham", "spam"])["loss"]  # type: ignore[index]
    # spam from 0.3 on: the third text (0.27 as trained, 0.38 at temperature 2) is flagged only when scaled
    recalls = [
        assess(labels, logits, ["ham", "spam"], "spam", temperature=temperature, threshold=0.3)["recall"]
        for temperature in (None, 2.0)
    ]
    assert recalls == pytest.approx([2 / 3, 1.0])
    assert assess(labels, logits, ["ham", "spam"], "ham", threshold=0.95)["recall"] == 0.0
    assert assess([], np.zeros((0, 2)), ["ham", "spam"], "spam", temperature=2.0, threshold=0.4)["n"] == 0


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

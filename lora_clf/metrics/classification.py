"""How often a classifier is right, and in which way it is wrong.

Labels and predictions are class numbers 0 .. C-1. Wherever a quotient has nothing below the line (a class
that was never predicted, no examples at all) it is 0.0, as in scikit-learn with ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError
from lora_clf.metrics.probability import (
    brier,
    calibration_error,
    cross_entropy,
    equal_mass_calibration_error,
    softmax,
)
from lora_clf.metrics.thresholds import chosen, cuts

Labels = npt.NDArray[np.integer] | Sequence[int]
Matrix = npt.NDArray[np.int64]  # (C, C), see `confusion_matrix`


def _pair(labels: Labels, predicted: Labels) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    truth, guess = (np.asarray(values, dtype=np.intp) for values in (labels, predicted))
    if truth.ndim != 1 or truth.shape != guess.shape:
        raise UsageError(
            f"Labels of shape {truth.shape} and predictions of shape {guess.shape} came; "
            "expected one prediction for each label, both of shape (N,)."
        )
    return truth, guess


def ratio(above: float, below: float) -> float:
    """A quotient; 0.0 where nothing is below the line."""
    return float(above / below) if below else 0.0


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> Matrix:
    """Count how often each class was taken for each class: (C, C), row = truth, column = prediction."""
    truth, guess = _pair(labels, predicted)
    for numbers in (truth, guess):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < classes:
            raise UsageError(f"Class numbers {numbers.min()} to {numbers.max()} came; expected 0 to {classes - 1}.")
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def accuracy(labels: Labels, predicted: Labels) -> float:
    """Share of predictions that are right; 0.0 where there are none."""
    truth, guess = _pair(labels, predicted)
    return ratio(float(np.count_nonzero(truth == guess)), truth.size)


def _scores(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Precision, recall and F1 of each class: (C, 3)."""
    hits = np.diag(matrix)
    return np.array(
        [
            (ratio(hit, guessed), ratio(hit, true), ratio(2 * hit, guessed + true))
            for hit, guessed, true in zip(hits, matrix.sum(axis=0), matrix.sum(axis=1), strict=True)
        ],
        dtype=np.float64,
    ).reshape(len(matrix), 3)


def macro_f1(matrix: Matrix) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), rare classes counting as much as common ones.

    The classes are those that occur among the labels or the predictions: one that the part does not hold and
    that was never predicted was neither found nor missed (as scikit-learn's ``f1_score(average="macro")``).
    """
    occurs = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return float(_scores(matrix)[occurs, 2].mean()) if occurs.any() else 0.0


def balanced_accuracy(matrix: Matrix) -> float:
    """Mean recall of the classes that occur among the labels; 0.0 where there are no examples."""
    occurs = matrix.sum(axis=1) > 0
    return float(_scores(matrix)[occurs, 1].mean()) if occurs.any() else 0.0


def matthews(matrix: Matrix) -> float:
    """Correlation of labels and predictions, -1 to 1; 0 for a classifier that always says the same.

    Matthews 1975 for two classes; for more the R_K of Gorodkin 2004, with s examples, c of them right, t_k of
    class k and p_k predicted as k: (c s - t.p) / sqrt((s^2 - p.p) (s^2 - t.t)). 0.0 where either side holds
    one class only.
    """
    counts = matrix.astype(np.float64)
    t, p, s = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    return ratio(float(np.trace(counts) * s - t @ p), float(np.sqrt((s * s - p @ p) * (s * s - t @ t))))


def per_class(matrix: Matrix, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support (number of examples) of each class, in the order of ``names``."""
    return {
        name: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, (precision, recall, f1), support in zip(names, _scores(matrix), matrix.sum(axis=1), strict=True)
    }


def average_precision(hits: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve, without interpolation; 0.0 where there is no positive.

    The mean of the precision at each threshold, weighted by the recall gained there: sum_n (R_n - R_{n-1})
    P_n. Equal scores share a threshold, so the order of the examples does not matter.

    Args:
        hits: (N,) true where the example is of the positive class.
        scores: (N,) higher where the classifier is surer of the positive class.
    """
    found = cuts(hits, scores)
    if not found.positives:
        return 0.0
    return float(np.sum(np.diff(found.hits, prepend=0) / found.positives * (found.hits / found.flagged)))


def false_positive_rate(labels: Labels, predicted: Labels, positive: int) -> float:
    """Share of the examples of other classes that were taken for ``positive``; 0.0 where there are none."""
    truth, guess = _pair(labels, predicted)
    others = guess[truth != positive]
    return ratio(float(np.count_nonzero(others == positive)), others.size)


def summarise(
    labels: Labels,
    probabilities: npt.ArrayLike,
    names: Sequence[str],
    positive: str | None = None,
    predicted: Labels | None = None,
) -> dict[str, object]:
    """Every score of one set of predictions, ready for JSON.

    The prediction is the class of the largest probability, the first of equals, unless ``predicted`` says otherwise.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C), each row summing to 1.
        names: the C class names, in the order of the columns.
        positive: the name of the class that is looked for (spam), or None.
        predicted: (N,) the class numbers that were answered, where a threshold decided.

    Returns:
        ``n``, ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``mcc``, ``macro_pr_auc`` (mean of the average
        precision of the classes that occur, each against the others), ``loss`` (cross entropy, nats), ``brier``,
        ``calibration_error`` (15 bins of equal width), ``calibration_error_equal_mass`` (15 of as many examples),
        ``confusion_matrix`` (rows = truth), ``labels`` (the names) and ``per_class`` (precision, recall, f1, support,
        pr_auc); with ``positive`` also its ``precision``, ``recall``, ``f1``, ``pr_auc`` and ``false_positive_rate``.

    Raises:
        UsageError: the shapes do not fit, or the rows are no probabilities.
    """
    truth = np.asarray(labels, dtype=np.intp)
    table = np.asarray(probabilities, dtype=np.float64)
    if table.shape != (truth.size, len(names)):
        raise UsageError(f"Probabilities of shape {table.shape} came; expected {(truth.size, len(names))}.")
    if not np.all(np.isfinite(table)) or np.any(table < 0) or not np.allclose(table.sum(axis=1), 1, atol=1e-3):
        raise UsageError(
            "Rows came that are no probabilities; expected numbers from 0 to 1 that sum to 1: use softmax."
        )
    guess = predicted if predicted is not None else table.argmax(axis=1) if truth.size else truth
    matrix = confusion_matrix(truth, guess, len(names))
    classes = per_class(matrix, names)
    areas = [average_precision(truth == number, table[:, number]) for number in range(len(names))]
    for scores, area in zip(classes.values(), areas, strict=True):
        scores["pr_auc"] = area
    there = [area for scores, area in zip(classes.values(), areas, strict=True) if scores["support"]]
    summary: dict[str, object] = {
        "n": int(truth.size),
        "accuracy": accuracy(truth, guess),
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "mcc": matthews(matrix),
        "macro_pr_auc": ratio(sum(there), len(there)),
        **probability_scores(truth, table),
        "confusion_matrix": matrix.tolist(),
        "labels": list(names),
        "per_class": classes,
    }
    if positive is not None:
        if positive not in names:
            raise UsageError(f"Positive label {positive!r} came; there are: {', '.join(names)}.")
        column = list(names).index(positive)
        summary |= {key: classes[positive][key] for key in ("precision", "recall", "f1", "pr_auc")}
        summary["false_positive_rate"] = false_positive_rate(truth, guess, column)
    return summary


def probability_scores(labels: Labels, probabilities: npt.ArrayLike) -> dict[str, float]:
    """What a temperature changes: ``loss``, ``brier``, ``calibration_error`` and that of bins of equal mass."""
    return {
        "loss": cross_entropy(labels, probabilities),
        "brier": brier(labels, probabilities),
        "calibration_error": calibration_error(labels, probabilities),
        "calibration_error_equal_mass": equal_mass_calibration_error(labels, probabilities),
    }


def assess(
    labels: Labels,
    logits: npt.ArrayLike,
    names: Sequence[str],
    positive: str | None = None,
    *,
    temperature: float | None = None,
    threshold: float | None = None,
    threshold_label: str | None = None,
) -> dict[str, object]:
    """Every score of a classifier's logits, before and after temperature scaling.

    Labels are those that the threshold gives on the scaled probabilities, else the most probable ones. ``loss``,
    ``brier``, both calibration errors and the areas are of the probabilities as trained, whatever the temperature,
    so that classifiers with and without one compare.

    Args:
        labels: (N,) class numbers.
        logits: (N, C).
        names: the C class names, in the order of the columns.
        positive: the name of the class that is looked for, or None.
        temperature: what logits are divided by, or None.
        threshold: the probability from which on ``threshold_label`` is answered, or None.
        threshold_label: one of two names; by default ``positive``, and without either there is no threshold.

    Returns:
        What `summarise` returns; with a temperature also ``calibrated``: ``temperature`` and the `probability_scores`
        of the scaled probabilities; with a threshold also ``threshold``.
    """
    scores = np.asarray(logits, dtype=np.float64)
    scaled = softmax(scores / (temperature or 1.0)) if scores.size else scores
    label = threshold_label if threshold_label is not None else positive
    column = list(names).index(label) if label is not None and label in names else None
    if column is None or len(names) != 2:
        threshold = None
    guess = chosen(scaled, column, threshold)
    summary = summarise(labels, softmax(scores) if scores.size else scores, names, positive, guess)
    if temperature is not None:
        summary["calibrated"] = {"temperature": float(temperature), **probability_scores(labels, scaled)}
    if threshold is not None:
        summary["threshold"] = float(threshold)
    return summary

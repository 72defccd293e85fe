"""How far an answer is from the true one among classes in order. Ranks are class numbers 0 .. C-1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_clf.metrics.classification import Labels, Matrix, accuracy, confusion_matrix, macro_f1, per_class
from lora_clf.metrics.regression import mean_absolute_error, spearman


def quadratic_kappa(matrix: Matrix) -> float:
    """Agreement beyond chance, where a miss by d ranks counts d^2 (Cohen 1968, weighted kappa): 1 is perfect, 0 chance.

    1 - sum w O / sum w E, with w = d^2, O the confusion matrix and E what its margins alone would give. 0.0 where
    both sides are one and the same class throughout, as there is nothing to agree beyond.
    """
    counts = matrix.astype(np.float64)
    total = counts.sum()
    if not total:
        return 0.0
    places = np.arange(len(counts))
    weights = np.square(places[:, None] - places[None, :]).astype(np.float64)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / total
    below = float((weights * expected).sum())
    return 1.0 - float((weights * counts).sum()) / below if below else 0.0


def ordinal_scores(labels: Labels, predicted: Labels, names: Sequence[str]) -> dict[str, object]:
    """Every score of ranks that were answered, ready for JSON.

    Returns:
        ``n``, ``mae`` (mean distance in ranks), ``quadratic_kappa``, ``accuracy``, ``within_one`` (the share at most
        one rank off), ``macro_f1``, ``spearman``, ``confusion_matrix`` (rows = truth), ``labels`` and ``per_class``.
    """
    truth, guess = np.asarray(labels, dtype=np.intp), np.asarray(predicted, dtype=np.intp)
    off = np.abs(truth - guess)
    matrix = confusion_matrix(truth, guess, len(names))
    return {
        "n": len(truth),
        "mae": mean_absolute_error(truth, guess),
        "quadratic_kappa": quadratic_kappa(matrix),
        "accuracy": accuracy(truth, guess),
        "within_one": float((off <= 1).mean()) if len(off) else 0.0,
        "macro_f1": macro_f1(matrix),
        "spearman": spearman(truth, guess),
        "confusion_matrix": matrix.tolist(),
        "labels": list(names),
        "per_class": per_class(matrix, names),
    }

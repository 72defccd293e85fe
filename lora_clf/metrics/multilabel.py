"""How right sets of labels are. ``truth`` and ``guess`` are boolean (N, C): whether row n has label c.

Wherever a quotient has nothing below the line it is 0.0, as in scikit-learn with ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError
from lora_clf.metrics.classification import average_precision, ratio

Bools = npt.NDArray[np.bool_]


def _pair(truth: npt.ArrayLike, guess: npt.ArrayLike) -> tuple[Bools, Bools]:
    true, found = np.asarray(truth, dtype=bool), np.asarray(guess, dtype=bool)
    if true.ndim != 2 or true.shape != found.shape:
        raise UsageError(f"Label sets of shape {true.shape} and {found.shape} came; expected two of shape (N, C).")
    return true, found


def subset_accuracy(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The share of rows whose labels are exactly the true ones, none too many and none missing."""
    true, found = _pair(truth, guess)
    return float((true == found).all(axis=1).mean()) if len(true) else 0.0


def hamming_loss(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The share of the N x C yes-or-no answers that are wrong."""
    true, found = _pair(truth, guess)
    return float((true != found).mean()) if true.size else 0.0


def micro_f1(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """F1 over all N x C answers at once: frequent labels weigh most."""
    true, found = _pair(truth, guess)
    return ratio(2.0 * (true & found).sum(), float(true.sum() + found.sum()))


def macro_f1(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The mean over labels of F1; a label that neither occurs nor is given counts as 0, as in scikit-learn."""
    true, found = _pair(truth, guess)
    values = [ratio(2.0 * h, s) for h, s in zip((true & found).sum(0), true.sum(0) + found.sum(0), strict=True)]
    return float(np.mean(values)) if values else 0.0


def multilabel_scores(
    truth: npt.ArrayLike, guess: npt.ArrayLike, scores: npt.ArrayLike, names: Sequence[str]
) -> dict[str, object]:
    """Every score of label sets, ready for JSON.

    Args:
        truth: (N, C) true where the row has the label.
        guess: (N, C) true where the label was given.
        scores: (N, C) the probability of each label.
        names: the C labels.

    Returns:
        ``n``, ``subset_accuracy``, ``hamming_loss``, ``micro_f1``, ``macro_f1``, ``micro_precision``, ``micro_recall``,
        ``macro_pr_auc`` (mean over labels that occur), ``labels_per_row``, ``labels_given_per_row``, ``labels`` and
        ``per_label`` (precision, recall, f1, support, pr_auc).
    """
    true, found = _pair(truth, guess)
    shares = np.asarray(scores, dtype=np.float64)
    both, has, given = (true & found).sum(0), true.sum(0), found.sum(0)
    labels = {
        name: {
            "precision": ratio(both[c], given[c]),
            "recall": ratio(both[c], has[c]),
            "f1": ratio(2.0 * both[c], float(has[c] + given[c])),
            "support": int(has[c]),
            "pr_auc": average_precision(true[:, c], shares[:, c]),
        }
        for c, name in enumerate(names)
    }
    areas = [each["pr_auc"] for each in labels.values() if each["support"]]
    return {
        "n": len(true),
        "subset_accuracy": subset_accuracy(true, found),
        "hamming_loss": hamming_loss(true, found),
        "micro_f1": micro_f1(true, found),
        "macro_f1": macro_f1(true, found),
        "micro_precision": ratio(both.sum(), given.sum()),
        "micro_recall": ratio(both.sum(), has.sum()),
        "macro_pr_auc": ratio(sum(areas), len(areas)),
        "labels_per_row": ratio(has.sum(), len(true)),
        "labels_given_per_row": ratio(given.sum(), len(true)),
        "labels": list(names),
        "per_label": labels,
    }

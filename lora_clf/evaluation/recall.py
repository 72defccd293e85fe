"""How much is found when at most a given share of the others is flagged by mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError
from lora_clf.evaluation.intervals import Groups, Interval, clustered, wilson

ERRORS: Final = 10
"""So many false positives must be allowed: a threshold that one or two negatives set is an accident."""
RATES: Final = (0.01, 0.001)
"""The false-positive rates that reports speak of."""


def negatives_needed(rate: float) -> int:
    """How many negatives it takes to speak of a false-positive rate: `ERRORS` / rate."""
    return int(np.ceil(ERRORS / rate - 1e-9))


@dataclass(frozen=True)
class RecallAt:
    """Recall at a false-positive rate, or how many negatives it would take.

    Attributes:
        rate: the false-positive rate that is allowed.
        negatives: how many examples of the other classes there are, and ``needed`` to say anything.
        positives: how many examples of the positive class there are.
        threshold: the lowest score that keeps to the rate; None where there is no answer.
        false_positives: how many negatives lie at or above it.
        recall: the share of positives at or above it; None where there is no answer.
        interval: of the recall at this very threshold: other positives, the same cut.
        whole: of the recall where the threshold is found anew as well: by far the wider one where the rate is small.
    """

    rate: float
    negatives: int
    needed: int
    positives: int
    threshold: float | None = None
    false_positives: int = 0
    recall: float | None = None
    interval: Interval | None = None
    whole: Interval | None = None

    @property
    def text(self) -> str:
        """The answer in words."""
        if self.negatives < self.needed:
            return f"needs {self.needed:,} negatives, has {self.negatives:,}"
        if self.recall is None or self.interval is None or self.whole is None:
            return "needs positives, has none"
        return (
            f"{self.recall:.3f} ({self.interval.low:.3f} to {self.interval.high:.3f} at this threshold; "
            f"{self.whole.low:.3f} to {self.whole.high:.3f} with the threshold found anew)"
        )

    def as_dict(self) -> dict[str, object]:
        """The finding, ready for JSON."""
        return {
            "rate": self.rate,
            "negatives": self.negatives,
            "needed": self.needed,
            "positives": self.positives,
            "threshold": self.threshold,
            "false_positives": self.false_positives,
            "recall": self.recall,
            "interval": None if self.interval is None else [self.interval.low, self.interval.high],
            "whole_interval": None if self.whole is None else [self.whole.low, self.whole.high],
            "text": self.text,
        }


def recall_at(
    hits: npt.ArrayLike,
    scores: npt.ArrayLike,
    rate: float,
    groups: Groups | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> RecallAt:
    """Find the recall at a false-positive rate, from predictions for rows that trained no classifier that scored them.

    Give it pooled out-of-fold predictions: every row once, scored by the classifier of the folds without it. One
    test part has too few negatives nearly always: a rate of 1 % takes 1,000, and with fewer there is no answer.

    The interval at this threshold is Wilson's, or `clustered` where groups are known. The threshold is itself set by
    a handful of negatives; so a second interval comes from a bootstrap that draws whole groups, positives and
    negatives alike, and finds the threshold anew each time (percentiles; Efron and Tibshirani 1993, chapter 13).

    Args:
        hits: (N,) true where the example is of the positive class.
        scores: (N,) higher where the classifier is surer of the positive class.
        rate: the share of the negatives that may be flagged, between 0 and 1.
        groups: (N,) the near-copy group of each example; None where all stand alone.
        confidence: how often the intervals are to hold the true recall.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UsageError: the shapes do not fit, scores are not finite, or the rate is no share.
    """
    positive, score = np.asarray(hits, dtype=bool), np.asarray(scores, dtype=np.float64)
    if positive.ndim != 1 or positive.shape != score.shape:
        raise UsageError(f"Truths of shape {positive.shape} and scores of shape {score.shape} came; expected (N,).")
    if not np.isfinite(score).all():
        raise UsageError("Scores came that are not finite; expected a number for each example.")
    if not 0 < rate < 1:
        raise UsageError(f"The false-positive rate is {rate}; expected a share between 0 and 1, such as 0.01.")
    if groups is not None and len(groups) != score.size:
        raise UsageError(f"{len(groups)} groups came for {score.size} examples; expected one for each.")
    positives = int(positive.sum())
    negatives, needed = score.size - positives, negatives_needed(rate)
    if negatives < needed or not positives:
        return RecallAt(rate, negatives, needed, positives)

    order = np.argsort(-score, kind="stable")
    positive, score = positive[order], score[order]
    names = np.arange(score.size) if groups is None else np.asarray(groups, dtype=object)[order]
    ends = np.append(score[1:] != score[:-1], True)  # where a run of equal scores ends
    cut = _cut(np.cumsum(~positive)[ends], rate * negatives)
    # Where even the highest score flags too many, nothing is flagged.
    threshold = float(np.nextafter(score[0], np.inf)) if cut < 0 else float(score[ends][cut])
    flagged = score >= threshold
    missed = (~flagged)[positive].astype(np.float64)
    recall = 1.0 - float(missed.mean())
    if groups is None:
        found = wilson(int(flagged[positive].sum()), positives, confidence)
    else:
        misses = clustered(missed, list(names[positive]), confidence)
        found = Interval(1.0 - misses.high, 1.0 - misses.low)

    numbers = np.unique(names.astype(str), return_inverse=True)[1] if groups is not None else names.astype(np.intp)
    random = np.random.default_rng(seed)
    count = int(numbers.max()) + 1
    recalls = []
    for _ in range(draws):
        weight = np.bincount(random.integers(0, count, count), minlength=count)[numbers].astype(np.float64)
        inside, outside = weight * positive, weight * ~positive
        if inside.sum() and outside.sum():
            place = _cut(np.cumsum(outside)[ends], rate * outside.sum())
            recalls.append(0.0 if place < 0 else float(np.cumsum(inside)[ends][place] / inside.sum()))
    tail = (1 - confidence) / 2
    low, high = (float(value) for value in np.quantile(recalls, [tail, 1 - tail])) if recalls else (0.0, 1.0)
    # The bootstrap cannot see past the positives at hand; the other interval can.
    whole = Interval(min(low, found.low), max(high, found.high))
    return RecallAt(rate, negatives, needed, positives, threshold, int(flagged[~positive].sum()), recall, found, whole)


def _cut(false_positives: npt.NDArray[np.generic], allowed: float) -> int:
    """The last cut with no more false positives than allowed; -1 where the first has more already."""
    return int(np.searchsorted(false_positives, allowed + 1e-9, side="right")) - 1

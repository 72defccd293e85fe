"""From which probability on the positive label is answered: chosen on rows that did not train the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError, unknown

Floats = npt.NDArray[np.float64]

RULES: Final = ("f1", "mcc", "balanced-accuracy")
"""What a threshold can be chosen to make largest."""

GIVEN: Final = "given"
PRECISION: Final = "precision"
CONFIDENCE: Final = 0.95


def chosen(probabilities: npt.ArrayLike, positive: int | None, threshold: float | None) -> npt.NDArray[np.intp]:
    """The class number of each row (N, C): the most probable; or, of two, ``positive`` from a threshold on."""
    table = np.asarray(probabilities, dtype=np.float64)
    if not len(table):
        return np.zeros(0, dtype=np.intp)
    if threshold is None or positive is None:
        return np.asarray(table.argmax(axis=1), dtype=np.intp)
    return np.where(table[:, positive] >= threshold, positive, 1 - positive).astype(np.intp)


def precision_bound(hits: int, flagged: int, confidence: float = CONFIDENCE) -> float:
    """The lower bound of a precision of ``hits`` of ``flagged``: one-sided, exact; 0.0 where nothing is flagged.

    Clopper and Pearson 1934: the largest p at which so many hits or more have a probability of 1 - confidence.
    """
    if not 0 <= hits <= flagged or not 0 < confidence < 1:
        raise UsageError(f"{hits} hits of {flagged} at confidence {confidence} came; expected 0 <= hits <= flagged.")
    if not hits:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(hits, flagged - hits + 1, 1 - confidence))


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it does on the rows that it was chosen on.

    Attributes:
        value: the positive label is answered from this probability on.
        rule: "given", one of `RULES`, or "precision".
        target: the precision that was asked for, where that is the rule.
        rows: how many rows there were, ``positives`` of them of the positive class.
        flagged: how many lie at or above it, ``hits`` of them of the positive class.
        bound: the lower 95 % bound of the precision. The threshold was chosen on these very rows, so even that is
            a little kind.
    """

    value: float
    rule: str
    target: float | None
    rows: int
    positives: int
    flagged: int
    hits: int
    bound: float

    @property
    def precision(self) -> float:
        """The share of the flagged rows that are of the positive class."""
        return self.hits / self.flagged if self.flagged else 0.0

    @property
    def recall(self) -> float:
        """The share of the positive class that is flagged."""
        return self.hits / self.positives if self.positives else 0.0

    def as_dict(self) -> dict[str, object]:
        """The finding, ready for JSON."""
        return {
            "value": self.value,
            "rule": self.rule,
            "target": self.target,
            "rows": self.rows,
            "positives": self.positives,
            "flagged": self.flagged,
            "hits": self.hits,
            "precision": self.precision,
            "precision_bound": self.bound,
            "recall": self.recall,
        }


@dataclass(frozen=True)
class Cuts:
    """Every way to cut ``rows`` by score, ``positives`` of them positive.

    Cut k flags the ``flagged[k]`` highest, from the score ``scores[k]`` on, ``hits[k]`` of them positive.
    """

    scores: Floats
    flagged: npt.NDArray[np.int64]
    hits: npt.NDArray[np.int64]
    rows: int
    positives: int

    def between(self, cut: int) -> float:
        """A threshold that makes this cut: 0.5 where that does, else halfway to the next lower score."""
        high = float(self.scores[cut])
        low = float(self.scores[cut + 1]) if cut + 1 < len(self.scores) else 0.0
        if low < 0.5 <= high:
            return 0.5
        middle = (low + high) / 2
        # Few digits where they do: the last bits of a probability differ between machines and batches.
        short = float(f"{middle:.6g}")
        return short if low < short <= high else middle if low < middle else high

    def threshold(self, value: float, rule: str, target: float | None = None) -> Threshold:
        """What the threshold ``value`` does on these rows."""
        above = self.scores >= value
        flagged = int(self.flagged[above][-1]) if above.any() else 0
        hits = int(self.hits[above][-1]) if above.any() else 0
        bound = precision_bound(hits, flagged)
        return Threshold(value, rule, target, self.rows, self.positives, flagged, hits, bound)


def cuts(hits: npt.ArrayLike, scores: npt.ArrayLike) -> Cuts:
    """Every way to cut rows by score, from the highest score down; equal scores are cut together.

    Args:
        hits: (N,) true where the row is of the positive class.
        scores: (N,) higher where it seems more so.

    Raises:
        UsageError: they are not as many.
    """
    positive, score = np.asarray(hits, dtype=bool), np.asarray(scores, dtype=np.float64)
    if positive.shape != score.shape or positive.ndim != 1:
        raise UsageError(f"Truths of shape {positive.shape} and scores of shape {score.shape} came; expected (N,).")
    order = np.argsort(-score, kind="stable")
    positive, score = positive[order], score[order]
    last = np.append(score[1:] != score[:-1], True) if score.size else np.zeros(0, dtype=bool)
    counts = np.flatnonzero(last) + 1
    return Cuts(score[last], counts, np.cumsum(positive)[last], score.size, int(positive.sum()))


def apply_threshold(hits: npt.ArrayLike, scores: npt.ArrayLike, value: float) -> Threshold:
    """What a threshold that was given does on some rows.

    Args:
        hits: (N,) true where the row is of the positive class.
        scores: (N,) the probability of the positive class.
        value: the threshold, above 0 and up to 1.
    """
    if not 0 < value <= 1:
        raise UsageError(f"The threshold is {value}; expected a number above 0 and up to 1.")
    return cuts(hits, scores).threshold(value, GIVEN)


def best_threshold(hits: npt.ArrayLike, scores: npt.ArrayLike, rule: str = "f1") -> Threshold | None:
    """The threshold that makes ``rule`` largest on some rows; of several as good, the one nearest to 0.5.

    None where one of the two classes does not occur.

    Args:
        hits: (N,) true where the row is of the positive class.
        scores: (N,) the probability of the positive class.
        rule: "f1", "mcc" or "balanced-accuracy".
    """
    if rule not in RULES:
        raise unknown("rule for a threshold", rule, RULES)
    found = cuts(hits, scores)
    if not 0 < found.positives < found.rows:
        return None
    values = _objective(found, rule)
    best = np.flatnonzero(values >= values.max() - 1e-12)
    candidates = [found.between(int(cut)) for cut in best]
    if found.scores[0] < 0.5 and values.max() <= (0.5 if rule == "balanced-accuracy" else 0.0) + 1e-12:
        candidates.append(0.5)  # nothing is flagged there, and that is as good
    return found.threshold(min(candidates, key=lambda value: abs(value - 0.5)), rule)


def precise_threshold(hits: npt.ArrayLike, scores: npt.ArrayLike, target: float) -> Threshold | None:
    """The lowest threshold whose precision on some rows is at least ``target``; None where none reaches it.

    The lowest finds most. Its precision on other rows is another matter: see `Threshold.bound`.

    Args:
        hits: (N,) true where the row is of the positive class.
        scores: (N,) the probability of the positive class.
        target: the precision asked for, above 0 and up to 1.
    """
    if not 0 < target <= 1:
        raise UsageError(f"The precision aimed at is {target}; expected a number above 0 and up to 1.")
    found = cuts(hits, scores)
    enough = np.flatnonzero(found.hits >= target * found.flagged - 1e-9) if found.positives else np.zeros(0, dtype=int)
    if not enough.size:
        return None
    return found.threshold(found.between(int(enough[-1])), PRECISION, target)


def rows_for(target: float, confidence: float = CONFIDENCE) -> int | None:
    """How many flagged rows, all of them right, put the lower bound of the precision at ``target``; None for 1."""
    return None if target >= 1 else int(np.ceil(np.log(1 - confidence) / np.log(target)))


def sweep(
    hits: npt.ArrayLike, scores: npt.ArrayLike, values: Sequence[float] = (0.05, *np.arange(1, 10) / 10, 0.95, 0.99)
) -> list[Threshold]:
    """What each of several thresholds does on some rows: precision against recall, number by number."""
    found = cuts(hits, scores)
    return [found.threshold(float(value), GIVEN) for value in values]


def _objective(cuts: Cuts, rule: str) -> Floats:
    """The value of ``rule`` at each cut."""
    found, flagged = cuts.hits.astype(np.float64), cuts.flagged.astype(np.float64)
    positives, negatives = float(cuts.positives), float(cuts.rows - cuts.positives)
    wrong = flagged - found
    if rule == "f1":
        return 2 * found / (flagged + positives)
    if rule == "balanced-accuracy":
        return (found / positives + (negatives - wrong) / negatives) / 2
    below = np.sqrt(flagged * (cuts.rows - flagged) * positives * negatives)
    above = found * (negatives - wrong) - wrong * (positives - found)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

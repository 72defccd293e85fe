"""Where a classifier is right and where not: by class, by length, by the values of a column, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError
from lora_clf.evaluation.intervals import clustered
from lora_clf.evaluation.recall import RATES, recall_at
from lora_clf.metrics.classification import confusion_matrix, false_positive_rate, per_class
from lora_clf.metrics.probability import Reliability, equal_mass, equal_mass_reliability, softmax
from lora_clf.metrics.thresholds import chosen, sweep

QUARTERS: Final = 4
EMPTY: Final = "(empty)"


@dataclass(frozen=True, eq=False)
class Answered:
    """Texts, their labels and what a classifier made of them; N texts, C classes.

    Attributes:
        names: the C labels, in the order of the logits.
        truth: (N,) class numbers.
        logits: (N, C).
        texts: the N texts.
        rows: their N row numbers in the source, from 1.
        lengths: (N,) tokens read of each.
        positive: the label that is looked for, or None.
        temperature: what logits are divided by, or None.
        threshold: the probability from which on ``threshold_label`` is answered, or None.
        threshold_label: the label that the threshold is about.
        groups: (N,) the near-copy group of each text; None where all count as strangers.
    """

    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    texts: Sequence[str]
    rows: Sequence[int]
    lengths: npt.NDArray[np.int64]
    positive: str | None = None
    temperature: float | None = None
    threshold: float | None = None
    threshold_label: str | None = None
    groups: npt.NDArray[np.int64] | None = None

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """The probabilities that are answered: (N, C)."""
        return softmax(self.logits.astype(np.float64) / (self.temperature or 1.0))

    @cached_property
    def predicted(self) -> npt.NDArray[np.intp]:
        """The class numbers that are answered: (N,)."""
        column = self.names.index(self.threshold_label) if self.threshold_label is not None else None
        return chosen(self.shares, column, self.threshold)

    def rate(self, places: npt.NDArray[np.intp]) -> dict[str, Any]:
        """How often the texts at ``places`` are right, with a 95 % interval over texts (near copies count as one)."""
        wrong = (self.predicted != self.truth)[places].astype(np.float64)
        interval = clustered(wrong, None if self.groups is None else self.groups[places].tolist())
        return {
            "n": len(places),
            "errors": int(wrong.sum()),
            "accuracy": 1.0 - float(wrong.mean()) if len(places) else None,
            "low": 1.0 - interval.high,
            "high": 1.0 - interval.low,
        }

    def about(self, places: npt.NDArray[np.intp]) -> dict[str, Any]:
        """`rate`, and of the positive label precision, recall and false-positive rate."""
        found = self.rate(places)
        if self.positive is not None:
            truth, guess = self.truth[places], self.predicted[places]
            scores = per_class(confusion_matrix(truth, guess, len(self.names)), self.names)[self.positive]
            found |= {"positives": scores["support"], "precision": scores["precision"], "recall": scores["recall"]}
            found["false_positive_rate"] = false_positive_rate(truth, guess, self.names.index(self.positive))
        return found


def by_class(answered: Answered) -> list[dict[str, Any]]:
    """How often each class is found: its recall, with an interval."""
    every = ((name, np.flatnonzero(answered.truth == number)) for number, name in enumerate(answered.names))
    return [{"label": name, **answered.rate(places)} for name, places in every]


Part = tuple[dict[str, Any], npt.NDArray[np.intp]]  # what its rows have in common, and where they are


def by_tokens(lengths: npt.NDArray[np.int64]) -> Iterator[Part]:
    """Short and long texts: four parts of about as many, by the tokens that are read of each.

    Texts of one length share a part, so there are fewer parts where lengths are few.
    """
    if not len(lengths):
        return
    ends, part = equal_mass(lengths, QUARTERS)
    for number in range(len(ends)):
        places = np.flatnonzero(part == number)
        yield {"from": int(lengths[places].min()), "to": int(lengths[places].max())}, places


def by_value(column: Sequence[str | None]) -> Iterator[Part]:
    """The rows with each value of a column, the most common value first."""
    places: dict[str, list[int]] = {}
    for place, value in enumerate(column):
        places.setdefault(value if value and value.strip() else EMPTY, []).append(place)
    for value, rows in sorted(places.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        yield {"value": value}, np.array(rows, dtype=np.intp)


def by_length(answered: Answered) -> list[dict[str, Any]]:
    """The scores of short and of long texts."""
    return [{**facts, **answered.about(places)} for facts, places in by_tokens(answered.lengths)]


def by_column(answered: Answered, column: Sequence[str | None]) -> list[dict[str, Any]]:
    """The scores of the texts with each value of a column, the most common value first.

    Raises:
        UsageError: the column is not as long as the texts.
    """
    if len(column) != len(answered.rows):
        raise UsageError(f"A column of {len(column)} values came for {len(answered.rows)} texts.")
    return [{**facts, **answered.about(places)} for facts, places in by_value(column)]


def errors(answered: Answered) -> list[dict[str, Any]]:
    """The texts that are answered wrongly, the one whose true label seemed least probable first."""
    wrong = np.flatnonzero(answered.predicted != answered.truth)
    of_truth = answered.shares[wrong, answered.truth[wrong]]
    ordered = wrong[np.argsort(of_truth, kind="stable")]
    return [
        {
            "row": int(answered.rows[place]),
            "label": answered.names[answered.truth[place]],
            "predicted": answered.names[answered.predicted[place]],
            "probability": float(answered.shares[place, answered.predicted[place]]),
            "probability_of_label": float(answered.shares[place, answered.truth[place]]),
            "text": answered.texts[place],
        }
        for place in ordered
    ]


def thresholds(answered: Answered) -> list[dict[str, Any]]:
    """What other thresholds would do: precision, recall and false-positive rate of each; for two labels only."""
    if answered.positive is None or len(answered.names) != 2:
        return []
    column = answered.names.index(answered.positive)
    hits = answered.truth == column
    negatives = int((~hits).sum())
    found = []
    for each in sweep(hits, answered.shares[:, column]):
        false = each.flagged - each.hits
        right = each.hits + negatives - false
        found.append(
            {
                "threshold": each.value,
                "flagged": each.flagged,
                "hits": each.hits,
                "precision": each.precision,
                "recall": each.recall,
                "f1": 2 * each.hits / (each.flagged + each.positives) if each.flagged + each.positives else 0.0,
                "false_positive_rate": false / negatives if negatives else 0.0,
                "accuracy": right / each.rows if each.rows else 0.0,
            }
        )
    return found


def recalls(answered: Answered) -> list[dict[str, Any]]:
    """How much of the positive label is found at few false alarms, or how many negatives it takes to say."""
    if answered.positive is None:
        return []
    column = answered.names.index(answered.positive)
    hits, scores = answered.truth == column, answered.shares[:, column]
    groups = None if answered.groups is None else answered.groups.tolist()
    return [recall_at(hits, scores, rate, groups).as_dict() for rate in RATES]


def reliabilities(answered: Answered) -> dict[str, list[dict[str, float]]]:
    """Confidence beside accuracy in bins of about as many texts each: as trained, and as answered."""
    found = {"before_temperature": _bins(equal_mass_reliability(answered.truth, softmax(answered.logits)))}
    if answered.temperature is not None:
        found["after_temperature"] = _bins(equal_mass_reliability(answered.truth, answered.shares))
    return found


def _bins(table: Reliability) -> list[dict[str, float]]:
    return [
        {"confidence": float(sure), "accuracy": float(right), "n": int(count)}
        for sure, right, count in zip(table.confidence, table.accuracy, table.counts, strict=True)
        if count
    ]


REPORTS: Final[Mapping[str, Callable[[Answered], Any]]] = {
    "by_class": by_class,
    "by_length": by_length,
    "thresholds": thresholds,
    "recall_at": recalls,
    "reliability": reliabilities,
    "errors": errors,
}
"""What is told of every part, by the name that it has in JSON."""


def breakdown(answered: Answered, columns: Mapping[str, Sequence[str | None]] | None = None) -> dict[str, Any]:
    """Everything of `REPORTS`, and ``by``: the scores by each of ``columns``; ready for JSON."""
    found: dict[str, Any] = {name: report(answered) for name, report in REPORTS.items()}
    return {**found, "by": {name: by_column(answered, column) for name, column in (columns or {}).items()}}

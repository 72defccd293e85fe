"""How much of the positive class is found when few of the others may be flagged: from pooled out-of-fold predictions.

Where the rows are cut into folds, every row is scored once by a classifier that has not seen it, so all negatives of
the data stand behind the threshold. One test part has too few of them nearly always, and is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_clf.evaluation.recall import RATES, RecallAt, recall_at

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison

DRAWS = 400  # of each bootstrap; a seed, a rate and a contender have one each


@dataclass(frozen=True)
class FoundAt:
    """The recall of one contender at one false-positive rate.

    Attributes:
        rate: the share of the negatives that may be flagged.
        seeds: the finding of each seed.
    """

    rate: float
    seeds: tuple[RecallAt, ...]

    @property
    def recall(self) -> float | None:
        """Mean over seeds; None where there is no answer."""
        known = [one.recall for one in self.seeds if one.recall is not None]
        return sum(known) / len(known) if known and len(known) == len(self.seeds) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """From the lowest to the highest end of any seed's interval, the threshold found anew each time."""
        known = [one.whole for one in self.seeds if one.whole is not None]
        return (min(one.low for one in known), max(one.high for one in known)) if known else None

    @property
    def text(self) -> str:
        """The answer in words."""
        if self.recall is None or self.interval is None:
            return self.seeds[0].text
        return f"{self.recall * 100:.1f} ({self.interval[0] * 100:.1f} to {self.interval[1] * 100:.1f})"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "rate": self.rate,
            "recall": self.recall,
            "interval": None if self.interval is None else list(self.interval),
            "text": self.text,
            "seeds": [one.as_dict() for one in self.seeds],
        }


def found_at(comparison: Comparison) -> dict[str, tuple[FoundAt, ...]]:
    """The recall of each at each of `RATES`; empty without folds or without a positive class."""
    positive = comparison.positive_label
    if positive is None or comparison.plan.data.folds is None:
        return {}
    column = comparison.labels.index(positive)
    table = {}
    for label, pool in comparison.pools.items():
        found = []
        for rate in RATES:
            each = [
                recall_at(
                    part.labels == column,
                    part.probabilities[:, column],
                    rate,
                    comparison.clusters(part.rows),
                    draws=DRAWS,
                )
                for part in pool.predictions
            ]
            found.append(FoundAt(rate, tuple(each)))
        table[label] = tuple(found)
    return table

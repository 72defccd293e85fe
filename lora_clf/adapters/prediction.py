"""What a classifier answers: from logits to labels and probabilities, temperature and threshold applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.metrics.probability import softmax
from lora_clf.metrics.thresholds import chosen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.header import Header


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: the predicted label.
        probability: how probable it is.
        probabilities: the same for every label.
        truncated: whether the text was longer than the classifier reads.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    truncated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The answer, ready for JSON."""
        return {
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
            "truncated": self.truncated,
        }


def answers(header: Header, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[Prediction]:
    """The answers that (N, C) logits of the adapter with this header mean."""
    shares = softmax(logits.astype(np.float64) / (header.temperature or 1.0))  # (N, C)
    positive = None if header.positive_label is None else header.labels.index(header.positive_label)
    return [
        Prediction(
            label=header.labels[index],
            probability=float(row[index]),
            probabilities={label: float(share) for label, share in zip(header.labels, row, strict=True)},
            truncated=bool(cut),
        )
        for index, row, cut in zip(chosen(shares, positive, header.threshold), shares, truncated, strict=True)
    ]

"""What a classifier answers: from logits to labels and probabilities, temperature and threshold applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
    scaled = logits.astype(np.float64) / (header.temperature or 1.0)
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)  # (N, C)
    return [
        Prediction(
            label=header.labels[index],
            probability=float(row[index]),
            probabilities={label: float(share) for label, share in zip(header.labels, row, strict=True)},
            truncated=bool(cut),
        )
        for index, row, cut in zip(_chosen(header, shares), shares, truncated, strict=True)
    ]


def _chosen(header: Header, shares: NDArray[np.float64]) -> list[int]:
    """The index of the label of each row (N, C)."""
    threshold, positive = header.threshold, header.positive_label
    if threshold is None or positive is None:
        return [int(index) for index in shares.argmax(axis=1)]
    index = header.labels.index(positive)
    return [index if row[index] >= threshold else 1 - index for row in shares]

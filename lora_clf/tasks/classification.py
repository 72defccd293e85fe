"""One label of several: the softmax over all of them and its cross entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

from lora_clf.errors import UsageError
from lora_clf.metrics.classification import assess
from lora_clf.metrics.probability import softmax
from lora_clf.metrics.thresholds import chosen
from lora_clf.tasks.base import Measure, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

CROSS_ENTROPY: Final = "cross-entropy"
FOCAL: Final = "focal"


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: the predicted label.
        probability: how probable it is.
        probabilities: the same for every label.
        truncated: whether a part of the text was not read: it was longer than the classifier reads, or special tokens
            that it spells at its ends were left out.
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

    def cells(self) -> tuple[str, float]:
        """Label and probability."""
        return self.label, self.probability


@dataclass(frozen=True)
class Classification(Task):
    """Each text has one of several labels.

    Attributes:
        labels: in the order of the logits.
        positive: of two labels the one that is looked for, or None.
        temperature: what logits are divided by before the softmax; None: nothing.
        threshold: the probability from which on ``positive`` is answered; None: the more probable label is.
    """

    names: ClassVar[tuple[str, ...]] = ("binary", "multiclass")
    shown: ClassVar[tuple[Measure, ...]] = (
        Measure("accuracy", "accuracy", metric="accuracy"),
        Measure("macro_f1", "macro-F1", metric="f1"),
        Measure("mcc", "MCC", share=False, table=False),
        Measure("precision", "precision", "{} precision", "precision", positive=True),
        Measure("recall", "recall", "{} recall", "recall", positive=True),
        Measure("false_positive_rate", "false positive rate", "false alarms", higher=False, positive=True),
    )
    primary: ClassVar[Measure] = shown[0]
    softmax: ClassVar[bool] = True
    losses: ClassVar[tuple[str, ...]] = (CROSS_ENTROPY, FOCAL)
    one_label: ClassVar[bool] = True
    problem: ClassVar[str | None] = "single_label_classification"

    positive: str | None = None
    temperature: float | None = None
    threshold: float | None = None

    @property
    def name(self) -> str:
        """Binary with two labels, multiclass with more."""
        return "binary" if len(self.labels) == 2 else "multiclass"

    @property
    def positive_label(self) -> str | None:
        """The label that is looked for, where there are two."""
        return self.positive

    @classmethod
    def fits(cls, name: str, labels: Sequence[str]) -> bool:
        """Two if binary, more if multiclass."""
        return len(labels) == 2 if name == "binary" else len(labels) > 2

    @classmethod
    def restored(
        cls,
        labels: tuple[str, ...],
        *,
        positive_label: str | None,
        temperature: float | None,
        threshold: float | None,
        settings: Mapping[str, Any],
    ) -> Self:
        """The task as a header describes it; temperature and threshold are fields of their own there."""
        if settings:
            raise UsageError(f"Classification has no settings of its own, got {', '.join(sorted(settings))}.")
        return cls(labels, positive_label, temperature, threshold)

    def targets(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Class numbers (N,)."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        return np.fromiter((numbers[label] for label in labels), np.int64, len(labels))

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy in nats."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, targets, reduction="none")

    def summed_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The same sum in torch's own order, to the last bit."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, targets, reduction="sum")

    def unsettled(self) -> Self:
        """The task without temperature and threshold."""
        return replace(self, temperature=None, threshold=None)

    def answers(self, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[Prediction]:
        """Labels and probabilities, temperature and threshold applied."""
        shares = softmax(logits.astype(np.float64) / (self.temperature or 1.0))  # (N, C)
        positive = None if self.positive is None else self.labels.index(self.positive)
        return [
            Prediction(
                label=self.labels[index],
                probability=float(row[index]),
                probabilities={label: float(share) for label, share in zip(self.labels, row, strict=True)},
                truncated=bool(cut),
            )
            for index, row, cut in zip(chosen(shares, positive, self.threshold), shares, truncated, strict=True)
        ]

    def costs(self, targets: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """1 where the label is wrong, else 0 (N,)."""
        shares = softmax(logits.astype(np.float64) / (self.temperature or 1.0))
        positive = None if self.positive is None else self.labels.index(self.positive)
        wrong: NDArray[np.float64] = (chosen(shares, positive, self.threshold) != targets).astype(np.float64)
        return wrong

    def assess(self, targets: NDArray[np.int64], logits: NDArray[np.float32]) -> dict[str, Any]:
        """See `lora_clf.metrics.classification.assess`."""
        return assess(
            targets,
            logits,
            self.labels,
            self.positive,
            temperature=self.temperature,
            threshold=self.threshold,
        )

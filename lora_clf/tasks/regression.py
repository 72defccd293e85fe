"""A number: one output, learnt in units of the training part's standard deviation, answered in the data's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from lora_clf.errors import UsageError, unknown
from lora_clf.metrics.regression import power_of, regression_scores
from lora_clf.tasks.base import Measure, Task, as_number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

LOSSES = ("mse", "l1", "huber")
STRATA = 10  # parts of about as many rows by value, each divided alike between training, validation and test


@dataclass(frozen=True)
class ValuePrediction:
    """The answer for one text.

    Attributes:
        value: the number, in the units of the training data.
        truncated: whether the text was longer than the adapter reads.
    """

    value: float
    truncated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The answer, ready for JSON."""
        return {"value": self.value, "truncated": self.truncated}

    def cells(self) -> tuple[float]:
        """The number."""
        return (self.value,)


@dataclass(frozen=True)
class Regression(Task):
    """Each text has a number.

    Attributes:
        labels: one name, that of the number.
        loss: "mse" (squared error), "l1" (absolute) or "huber" (squared up to one standard deviation, then linear;
            Huber 1964), each of targets that were standardised.
        mean, std: of the training part: logit = (number - mean) / std.
    """

    names: ClassVar[tuple[str, ...]] = ("regression",)
    shown: ClassVar[tuple[Measure, ...]] = (
        Measure("mae", "mean absolute error", "MAE", "mae", higher=False, share=False),
        Measure("rmse", "root mean squared error", "RMSE", higher=False, share=False),
        Measure("r2", "R2", share=False),
        Measure("pearson", "Pearson correlation", "Pearson", "pearsonr", share=False),
        Measure("spearman", "Spearman correlation", "Spearman", "spearmanr", share=False),
    )
    primary: ClassVar[Measure] = shown[0]
    columns: ClassVar[tuple[str, ...]] = ("value",)
    problem: ClassVar[str | None] = "regression"
    losses: ClassVar[tuple[str, ...]] = LOSSES

    loss: str = "mse"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UsageError(f"Mean {self.mean} and deviation {self.std}: expected finite numbers, the second above 0.")

    @property
    def name(self) -> str:
        """Regression."""
        return "regression"

    @property
    def convex(self) -> bool:
        """Whether a linear head can be solved for: where the loss is smooth."""
        return self.loss != "l1"

    @classmethod
    def fits(cls, name: str, labels: Sequence[str]) -> bool:
        """One name."""
        return len(labels) == 1

    def settings(self) -> dict[str, Any]:
        """Loss, mean and deviation."""
        return {"loss": self.loss, "mean": self.mean, "std": self.std}

    @classmethod
    def restored(cls, labels: tuple[str, ...], settings: Mapping[str, Any], **_: Any) -> Self:
        """The task as a header describes it."""
        numbers = all(type(settings.get(name)) in (int, float) for name in ("mean", "std"))
        if set(settings) != {"loss", "mean", "std"} or not numbers or not isinstance(settings["loss"], str):
            raise UsageError(f"Settings of regression are a loss, a mean and a std, got {dict(settings)}.")
        return cls(labels, settings["loss"], float(settings["mean"]), float(settings["std"]))

    def with_loss(self, loss: str | None) -> Self:
        """The task with another loss."""
        return super().with_loss(loss) if loss is None else replace(super().with_loss(loss), loss=loss)

    def read(self, label: str) -> str:
        """The number as it stands there."""
        as_number(label)
        return label

    def parts(self, label: str) -> tuple[str, ...]:
        """A number is no class."""
        return ()

    def strata(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Ten parts by value."""
        values = self.targets(labels)
        edges = np.quantile(values, np.arange(1, STRATA) / STRATA) if len(values) else np.zeros(0)
        return np.searchsorted(np.unique(edges), values, side="right").astype(np.int64)

    def fitted(self, labels: Sequence[str]) -> Self:
        """The task with mean and deviation of the training part.

        Raises:
            UsageError: all numbers are the same.
        """
        values = self.targets(labels)
        power = power_of(values)
        near_one = np.ldexp(values, -power)
        mean, std = (float(np.ldexp(number, power)) for number in (near_one.mean(), near_one.std()))
        if not std > 0 or values.min() == values.max():  # rounding alone makes a deviation
            raise UsageError(f"Every number of the training part is {values[0]:g}: there is nothing to learn.")
        return replace(self, mean=mean, std=std)

    def targets(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """The numbers (N,), in the units of the data."""
        return np.fromiter((as_number(label) for label in labels), np.float64, len(labels))

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of the standardised numbers."""
        from torch.nn import functional as F

        wanted = ((targets - self.mean) / self.std).to(logits.dtype)
        found = logits[:, 0]
        if self.loss == "l1":
            return F.l1_loss(found, wanted, reduction="none")
        if self.loss == "huber":
            return F.huber_loss(found, wanted, reduction="none", delta=1.0)
        return F.mse_loss(found, wanted, reduction="none")

    def values(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Logits (N, 1) as numbers in the units of the data (N,)."""
        found: NDArray[np.float64] = logits[:, 0].astype(np.float64) * self.std + self.mean
        return found

    def answers(self, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[ValuePrediction]:
        """Numbers."""
        return [
            ValuePrediction(float(value), bool(cut)) for value, cut in zip(self.values(logits), truncated, strict=True)
        ]

    def unit(self, targets: NDArray[np.float64]) -> float:
        """The mean absolute deviation from the median; where that is 0, the deviation of the training part."""
        power = power_of(targets)
        near_one = np.ldexp(targets, -power)
        return float(np.ldexp(np.abs(near_one - np.median(near_one)).mean(), power)) or self.std

    def costs(self, targets: NDArray[np.float64], logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Absolute errors (N,)."""
        found: NDArray[np.float64] = np.abs(self.values(logits) - targets)
        return found

    def assess(self, targets: NDArray[np.float64], logits: NDArray[np.float32]) -> dict[str, Any]:
        """MAE, RMSE, R2 and correlations in the units of the data; ``loss`` is of the standardised numbers."""
        return {**regression_scores(targets, self.values(logits)), "loss": self.mean_loss(targets, logits)}

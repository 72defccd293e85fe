"""One of several classes in order: low, medium, high; one star to five.

The model is the continuation ratio (Fienberg 1980; as conditional ordinal regression, CORN, in Shi, Cao and Raschka
2021, section 3): output k is the log-odds of going beyond rank k once it is reached, so with K classes there are K - 1
outputs, and

    P(y > k) = s(z_0) s(z_1) ... s(z_k),    s(z) = 1 / (1 + exp(-z)),

which never rises with k: the ranks are consistent by construction. The loss of a row is minus the log of its class's
probability, exactly; in nats, so it compares with the cross entropy of a softmax. The answer is the median rank, the
one of least expected distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from lora_clf.errors import UsageError
from lora_clf.metrics.ordinal import ordinal_scores
from lora_clf.tasks.base import Measure, Task, as_number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class RankPrediction:
    """The answer for one text.

    Attributes:
        label: the class of median rank.
        probability: how probable that class is.
        probabilities: the same for every class, in order.
        rank: the expected rank, from 0; between two classes where the text is.
        truncated: whether the text was longer than the adapter reads.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    rank: float
    truncated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The answer, ready for JSON."""
        return {
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
            "rank": self.rank,
            "truncated": self.truncated,
        }

    def cells(self) -> tuple[str, float, float]:
        """Label, probability and expected rank."""
        return self.label, self.probability, self.rank


@dataclass(frozen=True)
class Ordinal(Task):
    """Each text has one of several classes that have an order.

    Attributes:
        labels: from the lowest to the highest.
        edges: where the classes are cuts of a number: class k holds the numbers up to edges[k], the last all above.
    """

    names: ClassVar[tuple[str, ...]] = ("ordinal",)
    shown: ClassVar[tuple[Measure, ...]] = (
        Measure("mae", "mean distance in ranks", "MAE in ranks", "mae", higher=False, share=False),
        Measure("quadratic_kappa", "quadratic kappa", share=False),
        Measure("accuracy", "accuracy", metric="accuracy"),
        Measure("within_one", "at most one off", card=False),
        Measure("macro_f1", "macro-F1", metric="f1"),
    )
    primary: ClassVar[Measure] = shown[0]
    columns: ClassVar[tuple[str, ...]] = ("label", "probability", "rank")
    one_label: ClassVar[bool] = True

    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.edges and (len(self.edges) != len(self.labels) - 1 or any(a >= b for a, b in pairwise(self.edges))):
            raise UsageError(
                f"{len(self.labels)} classes are cut by {len(self.labels) - 1} rising numbers, got {list(self.edges)}."
            )

    @property
    def name(self) -> str:
        """Ordinal."""
        return "ordinal"

    @classmethod
    def fits(cls, name: str, labels: Sequence[str]) -> bool:
        """Three or more: of two, order says nothing."""
        return len(labels) >= 3

    @classmethod
    def outputs_for(cls, labels: Sequence[str]) -> int:
        """One output between each class and the next."""
        return len(labels) - 1

    def settings(self) -> dict[str, Any]:
        """The edges, where there are some; and what the outputs mean."""
        return {"link": "continuation-ratio", **({"edges": list(self.edges)} if self.edges else {})}

    @classmethod
    def restored(cls, labels: tuple[str, ...], settings: Mapping[str, Any], **_: Any) -> Self:
        """The task as a header describes it."""
        edges = settings.get("edges", [])
        numbers = isinstance(edges, (list, tuple)) and all(type(edge) in (int, float) for edge in edges)
        if settings.keys() - {"link", "edges"} or settings.get("link") != "continuation-ratio" or not numbers:
            raise UsageError(f"Settings of an ordinal task are a link and perhaps edges, got {dict(settings)}.")
        return cls(labels, tuple(float(edge) for edge in edges))

    def read(self, label: str) -> str:
        """The class; of a number the one that it is cut into."""
        if label in self.labels or not self.edges:
            return super().read(label)
        return self.labels[int(np.searchsorted(self.edges, as_number(label), side="left"))]

    def targets(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Ranks (N,), from 0."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        return np.fromiter((numbers[label] for label in labels), np.int64, len(labels))

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Minus the log-probability of the class, in nats."""
        import torch
        from torch.nn import functional as F

        places = torch.arange(logits.shape[1], device=logits.device)[None, :]  # (1, K - 1)
        beyond, at = places < targets[:, None], places == targets[:, None]
        found: Tensor = F.softplus(-logits).mul(beyond).sum(1) + F.softplus(logits).mul(at).sum(1)
        return found

    def shares(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """The probability of each class: (N, K - 1) -> (N, K)."""
        z = logits.astype(np.float64)
        log_on, log_stay = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
        reached = np.concatenate([np.zeros((len(z), 1)), np.cumsum(log_on, axis=1)], axis=1)
        stay = np.concatenate([log_stay, np.zeros((len(z), 1))], axis=1)
        found: NDArray[np.float64] = np.exp(reached + stay)
        return found

    def ranks(self, logits: NDArray[Any]) -> NDArray[np.int64]:
        """The median ranks (N,): how many k have P(y > k) > 1/2."""
        z = logits.astype(np.float64)
        beyond = np.exp(np.cumsum(-np.logaddexp(0.0, -z), axis=1))
        found: NDArray[np.int64] = (beyond > 0.5).sum(axis=1).astype(np.int64)
        return found

    def answers(self, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[RankPrediction]:
        """Classes, their probabilities and the expected rank."""
        shares = self.shares(logits)
        expected = shares @ np.arange(len(self.labels))
        return [
            RankPrediction(
                label=self.labels[place],
                probability=float(row[place]),
                probabilities={label: float(share) for label, share in zip(self.labels, row, strict=True)},
                rank=float(rank),
                truncated=bool(cut),
            )
            for place, row, rank, cut in zip(self.ranks(logits), shares, expected, truncated, strict=True)
        ]

    def unit(self, targets: NDArray[np.int64]) -> float:
        """The mean distance from the median rank; 1 where every row has the same rank."""
        return float(np.abs(targets - np.median(targets)).mean()) or 1.0

    def costs(self, targets: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances in ranks (N,)."""
        off: NDArray[np.float64] = np.abs(self.ranks(logits) - targets).astype(np.float64)
        return off

    def assess(self, targets: NDArray[np.int64], logits: NDArray[np.float32]) -> dict[str, Any]:
        """Distance, agreement, accuracy and confusion of the ranks; ``loss`` in nats."""
        found = ordinal_scores(targets, self.ranks(logits), self.labels)
        return {**found, "loss": self.mean_loss(targets, logits)}

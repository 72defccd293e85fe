"""Several labels, or none: each label a yes or a no of its own, with a threshold of its own."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from lora_clf.errors import UsageError
from lora_clf.metrics.multilabel import multilabel_scores
from lora_clf.metrics.thresholds import best_threshold
from lora_clf.tasks.base import Measure, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SEPARATOR = "|"
ENOUGH = 10
"""Validation rows with a label, and without it, below which its threshold stays at 0.5: fewer say too little."""


@dataclass(frozen=True)
class LabelsPrediction:
    """The answer for one text.

    Attributes:
        labels: those that are given, in the adapter's order; perhaps none.
        probabilities: of every label, each by itself: they do not add up to one.
        truncated: whether the text was longer than the adapter reads.
        separator: what stands between labels in a table.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    truncated: bool = False
    separator: str = SEPARATOR

    def as_dict(self) -> dict[str, Any]:
        """The answer, ready for JSON."""
        return {
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "truncated": self.truncated,
        }

    def cells(self) -> tuple[str, str]:
        """The labels, and their probabilities in the same order."""
        shares = (f"{self.probabilities[label]:.4f}" for label in self.labels)
        return joined(self.labels, self.separator), self.separator.join(shares)


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """The labels in a cell: a list, or names between separators; each once, none where it is empty."""
    if (names := listed(text)) is None:
        names = text.split(separator)
    return tuple(dict.fromkeys(name for each in names if (name := each.strip())))


def listed(text: str) -> list[str] | None:
    """The names in a cell that is a list in JSON, or one of Python's as pandas writes it; else None."""
    plain = text.strip()
    if not (plain.startswith("[") and plain.endswith("]")):
        return None
    try:
        found = json.loads(plain)
    except (ValueError, RecursionError):
        return _python_list(plain)
    names = isinstance(found, list) and all(isinstance(name, (str, int, float)) for name in found)
    return [str(name) for name in found] if names else None


def _python_list(plain: str) -> list[str] | None:
    try:
        found = ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return None
    # numpy writes ['a' 'b'], where Python reads one name: such a cell is not the list that it looks like.
    return found if repr(found).replace(" ", "") == plain.replace(" ", "") else None


def joined(labels: Iterable[str], separator: str) -> str:
    """Labels as one cell, which `split_labels` reads again."""
    names = list(labels)
    if any(separator in name or name.startswith("[") for name in names):
        return json.dumps(names, ensure_ascii=False)
    return separator.join(names)


@dataclass(frozen=True)
class Multilabel(Task):
    """Each text has any number of labels.

    Attributes:
        labels: all that occur, sorted.
        separator: what stands between labels in a cell.
        thresholds: the probability from which on each label is given; empty while training: 0.5.
    """

    names: ClassVar[tuple[str, ...]] = ("multilabel",)
    shown: ClassVar[tuple[Measure, ...]] = (
        Measure("subset_accuracy", "all labels right", metric="accuracy"),
        Measure("micro_f1", "micro-F1", metric="f1"),
        Measure("macro_f1", "macro-F1", metric="f1"),
        Measure("hamming_loss", "Hamming loss", higher=False, share=False),
        Measure("macro_pr_auc", "PR-AUC", share=False, card=False),
    )
    primary: ClassVar[Measure] = shown[0]
    columns: ClassVar[tuple[str, ...]] = ("labels", "probabilities")
    problem: ClassVar[str | None] = "multi_label_classification"

    separator: str = SEPARATOR
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.separator or self.separator.isspace():
            raise UsageError("--label-separator: expected a character or more that is no space, such as '|'.")
        fine = all(0 < value < 1 for value in self.thresholds)
        if self.thresholds and (len(self.thresholds) != len(self.labels) or not fine):
            raise UsageError(f"{len(self.labels)} labels have a threshold each, between 0 and 1.")

    @property
    def name(self) -> str:
        """Multilabel."""
        return "multilabel"

    @classmethod
    def fits(cls, name: str, labels: Sequence[str]) -> bool:
        """Two or more; one alone is a binary task."""
        return len(labels) >= 2

    @property
    def cuts(self) -> NDArray[np.float64]:
        """The thresholds (C,), 0.5 where none was chosen."""
        return np.array(self.thresholds or [0.5] * len(self.labels))

    def settings(self) -> dict[str, Any]:
        """Separator and thresholds."""
        return {"separator": self.separator, "thresholds": [float(value) for value in self.cuts]}

    @classmethod
    def restored(cls, labels: tuple[str, ...], settings: Mapping[str, Any], **_: Any) -> Self:
        """The task as a header describes it."""
        cuts, separator = settings.get("thresholds"), settings.get("separator")
        numbers = isinstance(cuts, (list, tuple)) and all(type(cut) in (int, float) for cut in cuts)
        if set(settings) != {"separator", "thresholds"} or not numbers or not isinstance(separator, str):
            raise UsageError(f"Settings of a multilabel task are a separator and thresholds, got {dict(settings)}.")
        return cls(labels, separator, tuple(float(cut) for cut in cuts or ()))

    def read(self, label: str) -> str:
        """The labels in the adapter's order, between separators.

        Raises:
            ValueError: one of them is not known.
        """
        found = split_labels(label, self.separator)
        strange = [name for name in found if name not in self.labels]
        if strange:
            raise ValueError(f"label {strange[0]!r} is not known")
        return joined((name for name in self.labels if name in found), self.separator)

    def parts(self, label: str) -> tuple[str, ...]:
        """The labels in a cell."""
        return split_labels(label, self.separator)

    def strata(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Each row by the rarest of its labels, so that rare ones are divided evenly; rows without any apart."""
        sets = [self.parts(label) for label in labels]
        counts = Counter(name for names in sets for name in names)
        places = {name: place for place, name in enumerate(self.labels)}
        rarest = (min(names, key=lambda name: (counts[name], places[name])) if names else None for names in sets)
        return np.fromiter((len(places) if name is None else places[name] for name in rarest), np.int64, len(labels))

    def targets(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Ones and zeros (N, C)."""
        places = {name: place for place, name in enumerate(self.labels)}
        found = np.zeros((len(labels), len(self.labels)), dtype=np.float32)
        for row, label in zip(found, labels, strict=True):
            row[[places[name] for name in self.parts(label)]] = 1.0
        return found

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross entropy in nats, the mean over labels."""
        from torch.nn import functional as F

        wanted = targets.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)

    def shares(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """The probability of each label (N, C)."""
        found: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
        return found

    def given(self, logits: NDArray[Any]) -> NDArray[np.bool_]:
        """Which labels are given (N, C)."""
        found: NDArray[np.bool_] = self.shares(logits) >= self.cuts
        return found

    def settled(self, targets: NDArray[np.float32], logits: NDArray[np.float32]) -> Self:
        """The task with the threshold of each label whose F1 on validation is best; 0.5 where there are few rows."""
        shares = self.shares(logits)
        cuts = []
        for column in range(len(self.labels)):
            hits = targets[:, column] > 0.5
            rows = min(int(hits.sum()), int((~hits).sum()))
            found = best_threshold(hits, shares[:, column], "f1") if rows >= ENOUGH else None
            cuts.append(found.value if found is not None and 0 < found.value < 1 else 0.5)
        return replace(self, thresholds=tuple(cuts))

    def unsettled(self) -> Self:
        """The task with thresholds of 0.5."""
        return replace(self, thresholds=(0.5,) * len(self.labels))

    def answers(self, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[LabelsPrediction]:
        """Sets of labels, and the probability of each."""
        return [
            LabelsPrediction(
                labels=tuple(label for label, on in zip(self.labels, chosen, strict=True) if on),
                probabilities={label: float(share) for label, share in zip(self.labels, row, strict=True)},
                truncated=bool(cut),
                separator=self.separator,
            )
            for chosen, row, cut in zip(self.given(logits), self.shares(logits), truncated, strict=True)
        ]

    def costs(self, targets: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """1 where any label is wrong, else 0 (N,)."""
        wrong: NDArray[np.float64] = (self.given(logits) != (targets > 0.5)).any(axis=1).astype(np.float64)
        return wrong

    def assess(self, targets: NDArray[np.float32], logits: NDArray[np.float32]) -> dict[str, Any]:
        """Subset accuracy, Hamming loss, micro and macro F1 and the scores of each label; ``loss`` in nats."""
        found = multilabel_scores(targets > 0.5, self.given(logits), self.shares(logits), self.labels)
        cuts = {label: float(cut) for label, cut in zip(self.labels, self.cuts, strict=True)}
        return {**found, "loss": self.mean_loss(targets, logits), "thresholds": cuts}

"""The task: what is asked of a text, and everything about an adapter that depends on it.

A task is a frozen dataclass, written into an adapter's header and read back from it. Shapes: N rows, C outputs of the
head. Targets are numpy arrays whose first axis is the rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from lora_clf.errors import unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Targets = NDArray[Any]
    Logits = NDArray[np.float32]


class Answer(Protocol):
    """The answer for one text, whatever the task."""

    @property
    def truncated(self) -> bool:
        """Whether the text was longer than the adapter reads."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The answer, ready for JSON."""
        ...

    def cells(self) -> tuple[str | float, ...]:
        """The answer as cells of a table, in the order of the task's ``columns``."""
        ...


def as_number(text: str) -> float:
    """The finite number that a cell holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 1_01, a code, as 101
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no number")
    return value


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Each name as its place among the sorted names (N,)."""
    import numpy as np

    places = {name: place for place, name in enumerate(sorted(set(names)))}
    return np.fromiter((places[name] for name in names), np.int64, len(names))


@dataclass(frozen=True)
class Measure:
    """A score of a task, and where it is shown.

    Attributes:
        key: its name in what `Task.assess` returns.
        title: its name for people.
        short: the same above a column, {} being the positive label; empty: ``title``.
        metric: its type among the Hub's metrics, where it has one there.
        higher: whether a higher one is better.
        share: whether it is a share, shown in percent.
        card: whether model cards and reports show it.
        table: whether the tables of commands do.
        positive: whether it is about the positive label, so that there is none without such a label.
    """

    key: str
    title: str
    short: str = ""
    metric: str | None = None
    higher: bool = True
    share: bool = True
    card: bool = True
    table: bool = True
    positive: bool = False

    def heading(self, positive: str | None = None) -> str:
        """Its name above a column, where ``positive`` is the positive label."""
        return (self.short or self.title).format(positive)


@dataclass(frozen=True)
class Task(ABC):
    """What is learned; see `lora_clf.tasks`.

    Attributes:
        labels: the names of what is told apart, in the order of an adapter's header.
    """

    names: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[Measure, ...]]
    """The scores that people are shown, in this order; `assess` returns more."""
    primary: ClassVar[Measure]
    """The first of them: the score by which the task is judged."""
    columns: ClassVar[tuple[str, ...]] = ("label", "probability")
    problem: ClassVar[str | None] = None
    """transformers' name for the task, where its classification classes compute the same answers."""
    softmax: ClassVar[bool] = False
    """Whether the loss is the cross entropy of a softmax over the labels, so that a linear head can be solved for."""

    losses: ClassVar[tuple[str, ...]] = ()
    """What ``--loss`` may say for this task, its default first."""
    one_label: ClassVar[bool] = False
    """Whether each row has exactly one of the labels, so that rows can be weighed and drawn by it."""

    labels: tuple[str, ...]

    @property
    @abstractmethod
    def name(self) -> str:
        """One of ``names``."""

    @classmethod
    @abstractmethod
    def fits(cls, name: str, labels: Sequence[str]) -> bool:
        """Whether a task called ``name``, one of ``names``, can have so many labels."""

    @classmethod
    def further(cls) -> tuple[Measure, ...]:
        """What reports show beside ``primary``, whichever labels there are."""
        return tuple(each for each in cls.shown[1:] if each.card and not each.positive)

    @classmethod
    def outputs_for(cls, labels: Sequence[str]) -> int:
        """How many logits it takes to tell ``labels`` apart."""
        return len(labels)

    @property
    def outputs(self) -> int:
        """C: how many logits the head has."""
        return self.outputs_for(self.labels)

    @property
    def convex(self) -> bool:
        """Whether the loss of a linear head on fixed features is convex and smooth, so that it can be solved for."""
        return True

    @property
    def positive_label(self) -> str | None:
        """The label that is looked for, where there is one."""
        return None

    def settings(self) -> dict[str, Any]:
        """What an adapter must store beside the labels to answer rightly, ready for JSON; often nothing."""
        return {}

    @classmethod
    @abstractmethod
    def restored(
        cls,
        labels: tuple[str, ...],
        *,
        positive_label: str | None,
        temperature: float | None,
        threshold: float | None,
        settings: Mapping[str, Any],
    ) -> Self:
        """The task as a header describes it.

        Raises:
            UsageError: the settings are not those of this task.
        """

    def with_loss(self, loss: str | None) -> Self:
        """The task with another of its ``losses``; itself for None, and where the loss is the training loop's affair.

        Raises:
            UsageError: it has no such loss.
        """
        if loss is not None and loss not in self.losses:
            raise unknown(f"loss of a {self.name} task", loss, self.losses)
        return self

    def read(self, label: str) -> str:
        """The label of a row as this task writes it.

        Raises:
            ValueError: it is none of this task's; the message says why, to follow a row's number.
        """
        if label not in self.labels:
            raise ValueError(f"label {label!r} is not known")
        return label

    def parts(self, label: str) -> tuple[str, ...]:
        """The classes that a row's label names: to count them, and to say which are rare."""
        return (label,)

    def strata(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """A number for each row (N,): rows of one number are divided evenly between the parts of a split."""
        return numbered(labels)

    def fitted(self, labels: Sequence[str]) -> Self:
        """The task with what it must know of the training labels; itself where that is nothing."""
        return self

    @abstractmethod
    def targets(self, labels: Sequence[str]) -> Targets:
        """The labels of N rows as what the loss compares with: (N,) or (N, C)."""

    def unit(self, targets: Targets) -> float:
        """What costs are counted in, never 0: 1 where the score is a share, else what one answer to all costs."""
        return 1.0

    @abstractmethod
    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row: fp32 logits (B, C) and targets (B, ...) -> (B,)."""

    def summed_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of `row_losses`: what a training step minimises, once divided by the rows of the step."""
        return self.row_losses(logits, targets).sum()

    def settled(self, targets: Targets, logits: Logits) -> Self:
        """The task with what has to be chosen on validation rows; itself where nothing has to."""
        return self

    def unsettled(self) -> Self:
        """The task without what `settled` chose, as for weights that were changed since."""
        return self

    @abstractmethod
    def answers(self, logits: Logits, truncated: NDArray[np.bool_]) -> list[Any]:
        """What logits (N, C) mean: N answers, each an `Answer`."""

    @abstractmethod
    def costs(self, targets: Targets, logits: Logits) -> NDArray[np.float64]:
        """How wrong each row is (N,): `primary` is their mean, or one minus it where a higher one is better."""

    def mean_loss(self, targets: Targets, logits: Logits) -> float:
        """The mean of `row_losses` in float64; 0.0 where there are no rows."""
        import numpy as np
        import torch

        if not len(logits):
            return 0.0
        answers = torch.from_numpy(np.asarray(logits, dtype=np.float64))
        return float(self.row_losses(answers, torch.from_numpy(np.asarray(targets))).mean())

    @abstractmethod
    def assess(self, targets: Targets, logits: Logits) -> dict[str, Any]:
        """Every score of logits (N, C), ready for JSON; ``n``, ``loss`` and ``primary.key`` are always there."""

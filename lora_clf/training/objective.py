"""What a training step minimises: the weighted mean of the losses of its rows.

The mean is over all rows of a step, divided by the sum of their weights, whichever batches and parts of batches they
come in: accumulated gradients are those of the large batch. Shapes: N training rows, B rows of a batch, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_clf.errors import UsageError
from lora_clf.tasks.base import Task
from lora_clf.tasks.classification import FOCAL, Classification
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.training.class_weight import NONE, check_weights, class_weights, positive_weights
from lora_clf.training.sampling import NATURAL
from lora_clf.training.settings import TrainSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_clf.tasks.base import Targets


class Objective:
    """The losses of the training rows, and how much each row counts.

    Args:
        task: what is learned.
        settings: label smoothing, class weights and so on.
        targets: of the training rows (N, ...).

    Raises:
        UsageError: settings that mean nothing for the task, or a weight for a label that the data does not have.
    """

    def __init__(self, task: Task, settings: TrainSettings, targets: Targets) -> None:
        check_recipe(task, settings)
        self.task, self.settings = task, settings
        self.weights = self._weights(targets, even=False)  # (N,)
        several = isinstance(task, Multilabel)
        positive = positive_weights(settings.class_weight, task.labels, targets) if several else None
        self.positive = None if positive is None else torch.from_numpy(positive)  # (C,)

    @property
    def plain(self) -> bool:
        """Whether it is the task's own loss and nothing else, which a validation loss can be held against."""
        usual = self.settings.loss != FOCAL and not self.settings.label_smoothing
        return usual and self.weights is None and self.positive is None

    def evened_weights(self, targets: Targets) -> NDArray[np.float64] | None:
        """The weights of the training rows (N,) that balanced sampling comes to in the mean."""
        return self._weights(targets, even=True)

    def _weights(self, targets: Targets, *, even: bool) -> NDArray[np.float64] | None:
        if not self.task.one_label:
            return None
        weights = class_weights(self.settings.class_weight, self.task.labels, targets, even=even)
        return None if weights is None else weights[targets]

    def weight(self, rows: NDArray[np.int64]) -> float:
        """How much some rows count together."""
        return float(len(rows) if self.weights is None else self.weights[rows].sum())

    def summed(self, logits: Tensor, targets: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """The weighted sum of the losses of some rows: fp32 logits (B, C), targets (B, ...) -> ().

        Args:
            logits: of the rows.
            targets: of the rows.
            rows: which training rows they are (B,).
        """
        if self.plain:
            return self.task.summed_loss(logits, targets)
        losses = self.row_losses(logits, targets)
        if self.weights is not None:
            losses = losses * torch.from_numpy(self.weights[rows]).to(losses)
        return losses.sum()

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, before its weight: (B, C), (B, ...) -> (B,), in nats where there are classes.

        Focal loss is (1 - p)^gamma times the cross entropy, p the probability of the row's own label (Lin et al. 2017):
        what is right already counts less. Label smoothing takes the cross entropy with 1 - e on the row's own label and
        e spread over all C (Szegedy et al. 2016). With several labels a row each label has a weight for the rows that
        have it.
        """
        if self.settings.loss == FOCAL:
            own = F.cross_entropy(logits, targets, reduction="none")
            # 1 - exp(-own), exact where the label is all but certain; a power below 1 of it has no slope at 0.
            wrong = (-torch.expm1(-own)).clamp_min(torch.finfo(own.dtype).tiny)
            return wrong**self.settings.focal_gamma * own
        if smoothing := self.settings.label_smoothing:
            return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        if self.positive is not None:
            wanted, positive = targets.to(logits.dtype), self.positive.to(logits)
            return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=positive, reduction="none").mean(1)
        return self.task.row_losses(logits, targets)


def check_recipe(task: Task, settings: TrainSettings) -> None:
    """Refuse settings that mean nothing for a task.

    Raises:
        UsageError: all of them named; or a loss, or the weight of a label, that there is not.
    """
    task.with_loss(settings.loss)
    weighs = task.one_label or isinstance(task, Multilabel)
    problems = []
    if settings.class_weight != NONE and not weighs:
        problems.append("--class-weight weighs labels")
    if settings.sampling != NATURAL and not task.one_label:
        problems.append("--sampling draws texts by their one label")
    if settings.label_smoothing and not isinstance(task, Classification):
        problems.append("--label-smoothing spreads over labels without an order, of which a text has one")
    if problems:
        them = "it" if len(problems) == 1 else "them"
        raise UsageError(f"The task is {task.name}, but {'; '.join(problems)}. Leave {them} out.")
    if weighs:
        check_weights(settings.class_weight, task.labels)

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
from lora_clf.training.class_weight import NONE, check_weights, class_weights
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
        weights = class_weights(settings.class_weight, task.labels, targets) if task.one_label else None
        self.weights = None if weights is None else weights[targets]  # (N,)

    @property
    def plain(self) -> bool:
        """Whether it is the task's own loss and nothing else, which a validation loss can be held against."""
        return self.weights is None and self.settings.loss != FOCAL and not self.settings.label_smoothing

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
        losses = row_losses(self.task, logits, targets, self.settings)
        if self.weights is not None:
            losses = losses * torch.from_numpy(self.weights[rows]).to(losses)
        return losses.sum()


def row_losses(task: Task, logits: Tensor, targets: Tensor, settings: TrainSettings) -> Tensor:
    """The loss of each row: (B, C), (B, ...) -> (B,), in nats where there are classes.

    Focal loss is (1 - p)^gamma times the cross entropy, p the probability of the row's own label (Lin et al. 2017):
    what is right already counts less. Label smoothing takes the cross entropy with 1 - e on the row's own label and e
    spread over all C (Szegedy et al. 2016).
    """
    if settings.loss == FOCAL:
        own = F.cross_entropy(logits, targets, reduction="none")
        # 1 - exp(-own), exact where the label is all but certain; its power has no slope at 0 for a gamma below 1.
        return (-torch.expm1(-own)).clamp_min(torch.finfo(own.dtype).tiny) ** settings.focal_gamma * own
    if settings.label_smoothing:
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=settings.label_smoothing)
    return task.row_losses(logits, targets)


def check_recipe(task: Task, settings: TrainSettings) -> None:
    """Refuse settings that mean nothing for a task.

    Raises:
        UsageError: all of them named; or a loss, or the weight of a label, that there is not.
    """
    task.with_loss(settings.loss)
    by_label = (("class_weight", NONE), ("sampling", "natural"))
    names = [] if task.one_label else [name for name, usual in by_label if getattr(settings, name) != usual]
    if settings.label_smoothing and not isinstance(task, Classification):
        names.append("label_smoothing")
    if names:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise UsageError(f"{flags} is for texts that have one label of several each; the task is {task.name}.")
    if task.one_label:
        check_weights(settings.class_weight, task.labels)

"""What a finished run has to tell its diagnosis (`lora_clf.training.diagnosis`)."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lora_clf.inference.batches import training_rows
from lora_clf.training.class_weight import BALANCED, NONE
from lora_clf.training.diagnosis import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.tasks.base import Targets, Task
    from lora_clf.training.run import Run

ROWS = 10_000  # from which the best answer that is the same for all is found


def record_of(run: Run, best_epoch: int) -> Record:
    """The record of a run that has ended."""
    settings, cut, tuner = run.settings, run.runner.cut, run.tuned.tuner
    blocks = len(run.view.blocks)
    seconds = run.training_seconds + run.runner.prefix_seconds.get("train", 0.0)
    counts = Counter(part for label in run.data.train.labels for part in run.task.parts(label))
    return Record(
        history=run.history,
        best_epoch=best_epoch,
        counts={name: counts[name] for name in run.task.labels} if counts else {},
        constant_loss=constant_loss(run.task, run.targets["train"], run.targets["validation"]),
        plain=run.objective.plain,
        solved=bool(run.solved),
        rate=(run.learning_rate, tuner.learning_rate),
        steps=run.step,
        evened=settings.class_weight != NONE or settings.sampling == BALANCED,
        seconds=seconds if run.device.type != "cpu" else min(seconds, time.process_time() - run.cpu_began),
        blocks=(blocks, 0 if cut.pooled else blocks - cut.blocks),
        depth_flag="blocks" in tuner.flags(),
        batch_size=settings.batch_size,
        padding=0.0 if cut.pooled else padding_of(run.lengths, settings.batch_size, settings.seed, run.runner.firsts),
        long=int(np.quantile(run.lengths, 0.9)),
    )


def constant_loss(task: Task, training: Targets, validation: Targets) -> float:
    """The validation loss of the best logits that are the same for every text, found on training rows.

    Args:
        task: whose loss it is.
        training: targets (N, ...).
        validation: targets (N', ...).
    """
    logits = torch.zeros(1, task.outputs, dtype=torch.float64, requires_grad=True)
    targets = torch.from_numpy(_some(training))
    search = torch.optim.LBFGS([logits], max_iter=50, line_search_fn="strong_wolfe")

    def loss(wanted: torch.Tensor) -> torch.Tensor:
        return task.row_losses(logits.expand(len(wanted), -1), wanted).mean()

    @torch.enable_grad()
    def objective() -> torch.Tensor:
        search.zero_grad()
        found = loss(targets)
        found.backward()
        return found

    search.step(objective)
    with torch.no_grad():
        return float(loss(torch.from_numpy(_some(validation))))


def padding_of(
    lengths: NDArray[np.int64], batch_size: int, seed: int, firsts: NDArray[np.int64] | None = None
) -> float:
    """The share of the tokens in the first epoch's batches that are padding; ``firsts`` as in `training_rows`."""
    batches = training_rows(lengths, batch_size, seed, 0, firsts=firsts)
    return 1 - float(lengths.sum()) / sum(len(rows) * int(lengths[rows].max()) for rows in batches)


def _some(targets: NDArray[Any]) -> NDArray[Any]:
    """At most `ROWS` targets, spread over all of them."""
    found: NDArray[Any] = targets[:: max(1, -(-len(targets) // ROWS))]
    return found

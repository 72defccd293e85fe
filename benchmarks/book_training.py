"""One row of the book's table, trained and scored: one loop for all of them, which differs in what the row asks only.

The loop is the book's: AdamW with a constant rate and weight decay on everything that trains, shuffled batches, the
last smaller one dropped, no clipping, the weights of the last epoch. lora_clf's own `train` lets the rate fall and
keeps the best epoch, so rows trained by one and by the other would compare loops; row G trains by it on purpose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from book_model import Classifier, Kept, redrawn, strategy
from book_rows import LIBRARY, Row
from paired import synchronise
from torch import nn

from lora_clf.base.base import Base
from lora_clf.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.data.dataset import Dataset

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Recipe:
    """What is the same for all rows; the defaults are the book's. ``learning_rate`` None: the strategy's own."""

    epochs: int = 5
    learning_rate: float | None = 5e-5
    weight_decay: float = 0.1
    precision: str = "fp32"


def batches(count: int, row: Row, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch of an epoch, shuffled; what is left over is dropped."""
    order = torch.randperm(count, generator=generator).numpy()
    for start in range(0, count - count % row.batch_size, row.batch_size):
        yield order[start : start + row.batch_size]


def trained(
    base: Base,
    data: Dataset,
    row: Row,
    seed: int,
    recipe: Recipe,
    kept: Kept | None = None,
    told: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Train and score a row with a seed: accuracies, the wrong test rows, what trained, seconds.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    if row.recipe == LIBRARY:
        return _by_the_library(base, data, row, seed, recipe)
    base = redrawn(base, seed) if row.weights == "random" else base
    model = Classifier(base, data, row, seed, recipe.precision, kept)
    for part in PARTS:
        model.keep(part, np.arange(len(model.texts.ids[part])))
    model.start_above()
    optimizer, rate = _optimizer(model, recipe)
    generator = torch.Generator().manual_seed(seed)
    epochs, stepping = [], 0.0
    for epoch in range(1, recipe.epochs + 1):
        order = list(batches(len(model.texts.labels["train"]), row, generator))
        started = time.perf_counter()
        loss = _stepped(model, optimizer, order)
        stepping += time.perf_counter() - started
        if not np.isfinite(loss):
            raise TrainingError(f"The loss became {loss} in epoch {epoch} at a learning rate of {rate:g}.")
        right, validation = model.scored("validation")
        epochs.append({"train_loss": loss, "validation": float(right.float().mean()), "validation_loss": validation})
        told(f"epoch {epoch} of {recipe.epochs}: training loss {loss:.4f}, validation {epochs[-1]['validation']:.4f}")
    rights = {part: model.scored(part)[0] for part in PARTS}
    return {
        **{part: float(right.float().mean()) for part, right in rights.items()},
        "wrong": (~rights["test"]).nonzero().flatten().tolist(),
        "epochs": epochs,
        "learning_rate": rate,
        "width": model.texts.width,
        "trainable_parameters": model.trained,
        "training_seconds": round(stepping, 2),
        "prefix_seconds": round(model.kept.seconds["train"] if model.cut else 0.0, 2),
    }


def timed(base: Base, data: Dataset, row: Row, seed: int, recipe: Recipe, steps: int) -> dict[str, Any]:
    """What a row's training takes, from ``steps`` batches of it, one more before them that is not counted."""
    base = redrawn(base, seed) if row.weights == "random" else base
    model = Classifier(base, data, row, seed, recipe.precision)
    count = len(model.texts.labels["train"])
    order = list(batches(count, row, torch.Generator().manual_seed(seed)))[: steps + 1]
    needed = np.concatenate(order)
    model.keep("train", needed)
    prefix = model.kept.seconds["train"] * count / len(needed) if model.cut else 0.0
    model.start_above()
    optimizer, rate = _optimizer(model, recipe)
    _stepped(model, optimizer, order[:1])
    synchronise(base.device)
    started = time.perf_counter()
    _stepped(model, optimizer, order[1:])
    synchronise(base.device)
    every = (time.perf_counter() - started) / max(1, len(order) - 1)
    return {
        "training_seconds": round(every * (count // row.batch_size) * recipe.epochs, 2),
        "prefix_seconds": round(prefix, 2),
        "timed_batches": len(order) - 1,
        "learning_rate": rate,
        "width": model.texts.width,
        "trainable_parameters": model.trained,
    }


def _optimizer(model: Classifier, recipe: Recipe) -> tuple[torch.optim.Optimizer, float]:
    rate = recipe.learning_rate or strategy(model.row).learning_rate
    fused = model.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(model.parameters, lr=rate, weight_decay=recipe.weight_decay, fused=fused), rate


def _stepped(model: Classifier, optimizer: torch.optim.Optimizer, order: Sequence[NDArray[np.int64]]) -> float:
    """Go through batches, a step after every ``accumulate`` of them and after the last; the mean loss."""
    total, every = 0.0, model.row.accumulate
    for place, rows in enumerate(order, start=1):
        labels = model.texts.labels["train"][rows].to(model.device)
        loss = nn.functional.cross_entropy(model.logits("train", rows, training=True).float(), labels)
        (loss / every).backward()
        total += float(loss.detach())
        if place % every == 0 or place == len(order):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return total / max(1, len(order))


def _by_the_library(base: Base, data: Dataset, row: Row, seed: int, recipe: Recipe) -> dict[str, Any]:
    """The row by lora_clf's `train` with its own defaults; epochs only where fewer are asked for."""
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings

    usual = TrainSettings()
    settings = replace(usual, seed=seed, precision=recipe.precision, epochs=min(usual.epochs, recipe.epochs))
    found = train(base, data, strategy(row), settings)
    right = torch.from_numpy(found.test_logits.argmax(1) == data.label_ids(data.test))
    return {
        "train": None,
        "validation": found.validation["accuracy"],
        "test": float(right.float().mean()),
        "wrong": (~right).nonzero().flatten().tolist(),
        "epochs": [],
        "learning_rate": found.adapter.header.training.get("lr"),
        "width": None,
        "trainable_parameters": found.trainable_parameters,
        "training_seconds": round(found.training_seconds - found.prefix_seconds, 2),
        "prefix_seconds": round(found.prefix_seconds, 2),
    }

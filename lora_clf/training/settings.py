"""The settings of a training run that are not the strategy's."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lora_clf.errors import UsageError
from lora_clf.tuners.base import check_types


@dataclass(frozen=True)
class TrainSettings:
    """How long, how fast and in which batches to train.

    Attributes:
        epochs: passes over the training part.
        batch_size: texts a step.
        lr: the peak learning rate; None takes the strategy's default.
        weight_decay: AdamW's, on matrices only.
        warmup: the share of all steps in which the rate rises from zero; it then falls linearly to zero.
        clip: the largest gradient norm; 0 means no clipping.
        accumulate: steps whose gradients are added up before the optimizer moves.
        patience: epochs without a better validation loss before stopping; None trains to the end.
            Either way the weights of the best epoch are kept.
        seed: what initial weights, data order and dropout are drawn from.
        max_length: tokens a text; None takes the base's.
        precision: "auto", "fp32", "bf16" or, on CUDA, "fp16".
        cache: whether what is frozen below everything that trains is computed once and kept, in memory and on disk.
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    patience: int | None = None
    seed: int = 0
    max_length: int | None = None
    precision: str = "auto"
    cache: bool = True

    def __post_init__(self) -> None:
        """Check the settings; all problems at once."""
        check_types(self, "Training settings")
        problems = [
            f"--{name.replace('_', '-')} {value}: expected {expected}"
            for name, value, fine, expected in (
                ("epochs", self.epochs, self.epochs >= 1, "at least 1"),
                ("batch_size", self.batch_size, self.batch_size >= 1, "at least 1"),
                ("lr", self.lr, self.lr is None or (math.isfinite(self.lr) and self.lr > 0), "a positive number"),
                ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "zero or more"),
                ("warmup", self.warmup, 0 <= self.warmup <= 1, "a share from 0 to 1"),
                ("clip", self.clip, 0 <= self.clip < math.inf, "zero (off) or more"),
                ("accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
                ("patience", self.patience, self.patience is None or self.patience >= 1, "at least 1"),
                ("seed", self.seed, 0 <= self.seed < 2**63, "a whole number from 0"),
                ("max_length", self.max_length, self.max_length is None or self.max_length >= 1, "at least 1"),
            )
            if not fine
        ]
        if problems:
            raise UsageError("; ".join(problems) + ".")

    def as_dict(self) -> dict[str, Any]:
        """The settings, ready for JSON."""
        return asdict(self)

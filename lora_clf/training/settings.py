"""The settings of a training run that are not the strategy's."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from lora_clf.errors import UsageError
from lora_clf.figures import listed
from lora_clf.tasks.classification import FOCAL
from lora_clf.training.class_weight import BALANCED, NONE, parse_weights
from lora_clf.training.sampling import SAMPLINGS
from lora_clf.training.schedule import SCHEDULES
from lora_clf.tuners.base import check_types

ON_REQUEST: Final = (
    "schedule",
    "layer_decay",
    "loss",
    "focal_gamma",
    "label_smoothing",
    "class_weight",
    "sampling",
    "head_dropout",
    "stop_on",
)
"""Settings that came later: at their defaults a run is recorded as before there were any, with the same bytes."""
SOLVED_WITH: Final = ("label_smoothing", "class_weight", "sampling")
"""What counts where a head is solved for, the seed and the precision aside."""
_ANYTHING: Final = object()


@dataclass(frozen=True)
class TrainSettings:
    """How long, how fast and in which batches to train.

    Attributes:
        epochs: passes over the training part; 0 leaves everything as it is before training.
        batch_size: texts a step.
        lr: the peak learning rate; by default the strategy's own.
        weight_decay: AdamW's, on matrices only.
        warmup: the share of all steps in which the rate rises from zero.
        schedule: how it falls from there: "linear" or "cosine" to zero, "inverse-sqrt", or "constant", which stays.
        layer_decay: what the rate is multiplied with for each block further from the head; 1 is the same rate for all.
        clip: the largest gradient norm; 0 means no clipping.
        accumulate: steps whose gradients are added up before the optimizer moves.
        loss: one of the task's; with labels "cross-entropy", or "focal", in which rows that are right already count
            less; with numbers "mse", "l1" or "huber". By default the task's usual one.
        focal_gamma: how much less, as the power of 1 - p; 0 is cross entropy.
        label_smoothing: the share of each target that is spread over all labels.
        class_weight: how much the rows of a label count: "none" alike, "balanced" each label as much as every other, or
            as in spam=5,ham=1.
        sampling: "natural", every row once an epoch; or "balanced", as many rows of each label, rare ones repeated.
        head_dropout: the share of the head's inputs that are dropped in training.
        patience: epochs without a better validation score before stopping; by default it trains to the end.
            Either way the weights of the best epoch are kept.
        stop_on: the validation score that says which epoch is best: "loss", accuracy, macro-f1, mcc and so on.
        seed: what initial weights, data order and dropout are drawn from.
        max_length: tokens a text; by default as many as the base's own.
        precision: "auto", "fp32", "bf16" or, on CUDA, "fp16".
        cache: whether what is frozen below everything that trains is computed once and kept, in memory and on disk.
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    layer_decay: float = 1.0
    clip: float = 1.0
    accumulate: int = 1
    loss: str | None = None
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    class_weight: str = NONE
    sampling: str = "natural"
    head_dropout: float = 0.0
    patience: int | None = None
    stop_on: str = "loss"
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
                ("epochs", self.epochs, self.epochs >= 0, "zero or more"),
                ("batch_size", self.batch_size, self.batch_size >= 1, "at least 1"),
                ("lr", self.lr, self.lr is None or (math.isfinite(self.lr) and self.lr > 0), "a positive number"),
                ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "zero or more"),
                ("warmup", self.warmup, 0 <= self.warmup <= 1, "a share from 0 to 1"),
                ("schedule", self.schedule, self.schedule in SCHEDULES, listed(SCHEDULES, "or")),
                ("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0 and up to 1, such as 0.9"),
                ("clip", self.clip, 0 <= self.clip < math.inf, "zero (off) or more"),
                ("accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
                ("focal_gamma", self.focal_gamma, 0 <= self.focal_gamma < math.inf, "zero or more"),
                ("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "a share from 0, below 1"),
                ("sampling", self.sampling, self.sampling in SAMPLINGS, listed(SAMPLINGS, "or")),
                ("head_dropout", self.head_dropout, 0 <= self.head_dropout < 1, "a share from 0, below 1"),
                ("patience", self.patience, self.patience is None or self.patience >= 1, "at least 1"),
                ("seed", self.seed, 0 <= self.seed < 2**63, "a whole number from 0"),
                ("max_length", self.max_length, self.max_length is None or self.max_length >= 1, "at least 1"),
            )
            if not fine
        ]
        if self.label_smoothing and self.loss == FOCAL:
            problems.append("--label-smoothing is of the cross entropy and --loss focal another loss; give one of them")
        if self.focal_gamma != type(self).focal_gamma and self.loss != FOCAL:
            problems.append(f"--focal-gamma {self.focal_gamma:g} is about --loss focal, which was not given")
        if self.class_weight == BALANCED and self.sampling == "balanced":
            problems.append(
                "--class-weight balanced and --sampling balanced both even out the labels; give one of them"
            )
        try:
            parse_weights(self.class_weight)
        except UsageError as error:
            problems.append(str(error).rstrip("."))
        if problems:
            raise UsageError("; ".join(problems) + ".")

    def idle_when_solved(self) -> list[str]:
        """Flags that were given and mean nothing where a head is solved for in place of trained in steps."""
        given = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        beside = (*SOLVED_WITH, "lr", "seed", "max_length", "precision", "cache", "loss", "focal_gamma")
        return [f"--{name.replace('_', '-')}" for name in given if name not in beside]

    def as_dict(self) -> dict[str, Any]:
        """The settings, ready for JSON; of those in `ON_REQUEST` only what was asked for."""
        usual = {field.name: field.default for field in fields(self) if field.name in ON_REQUEST}
        if self.loss == FOCAL:
            del usual["focal_gamma"]
        return {name: value for name, value in asdict(self).items() if value != usual.get(name, _ANYTHING)}

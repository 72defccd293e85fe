"""What a training run returns: the adapter, how it came about and what it scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.adapter import Adapter
    from lora_clf.adapters.finding import Finding
    from lora_clf.training.checkpoints import CheckpointFolder
    from lora_clf.training.decision import Decided
    from lora_clf.training.ending import Ending
    from lora_clf.training.usage import Usage


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after one optimizer step.

    Attributes:
        step: optimizer steps done, of ``steps``.
        epoch: the running epoch, from 1, of ``epochs``.
        loss: the mean training loss of this epoch so far.
        seconds: since the first step.
        validation: the metrics of the epoch just ended, once an epoch.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    seconds: float
    validation: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of `lora_clf.train`.

    Attributes:
        adapter: the trained classifier, ready to predict and to save.
        history: one entry an epoch: epoch, train_loss, examples, validation (metrics).
        best_epoch: the epoch whose weights were kept.
        validation: metrics on the validation part.
        test: metrics on the test part.
        validation_logits: (N, C), rows in the part's order.
        test_logits: (N, C), rows in the part's order.
        trainable_parameters: how many numbers trained, head included.
        total_parameters: of the tuned classifier: base, inserted parameters and head.
        training_seconds: the steps and the frozen prefix of the training texts, without evaluations. The prefix is
            charged at its full price even where an earlier run had computed it.
        prefix_seconds: the prefix's part of that.
        seconds: everything after the base and the data were loaded.
        warnings: what a person should know about this run.
        decided: temperature and threshold, as found on the validation part.
        resumed_step: the step from which the run went on after an interruption; None where there was none.
        usage: how many tokens of each part were read.
        checkpoints: those of the run, which `save` removes.
        ending: how its weights are scored.
        diagnosis: what went wrong in training and what to try; nothing where all is well.
    """

    adapter: Adapter
    history: list[dict[str, Any]]
    best_epoch: int
    validation: dict[str, Any]
    test: dict[str, Any]
    validation_logits: NDArray[np.float32]
    test_logits: NDArray[np.float32]
    trainable_parameters: int
    total_parameters: int
    training_seconds: float
    prefix_seconds: float
    seconds: float
    warnings: tuple[str, ...] = field(default=())
    decided: Decided | None = None
    resumed_step: int | None = None
    checkpoints: CheckpointFolder | None = None
    ending: Ending | None = field(default=None, repr=False)
    diagnosis: tuple[Finding, ...] = ()
    usage: Mapping[str, Usage] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Trainable over all parameters."""
        return self.trainable_parameters / self.total_parameters

    def cast(self, dtype: str | None) -> Result:
        """The result with the numbers that a file of ``dtype`` holds, scored anew; itself where they are the same.

        Raises:
            UsageError: unknown ``dtype``.
        """
        adapter = self.adapter.cast(dtype)
        if adapter is self.adapter or self.ending is None:
            return self
        found = self.ending.score(adapter.tuned)
        doubts = () if self.decided is None else self.decided.warnings
        return replace(
            self,
            adapter=found.adapter,
            validation=found.scores["validation"],
            test=found.scores["test"],
            validation_logits=found.logits["validation"],
            test_logits=found.logits["test"],
            warnings=(*(said for said in self.warnings if said not in doubts), *found.decided.warnings),
            decided=found.decided,
        )

    def save(self, folder: str | Path, *, force: bool = False, dtype: str | None = None) -> Path:
        """Write the adapter to ``folder``; checkpoints of the run are removed once it is there.

        Args:
            folder: where to.
            force: whether to replace an adapter that is there.
            dtype: "fp32" (the default), or "bf16" for a file half as large, which holds the scores of its own numbers.

        Raises:
            AdapterExistsError: there is something there already and ``force`` was not given.
            UsageError: unknown ``dtype``.
        """
        saved = self.cast(dtype).adapter.save(folder, force=force, dtype=dtype)
        if self.checkpoints is not None:
            self.checkpoints.drop()
        return saved

"""What a run ends with: weights are scored as they will be saved, and the adapter records those scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lora_clf.adapters.adapter import Adapter, make_header
from lora_clf.adapters.safetensors_file import check_packs
from lora_clf.errors import AdapterFormatError, TrainingError, UsageError
from lora_clf.inference.attention import kernel_rule
from lora_clf.inference.predict import answering, logits
from lora_clf.training.decision import Decided, Decision, settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.header import Header
    from lora_clf.base.base import Base
    from lora_clf.base.tokenizer import Tokens
    from lora_clf.data.dataset import Dataset
    from lora_clf.tasks.base import Task
    from lora_clf.tuners.base import Tuned


@dataclass(frozen=True, eq=False)
class Scored:
    """A classifier with what it scores.

    Attributes:
        adapter: the classifier, its scores, temperature and threshold in its header.
        logits: (N, C) of "validation" and "test", rows in the part's order.
        scores: the metrics of both.
        decided: temperature and threshold, as found on the validation part.
    """

    adapter: Adapter
    logits: Mapping[str, NDArray[np.float32]]
    scores: Mapping[str, dict[str, Any]]
    decided: Decided


@dataclass(frozen=True, eq=False)
class Ending:
    """All that scoring the weights of a run takes: enough to do it again for weights that were rounded.

    Attributes:
        base, data: of the run.
        task: as it was trained.
        tokens, targets: of the validation and the test part.
        decision: what is asked for beside the weights.
        max_length: tokens a text.
        precision: what it was trained in.
        seed, learning_rate: of the run.
        recipe: how the weights came about.
        reading: the settings of how texts are read.
        answers: the logits (N, C) that a classifier gives to a part, where there is a quicker way than to run it.
    """

    base: Base
    data: Dataset
    task: Task
    tokens: Mapping[str, Tokens]
    targets: Mapping[str, NDArray[Any]]
    decision: Decision
    max_length: int
    precision: str
    seed: int
    learning_rate: float
    recipe: Mapping[str, Any]
    reading: Mapping[str, Any] = field(default_factory=dict)
    answers: Callable[[Tuned, str], NDArray[np.float32]] | None = None

    def _answered(self, tuned: Tuned) -> dict[str, NDArray[np.float32]]:
        """The logits (N, C) of both parts, as `Adapter.predict` would compute them for so many texts in fp32."""
        if (answers := self.answers) is not None:
            return {name: answers(tuned, name) for name in self.tokens}
        made = answering(tuned, "fp32", sum(len(tokens) for tokens in self.tokens.values()))
        return {
            name: logits(made.view, tokens, last=made.last, softmax=self.task.softmax)
            for name, tokens in self.tokens.items()
        }

    def score(self, tuned: Tuned) -> Scored:
        """Score ``tuned``, and find its temperature and threshold.

        Raises:
            TrainingError: logits are not finite.
        """
        answers = self._answered(tuned)
        if not all(np.isfinite(each).all() for each in answers.values()):
            raise TrainingError(
                f"The trained weights give logits that are not finite, with a learning rate of {self.learning_rate:g}. "
                f"Nothing was saved. Try --lr {min(self.learning_rate / 10, tuned.tuner.learning_rate):g}."
            )
        task, decided = settle(self.decision, self.task, self.targets["validation"], answers["validation"])
        scores = {name: task.assess(self.targets[name], each) for name, each in answers.items()}
        header = self._header(
            tuned,
            task,
            threshold=decided.cut,
            temperature=decided.scale,
            training={**self.recipe, **decided.record()},
            metrics=scores,
        )
        return Scored(Adapter(self.base, tuned, header), answers, scores, decided)

    def check(self, tuned: Tuned) -> None:
        """Refuse at the start what could not be saved in the end.

        Raises:
            UsageError: an adapter of this run has no valid file: names or settings that no header takes, or too many
                labels.
        """
        # As the state, which would be a copy of all that trains.
        shapes = {n: torch.empty(p.shape, dtype=torch.float32, device="meta") for n, p in tuned.trainable().items()}
        try:
            check_packs(self._header(tuned, self.task, training=self.recipe), shapes)
        except AdapterFormatError as error:
            raise UsageError(f"What this run trains could not be saved, so it was not begun. {error}") from error

    def _header(self, tuned: Tuned, task: Task, **more: Any) -> Header:
        return make_header(
            self.base,
            tuned,
            labels=self.data.labels,
            positive_label=self.data.positive_label,
            task=task,
            reading=self.reading,
            max_length=self.max_length,
            seed=self.seed,
            precision=self.precision,
            kernels=kernel_rule(self.base.device),
            data_name=self.data.name,
            data_digest=self.data.digest,
            licence=self.data.licence,
            **more,
        )

"""The Trainer's recipe, as a peer: transformers and peft as their documentation has it, and the same tuned.

It counts what its user pays from a loaded base and tokenised texts to the last step. Shapes: N texts, C classes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from paired import Timing, synchronise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

CLASSES = 2
RANK, ALPHA = 16, 32.0
# Every linear layer of the encoder: "dense" alone would take the pooler as well.
ENCODER_LINEARS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"


class TrainerRecipe:
    """transformers' Trainer on its `AutoModelForSequenceClassification`, with peft for LoRA.

    ``tuned`` is what its documentation offers for speed: texts grouped by length, bf16, batches of 32. Neither saves
    nor evaluates on the way, which the defaults would do in part: that is in the peer's favour. The encoder's own
    dropout is on, as the Trainer leaves it.

    Args:
        base: gives the folder, the tokenizer's ids and the device.
        data: its training part.
        trains: "lora", "head" or "full".
        tuned: see above.
        steps: steps to time; rounded up to whole epochs where texts are grouped, because then steps of an epoch
            differ. None runs the job to its end.
        learning_rate: the same as ours, for comparisons of quality; it does not change the time.
    """

    def __init__(
        self,
        base: Base,
        data: Dataset,
        trains: str,
        *,
        tuned: bool,
        steps: int | None,
        epochs: int = 3,
        learning_rate: float = 5e-5,
        bf16: bool | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self.base, self.trains, self.tuned = base, trains, tuned
        self.epochs, self.learning_rate = epochs, learning_rate
        self.bf16 = tuned if bf16 is None else bf16
        self.batch_size = 32 if tuned else 8
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(base.folder), local_files_only=True)
        self.rows = encoded(base, data.train.texts, data.label_ids(data.train))
        self.steps_per_epoch = -(-len(self.rows) // self.batch_size)
        self.total_steps = self.steps_per_epoch * epochs
        if steps is not None and tuned:
            steps = -(-steps // self.steps_per_epoch) * self.steps_per_epoch
        self.steps = self.total_steps if steps is None else min(steps, self.total_steps)
        self.timing: Timing | None = None
        self.trainer: Any = None
        self._calls = 0

    def load(self, seed: int = 0) -> Any:
        """The classifier with its pretrained encoder, as loaded from the base's folder in fp32."""
        import torch
        from transformers import AutoModelForSequenceClassification, set_seed

        set_seed(seed)
        return AutoModelForSequenceClassification.from_pretrained(
            str(self.base.folder), num_labels=CLASSES, dtype=torch.float32, local_files_only=True
        )

    def adapt(self, model: Any) -> Any:
        """``model`` with what the recipe trains."""
        if self.trains == "head":
            model.base_model.requires_grad_(False)
        if self.trains != "lora":
            return model
        from peft import LoraConfig, TaskType, get_peft_model

        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=RANK,
            lora_alpha=ALPHA,  # type: ignore[arg-type]  # annotated int, any number works
            target_modules=ENCODER_LINEARS,
        )
        return get_peft_model(model, config)

    def shorten(self) -> None:
        """Run one epoch from now on: it has every batch that there is."""
        self.epochs, self.steps, self.total_steps = 1, self.steps_per_epoch, self.steps_per_epoch

    def start_at(self, seed: int) -> None:
        """Let the next call run with ``seed``."""
        self._calls = seed

    def __call__(self) -> float:
        """Seconds of the whole job, from ``steps`` of it."""
        return self.run(self.load(self._calls), self._calls)

    def run(self, model: Any, seed: int) -> float:
        """As a call, of a model that is loaded already."""
        from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

        self._calls += 1
        tuned: dict[str, Any] = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 64}
        with tempfile.TemporaryDirectory() as folder:
            synchronise(self.base.device)
            started = time.perf_counter()
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=self.epochs,
                learning_rate=self.learning_rate,
                per_device_train_batch_size=self.batch_size,
                bf16=self.bf16,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=self.base.device.type == "cpu",
                seed=seed,
                **(tuned if self.tuned else {}),
            )
            clock = _clock(self.steps)
            self.trainer = Trainer(
                model=self.adapt(model),
                args=arguments,
                train_dataset=self.rows,
                data_collator=DataCollatorWithPadding(self.tokenizer),
                processing_class=self.tokenizer,
                callbacks=[clock],
            )
            self.trainer.remove_callback(PrinterCallback)
            self.trainer.train()
            measured = clock.last - started
        # Making the trainer and its optimizer is paid once, whatever the number of steps.
        seconds: float = (clock.begin - started) + (clock.last - clock.begin) / clock.steps * self.total_steps
        self.timing = Timing(seconds, measured, clock.steps, self.total_steps)
        return seconds

    def predict(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The classes of ``texts`` after a run: (N,)."""
        rows = encoded(self.base, texts, np.zeros(len(texts), dtype=np.int64))
        logits = self.trainer.predict(rows).predictions
        classes: NDArray[np.int64] = np.asarray(logits).argmax(axis=1)
        return classes


def encoded(base: Base, texts: Sequence[str], labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Tokenised rows as the Trainer takes them, cut to the base's length."""
    found = []
    for row, label in zip(base.encode(texts).ids, labels, strict=True):
        ids = row.tolist()
        found.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(label)})
    return found


def _clock(steps: int) -> Any:
    """A callback that notes when the first step began and the last one ended, and stops after ``steps``."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        begin = last = 0.0
        steps = 0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            synchronise(args.device)
            self.last, self.steps = time.perf_counter(), state.global_step
            control.should_training_stop = self.steps >= steps

    return Clock()

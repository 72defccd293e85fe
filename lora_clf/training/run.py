"""One run of training: the view, the optimizer, and where it stands between two steps.

It knows nothing of what a strategy trains. Random numbers of a step depend on the seed and the step alone, and the
order of the data on the seed and the epoch: so a run can go on from any step. Shapes: B batch, T tokens, C classes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_clf.base.base import Base
from lora_clf.base.generator import seeded
from lora_clf.base.reading import Reading
from lora_clf.base.tokenizer import Tokens
from lora_clf.data.dataset import Dataset
from lora_clf.errors import CheckpointError, TrainingError
from lora_clf.inference import heap
from lora_clf.inference.batches import training_rows
from lora_clf.inference.runner import Runner
from lora_clf.tasks.classification import FOCAL
from lora_clf.training.checkpoints import USUAL, CheckpointFolder
from lora_clf.training.class_weight import BALANCED
from lora_clf.training.convex import solve_task_head
from lora_clf.training.interruption import Interruption
from lora_clf.training.layer_decay import decayed
from lora_clf.training.objective import Objective
from lora_clf.training.result import Progress
from lora_clf.training.sampling import balanced_rows
from lora_clf.training.schedule import rate_share
from lora_clf.training.settings import SOLVED_WITH, TrainSettings
from lora_clf.training.snapshot import Best, snapshot
from lora_clf.training.solver import inner_folds, linear_of, solve_head
from lora_clf.training.stopping import check_score, worth
from lora_clf.training.usage import Usage
from lora_clf.tuners.base import Tuned

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Run:
    """The moving parts of one run.

    Attributes:
        step: optimizer steps done, of ``steps``.
        epoch: the running epoch, from 1; one more than there are when all are done.
        batch: batches of the running epoch that are done, with the ``weight`` of the rows in them (how many they are,
            where all count alike) and the ``loss_sum`` over those rows.
        history: an entry for each epoch that is done.
        best: the best epoch so far.
        owners: the text that each row of training is a chunk of; None where rows are texts.
        reading: how texts are read.
        usage: how many tokens of each part are read.
        resumed_step: where the run went on from a checkpoint; None where it began at the start.
        notes: what a person should know about that.
    """

    def __init__(
        self,
        *,
        base: Base,
        data: Dataset,
        settings: TrainSettings,
        learning_rate: float,
        precision: str,
        tokens: dict[str, Tokens],
        usage: dict[str, Usage],
        reading: Reading,
        tuned: Tuned,
        progress: Callable[[Progress], None] | None,
        identity: dict[str, Any],
        checkpoints: CheckpointFolder | None,
        interruption: Interruption,
    ) -> None:
        self.base = base
        self.data = data
        self.settings = settings
        self.learning_rate = learning_rate
        self.tuned = tuned
        self.view = tuned.view
        self.tokens = tokens
        self.usage = usage
        self.reading = reading
        self.precision = precision
        self.progress = progress
        self.identity = identity
        self.checkpoints = checkpoints
        self.interruption = interruption
        self.device = base.device
        self.task = data.task.with_loss(settings.loss)
        self.runner = Runner(base, tuned, precision, tokens, cache=settings.cache, softmax=self.task.softmax)
        self.targets = {name: self.task.targets(part.labels) for name, part in data.parts.items()}
        self.owners = self.runner.owners("train")
        if self.owners is not None:  # chunks train with the label of their text
            self.targets["train"] = self.targets["train"][self.owners]
        self.lengths = self.runner.lengths
        self.history: list[dict[str, Any]] = []
        self.solved: dict[str, Any] = {}
        self.best: Best | None = None
        self.notes: tuple[str, ...] = ()
        self.resumed_step: int | None = None
        self.training_seconds = 0.0
        self.cpu_began = time.process_time()
        self._since: float | None = None  # when the steps of the running epoch began
        batches = math.ceil(len(self.lengths) / settings.batch_size)
        self.steps_per_epoch = math.ceil(batches / settings.accumulate)
        self.epochs = settings.epochs
        self.steps = self.steps_per_epoch * settings.epochs
        self.step, self.epoch, self.batch, self.weight = 0, 1, 0, 0.0
        self.loss_sum = torch.zeros((), device=self.device)
        self.objective = Objective(self.task, settings, self.targets["train"])
        if settings.stop_on != TrainSettings.stop_on:  # a score that there is not is named now, not after an epoch
            check_score(settings.stop_on, self.score("validation", self._no_answers())[1])
        if settings.head_dropout:
            self.view.head.register_forward_pre_hook(partial(_drop, share=settings.head_dropout))
        groups = decayed(tuned.parameter_groups(learning_rate, settings.weight_decay), self.view, settings.layer_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=self.device.type in ("cpu", "cuda"))
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        # Gradients of fp16 would vanish: the loss is scaled up, the gradients down again before they are used.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def convex(self) -> bool:
        """Whether training is a convex problem: a linear head on a frozen backbone, and no hook of the strategy's."""
        if not self.task.convex:
            return False
        hooks = ("penalty", "after_step", "parameter_groups")
        plain = all(getattr(type(self.tuned), hook) is getattr(Tuned, hook) for hook in hooks)
        head = {f"head.{name}" for name, _ in self.view.head.named_parameters()}
        whole = set(self.tuned.trainable()) == head
        return plain and whole and self.runner.cut.pooled and linear_of(self.view.head) is not None

    @property
    def solvable(self) -> bool:
        """Whether the settings leave a convex problem convex, and ask for no steps."""
        settings = self.settings
        asked = settings.lr is not None or settings.loss == FOCAL or bool(settings.head_dropout)
        return settings.epochs > 0 and not asked

    def recipe(self) -> dict[str, Any]:
        """How the weights came about, for the record: only settings that had an effect."""
        if self.solved:
            asked = {name: value for name, value in self.settings.as_dict().items() if name in SOLVED_WITH}
            return {**self.solved, **asked, "precision": self.precision, "seed": self.settings.seed}
        return replace(self.settings, lr=self.learning_rate, precision=self.precision).as_dict()

    def warnings(self) -> tuple[str, ...]:
        """What a person should know about this run."""
        found = [*self.notes, *self.runner.warnings]
        if self.checkpoints is not None and self.checkpoints.failures:
            count, last = len(self.checkpoints.failures), self.checkpoints.failures[-1]
            found.append(f"{count:,} {'checkpoint' if count == 1 else 'checkpoints'} could not be written: {last}")
        if self.solved:
            idle = self.settings.idle_when_solved()
            if self.checkpoints is not None and self.checkpoints.settings.every != USUAL:
                idle.append("--checkpoint-every")
            if idle:
                found.append(f"The head was solved for, so {', '.join(idle)} had no effect; --lr trains it in steps.")
            if self.settings.sampling == BALANCED:
                found.append(
                    "The head was solved for with --class-weight balanced, which --sampling balanced is in the mean."
                )
        elif self.convex and self.epochs and self.settings.lr is None and not self.solvable:
            why = "--loss focal" if self.settings.loss == FOCAL else "--head-dropout"
            found.append(f"With {why} the head is no convex problem: it was trained in steps, not solved for.")
        if self.settings.layer_decay != 1 and not self.solved and len(set(self.peaks)) == 1:
            found.append("All that trains is at one depth, so --layer-decay made no difference between layers.")
        for name, used in self.usage.items():
            if used.cut:
                why = "begin or end with special tokens, which were left out"
                why = why if self.reading.whole else "were longer than is read and were cut"
                found.append(
                    f"{used.cut:,} of {used.texts:,} {name} texts {why}: "
                    f"{used.dropped:,} of {used.tokens:,} tokens were not read."
                )
        return tuple(found)

    def solve(self) -> Best:
        """Solve for the head; one entry of history, as if it had taken one epoch."""
        linear, features = linear_of(self.view.head), self.runner.features("train")
        assert linear is not None and features is not None
        started = time.perf_counter()
        targets, settings = self.targets["train"], self.settings
        labels = self.data.train.labels
        strata = self.task.targets(labels) if self.task.softmax else self.task.strata(labels)
        folds = inner_folds(self.data.groups(self.data.train), strata, settings.seed)
        folds = folds if self.owners is None else folds[self.owners]
        classes, losses, bias = self.view.classes, self.objective.row_losses, linear.bias is not None
        weights = self.objective.evened_weights(targets) if settings.sampling == BALANCED else self.objective.weights
        if self.task.softmax:
            solution = solve_head(
                features, targets, classes, folds, bias=bias, weights=weights, smoothing=settings.label_smoothing
            )
        else:
            solution = solve_task_head(features, targets, classes, losses, folds, bias=bias, weights=weights)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(solution.weight))
            if linear.bias is not None:
                linear.bias.copy_(torch.from_numpy(solution.bias))
        self.training_seconds = time.perf_counter() - started
        self.solved = {"solver": "l-bfgs", "l2": solution.strength}
        _, metrics = self.evaluate("validation")
        self.history.append(
            {"epoch": 1, "train_loss": solution.loss, "examples": len(self.data.train), "validation": metrics}
        )
        self.step = self.steps = self.epochs = 1
        self._report(1, solution.loss, metrics)
        return Best(1, worth(metrics, settings.stop_on), self.tuned.state_dict())

    def fit(self) -> Best:
        """Train for all epochs that are left, or until patience runs out; the best epoch's weights."""
        patience = self.settings.patience
        if not self.epochs:
            _, metrics = self.evaluate("validation")
            return Best(0, worth(metrics, self.settings.stop_on), self.tuned.state_dict())
        while self.epoch <= self.epochs:
            if patience is not None and self.best is not None and self.epoch - 1 - self.best.epoch >= patience:
                break
            loss = self._rest_of_epoch()
            _, metrics = self.evaluate("validation")
            epoch = self.epoch
            with self.interruption.held():
                # What a strategy is still cutting down counts as worse than anything that is settled.
                mark = worth(metrics, self.settings.stop_on) if self.tuned.settled else (sys.float_info.max,)
                if self.best is None or mark < self.best.worth or not self.tuned.settled:
                    self.best = Best(epoch, mark, self.tuned.state_dict())
                examples = epoch * len(self.lengths)
                entry = {"epoch": epoch, "train_loss": loss, "examples": examples, "validation": metrics}
                self.history.append(entry)
                self.epoch, self.batch, self.weight = epoch + 1, 0, 0.0
                self.loss_sum = torch.zeros((), device=self.device)
            self._report(epoch, loss, metrics)
            self._checkpoint_where_due()
        assert self.best is not None
        return self.best

    def _rest_of_epoch(self) -> float:
        """What is left of one pass over the training part; the mean loss of all of it."""
        settings = self.settings
        epoch, even = self.epoch - 1, settings.sampling == BALANCED
        drawn = balanced_rows(self.targets["train"], settings.seed, epoch) if even else None
        # A row that is drawn several times is to come in several batches.
        firsts = None if even else self.runner.firsts
        batches = training_rows(self.lengths, settings.batch_size, settings.seed, epoch, rows=drawn, firsts=firsts)
        self.view.train()
        self._since = time.perf_counter()
        while self.batch < len(batches):
            with self.interruption.held():
                self._step_on(batches[self.batch : self.batch + settings.accumulate])
            if self.device.type == "cpu" or self.step % 20 == 0 or self.step % self.steps_per_epoch == 0:
                self._check_finite(float(self.loss_sum), self.epoch)
                self._report(self.epoch, float(self.loss_sum) / self.weight, None)
            self._checkpoint_where_due()
        mean = float(self.loss_sum) / self.weight
        self.training_seconds, self._since = self.elapsed(), None
        return mean

    def _step_on(self, group: list[NDArray[np.int64]]) -> None:
        """One optimizer step on one batch, or on some whose gradients are added up."""
        # The mean over all rows of the step, so that accumulated batches count as what their rows weigh.
        weight = sum(self.objective.weight(rows) for rows in group)
        self._set_rate()
        with self._seeded():
            for rows in group:
                for part in self.runner.split(rows):
                    self.loss_sum += self._backward(part, weight)
            penalty = self.tuned.penalty()
            if penalty is not None:
                self.scaler.scale(penalty).backward()
            moved = self._move()
            self.step += 1
            if moved:
                self.tuned.after_step(self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        self.batch += len(group)
        self.weight += weight

    def elapsed(self) -> float:
        """Seconds of training so far: without evaluations, and without writing checkpoints."""
        return self.training_seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def _checkpoint_where_due(self) -> None:
        if self.checkpoints is not None and self.checkpoints.due(self.step):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write a checkpoint, where there is something to go on from; a disk that does not take it ends no run."""
        if self.checkpoints is None or self.solved or not self.step or not math.isfinite(float(self.loss_sum)):
            return
        started = time.perf_counter()
        try:
            self.checkpoints.write(snapshot(self))
        except CheckpointError as error:
            self.checkpoints.failures.append(str(error))
            self.checkpoints.settings.say(f"Warning: {error} Training goes on without it.")
        if self._since is not None:
            self._since += time.perf_counter() - started

    def _move(self) -> bool:
        """Clip the gradients and move the weights; False where scaled gradients overflowed, and nothing moved."""
        scale = self.scaler.get_scale()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self.settings.clip:
            self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    def _clip(self) -> None:
        """Scale the gradients down to the largest norm that is allowed, or have the optimizer do it as it moves."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.device.type != "cpu":
            norm = torch.nn.utils.get_total_norm(gradients)
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip, norm)
            return
        # Gradients are read as few times as can be: the optimizer divides while it reads them, and leaves them divided.
        flat = [each.reshape(-1) for each in gradients]
        norm = sum((each.dot(each) for each in flat), torch.zeros((), dtype=torch.float32)).sqrt()
        scale = None if float(norm) <= self.settings.clip else norm / self.settings.clip
        self.optimizer.grad_scale = scale  # type: ignore[attr-defined]  # as GradScaler sets it

    def _seeded(self) -> AbstractContextManager[None]:
        """Random numbers of a step, which depend on the seed and the step alone, whatever was drawn before."""
        return seeded((self.settings.seed * 1_000_003 + self.step) % 2**63, self.device)

    def _backward(self, rows: NDArray[np.int64], weight: float) -> Tensor:
        """Add the gradients of one batch, of a step whose rows weigh ``weight``; the sum of its losses."""
        wanted = torch.from_numpy(self.targets["train"][rows])
        if self.device.type == "mps" and wanted.dtype == torch.float64:  # which it does not have
            wanted = wanted.float()
        targets = wanted.to(self.device)  # (B,) or (B, C)
        answers = self.runner.logits("train", rows, training=True)  # (B, C)
        if self.device.type == "cpu" and self.step % heap.RELEASED_STEPS == 0 and self.step:
            heap.release(heap.SCRAP_BYTES)  # while most of what a step needs is there, or the next one takes it again
        loss = self.objective.summed(answers.float(), targets, rows)
        self.scaler.scale(loss / weight).backward()
        return loss.detach()

    def _set_rate(self) -> None:
        share = rate_share(self.settings.schedule, self.step, self.steps, self.settings.warmup)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share

    def _check_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            smaller = min(self.learning_rate / 10, self.tuned.tuner.learning_rate)
            raise TrainingError(
                f"The loss became {loss} at step {self.step} of {self.steps} (epoch {epoch}) with a learning rate of "
                f"{self.learning_rate:g}. Nothing was saved. Try --lr {smaller:g}."
            )

    def evaluate(self, part: str) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Logits (N, C) and metrics of "validation" or "test"."""
        return self.score(part, self.runner.all_logits(part))

    def score(self, part: str, answers: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """``answers`` (N, C) to a part, and their metrics.

        Raises:
            TrainingError: they are not finite.
        """
        if not np.isfinite(answers).all():
            self._check_finite(math.nan, len(self.history) + 1)
        return answers, self.task.assess(self.targets[part], answers)

    def _no_answers(self) -> NDArray[np.float32]:
        """Logits of the validation part that say nothing, to see which scores there are (N, C)."""
        return np.zeros((len(self.tokens["validation"]), self.view.classes), dtype=np.float32)

    def _report(self, epoch: int, loss: float, validation: dict[str, Any] | None) -> None:
        if self.progress is not None:
            self.progress(Progress(self.step, self.steps, epoch, self.epochs, loss, self.elapsed(), validation))


def _drop(head: nn.Module, inputs: tuple[Tensor, ...], share: float) -> tuple[Tensor, ...]:
    """Drop a share of what enters the head, while it trains: (B, D) -> (B, D)."""
    pooled, *rest = inputs
    return F.dropout(pooled, share, head.training), *rest

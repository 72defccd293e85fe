"""The training loop: one for all strategies, or a comparison would compare scripts.

It knows nothing of what a strategy trains. The one exception is a linear head on a frozen backbone, a convex problem:
it is solved (`lora_clf.training.solver`), unless a learning rate asks for steps. Shapes: B batch, T tokens, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_clf.adapters.adapter import Adapter, make_header
from lora_clf.base.base import Base
from lora_clf.base.generator import GENERATOR
from lora_clf.base.tokenizer import Tokens
from lora_clf.data.dataset import Dataset
from lora_clf.errors import TrainingError, UsageError
from lora_clf.inference.attention import kernel_rule
from lora_clf.inference.batches import training_rows
from lora_clf.inference.precision import resolve_precision
from lora_clf.inference.predict import logits
from lora_clf.inference.runner import Runner
from lora_clf.metrics.classification import assess
from lora_clf.training.decision import Decision, decide
from lora_clf.training.result import Progress, Result
from lora_clf.training.schedule import warmup_decay
from lora_clf.training.settings import TrainSettings
from lora_clf.training.solver import inner_folds, linear_of, solve_head
from lora_clf.tuners.base import Tuned, Tuner

if TYPE_CHECKING:
    from numpy.typing import NDArray


def train(
    base: Base,
    data: Dataset,
    tuner: Tuner,
    settings: TrainSettings | None = None,
    *,
    pooling: str | None = None,
    decision: Decision | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Tune ``base`` into a classifier of ``data`` and score it.

    The base itself is not changed. The weights of the epoch with the lowest validation loss are kept. The
    base's own dropout is off, in frozen and in trained layers alike; a strategy's ``dropout`` is its own. Where
    only a linear head trains and no learning rate is given, the head is solved for instead (`solver`).

    Args:
        base: the shared base.
        data: training, validation and test parts.
        tuner: the strategy, as ``LoRA(rank=8)``.
        settings: epochs, batch size, learning rate, seed and so on.
        pooling: "mean", "first", "last" or "family" in place of the base's default.
        decision: threshold and temperature; by default a temperature where validation has rows enough for one.
        progress: called after every optimizer step.

    Raises:
        UsageError: a setting does not fit the base.
        TargetError: the strategy's targets match nothing.
        TrainingError: the loss is no longer a finite number.
    """
    if not isinstance(base, Base):
        raise UsageError(f"train() takes a base from load_base(), got {base!r}.")
    if not isinstance(tuner, Tuner):
        raise UsageError(f"train() takes a strategy such as LoRA(rank=8), got {tuner!r}.")
    settings = settings or TrainSettings()
    decision = decision or Decision()
    decision.check(data.labels, data.positive_label)
    started = time.perf_counter()
    precision = resolve_precision(settings.precision, base.device)
    max_length = base.check_length(settings.max_length)
    run = _Run(
        base=base,
        data=data,
        settings=settings,
        learning_rate=settings.lr or tuner.learning_rate,
        precision=precision,
        tokens={name: base.encode(part.texts, max_length) for name, part in data.parts.items()},
        tuned=tuner.prepare(base.view(len(data.labels), pooling, settings.seed)),
        progress=progress,
    )
    best = run.fit() if settings.lr is not None or not run.convex else run.solve()
    # The trained state moves into a fresh view: frozen matrices that were cast for speed stay behind.
    tuned = tuner.prepare(run.tuned.view.fresh())
    tuned.load_state_dict(best.state)
    trainable = tuned.trainable_parameters
    total = sum(parameter.numel() for parameter in tuned.view.parameters())
    answers = {name: logits(tuned.view, run.tokens[name]) for name in ("validation", "test")}
    decided = decide(decision, run.labels["validation"], answers["validation"], data.labels, data.positive_label)
    scores = {name: run.score(name, each, decided.scale, decided.cut) for name, each in answers.items()}
    header = make_header(
        base,
        tuned,
        labels=data.labels,
        positive_label=data.positive_label,
        max_length=max_length,
        seed=settings.seed,
        precision=precision,
        kernels=kernel_rule(base.device),
        data_name=data.name,
        data_digest=data.digest,
        licence=data.licence,
        threshold=decided.cut,
        temperature=decided.scale,
        training={**run.recipe(), **decided.record()},
        metrics={name: metrics for name, (_, metrics) in scores.items()},
    )
    return Result(
        adapter=Adapter(base, tuned, header),
        history=run.history,
        best_epoch=best.epoch,
        validation=scores["validation"][1],
        test=scores["test"][1],
        validation_logits=scores["validation"][0],
        test_logits=scores["test"][0],
        trainable_parameters=trainable,
        total_parameters=total,
        training_seconds=run.training_seconds + run.runner.prefix_seconds.get("train", 0.0),
        prefix_seconds=run.runner.prefix_seconds.get("train", 0.0),
        seconds=time.perf_counter() - started,
        warnings=(*data.warnings, *run.warnings(), *decided.warnings),
        decided=decided,
    )


@dataclass(frozen=True)
class _Best:
    """The weights of the best epoch so far."""

    epoch: int
    loss: float
    state: dict[str, Tensor]


class _Run:
    """The moving parts of one run: the view, the optimizer, the clock."""

    def __init__(
        self,
        *,
        base: Base,
        data: Dataset,
        settings: TrainSettings,
        learning_rate: float,
        precision: str,
        tokens: dict[str, Tokens],
        tuned: Tuned,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.data = data
        self.settings = settings
        self.learning_rate = learning_rate
        self.tuned = tuned
        self.view = tuned.view
        self.tokens = tokens
        self.precision = precision
        self.progress = progress
        self.device = base.device
        self.runner = Runner(base, tuned, precision, tokens, cache=settings.cache)
        self.labels = {name: data.label_ids(part) for name, part in data.parts.items()}
        self.lengths = tokens["train"].lengths
        self.history: list[dict[str, Any]] = []
        self.solved: dict[str, Any] = {}
        self.training_seconds = 0.0
        batches = math.ceil(len(self.lengths) / settings.batch_size)
        self.steps_per_epoch = math.ceil(batches / settings.accumulate)
        self.epochs = settings.epochs
        self.steps = self.steps_per_epoch * settings.epochs
        self.step = 0
        groups = tuned.parameter_groups(learning_rate, settings.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=self.device.type in ("cpu", "cuda"))
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        # Gradients of fp16 would vanish: the loss is scaled up, the gradients down again before they are used.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def convex(self) -> bool:
        """Whether training is a convex problem: a linear head on a frozen backbone, and no hook of the strategy's."""
        hooks = ("penalty", "after_step", "parameter_groups")
        plain = all(getattr(type(self.tuned), hook) is getattr(Tuned, hook) for hook in hooks)
        head = {f"head.{name}" for name, _ in self.view.head.named_parameters()}
        whole = set(self.tuned.trainable()) == head
        return plain and whole and self.runner.cut.pooled and linear_of(self.view.head) is not None

    def recipe(self) -> dict[str, Any]:
        """How the weights came about, for the record: only settings that had an effect."""
        if self.solved:
            return {**self.solved, "precision": self.precision, "seed": self.settings.seed}
        return replace(self.settings, lr=self.learning_rate, precision=self.precision).as_dict()

    def warnings(self) -> tuple[str, ...]:
        """What a person should know about this run."""
        found = list(self.runner.warnings)
        if self.solved:
            usual = TrainSettings()
            names = ("epochs", "batch_size", "weight_decay", "warmup", "clip", "accumulate", "patience")
            idle = [f"--{n.replace('_', '-')}" for n in names if getattr(self.settings, n) != getattr(usual, n)]
            if idle:
                found.append(f"The head was solved for, so {', '.join(idle)} had no effect; --lr trains it in steps.")
        for name, tokens in self.tokens.items():
            if count := int(tokens.truncated.sum()):
                found.append(f"{count:,} of {len(tokens):,} {name} texts were longer than is read and were cut.")
        return tuple(found)

    def solve(self) -> _Best:
        """Solve for the head; one entry of history, as if it had taken one epoch."""
        linear, features = linear_of(self.view.head), self.runner.features("train")
        assert linear is not None and features is not None
        started = time.perf_counter()
        texts, labels = self.data.train.texts, self.labels["train"]
        folds = inner_folds(texts, labels, self.settings.seed)
        solution = solve_head(features, labels, self.view.classes, folds, bias=linear.bias is not None)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(solution.weight))
            if linear.bias is not None:
                linear.bias.copy_(torch.from_numpy(solution.bias))
        self.training_seconds = time.perf_counter() - started
        self.solved = {"solver": "l-bfgs", "l2": solution.strength}
        _, metrics = self.evaluate("validation")
        self.history.append({"epoch": 1, "train_loss": solution.loss, "examples": len(texts), "validation": metrics})
        self.step = self.steps = self.epochs = 1
        self._report(1, solution.loss, metrics)
        return _Best(1, metrics["loss"], self.tuned.state_dict())

    def fit(self) -> _Best:
        """Train for all epochs, or until patience runs out; the best epoch's weights."""
        best: _Best | None = None
        for epoch in range(1, self.settings.epochs + 1):
            train_loss = self._epoch(epoch)
            _, metrics = self.evaluate("validation")
            self.history.append(
                {
                    "epoch": epoch,
                    "train_loss": train_loss,
                    "examples": epoch * len(self.lengths),
                    "validation": metrics,
                }
            )
            self._report(epoch, train_loss, metrics)
            if best is None or metrics["loss"] < best.loss:
                best = _Best(epoch, metrics["loss"], self.tuned.state_dict())
            elif self.settings.patience is not None and epoch - best.epoch >= self.settings.patience:
                break
        assert best is not None
        return best

    def _epoch(self, epoch: int) -> float:
        """One pass over the training part; the mean loss."""
        settings = self.settings
        batches = training_rows(self.lengths, settings.batch_size, settings.seed, epoch - 1)
        total = torch.zeros((), device=self.device)
        done = 0
        self.view.train()
        started = time.perf_counter()
        for first in range(0, len(batches), settings.accumulate):
            group = batches[first : first + settings.accumulate]
            # The mean over all rows of the step, so that accumulated batches weigh as their sizes.
            rows_in_step = sum(len(rows) for rows in group)
            self._set_rate()
            with self._seeded():
                for rows in group:
                    total += self._backward(rows, rows_in_step)
            penalty = self.tuned.penalty()
            if penalty is not None:
                self.scaler.scale(penalty).backward()
            moved = self._move()
            self.step += 1
            if moved:
                self.tuned.after_step(self.step, self.steps)
            self.optimizer.zero_grad(set_to_none=True)
            done += rows_in_step
            if self.device.type == "cpu" or self.step % 20 == 0 or self.step % self.steps_per_epoch == 0:
                self._check_finite(float(total), epoch)
                self._report(epoch, float(total) / done, None, time.perf_counter() - started)
        mean = float(total) / done
        self.training_seconds += time.perf_counter() - started
        return mean

    def _move(self) -> bool:
        """Clip the gradients and move the weights; False where scaled gradients overflowed, and nothing moved."""
        scale = self.scaler.get_scale()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Random numbers of a step, which depend on the seed and the step alone, whatever was drawn before."""
        devices = [self.device] if self.device.type == "cuda" else []
        with GENERATOR, torch.random.fork_rng(devices=devices):
            torch.manual_seed((self.settings.seed * 1_000_003 + self.step) % 2**63)
            yield

    def _backward(self, rows: NDArray[np.int64], rows_in_step: int) -> Tensor:
        """Add the gradients of one batch; the sum of its losses."""
        labels = torch.from_numpy(self.labels["train"][rows]).to(self.device)  # (B,)
        answers = self.runner.logits("train", rows, training=True)  # (B, C)
        loss = F.cross_entropy(answers.float(), labels, reduction="sum")
        self.scaler.scale(loss / rows_in_step).backward()
        return loss.detach()

    def _set_rate(self) -> None:
        share = warmup_decay(self.step, self.steps, self.settings.warmup)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share

    def _check_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {self.step} of {self.steps} (epoch {epoch}) with a learning rate of "
                f"{self.learning_rate:g}. Nothing was saved. Try --lr {self.learning_rate / 10:g}."
            )

    def evaluate(self, part: str) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Logits (N, C) and metrics of "validation" or "test"."""
        return self.score(part, self.runner.all_logits(part))

    def score(
        self, part: str, answers: NDArray[np.float32], temperature: float | None = None, threshold: float | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """``answers`` (N, C) to a part, and their metrics.

        Raises:
            TrainingError: they are not finite.
        """
        if not np.isfinite(answers).all():
            self._check_finite(math.nan, len(self.history) + 1)
        names, positive = self.data.labels, self.data.positive_label
        truth = self.labels[part]
        return answers, assess(truth, answers, names, positive, temperature=temperature, threshold=threshold)

    def _report(self, epoch: int, loss: float, validation: dict[str, Any] | None, running: float = 0.0) -> None:
        if self.progress is not None:
            seconds = self.training_seconds + running
            self.progress(Progress(self.step, self.steps, epoch, self.epochs, loss, seconds, validation))

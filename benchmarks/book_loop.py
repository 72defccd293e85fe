"""The book's loop, as a peer: the classification chapter of "Build a Large Language Model (From Scratch)".

Written from its description; it counts what its user pays from a loaded base and tokenised texts to the end of the
last epoch, evaluations included. Shapes: B batch, T tokens, D width, C classes, N texts.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from paired import Timing, synchronise

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

CLASSES = 2


class BookLoop:
    """The book's loop (chapter 6): texts padded to one length, no mask, the logits of the last slot.

    GPT-2's architecture is transformers' own with its fused kernels, which is faster than the book's modules. What is
    frozen is run again at every step, as in the book. Evaluation: the mean loss of ``eval_batches`` batches of
    training and of validation every ``eval_every`` steps from the first on, and their accuracy after every epoch.
    """

    def __init__(
        self,
        base: Base,
        data: Dataset,
        trains: str,
        *,
        steps: int | None,
        epochs: int = 5,
        width: int = 120,
        eval_every: int = 50,
        eval_batches: int = 5,
        batch_size: int = 8,
    ) -> None:
        import torch

        self.base, self.trains, self.steps, self.epochs = base, trains, steps, epochs
        self.width, self.batch_size = width, batch_size
        self.eval_every, self.eval_batches = eval_every, eval_batches
        self.inputs: dict[str, Tensor] = {}
        self.labels: dict[str, Tensor] = {}
        for name in ("train", "validation"):
            part = data.parts[name]
            rows = base.encode(part.texts, width).ids
            padded = np.full((len(rows), width), base.tokenizer.pad_id, dtype=np.int64)
            for place, row in enumerate(rows):
                padded[place, : len(row)] = row
            self.inputs[name] = torch.from_numpy(padded).to(base.device)  # (N, T)
            self.labels[name] = torch.from_numpy(data.label_ids(part)).to(base.device)  # (N,)
        self.timing: Timing | None = None
        self.losses: list[float] = []
        self._calls = 0

    @property
    def total_steps(self) -> int:
        """Steps of the whole job; the last, smaller batch of an epoch is dropped."""
        return len(self.labels["train"]) // self.batch_size * self.epochs

    @property
    def evaluations(self) -> int:
        """Evaluations of the whole job, each of ``eval_batches`` batches of training and of validation."""
        return -(-self.total_steps // self.eval_every) + self.epochs

    def shorten(self) -> None:
        """Run a few steps and an evaluation from now on: all batches are alike."""
        self.steps = min(3, self.total_steps)

    def load(self, seed: int = 123) -> tuple[nn.Module, nn.Linear]:
        """The backbone with what trains unfrozen, and a fresh head with a bias."""
        import torch
        from torch import nn

        backbone: Any = copy.deepcopy(self.base.backbone).requires_grad_(self.trains == "full").eval()
        torch.manual_seed(seed)
        head = nn.Linear(int(self.base.config.hidden_size), CLASSES).to(self.base.device)
        if self.trains == "last-block":
            backbone.h[-1].requires_grad_(True)
            backbone.ln_f.requires_grad_(True)
        return backbone, head

    def __call__(self) -> float:
        """Seconds of the whole job, from ``steps`` of it where that is not None."""
        seed = 123 + self._calls
        return self.run(self.load(seed), seed)

    def run(self, model: tuple[nn.Module, nn.Linear], seed: int) -> float:
        """As a call, of a model that is loaded already."""
        import torch

        self._calls += 1
        backbone, head = model
        synchronise(self.base.device)
        started = time.perf_counter()
        parameters = [p for module in (backbone, head) for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=5e-5, weight_decay=0.1)
        setup = time.perf_counter() - started
        generator = torch.Generator().manual_seed(seed)
        self.losses = []
        stepping, evaluating, evaluations = 0.0, 0.0, 0
        step = 0
        for _ in range(self.epochs):
            for rows in self._batches("train", generator):
                if step == self.steps:
                    break
                begin = time.perf_counter()
                optimizer.zero_grad()
                loss = self._loss(backbone, head, "train", rows)
                loss.backward()
                optimizer.step()
                synchronise(self.base.device)
                now = time.perf_counter()
                stepping += now - begin
                if step % self.eval_every == 0:
                    self.losses.append(self._evaluate(backbone, head, generator)[0])
                    evaluating += time.perf_counter() - now
                    evaluations += 1
                step += 1
            if step == self.steps:
                break
            now = time.perf_counter()
            self._evaluate(backbone, head, generator)
            evaluating += time.perf_counter() - now
            evaluations += 1
        measured = time.perf_counter() - started
        seconds = setup + stepping / step * self.total_steps + evaluating / evaluations * self.evaluations
        self.timing = Timing(measured if step == self.total_steps else seconds, measured, step, self.total_steps)
        return self.timing.seconds

    def _batches(self, part: str, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Rows of each batch: training shuffled and its remainder dropped, validation in order."""
        import torch

        count = len(self.labels[part])
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        end = count if generator is None else count - count % self.batch_size
        for start in range(0, end, self.batch_size):
            yield order[start : start + self.batch_size]

    def _logits(self, backbone: nn.Module, head: nn.Module, part: str, rows: Tensor) -> Tensor:
        """Logits of the last slot, padding or not: (B,) rows -> (B, C)."""
        hidden = backbone(input_ids=self.inputs[part][rows], use_cache=False).last_hidden_state  # (B, T, D)
        logits: Tensor = head(hidden)[:, -1, :]
        return logits

    def _loss(self, backbone: nn.Module, head: nn.Module, part: str, rows: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.cross_entropy(self._logits(backbone, head, part, rows), self.labels[part][rows])

    def _evaluate(self, backbone: nn.Module, head: nn.Module, generator: torch.Generator) -> tuple[float, float]:
        """The mean loss of the first batches of training, shuffled, and of validation."""
        import torch

        found = []
        with torch.no_grad():
            for part, order in (("train", generator), ("validation", None)):
                batches = [rows for rows, _ in zip(self._batches(part, order), range(self.eval_batches), strict=False)]
                losses = [self._loss(backbone, head, part, rows).item() for rows in batches]
                found.append(sum(losses) / len(losses))
        return found[0], found[1]

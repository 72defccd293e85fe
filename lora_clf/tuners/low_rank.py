"""What the LoRA strategies share: settings, the scaling, the initial factors and merging.

LoRA (Hu et al. 2021, section 4.1) leaves a weight W of shape (out, in) frozen and learns a product of two thin
factors beside it::

        x (B, T, in) ──┬── W ───────────────────────────── + ── y (B, T, out)
                       └── A (r, in) ── B (out, r) ── x s ─┘

    y = x Wᵀ + s · (x Aᵀ) Bᵀ        s = alpha / r, computed in `LowRank.scaling` and nowhere else

A starts Kaiming-uniform, B at zero, so the first step starts from the base. With a 384 wide layer and rank 8 the
factors are 2 x 8 x 384 = 6,144 numbers in place of 147,456.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import Coverage, expand_targets
from lora_clf.base.view import View
from lora_clf.errors import UsageError
from lora_clf.tuners.base import Tuned, Tuner
from lora_clf.tuners.peft_layers import ADAPTER, inject

RANKS = (2, 4, 8, 16, 32)  # to try, the default among them


@dataclass(frozen=True)
class LowRank(Tuner):
    """Low-rank factors beside frozen linear layers.

    Attributes:
        rank: the inner width r of the factors.
        alpha: the scaling's numerator; the change is multiplied by alpha / rank.
        dropout: the share of the factors' inputs that is dropped in training.
        targets: all, attention, attention+output, or comma-separated name endings.
        blocks: how many of the last blocks are adapted; None means all.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "all"
    blocks: int | None = None

    plain: ClassVar[bool] = True
    """Whether it computes what the others with this declaration compute from the same settings and factors."""

    def __post_init__(self) -> None:
        """Check the settings; all problems at once."""
        super().__post_init__()
        problems = []
        if self.rank < 1:
            problems.append(f"--rank {self.rank}: expected at least 1")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            problems.append(f"--alpha {self.alpha}: expected a positive number")
        if not 0 <= self.dropout < 1:
            problems.append(f"--dropout {self.dropout}: expected 0 up to, not including, 1")
        if problems:
            raise UsageError(f"{self.name}: " + "; ".join(problems) + ".")

    @property
    def scaling(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    def coverage(self, view: View) -> Coverage:
        """The linear layers that the targets name in ``view``."""
        return expand_targets(view.backbone, view.architecture, self.targets, self.blocks)


class LowRankTuned(Tuned):
    """A view with low-rank factors: ``factors`` maps each adapted layer's name to its A (r, in) and B (out, r)."""

    def __init__(
        self,
        tuner: LowRank,
        view: View,
        coverage: Coverage,
        factors: dict[str, tuple[nn.Parameter, nn.Parameter]],
    ) -> None:
        super().__init__(tuner, view, coverage)
        self.scaling = tuner.scaling
        self.factors = factors
        for name in coverage.modules:
            self._initialise(name)

    def _initialise(self, name: str) -> None:
        """A from U(-1/sqrt(in), 1/sqrt(in)), which is Kaiming-uniform with a = sqrt 5; B zero."""
        a, b = self.factors[name]
        bound = 1 / math.sqrt(a.shape[1])
        drawn = torch.empty(a.shape).uniform_(-bound, bound, generator=self.view.generator(name))
        with torch.no_grad():
            a.copy_(drawn)
            b.zero_()

    def trainable(self) -> dict[str, nn.Parameter]:
        """The factors as ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``, and the head."""
        state: dict[str, nn.Parameter] = {}
        for name in self.factors:
            state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] = self.factors[name]
        return state | {f"head.{name}": p for name, p in self.view.head.named_parameters()}

    def _write_into(self, merged: View) -> None:
        for name, (a, b) in self.factors.items():
            layer = merged.backbone.get_submodule(name)
            weight = layer.weight
            assert isinstance(weight, nn.Parameter)
            merged.own([weight])
            change = delta(a, b, self.scaling, transposed=isinstance(layer, Conv1D))
            with torch.no_grad():
                weight.copy_(weight.cpu().double() + change)


def wrap(tuner: LowRank, view: View, **settings: Any) -> LowRankTuned:
    """Have peft wrap each target layer of ``view``; ``settings`` of its config are beside those of every LoRA."""
    coverage = tuner.coverage(view)
    usual = {"r": tuner.rank, "lora_alpha": tuner.alpha, "lora_dropout": tuner.dropout}
    inject(tuner, view, coverage, "LORA", {**usual, **settings})
    factors = {}
    for name in coverage.modules:
        layer: Any = view.backbone.get_submodule(name)
        # Autocast picks the type to multiply in; peft would first cast the input to fp32 at every step.
        layer.cast_input_dtype_enabled = False
        factors[name] = (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight)
    return LowRankTuned(tuner, view, coverage, factors)


def delta(a: Tensor, b: Tensor, scaling: float, *, transposed: bool) -> Tensor:
    """The change of the weight in float64: s · B A of shape (out, in), or (in, out) for a ``Conv1D``.

    It is made on the CPU: not every accelerator has float64.
    """
    change = scaling * (b.detach().cpu().double() @ a.detach().cpu().double())
    return change.T if transposed else change

"""AdaLoRA through the peft library: factors in the form of a singular value decomposition, pruned in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lora_clf.base.targets import Coverage
from lora_clf.base.view import View
from lora_clf.errors import StateError, UsageError
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftLayers, PeftTuned

_KEPT = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what peft's allocator holds of every number between two steps


@dataclass(frozen=True)
class AdaLoRA(PeftLayers):
    """Train low-rank factors and drop the least important ones as training goes (Zhang et al. 2023, section 3).

    The change is s P diag(e) Q, with P and Q held near orthogonal by a penalty. Each layer begins with
    ``initial_rank`` values in e; after every step the least important ones of all layers are set to zero, along a
    cubic schedule, until ``rank`` a layer are left on average. initial_rank (in + out + 1) numbers train a layer.

    Attributes:
        rank: how many values a layer keeps on average.
        initial_rank: how many values a layer begins with.
        alpha: the scaling's numerator.
        dropout: the share of the factors' inputs that is dropped in training.
        prune_from: the share of the training after which values are dropped.
        prune_until: the share of the training after which no more are.
        orthogonality: the weight of the penalty that holds the factors near orthogonal.
    """

    rank: int = 8
    initial_rank: int = 12
    alpha: float = 16.0
    dropout: float = 0.0
    prune_from: float = 0.1
    prune_until: float = 0.6
    orthogonality: float = 0.1

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "low-rank factors, pruned to a budget in training (peft library), and the head"
    learning_rate: ClassVar[float] = 2e-3
    order: ClassVar[int] = 58
    method: ClassVar[str] = "ADALORA"
    peft_ending: ClassVar[str] = ".lora_A"
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def __post_init__(self) -> None:
        """Check the settings; all problems at once."""
        super().__post_init__()
        problems = []
        if not 1 <= self.rank <= self.initial_rank:
            problems.append(f"--rank {self.rank} --initial-rank {self.initial_rank}: expected 1 to --initial-rank")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            problems.append(f"--alpha {self.alpha}: expected a positive number")
        if not 0 <= self.dropout < 1:
            problems.append(f"--dropout {self.dropout}: expected 0 up to, not including, 1")
        if not 0 <= self.prune_from < self.prune_until <= 1:
            problems.append(
                f"--prune-from {self.prune_from} --prune-until {self.prune_until}: expected shares of the training, "
                "the first below the second"
            )
        if not (self.orthogonality >= 0 and math.isfinite(self.orthogonality)):
            problems.append(f"--orthogonality {self.orthogonality}: expected 0 or more")
        if problems:
            raise UsageError(f"{self.name}: " + "; ".join(problems) + ".")

    def peft_settings(self) -> dict[str, Any]:
        """The schedule is not known yet: `AdaLoRATuned.after_step` sets it."""
        return {
            "target_r": self.rank,
            "init_r": self.initial_rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "orth_reg_weight": self.orthogonality,
            "total_step": 1,
        }

    def prepare(self, view: View) -> AdaLoRATuned:
        """Have peft wrap each target layer."""
        made = super().prepare(view)
        for name in made.coverage.modules:  # a constant; on the meta device it comes as trainable
            layer: Any = view.backbone.get_submodule(name)
            layer.ranknum.requires_grad_(False)
        return AdaLoRATuned(self, view, made.coverage, made.model)


class AdaLoRATuned(PeftTuned):
    """A view with AdaLoRA's layers, whose budget shrinks from step to step."""

    tuner: AdaLoRA
    _settled = False

    def __init__(self, tuner: AdaLoRA, view: View, coverage: Coverage, model: Any) -> None:
        super().__init__(tuner, view, coverage, model)
        self._factors = [(n, p) for n, p in self.trainable().items() if n.endswith((".lora_A", ".lora_B"))]

    @property
    def settled(self) -> bool:
        """Whether the pruning is over; with ``rank`` equal to ``initial_rank`` there is none."""
        return self._settled or self.tuner.rank == self.tuner.initial_rank

    def penalty(self) -> Tensor | None:
        """The weight times the mean distance of Pᵀ P and Q Qᵀ from the identity (equation 4)."""
        if self.tuner.orthogonality == 0:
            return None
        distances = []
        for name, factor in self._factors:
            square = factor @ factor.T if name.endswith("A") else factor.T @ factor  # (r, r)
            distances.append((square - torch.eye(len(square), device=square.device)).norm())
        return self.tuner.orthogonality * torch.stack(distances).mean()

    def after_step(self, step: int, total_steps: int) -> None:
        """peft's update: importance from the gradients of this step, and the budget of this moment."""
        config, allocator = self.model.peft_config["default"], self.model.rankallocator
        last = max(1, round(self.tuner.prune_until * total_steps))  # the step that ends the pruning
        if not self._settled:
            last = max(last, step)  # the one meant for it moved nothing: its gradients overflowed
        config.total_step, config.tfinal = total_steps, total_steps - last
        config.tinit = min(int(self.tuner.prune_from * total_steps), last - 1)  # the steps before it
        config.deltaT = max(1, total_steps // 100)
        if step == last and not allocator.ipt:  # peft looks at no gradient in that step: here there is no other
            allocator.update_ipt(self.model.model)
        if self.tuner.rank < self.tuner.initial_rank:  # else there is nothing to prune, which peft cannot do
            self.model.update_and_allocate(step)
        self._settled = step >= last

    def run_state(self) -> dict[str, Any]:
        """The running importance of every number, which values are left, and whether that is final."""
        allocator = self.model.rankallocator
        tensors = {f"{kind}/{name}": t for kind in _KEPT for name, t in getattr(allocator, kind).items()}
        pattern = self.model.peft_config["default"].rank_pattern
        return {**tensors, "rank_pattern": pattern, "settled": self._settled}

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `run_state` returned.

        Raises:
            StateError: names that no such run has.
        """
        odd = sorted(n for n in state if n.partition("/")[0] not in (*_KEPT, "rank_pattern", "settled"))
        if odd:
            raise StateError("An adalora run carries no such state", unexpected=odd)
        device = self.view.device
        for kind in _KEPT:
            kept = {n.partition("/")[2]: t.to(device) for n, t in state.items() if n.startswith(f"{kind}/")}
            setattr(self.model.rankallocator, kind, kept)
        self.model.peft_config["default"].rank_pattern = state.get("rank_pattern")
        self._settled = bool(state.get("settled"))

"""LoRA written by hand: two small layers, one on ``nn.Linear``, one on transformers' ``Conv1D``.

Each *is* the layer it adapts: it takes over the base's own parameters, initialises nothing anew and draws no
random number. `lora_clf.tuners.low_rank` has the drawing and the scaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import linear_shape
from lora_clf.base.view import View
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.linear_layer import SameConv1D, SameLinear
from lora_clf.tuners.low_rank import RANKS, LowRank, LowRankTuned


class _Factors(nn.Module):
    """The factors A (r, in) and B (out, r), and the scaling: the part that both layers share."""

    lora_A: nn.Linear
    lora_B: nn.Linear

    def add_factors(self, inputs: int, outputs: int, rank: int, scaling: float, dropout: float) -> None:
        """Give this layer its factors, not yet initialised."""
        weight: Tensor = self.weight  # type: ignore[assignment]
        self.scaling = scaling
        self.lora_dropout = nn.Dropout(dropout)
        self.lora_A = _empty_linear(inputs, rank, weight.device)
        self.lora_B = _empty_linear(rank, outputs, weight.device)

    @property
    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B."""
        a, b = self.lora_A.weight, self.lora_B.weight
        assert isinstance(a, nn.Parameter) and isinstance(b, nn.Parameter)
        return a, b

    def change(self, x: Tensor) -> Tensor:
        """s · (x Aᵀ) Bᵀ: (B, T, in) -> (B, T, out)."""
        inner = F.linear(self.lora_dropout(x), self.lora_A.weight)  # (B, T, r)
        # Scaling the r wide inner product costs r / out of scaling the result.
        return F.linear(inner * self.scaling, self.lora_B.weight)  # (B, T, out)


class LoRALinear(_Factors, SameLinear):
    """An ``nn.Linear`` with low-rank factors beside its weight (out, in)."""

    def __init__(self, base: nn.Linear, rank: int, scaling: float, dropout: float) -> None:
        super().__init__(base)
        self.add_factors(self.in_features, self.out_features, rank, scaling, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out)."""
        return self.product(x) + self.change(x)


class LoRAConv1D(_Factors, SameConv1D):
    """A transformers ``Conv1D`` with low-rank factors beside its weight (in, out)."""

    def __init__(self, base: Conv1D, rank: int, scaling: float, dropout: float) -> None:
        super().__init__(base)
        self.add_factors(self.nx, self.nf, rank, scaling, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out)."""
        return self.product(x) + self.change(x)


def _empty_linear(inputs: int, outputs: int, device: torch.device) -> nn.Linear:
    """A linear layer without bias; nothing is drawn, nor computed in order to draw nothing."""
    layer = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.empty(outputs, inputs, device=device, dtype=torch.float32))
    layer.register_parameter("bias", None)
    return layer


@dataclass(frozen=True)
class LoRAScratch(LowRank):
    """Train low-rank factors beside the linear layers, with the layer written by hand (Hu et al. 2021)."""

    name: ClassVar[str] = "lora-scratch"
    summary: ClassVar[str] = "low-rank factors beside linear layers (written by hand) and the head"
    learning_rate: ClassVar[float] = 1e-3
    order: ClassVar[int] = 50
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "rank": RANKS}

    def prepare(self, view: View) -> LowRankTuned:
        """Replace each target layer by its LoRA form."""
        coverage = self.coverage(view)
        factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name in coverage.modules:
            base = view.backbone.get_submodule(name)
            kind = LoRAConv1D if isinstance(base, Conv1D) else LoRALinear
            layer = kind(base, self.rank, self.scaling, self.dropout)  # type: ignore[arg-type]
            assert linear_shape(layer) == linear_shape(base)
            view.backbone.set_submodule(name, layer)
            factors[name] = layer.factors
        return LowRankTuned(self, view, coverage, factors)

"""Bottleneck adapters: small two-layer networks behind the parts of each block.

Houlsby et al. 2019 (section 2.1) put one behind the projection that ends the attention and one behind the layer that
ends the feed-forward part, before each is added to what came in; Pfeiffer et al. 2021 (section 3.2) keep the second
only::

    y (B, T, D) ──┬─────────────────────────────────────────── + ──
                  └── down (m, D) ── gelu ── up (D, m) ────────┘

Up starts at zero, so the first step starts from the base (the paper draws both near zero).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import Coverage, last_blocks, linear_shape, norms
from lora_clf.base.view import View
from lora_clf.errors import UsageError, unknown
from lora_clf.tuners.base import Tuned, Tuner, rates_around
from lora_clf.tuners.linear_layer import Around, AroundConv1D, AroundLinear, layers_of

PLACEMENTS = ("houlsby", "pfeiffer")


class _Bottleneck(Around):
    """The two layers of an adapter."""

    adapter_down: nn.Linear
    adapter_up: nn.Linear

    def add_adapter(self, width: int, bottleneck: int, generator: torch.Generator) -> None:
        """Give the layer its adapter: down Kaiming-uniform, everything else zero."""
        weight: Tensor = self.weight  # type: ignore[assignment]
        where = {"device": weight.device, "dtype": torch.float32}
        self.adapter_down = nn.utils.skip_init(nn.Linear, width, bottleneck, **where)
        self.adapter_up = nn.utils.skip_init(nn.Linear, bottleneck, width, **where)
        bound = 1 / math.sqrt(width)
        with torch.no_grad():
            drawn = torch.empty(bottleneck, width).uniform_(-bound, bound, generator=generator)
            self.adapter_down.weight.copy_(drawn)
            for zero in (self.adapter_down.bias, self.adapter_up.weight, self.adapter_up.bias):
                zero.zero_()

    def behind(self, y: Tensor) -> Tensor:
        change: Tensor = self.adapter_up(F.gelu(self.adapter_down(y)))  # (B, T, m) between
        return y + change


class _AdaptedLinear(_Bottleneck, AroundLinear):
    """An ``nn.Linear`` with an adapter behind it."""


class _AdaptedConv1D(_Bottleneck, AroundConv1D):
    """A ``Conv1D`` with an adapter behind it."""


@dataclass(frozen=True)
class Bottleneck(Tuner):
    """Train bottleneck adapters, as Houlsby et al. 2019 (with the blocks' norms) or Pfeiffer et al. 2021 place them.

    An adapter of width m behind D numbers has 2 m D + m + D; a block has two of them and its norms (houlsby), or one
    (pfeiffer).

    Attributes:
        bottleneck: the inner width of an adapter.
        placement: of adapters: houlsby (behind attention and feed-forward, norms trained) or pfeiffer (the latter).
        blocks: how many of the last blocks are adapted; None means all.
    """

    bottleneck: int = 64
    placement: str = "houlsby"
    blocks: int | None = None

    name: ClassVar[str] = "bottleneck"
    summary: ClassVar[str] = "small two-layer networks inside the blocks, their norms and the head"
    learning_rate: ClassVar[float] = 1e-3
    mergeable: ClassVar[bool] = False
    order: ClassVar[int] = 75
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "bottleneck": (16, 32, 64)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.bottleneck < 1:
            raise UsageError(f"{self.name}: --bottleneck {self.bottleneck}: expected at least 1.")
        if self.placement not in PLACEMENTS:
            raise unknown("placement", self.placement, PLACEMENTS)

    def prepare(self, view: View) -> Tuned:
        """Put an adapter behind each of the layers."""
        coverage = self._coverage(view)
        for name in coverage.modules:
            base: Any = view.backbone.get_submodule(name)
            layer = (_AdaptedConv1D if isinstance(base, Conv1D) else _AdaptedLinear)(base)
            layer.add_adapter(linear_shape(base)[1], self.bottleneck, view.generator(name))
            view.backbone.set_submodule(name, layer)
        if self.placement == "houlsby":
            indices = last_blocks(len(view.blocks), self.blocks)
            view.own(p for index in indices for norm in norms(view.blocks[index]) for p in norm.parameters())
        return Tuned(self, view, coverage)

    def _coverage(self, view: View) -> Coverage:
        architecture = view.architecture
        behind = architecture.attention_output if self.placement == "houlsby" else ()
        return layers_of(view, (*behind, architecture.feed_forward_output), self.blocks)

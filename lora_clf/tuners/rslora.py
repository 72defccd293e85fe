"""Rank-stabilised LoRA through the peft library: the change is scaled by alpha / sqrt(rank)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.base.view import View
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.low_rank import RANKS, LowRank, LowRankTuned, wrap


@dataclass(frozen=True)
class RsLoRA(LowRank):
    """Train low-rank factors whose change is scaled by alpha / sqrt(rank), through peft (Kalajdzievski 2023).

    With alpha / rank the change shrinks as the rank grows; with alpha / sqrt(rank) it does not (theorem 3.2). The
    numbers that train are LoRA's. The default alpha gives about the scaling that LoRA has by default at rank
    8 (2).
    """

    alpha: float = 6.0

    name: ClassVar[str] = "rslora"
    summary: ClassVar[str] = "low-rank factors scaled by alpha / sqrt(rank) (peft library) and the head"
    learning_rate: ClassVar[float] = 7e-4
    plain: ClassVar[bool] = False
    order: ClassVar[int] = 52
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "rank": RANKS}

    @property
    def scaling(self) -> float:
        """alpha / sqrt(rank)."""
        return self.alpha / math.sqrt(self.rank)

    def prepare(self, view: View) -> LowRankTuned:
        """Have peft wrap each target layer."""
        return wrap(self, view, use_rslora=True)

"""LoRA through the peft library, whose layers are put into the view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.base.view import View
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.low_rank import RANKS, LowRank, LowRankTuned, wrap


@dataclass(frozen=True)
class LoRA(LowRank):
    """Train low-rank factors beside the linear layers, through peft (Hu et al. 2021)."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank factors beside linear layers (peft library) and the head"
    learning_rate: ClassVar[float] = 1e-3
    order: ClassVar[int] = 40
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "rank": RANKS}

    def prepare(self, view: View) -> LowRankTuned:
        """Have peft wrap each target layer."""
        return wrap(self, view)

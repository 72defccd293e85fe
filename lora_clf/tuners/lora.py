"""LoRA through the peft library, whose layers are put into the view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers.pytorch_utils import Conv1D

from lora_clf.base.generator import GENERATOR
from lora_clf.base.view import View
from lora_clf.errors import TargetError
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.low_rank import RANKS, LowRank, LowRankTuned


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
        from peft import LoraConfig, inject_adapter_in_model

        coverage = self.coverage(view)
        conv1d = isinstance(view.backbone.get_submodule(coverage.modules[0]), Conv1D)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # annotated int, any number works
            lora_dropout=self.dropout,
            target_modules=list(coverage.modules),
            fan_in_fan_out=conv1d,
        )
        with GENERATOR, torch.random.fork_rng(devices=[]):  # peft draws factors of its own, which are drawn anew below.
            inject_adapter_in_model(config, view.backbone)
        factors = {}
        for name in coverage.modules:
            layer: Any = view.backbone.get_submodule(name)
            # Autocast picks the type to multiply in; peft would first cast the input to fp32 at every step.
            layer.cast_input_dtype_enabled = False
            factors[name] = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        adapted = {n for n, module in view.backbone.named_modules() if hasattr(module, "lora_A")}
        if adapted != set(coverage.modules):
            more = ", ".join(sorted(adapted - set(coverage.modules)))
            raise TargetError(f"peft adapted other layers than it was asked to: {more}. Use --strategy lora-scratch.")
        return LowRankTuned(self, view, coverage, factors)

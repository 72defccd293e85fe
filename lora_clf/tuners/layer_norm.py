"""LayerNorm tuning: the gains and biases of the norms and the head are trained, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.base.targets import last_blocks, norms
from lora_clf.base.view import View
from lora_clf.tuners.base import Tuned, Tuner, rates_around, unfreeze


@dataclass(frozen=True)
class LayerNorm(Tuner):
    """Train the norms of the blocks, the norm behind them and the head (Qi et al. 2022, "LN-tuning").

    A block of width D with two layer norms has 4 D numbers that train, with two norms without a bias (RMSNorm) 2 D.

    Attributes:
        blocks: how many of the last blocks are adapted; None means all.
    """

    blocks: int | None = None

    name: ClassVar[str] = "layer-norm"
    summary: ClassVar[str] = "the gains and biases of the norms and the head"
    learning_rate: ClassVar[float] = 3e-3
    order: ClassVar[int] = 65
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def prepare(self, view: View) -> Tuned:
        """Take the parameters of the norms as the view's own."""
        found = [norm for i in last_blocks(len(view.blocks), self.blocks) for norm in norms(view.blocks[i])]
        found += [view.final_norm] if view.final_norm is not None else []
        return unfreeze(self, view, [parameter for norm in found for parameter in norm.parameters()])

"""BitFit: the biases of the base and the head are trained, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lora_clf.base.targets import last_blocks
from lora_clf.base.view import View
from lora_clf.tuners.base import Tuned, Tuner, rates_around, unfreeze


@dataclass(frozen=True)
class BitFit(Tuner):
    """Train the bias vectors of the blocks and the head (Ben Zaken et al. 2022, section 3).

    A BERT block of width D and inner width I has 7 D + I of them: query, key, value, the projection behind the
    attention, up (I), down, and two norms; the norm behind the last block counts too.

    Attributes:
        blocks: how many of the last blocks are adapted; None means all.
    """

    blocks: int | None = None

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the biases of the blocks and the head"
    learning_rate: ClassVar[float] = 1e-2
    order: ClassVar[int] = 60
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def refusal(self, view: View) -> str | None:
        """Bases without biases (Llama, T5, ModernBERT) have nothing to train."""
        return None if self._biases(view) else "its blocks have no biases; layer-norm trains as few numbers"

    def prepare(self, view: View) -> Tuned:
        """Take the biases as the view's own."""
        self.check_base(view)
        return unfreeze(self, view, self._biases(view))

    def _biases(self, view: View) -> list[nn.Parameter]:
        parts: list[nn.Module] = [view.blocks[index] for index in last_blocks(len(view.blocks), self.blocks)]
        parts += [view.final_norm] if view.final_norm is not None else []
        return [p for part in parts for name, p in part.named_parameters() if name.rpartition(".")[2] == "bias"]

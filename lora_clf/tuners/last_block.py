"""Last-block tuning: the last transformer blocks, the final norm and the head are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.base.targets import last_blocks
from lora_clf.base.view import View
from lora_clf.errors import UsageError
from lora_clf.tuners.base import Tuned, Tuner, rates_around, unfreeze


@dataclass(frozen=True)
class LastBlock(Tuner):
    """Train the last blocks, the norm behind them and the head (the recipe of the book's chapter 6).

    Lee et al. 2019 ("What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning") measure how many of the last
    blocks that takes. A BERT block of width D and inner width I has 4 D^2 + 2 D I weights, and 9 D + I numbers in
    biases and norms.

    Attributes:
        blocks: how many of the last blocks train.
    """

    blocks: int = 1

    name: ClassVar[str] = "last-block"
    summary: ClassVar[str] = "the last block(s), the final norm and the head"
    learning_rate: ClassVar[float] = 5e-4
    order: ClassVar[int] = 20
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "blocks": (1, 2, 4)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.blocks < 1:
            raise UsageError(f"--blocks {self.blocks}: last-block trains at least 1 block; see head-only for none.")

    def prepare(self, view: View) -> Tuned:
        """Take the last blocks and the final norm as the view's own."""
        indices = last_blocks(len(view.blocks), self.blocks)
        parameters = [p for index in indices for p in view.blocks[index].parameters()]
        norm = view.final_norm
        return unfreeze(self, view, parameters + (list(norm.parameters()) if norm is not None else []))

"""OFT through the peft library: each layer's input is turned by a block-diagonal orthogonal matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftBlocks


@dataclass(frozen=True)
class OFT(PeftBlocks):
    """Train block-diagonal rotations of the inputs of linear layers (Qiu et al. 2023, section 3).

    A block of b inputs has b (b - 1) / 2 numbers, the skew-symmetric matrix of Cayley's transform: in (b - 1) / 2 a
    layer. peft takes the nearest block that divides a layer's inputs.
    """

    block_size: int = 16

    name: ClassVar[str] = "oft"
    summary: ClassVar[str] = "block-diagonal rotations of linear layers' inputs (peft library) and the head"
    learning_rate: ClassVar[float] = 3e-3
    order: ClassVar[int] = 90
    method: ClassVar[str] = "OFT"
    peft_ending: ClassVar[str] = ".oft_R.weight"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "block_size": (8, 16, 32)}

    def peft_settings(self) -> dict[str, Any]:
        """Blocks by their size; the exact transform in place of a series."""
        return {
            "r": 0,
            "oft_block_size": self.block_size,
            "module_dropout": self.dropout,
            "use_cayley_neumann": False,
        }

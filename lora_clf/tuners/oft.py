"""OFT through the peft library: each layer's input is turned by a block-diagonal orthogonal matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers.pytorch_utils import Conv1D

from lora_clf.base.view import View
from lora_clf.errors import UsageError
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftLayers


@dataclass(frozen=True)
class OFT(PeftLayers):
    """Train block-diagonal rotations of the inputs of linear layers (Qiu et al. 2023, section 3).

    A block of b inputs has b (b - 1) / 2 numbers, the skew-symmetric matrix of Cayley's transform: in (b - 1) / 2 a
    layer. peft takes the nearest block that divides a layer's inputs.

    Attributes:
        block_size: inputs that are turned together.
        dropout: the share of the blocks that is left unturned in training.
    """

    block_size: int = 16
    dropout: float = 0.0

    name: ClassVar[str] = "oft"
    summary: ClassVar[str] = "block-diagonal rotations of linear layers' inputs (peft library) and the head"
    learning_rate: ClassVar[float] = 3e-3
    order: ClassVar[int] = 90
    method: ClassVar[str] = "OFT"
    peft_ending: ClassVar[str] = ".oft_R.weight"
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "block_size": (8, 16, 32)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.block_size < 2 or not 0 <= self.dropout < 1:
            raise UsageError(
                f"{self.name}: --block-size {self.block_size} --dropout {self.dropout}: expected blocks of at least 2 "
                "inputs and a dropout from 0 up to, not including, 1."
            )

    def refusal(self, view: View) -> str | None:
        """peft's layer is for ``nn.Linear`` only."""
        found = any(isinstance(module, Conv1D) for module in view.blocks.modules())
        return "peft's OFT has no form for its Conv1D layers" if found else None

    def peft_settings(self) -> dict[str, Any]:
        """Blocks by their size; the exact transform in place of a series."""
        return {
            "r": 0,
            "oft_block_size": self.block_size,
            "module_dropout": self.dropout,
            "use_cayley_neumann": False,
        }

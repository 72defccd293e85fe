"""BOFT through the peft library: each layer's input is turned in orthogonal blocks, each output has a scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from transformers.pytorch_utils import Conv1D

from lora_clf.base.view import View
from lora_clf.errors import UsageError
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftLayers


@dataclass(frozen=True)
class BOFT(PeftLayers):
    """Train orthogonal blocks of linear layers and a scale for each output (Liu et al. 2024, "BOFT", section 4).

    One butterfly factor: for more peft compiles a program of its own for the graphics card while it runs, which is
    not done here. A layer has in b + out numbers with blocks of b inputs.

    Attributes:
        block_size: inputs that are turned together; it has to divide the inputs of every layer.
        dropout: the share of the blocks that is left unturned in training.
    """

    block_size: int = 8
    dropout: float = 0.0

    name: ClassVar[str] = "boft"
    summary: ClassVar[str] = "orthogonal blocks and output scales of linear layers (peft library) and the head"
    learning_rate: ClassVar[float] = 3e-3
    order: ClassVar[int] = 92
    method: ClassVar[str] = "BOFT"
    peft_ending: ClassVar[str] = ".boft_R"
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "block_size": (4, 8, 16)}

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
        return "peft's BOFT has no form for its Conv1D layers" if found else None

    @contextmanager
    def during(self) -> Iterator[None]:
        """Keeps peft from compiling anything: it takes one butterfly factor where it has no kernel for more."""
        layer: Any = import_module("peft.tuners.boft.layer")
        kernel = layer.get_fbd_cuda
        layer.get_fbd_cuda = lambda: None
        try:
            yield
        finally:
            layer.get_fbd_cuda = kernel

    def peft_settings(self) -> dict[str, Any]:
        """Blocks by their size."""
        return {"boft_block_size": self.block_size, "boft_block_num": 0, "boft_dropout": self.dropout}

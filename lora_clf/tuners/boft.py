"""BOFT through the peft library: each layer's input is turned in orthogonal blocks, each output has a scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftBlocks


@dataclass(frozen=True)
class BOFT(PeftBlocks):
    """Train orthogonal blocks of linear layers and a scale for each output (Liu et al. 2024, "BOFT", section 4).

    One butterfly factor: for more peft compiles a program of its own for the graphics card while it runs, which is
    not done here. A layer has in b + out numbers with blocks of b inputs.

    Attributes:
        block_size: inputs that are turned together; it has to divide the inputs of every layer.
    """

    block_size: int = 8

    name: ClassVar[str] = "boft"
    summary: ClassVar[str] = "orthogonal blocks and output scales of linear layers (peft library) and the head"
    learning_rate: ClassVar[float] = 3e-3
    order: ClassVar[int] = 92
    method: ClassVar[str] = "BOFT"
    peft_ending: ClassVar[str] = ".boft_R"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "block_size": (4, 8, 16)}

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

"""P-tuning through the peft library: a small network makes the vectors that stand before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lora_clf.errors import UsageError, unknown
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.virtual_tokens import VirtualTokens

NETWORKS = ("mlp", "lstm")


@dataclass(frozen=True)
class PTuning(VirtualTokens):
    """Train a small network that makes vectors before the text, and the head (Liu et al. 2021, section 3.2).

    With P vectors of width D, an MLP of inner width H has P D + (D H + H) + (H H + H) + (H D + D) numbers; the
    paper's network is the LSTM.

    Attributes:
        network: of the vectors: mlp (three layers), or lstm (two bidirectional layers, then an MLP of two).
        network_width: the inner width of the network.
    """

    network: str = "mlp"
    network_width: int = 128

    name: ClassVar[str] = "p-tuning"
    summary: ClassVar[str] = "a network that makes vectors before the text (peft library), and the head"
    learning_rate: ClassVar[float] = 3e-2
    order: ClassVar[int] = 86
    method: ClassVar[str] = "P_TUNING"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "virtual_tokens": (5, 10, 20)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.network not in NETWORKS:
            raise unknown("network", self.network, NETWORKS)
        if self.network_width < 1:
            raise UsageError(f"{self.name}: --network-width {self.network_width}: expected at least 1.")

    def encoder(self, words: nn.Embedding) -> nn.Module:
        """peft's encoder of the vectors."""
        from peft import PromptEncoder, PromptEncoderConfig

        config = PromptEncoderConfig(
            num_virtual_tokens=self.virtual_tokens,
            token_dim=words.embedding_dim,
            num_transformer_submodules=1,
            encoder_reparameterization_type=self.network.upper(),
            encoder_hidden_size=self.network_width,
        )
        made: nn.Module = PromptEncoder(config)
        return made

"""Prompt tuning through the peft library: learned embeddings stand before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lora_clf.tuners.base import rates_around
from lora_clf.tuners.virtual_tokens import VirtualTokens


@dataclass(frozen=True)
class PromptTuning(VirtualTokens):
    """Train embeddings that stand before the text, and the head (Lester et al. 2021, section 2).

    P vectors as wide as the base's word embeddings, begun as those of words drawn at random (section 2.1): P D
    numbers.
    """

    name: ClassVar[str] = "prompt-tuning"
    summary: ClassVar[str] = "embeddings before the text (peft library) and the head"
    learning_rate: ClassVar[float] = 3e-2
    order: ClassVar[int] = 84
    method: ClassVar[str] = "PROMPT_TUNING"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "virtual_tokens": (5, 10, 20)}

    def encoder(self, words: nn.Embedding) -> nn.Module:
        """peft's embedding of the vectors."""
        from peft import PromptEmbedding, PromptTuningConfig
        from peft.tuners.prompt_tuning import PromptTuningInit

        config = PromptTuningConfig(
            num_virtual_tokens=self.virtual_tokens,
            token_dim=words.embedding_dim,
            num_transformer_submodules=1,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
        made: nn.Module = PromptEmbedding(config, words)
        return made

"""What the strategies that put learned vectors before the text share.

P vectors stand before the embeddings of a text's tokens, as if it began with P more tokens; everything behind them is
the base's own. The text is pooled without them::

    [prompt (P, D), embeddings of the text (B, T, D)] -> blocks -> states (B, P + T, D) -> the last T of them

A base has so many positions: P of them are the prompt's, so texts can be P tokens shorter at most.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lora_clf.base.base import position_limit
from lora_clf.base.generator import seeded
from lora_clf.base.view import Front, View
from lora_clf.errors import UsageError
from lora_clf.tuners.base import Tuned, Tuner


class Prompt(Front):
    """Puts the vectors that ``encoder`` makes before the embeddings of a text, which has room for so many tokens."""

    def __init__(self, encoder: nn.Module, words: nn.Module, length: int, room: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self._words = (words,)  # the base's own; as a part of this they would be saved with it
        self.length, self.room = length, room

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T), (B, T) -> (B, P + T, D), (B, P + T).

        Raises:
            UsageError: a text is longer than the base has positions for, beside the vectors.
        """
        if self.room is not None and input_ids.shape[1] > self.room:
            # Batches are padded to round widths, which may be wider than any text is.
            if bool(attention_mask[:, self.room :].any()):
                raise UsageError(f"A text has more tokens than the {self.room} that the vectors before it leave.")
            input_ids, attention_mask = input_ids[:, : self.room], attention_mask[:, : self.room]
        numbers = torch.arange(self.length, device=input_ids.device)[None]  # (1, P)
        texts: Tensor = self._words[0](input_ids)  # (B, T, D)
        prompt = self.encoder(numbers).to(texts.dtype).expand(len(input_ids), -1, -1)  # (B, P, D)
        mask = attention_mask.new_ones(len(input_ids), self.length)
        return torch.cat([prompt, texts], dim=1), torch.cat([mask, attention_mask], dim=1)


@dataclass(frozen=True)
class VirtualTokens(Tuner):
    """Learned vectors before the text.

    Attributes:
        virtual_tokens: how many vectors stand before the text.
    """

    virtual_tokens: int = 20

    identity_at_init: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False
    changes_inputs: ClassVar[bool] = True
    averages: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.virtual_tokens < 1:
            raise UsageError(f"{self.name}: --virtual-tokens {self.virtual_tokens}: expected at least 1.")

    @property
    def extra_tokens(self) -> int:
        """One position a vector."""
        return self.virtual_tokens

    @abstractmethod
    def encoder(self, words: nn.Embedding) -> nn.Module:
        """peft's module that makes the vectors, from the base's word embeddings: numbers (1, P) -> (1, P, D)."""

    def prepare(self, view: View) -> Tuned:
        """Put the vectors before the text."""
        self.check_base(view)
        backbone: Any = view.backbone
        words = backbone.get_input_embeddings()
        with seeded(view.generator(self.name).initial_seed(), view.device):
            encoder = self.encoder(words)
        limit = position_limit(view.config)
        room = None if limit is None else limit - self.virtual_tokens
        if room is not None and room < 1:
            raise UsageError(
                f"--virtual-tokens {self.virtual_tokens}: the base has {limit} positions for all of a text."
            )
        view.front = Prompt(encoder.to(view.device).requires_grad_(True), words, self.virtual_tokens, room)
        return Tuned(self, view)

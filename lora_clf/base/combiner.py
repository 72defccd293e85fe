"""Small networks that make one vector of the vectors of a text's chunks, and the head behind them.

Shapes: B texts, K chunks of the one with the most, D width, M inner width, C classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from lora_clf.base.head import FreeHead

INNER: Final = 128


class Combiner(nn.Module, ABC):
    """Makes one vector of the chunks' vectors; what is masked changes nothing.

    Attributes:
        width: of the vector that it makes.
    """

    width: int

    @abstractmethod
    def forward(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, K, D) and mask (B, K) -> one vector (B, width), and each chunk's share in it (B, K)."""


class Attention(Combiner):
    """A weighted mean, the weights a softmax of v tanh(W x + b) (Yang et al. 2016, section 2.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.inner = nn.Linear(width, INNER)
        self.score = nn.Linear(INNER, 1, bias=False)

    def forward(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean and the weights."""
        scores = self.score(torch.tanh(self.inner(vectors))).squeeze(-1)  # (B, K)
        weights = scores.masked_fill(mask == 0, float("-inf")).softmax(dim=-1)
        return (weights.unsqueeze(-1) * vectors).sum(dim=1), weights


class Mlp(Combiner):
    """The largest of each feature of a layer over single chunks, relu(W x + b), in any order (Zaheer et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = INNER
        self.inner = nn.Linear(width, INNER)

    def forward(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The largest features, and the share of them that each chunk gave."""
        return _largest(torch.relu(self.inner(vectors)), mask)


class BiLstm(Combiner):
    """The largest of each feature of an LSTM that runs over the chunks both ways (Pappagari et al. 2019, section 3.2;
    Conneau et al. 2017, section 3.2.2).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = INNER
        self.inner = nn.LSTM(width, INNER // 2, batch_first=True, bidirectional=True)

    def forward(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The largest features, and the share of them that each chunk gave."""
        lengths = mask.sum(dim=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.inner(packed)[0], batch_first=True, total_length=vectors.shape[1]
        )
        return _largest(states, mask)


def _largest(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each feature (B, K, M) over the chunks, and how many of them each chunk gave, as a share."""
    found, places = features.masked_fill((mask == 0).unsqueeze(-1), float("-inf")).max(dim=1)  # (B, M)
    shares = nn.functional.one_hot(places, features.shape[1]).float().mean(dim=1)  # (B, K)
    return found, shares


COMBINERS: Final[Mapping[str, type[Attention | Mlp | BiLstm]]] = {"attention": Attention, "mlp": Mlp, "bilstm": BiLstm}


class ChunkHead(FreeHead):
    """A linear layer behind a network that makes one vector of a text's chunks; behind mean, first or last pooling."""

    def __init__(self, config: Any, classes: int, pooling: str, combine: str) -> None:
        super().__init__(config, classes, pooling)
        self.combiner: Combiner = COMBINERS[combine](self.linear.in_features)
        self.linear = nn.Linear(self.combiner.width, classes)

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """Draw the weights: those of the network with deviation 1 / sqrt(inputs), so that signals keep their size."""
        super().initialise(generator, std)
        with torch.no_grad():
            for parameter in self.combiner.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)

    def forward(self, pooled: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of texts of one chunk each, (B, D), or of several, (B, K, D) and mask (B, K) -> (B, C)."""
        if mask is None:
            pooled, mask = pooled.unsqueeze(1), pooled.new_ones(len(pooled), 1)
        return self.documents(pooled, mask)[0]

    def documents(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of texts and their chunks' shares: (B, K, D), (B, K) -> (B, C), (B, K)."""
        combined, shares = self.combiner(vectors, mask)
        logits: Tensor = self.linear(combined)
        return logits, shares

"""How much arithmetic a job needs, and how much the usual recipe spends on it: counted, not measured.

F is one forward pass over the blocks: 2 FLOPs for each weight of a linear layer and token, and 4 T² D for the
attention of a text of T tokens. Embeddings, norms and heads are left out. What training costs, per pass over the texts:

    full 3F         LoRA on everything 2F + factors     LoRA on the last k of L blocks (1 + k/L)F + factors
    last block F + 2F/L     head F

The least that the same training needs (`least`) counts real tokens only, runs what is frozen below everything that
trains once for all epochs, and of a last block behind which one token is pooled only keys and values for the others.
What a training of this library needs is counted in `lora_clf.training.flops`.
Shapes: N texts, T tokens, D width, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Lengths = NDArray[np.int64]

KINDS = ("full", "lora", "last-block", "head")


@dataclass(frozen=True)
class Shape:
    """The size of a backbone: D, the width inside the MLP, the number of blocks."""

    width: int
    inner: int
    blocks: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The size that a transformers config describes."""
        width = int(config.hidden_size)
        inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
        return cls(width, int(inner), int(config.num_hidden_layers))

    @property
    def linear(self) -> int:
        """FLOPs of a block's linear layers for one token, forward: q, k, v, output and the two of the MLP."""
        return 2 * (4 * self.width**2 + 2 * self.width * self.inner)

    def factors(self, rank: int) -> int:
        """FLOPs of LoRA factors on all linear layers of a block for one token, forward."""
        return 2 * rank * (4 * 2 * self.width + 2 * (self.width + self.inner))


def block(shape: Shape, lengths: Lengths) -> float:
    """FLOPs of one block, forward, over texts of ``lengths`` computed tokens (N,)."""
    tokens = lengths.astype(np.float64)
    return float(tokens.sum() * shape.linear + 4 * shape.width * (tokens**2).sum())


def forward(shape: Shape, lengths: Lengths) -> float:
    """F: FLOPs of one forward pass."""
    return shape.blocks * block(shape, lengths)


def epoch(shape: Shape, lengths: Lengths, kind: str, *, rank: int = 16, depth: int | None = None) -> float:
    """FLOPs of one pass of training as the usual recipes do it: nothing is kept from pass to pass.

    Args:
        shape: of the backbone.
        lengths: computed tokens of each text, padding included (N,).
        kind: what trains: one of `KINDS`.
        rank: of LoRA.
        depth: how many of the last blocks train, for "lora"; None means all.
    """
    share = (depth or shape.blocks) / shape.blocks
    once = forward(shape, lengths)
    if kind == "full":
        return 3 * once
    if kind == "lora":
        return once + share * (once + 3 * shape.blocks * shape.factors(rank) * float(lengths.sum()))
    if kind == "last-block":
        return once + 2 * once / shape.blocks
    if kind == "head":
        return once
    raise ValueError(f"{kind!r} came; there are: {', '.join(KINDS)}.")


def least(shape: Shape, lengths: Lengths, kind: str, epochs: int, *, rank: int = 16, depth: int | None = None) -> float:
    """The fewest FLOPs of the whole training: the prefix once, real tokens only.

    "last-block" is taken with one pooled token: of the others the block needs keys and values alone, forward and
    backward (the norm below them trains, so their gradient is needed too).
    """
    once = forward(shape, lengths)
    if kind == "head":
        return once
    if kind == "last-block":
        return once * (1 - 1 / shape.blocks) + epochs * 3 * pooled_block(shape, lengths)
    if kind == "lora":
        share = (depth or shape.blocks) / shape.blocks
        above = share * (2 * once + 3 * shape.blocks * shape.factors(rank) * float(lengths.sum()))
        return once * (1 - share) + epochs * above
    return epochs * epoch(shape, lengths, kind)


def pooled_block(shape: Shape, lengths: Lengths) -> float:
    """FLOPs of a last block, forward, of whose output one token a text is read."""
    tokens, texts = float(lengths.sum()), len(lengths)
    keys_and_values = 2 * 2 * shape.width**2
    rest = shape.linear - keys_and_values
    return tokens * keys_and_values + texts * rest + 4 * shape.width * tokens


def padded(lengths: Lengths, batch_size: int, *, grouped: bool = False, epochs: int = 3, seed: int = 0) -> Lengths:
    """Computed tokens of each text when batches are padded to their longest: (epochs * N,), as the Trainer makes them.

    Args:
        lengths: real tokens of each text (N,).
        batch_size: texts a batch.
        grouped: sorted by length in shuffled windows of up to 50 batches, a quarter of the texts at most.
        epochs: passes, each shuffled anew.
        seed: of the shuffle.
    """
    random = np.random.default_rng(seed)
    found = []
    for _ in range(epochs):
        order = random.permutation(len(lengths))
        if grouped:
            span = max(1, min(len(lengths) // (batch_size * 4), 50)) * batch_size
            windows = [order[start : start + span] for start in range(0, len(order), span)]
            order = np.concatenate([window[np.argsort(-lengths[window], kind="stable")] for window in windows])
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found.append(np.full(len(rows), lengths[rows].max()))
    return np.concatenate(found)

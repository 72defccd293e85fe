"""How much arithmetic a training needs: counted, not measured.

F is one forward pass over the blocks: 2 FLOPs for each weight of a linear layer and token, and 4 T² D for the
attention of a text of T tokens. Embeddings, norms and heads are left out, and that copies of a text are computed once.
What training costs, per pass over the texts:

    full 3F         LoRA on everything 2F + factors     LoRA on the last k of L blocks (1 + k/L)F + factors
    last block F + 2F/L     head F

`spent` counts a training of this library, whatever the strategy: what is frozen below everything that trains once, and
above it in each epoch 2F for the pass and its gradients, F for the weights of the base that train, and 6 FLOPs a token
for each number of an inserted matrix.

The least that the same training needs (`least`) counts real tokens only, runs what is frozen below everything that
trains once for all epochs, and of a last block behind which one token is pooled only keys and values for the others.
Shapes: N texts, T tokens, D width, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.inference.prefix import find_cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.tuners.base import Tuned

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


def spent(tuned: Tuned, lengths: Lengths, epochs: int) -> float:
    """FLOPs of a training as our loop does it, about, whatever the strategy.

    Read off the tuned classifier: which blocks lie below everything that trains, how much of the base's matrices
    trains, how much is inserted. Vectors (biases, norms, scales), heads, embeddings and padding are left out.

    Args:
        tuned: a prepared strategy.
        lengths: tokens of each training text (N,).
        epochs: passes over them.
    """
    view = tuned.view
    cut = find_cut(view, changes_inputs=tuned.tuner.changes_inputs)
    originals = [sum(p.numel() for p in block.parameters() if p.ndim >= 2) for block in view.original_blocks]
    inside = {id(p): p for p in view.blocks.parameters() if p.ndim >= 2}
    training = sum(p.numel() for p in inside.values() if p.requires_grad)
    inserted = max(0, sum(p.numel() for p in inside.values()) - sum(originals))
    owned = max(0, training - inserted) / max(1, sum(originals))  # the share of the base's matrices that trains
    depth, tokens = len(originals), lengths.astype(np.float64)
    width = int(view.config.hidden_size)
    once = float(2 * sum(originals) * tokens.sum() + depth * 4 * width * (tokens**2).sum())  # F
    frozen = 1.0 if cut.pooled else cut.blocks / depth
    above = 2 * (1 - frozen) * once + owned * once + 6 * inserted * float(tokens.sum())
    return frozen * once + epochs * (0.0 if cut.pooled else above)

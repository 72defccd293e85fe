"""Padding left out: what a block does with each token by itself runs over the tokens alone.

Texts of one batch are padded to one length, and without care every product is computed for the padding as well. Only
attention needs the padded form. Around it the states are *packed*: the tokens of all texts, one behind the other, and
as much padding as makes their number one of few, since every new shape costs a CPU's matrix library time and memory
(benchmarks/batching.py counts what is computed).

Shapes: B batch, T tokens of a padded text, N positions that are computed, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 128  # N is a multiple of it


@dataclass(frozen=True)
class Packing:
    """Which positions of a padded batch are computed.

    Attributes:
        rows: (N,) their places among the B T: all tokens in their order, then some padding.
        slots: (B T,) where each position stands among them; what is left out stands where the last of them does. Nobody
            attends to padding and nobody pools it, so its gradients are zeros, as long as that last one is padding too.
    """

    rows: Tensor
    slots: Tensor

    def pack(self, x: Tensor) -> Tensor:
        """What is computed: (B T, D) -> (N, D)."""
        return x.index_select(0, self.rows)

    def spread(self, x: Tensor) -> Tensor:
        """The padded form: (N, D) -> (B T, D)."""
        return x.index_select(0, self.slots)


def packed_rows(tokens: int, positions: int) -> int:
    """N for a batch of so many tokens at so many positions, B T."""
    return min(positions, (tokens // ROWS + 1) * ROWS)  # one padding at least


def packing(real: Tensor, kept: int | None = None) -> Packing | None:
    """The packing of a batch, given where it has tokens (B, T); None where leaving out the rest would save nothing.

    Args:
        real: where there are tokens that count.
        kept: N, where it is not for this to say: at least as many as there are tokens, or more where a backward pass
            follows, which would add the padding's share to the last of them.
    """
    flat = real.flatten()
    kept = packed_rows(int(flat.sum()), len(flat)) if kept is None else kept
    if kept >= len(flat):
        return None
    rows = torch.argsort(flat, descending=True, stable=True)[:kept]
    slots = torch.full_like(flat, kept - 1, dtype=torch.int64)
    slots[rows] = torch.arange(kept, device=rows.device)
    return Packing(rows, slots)


class Packer:
    """The packing of the batch that is on its way: worked out once for all blocks, which are given the same mask."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None
        self._found: Packing | None = None

    def of(self, mask: Tensor | None, row: Tensor | None) -> Packing | None:
        """The packing of the batch with this ``mask``; ``row`` (B, 1, T) of it is added to the scores: 0 at tokens."""
        if mask is not self._mask or mask is None:
            self._mask = mask
            self._found = None if row is None else packing(row[:, 0] == 0)
        return self._found


class Given(Packer):
    """A packing that is worked out elsewhere, for batches that do not say by their mask what counts."""

    packing: Packing | None = None

    def of(self, mask: Tensor | None, row: Tensor | None) -> Packing | None:
        """The packing that was given, whatever the mask."""
        return self.packing

"""How much arithmetic a training of this library needs: counted, not measured.

F is one forward pass over the blocks: 2 FLOPs for each weight of a linear layer and token, and 4 T² D for the
attention of a text of T tokens. Embeddings, norms and heads are left out, and that copies of a text are computed once.
What is frozen below everything that trains counts once, and above it in each epoch 2F for the pass and its gradients,
F for the weights of the base that train, and 6 FLOPs a token for each number of an inserted matrix.
Shapes: N texts, T tokens, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lora_clf.inference.prefix import find_cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.tuners.base import Tuned

    Lengths = NDArray[np.int64]


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

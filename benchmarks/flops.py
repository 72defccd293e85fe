"""How much arithmetic a job needs, and how much the usual recipe spends on it: counted, not measured.

The counting is `lora_clf.training.flops`; here stands what a recipe that pads its batches adds. Shapes: N texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lora_clf.training.flops import KINDS as KINDS
from lora_clf.training.flops import Shape as Shape
from lora_clf.training.flops import block as block
from lora_clf.training.flops import epoch as epoch
from lora_clf.training.flops import forward as forward
from lora_clf.training.flops import least as least
from lora_clf.training.flops import pooled_block as pooled_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Lengths = NDArray[np.int64]


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

"""What an adapter answers: from logits to answers, by the task that its header describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.errors import AdapterError
from lora_clf.tasks.classification import Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.header import Header

__all__ = ["Prediction", "answers"]


def answers(header: Header, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[Any]:
    """The answers that (N, C) logits of the adapter with this header mean.

    Raises:
        AdapterError: they are no numbers; nothing can be answered then.
    """
    odd = int((np.isnan(logits) | np.isposinf(logits)).any(axis=1).sum())
    if odd:
        raise AdapterError(
            f"{odd:,} of {len(logits):,} texts got logits that are not finite, so the adapter has no "
            "answer to them: its numbers, or those of its base, are too large for this precision. Try --precision fp32."
        )
    return header.answering.answers(logits, truncated)

"""What an adapter answers: from logits to answers, by the task that its header describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_clf.tasks.classification import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_clf.adapters.header import Header

__all__ = ["Prediction", "answers"]


def answers(header: Header, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> list[Any]:
    """The answers that (N, C) logits of the adapter with this header mean."""
    return header.answering.answers(logits, truncated)

"""Running a classifier over many texts: sorted by length, large batches, answers in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lora_clf.base.tokenizer import Tokens
from lora_clf.base.view import View
from lora_clf.inference.attention import REFERENCE, choose_attention, set_attention
from lora_clf.inference.batches import collate, inference_rows
from lora_clf.inference.precision import autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_TOKENS = 8192


def logits(
    view: View,
    tokens: Tokens,
    *,
    precision: str = "fp32",
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """The logits of every text, in input order: N texts -> (N, C) in fp32.

    Args:
        view: the classifier; its training mode is left as it was found.
        tokens: the encoded texts.
        precision: "fp32" or "bf16".
        batch_tokens: tokens a batch, padding included.
        progress: called with the number of texts done, after each batch.
    """

    def forward(rows: NDArray[np.int64]) -> Tensor:
        batch = collate(tokens.ids, rows).to(view.device)
        choose_attention(view, batch.input_ids.shape[1], training=False)
        with autocast(precision, view.device):
            return view.classify(batch.input_ids, batch.attention_mask)

    return answers(view, len(tokens), inference_rows(tokens.lengths, batch_tokens), forward, progress)


def reference_logits(view: View, tokens: Tokens) -> NDArray[np.float32]:
    """The logits in fp32 with the reference kernel, one text at a time: what stored canaries are held to.

    Frozen matrices that were cast for speed do not matter here: the caller passes a view in fp32.
    """

    def forward(rows: NDArray[np.int64]) -> Tensor:
        batch = collate(tokens.ids, rows).to(view.device)
        set_attention(view, REFERENCE)
        return view.classify(batch.input_ids, batch.attention_mask)

    return answers(view, len(tokens), [np.array([row]) for row in range(len(tokens))], forward)


def answers(
    view: View,
    texts: int,
    batches: Iterable[NDArray[np.int64]],
    forward: Callable[[NDArray[np.int64]], Tensor],
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """What ``forward`` answers to the rows of each batch, in evaluation mode, as (``texts``, C) in input order."""
    found = np.empty((texts, view.classes), dtype=np.float32)
    was_training = view.training
    view.eval()
    done = 0
    try:
        with torch.inference_mode():
            for rows in batches:
                found[rows] = forward(rows).float().cpu().numpy()
                done += len(rows)
                if progress is not None:
                    progress(done)
    finally:
        view.train(was_training)
    return found

"""Running a classifier over many texts: sorted by length, large batches, answers in input order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

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
    answers = np.empty((len(tokens.ids), view.classes), dtype=np.float32)
    lengths = np.array([len(row) for row in tokens.ids], dtype=np.int64)
    was_training = view.training
    view.eval()
    done = 0
    try:
        with torch.inference_mode(), autocast(precision, view.device):
            for rows in inference_rows(lengths, batch_tokens):
                batch = collate(tokens.ids, rows).to(view.device)
                choose_attention(view, batch.input_ids.shape[1], training=False)
                answers[rows] = view.classify(batch.input_ids, batch.attention_mask).float().cpu().numpy()
                done += len(rows)
                if progress is not None:
                    progress(done)
    finally:
        view.train(was_training)
    return answers


def reference_logits(view: View, tokens: Tokens) -> NDArray[np.float32]:
    """The logits in fp32 with the reference kernel, one text at a time: what stored canaries are held to.

    Frozen matrices that were cast for speed do not matter here: the caller passes a view in fp32.
    """
    was_training = view.training
    view.eval()
    set_attention(view, REFERENCE)
    try:
        with torch.inference_mode():
            rows = []
            for index in range(len(tokens.ids)):
                batch = collate(tokens.ids, np.array([index])).to(view.device)
                rows.append(view.classify(batch.input_ids, batch.attention_mask).float().cpu().numpy())
    finally:
        view.train(was_training)
    return np.concatenate(rows) if rows else np.empty((0, view.classes), dtype=np.float32)

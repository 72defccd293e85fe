"""From one vector a token to one vector a text: pooling follows the attention mask, never a token id.

Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora_clf.errors import unknown

FREE_POOLINGS = ("mean", "first", "last")
POOLINGS = (*FREE_POOLINGS, "family")


def check_pooling(name: str) -> str:
    """``name`` itself, where it is a pooling.

    Raises:
        UsageError: it is not.
    """
    if name not in POOLINGS:
        raise unknown("pooling", name, POOLINGS)
    return name


def right_padded(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same batch with each row's tokens moved to the front: (B, T), (B, T) -> (B, T), (B, T).

    With all padding behind the text every architecture numbers its positions from zero by itself, those
    included that take no position ids, and a causal model never looks at padding.
    """
    if bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):  # Each row's padding is all behind its text.
        return input_ids, attention_mask
    order = torch.argsort(attention_mask.to(torch.int8), dim=1, descending=True, stable=True)  # (B, T)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def last_position(attention_mask: Tensor) -> Tensor:
    """The index of each row's last token, padding on the right: (B, T) -> (B,)."""
    return (attention_mask.sum(dim=1) - 1).clamp(min=0)


def pool(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """One vector a text, padding on the right: (B, T, D), (B, T) -> (B, D)."""
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return hidden[rows, last_position(attention_mask)]
    weights = attention_mask.to(hidden.dtype).unsqueeze(-1)  # (B, T, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

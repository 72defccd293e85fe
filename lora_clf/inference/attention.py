"""Which attention kernel a batch runs through: equal results, different speed.

PyTorch's fused kernel is the faster one except in the backward pass on a CPU, where at the lengths of short texts
a training step in bf16 takes longer than with the plain computation.
"""

from __future__ import annotations

import torch

from lora_clf.base.view import View
from lora_clf.inference.products import onednn

REFERENCE = "eager"
FUSED = "sdpa"
EAGER_TOKENS = 256  # up to this length the plain computation trains faster on a CPU


def choose_attention(view: View, tokens: int, *, training: bool) -> None:
    """Set the kernel for batches of ``tokens`` tokens a text."""
    plain = training and view.device.type == "cpu" and tokens <= EAGER_TOKENS
    set_attention(view, REFERENCE if plain else FUSED)


def kernel_rule(device: torch.device) -> str:
    """The rule in words, for the record: what the bytes of a run depend on."""
    if device.type != "cpu":
        return FUSED
    products = "" if onednn() is None else "; fp32 products by oneDNN"
    return f"eager blocks to {EAGER_TOKENS} tokens, else {FUSED}{products}"


def set_attention(view: View, name: str) -> None:
    """Set the kernel by transformers' name for it."""
    # Read at every forward pass by every attention layer; set_attn_implementation would rebuild far more.
    view.config._attn_implementation = name if view.architecture.fused else REFERENCE

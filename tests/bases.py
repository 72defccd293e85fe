"""Tiny random bases of every architecture, built in the test: no file, no network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, T5EncoderModel

from lora_clf.base.architecture import architecture_of
from lora_clf.base.base import Base
from lora_clf.base.digest import backbone_digest
from lora_clf.base.text import Side
from lora_clf.base.tokenizer import Tokenizer, Tokens
from lora_clf.tuners.base import Tuned

VOCABULARY = 300
WIDTH, HEADS, BLOCKS, POSITIONS = 32, 4, 3, 96

_ENCODER = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": WIDTH, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": POSITIONS,
             "bos_token_id": 1, "eos_token_id": 2},
    "bert": _ENCODER,
    "roberta": {**_ENCODER, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1},
    "distilbert": {"dim": WIDTH, "n_layers": BLOCKS, "n_heads": HEADS, "hidden_dim": 48,
                   "max_position_embeddings": POSITIONS},
    "llama": _DECODER,
    "qwen3": {**_DECODER, "head_dim": 8},
    "gpt_neox": {**_ENCODER, "bos_token_id": 1, "eos_token_id": 2},
    "modernbert": {**_ENCODER, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1,
                   "eos_token_id": 2, "local_attention": 16, "global_attn_every_n_layers": 2},
    "longformer": {**_ENCODER, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1, "attention_window": 16},
    # A batch of 29 tokens would get the sparse attention.
    "big_bird": {**_ENCODER, "pad_token_id": 0, "block_size": 4, "num_random_blocks": 1},
    "opt": {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "ffn_dim": 48,
            "max_position_embeddings": POSITIONS, "word_embed_proj_dim": WIDTH, "pad_token_id": 1},
    "t5": {"d_model": WIDTH, "num_layers": BLOCKS, "num_heads": HEADS, "d_kv": 8, "d_ff": 48},
    "bart": {"d_model": WIDTH, "encoder_layers": BLOCKS, "decoder_layers": 1, "encoder_attention_heads": HEADS,
             "decoder_attention_heads": HEADS, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
             "max_position_embeddings": POSITIONS},
}  # fmt: skip
# Further bases, by name: the model type and its settings.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral", {**_DECODER, "sliding_window": 16}),
    "qwen2": ("qwen2", {**_DECODER, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    # Wide enough for its SiLU to be shared out among threads.
    # Heads of 16: of 8 the fused kernel gives the first text of a thread other last bits on some processors.
    "llama-wide": ("llama", {**_DECODER, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 344}),
    # opt-350m's shape: the norm behind each block's parts, none behind the last; and with narrower embeddings.
    "opt-post-norm": ("opt", {**_SETTINGS["opt"], "do_layer_norm_before": False}),
    "opt-projected": ("opt", {**_SETTINGS["opt"], "do_layer_norm_before": False, "word_embed_proj_dim": 16}),
}
VARIANT_NAMES = tuple(_VARIANTS)
ARCHITECTURE_NAMES = tuple(_SETTINGS)
FAMILY_NAMES = tuple(name for name in ARCHITECTURE_NAMES if name not in ("t5", "bart"))


class _Bytes:
    """One id a byte, shifted past the special ids."""

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the UTF-8 bytes of each text."""
        return [[byte + 10 for byte in text.encode()] for text in texts]

    def canonical(self) -> dict[str, Any]:
        """Nothing but a name."""
        return {"model": "bytes"}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the bytes."""
        return bytes(id - 10 for id in ids if 10 <= id < 266).decode("utf-8", "replace")

    def special(self) -> dict[str, int]:
        """One, which pads."""
        return {"[PAD]": 0}

    def highest(self) -> int:
        """The last byte."""
        return 265

    def unknown(self) -> int | None:
        """None: every text is bytes."""
        return None


class ByteTokenizer(Tokenizer):
    """One id a byte, no text normalised; long enough for any test text."""

    def __init__(self) -> None:
        super().__init__(_Bytes())

    @cached_property
    def digest(self) -> str:
        """A name that shows in messages."""
        return "bytes"

    def encode(self, texts: Sequence[str], max_length: int, side: Side = "right") -> Tokens:
        """Ids of the UTF-8 bytes of each text, at least one."""
        ids = [np.frombuffer(text.encode() or b"\0", dtype=np.uint8).astype(np.int32) + 10 for text in texts]
        return Tokens([row[:max_length] for row in ids], np.array([len(row) > max_length for row in ids]))


def tiny_config(name: str) -> Any:
    """The config of the tiny base ``name`` (of ``ARCHITECTURE_NAMES`` or ``VARIANT_NAMES``)."""
    model_type, settings = _VARIANTS.get(name) or (name, _SETTINGS[name])
    return AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **copy.deepcopy(settings))


def tiny_backbone(config: Any) -> Any:
    """A backbone of transformers' own random weights, as `load_base` would take it out of its model."""
    architecture = architecture_of(config)
    if architecture.model_type == "t5":
        return T5EncoderModel(config).encoder.eval()
    extra = {"add_pooling_layer": False} if architecture.model_type in ("roberta", "longformer") else {}
    model = AutoModel.from_config(config, **extra).eval()
    return getattr(model, architecture.part) if architecture.part else model


def tiny_base(name: str = "bert", seed: int = 0, device: str = "cpu") -> Base:
    """A random base of architecture ``name``: 3 blocks, 32 wide; weights large enough to tell mistakes apart."""
    torch.manual_seed(seed)
    config = tiny_config(name)
    architecture = architecture_of(config)
    backbone = tiny_backbone(config)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    backbone = backbone.requires_grad_(False).to(device)
    return Base(
        name=f"tiny-{name}",
        backbone=backbone,
        config=config,
        architecture=architecture,
        tokenizer=ByteTokenizer(),
        pooling=architecture.pooling,
        max_length=64,
        digest=backbone_digest(backbone.named_parameters(), config.to_dict()),
        folder=Path("nowhere"),
    )


def batch(seed: int = 0, rows: int = 4, width: int = 11) -> tuple[Tensor, Tensor]:
    """Random ids and a mask with padding on the right: (B, T), (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, width + 1, (rows, 1), generator=generator)
    lengths[0] = width
    mask = (torch.arange(width)[None] < lengths).long()
    return torch.randint(10, 266, (rows, width), generator=generator) * mask, mask


def randomise(tuned: Tuned, seed: int = 7) -> None:
    """Move everything that trains away from where it started: what is zero hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)

"""Tiny bases as whole folders on disk, tokenizer included, as `load_base` and transformers read them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedTokenizerFast, T5EncoderModel

from lora_clf.base.base import Base, load_base
from tests.bases import VOCABULARY, tiny_config

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@cache
def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(33, 127)]
    names = dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters)])
    return {name: number for number, name in enumerate(names)}


def write_tokenizer(folder: Path, *, padding: bool = True, around: bool = True) -> None:
    """A WordPiece tokenizer of single letters; with or without a padding token and special tokens around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    fast = Tokenizer(models.WordPiece(_vocabulary(), unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if around:
        fast.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    named: dict[str, Any] = {"pad_token": "[PAD]"} if padding else {}
    PreTrainedTokenizerFast(
        tokenizer_object=fast, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", **named
    ).save_pretrained(folder)


def write_byte_pairs(folder: Path) -> None:
    """GPT-2's kind of tokenizer as vocab.json and merges.txt: all bytes, three merges, no padding token."""
    from lora_clf.base.byte_pairs import byte_of_character

    merges = [("t", "h"), ("th", "e"), ("Ġ", "a")]
    tokens = [*sorted(byte_of_character(), key=byte_of_character().__getitem__), *map("".join, merges), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


def whole_base(
    name: str, folder: Path, *, padding: bool = True, around: bool = True, bytes_only: bool = False, **settings: Any
) -> Base:
    """The tiny base ``name`` of large random weights, saved to ``folder`` and loaded from there."""
    torch.manual_seed(0)
    config = tiny_config(name)
    assert config.vocab_size == VOCABULARY >= len(_vocabulary())
    for field, value in settings.items():
        setattr(config, field, value)
    model = (T5EncoderModel(config) if config.model_type == "t5" else AutoModel.from_config(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    if bytes_only:
        write_byte_pairs(folder)
    else:
        write_tokenizer(folder, padding=padding, around=around)
    return load_base(folder, device="cpu")

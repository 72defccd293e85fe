"""What --quick runs on: tiny random bases in the format of downloaded ones, and a few messages of the demo corpus.

    base = quick_base("bert", folder)       # or "gpt2": 3 blocks, 32 wide, a token for each byte or character
    data = quick_data(train=24)

Times of such a base mean nothing: it shows that a benchmark runs from end to end.
"""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

WIDTH, BLOCKS, HEADS, INNER, POSITIONS = 32, 3, 4, 64, 128
MAX_LENGTH = 48


def quick_base(kind: str, folder: Path, device: str = "cpu") -> Base:
    """A tiny random base of ``kind`` "bert" (stands for minilm) or "gpt2", written to ``folder`` first if need be."""
    from lora_clf.base.base import load_base

    place = folder / f"tiny-{kind}"
    if not (place / "model.safetensors").is_file():
        {"bert": _write_bert, "gpt2": _write_gpt2}[kind](place)
    pooling = {"bert": "mean", "gpt2": "last"}[kind]
    return load_base(place, device=device, pooling=pooling, max_length=MAX_LENGTH)


def quick_data(train: int = 24, validation: int = 8, test: int = 8) -> Dataset:
    """The book's procedure on the demo corpus, the first rows of each part."""
    from lora_clf.data.dataset import load_data

    data = load_data("demo", protocol="book")
    parts = {name: getattr(data, name).take(range(rows)) for name, rows in
             (("train", train), ("validation", validation), ("test", test))}  # fmt: skip
    return replace(data, **parts)


def _save(model: Any, place: Path, seed: int = 0) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:  # large enough for texts to differ
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    model.save_pretrained(place)


def _write_bert(place: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = {token: place for place, token in enumerate([*special, *signs])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=POSITIONS,
    )
    _save(BertModel(config), place)
    engine = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=engine, **named).save_pretrained(place)


def _write_gpt2(place: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    from lora_clf.base.byte_pairs import byte_of_character

    vocabulary = {character: id for id, character in enumerate([*byte_of_character(), "<|endoftext|>"])}
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_embd=WIDTH,
        n_layer=BLOCKS,
        n_head=HEADS,
        n_positions=POSITIONS,
        bos_token_id=len(vocabulary) - 1,
        eos_token_id=len(vocabulary) - 1,
    )
    _save(GPT2Model(config), place)
    (place / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (place / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")

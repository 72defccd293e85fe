"""A base small enough to train in a moment, as a real folder, and texts that can be told apart."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

WORDS = {
    "ham": ["home", "dinner", "later", "mum", "train", "sorry", "coffee", "tomorrow", "lecture", "sofa", "keys"],
    "spam": ["prize", "claim", "winner", "cash", "urgent", "free", "call", "reward", "account", "voucher", "txt"],
}
NEUTRAL = [
    *("the", "a", "to", "you", "we", "is", "on", "at", "for", "now"),
    *("today", "please", "ok", "me", "it", "and", "will", "see"),
]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two blocks, 32 wide, with a tokenizer of whole words, saved by transformers."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS["ham"], *WORDS["spam"], *NEUTRAL]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=48,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 texts with marked hard rows; every fourth says nothing of its label."""
    draw = random.Random(0)
    lines = ["text,label,hard"]
    for number in range(120):
        label = "spam" if number % 3 == 0 else "ham"
        hard = number % 4 == 0
        told = NEUTRAL if hard else WORDS[label]
        words = [*draw.choices(told, k=3), *draw.choices(NEUTRAL, k=5), f"zq{number}xv"]
        draw.shuffle(words)
        lines.append(f"{' '.join(words)},{label},{int(hard)}")
    path = tmp_path_factory.mktemp("data") / "messages.csv"
    path.write_text("\n".join(lines) + "\n")
    return path

"""Made the folders beside this file, once for each schema version; run again only for a version that is new.

A tiny BERT of two blocks, 16 wide, with a tokenizer of single letters, and adapters of several strategies on it. What
is kept is what users have: files of an old version, which must load for as long as the version is read.

    python -m tests.old_adapters.making FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from lora_clf.adapters.rules import SCHEMA
from tests.adapters.making import make
from tests.adapters.whole_bases import whole_base

KINDS = {
    "lora-family": ("lora", "family", "fp32"),
    "lora-scratch-mean": ("lora-scratch", "mean", "fp32"),
    "lora-bf16": ("lora", "first", "bf16"),
    "head-only": ("head-only", "mean", "fp32"),
    "last-block": ("last-block", "family", "fp32"),
    "full-bf16": ("full", "mean", "bf16"),
}


def write(folder: Path) -> None:
    """The base and its adapters into ``folder``."""
    base = whole_base(
        *("bert", folder / "base"), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64,
    )  # fmt: skip
    for name, (strategy, pooling, dtype) in KINDS.items():
        made = make("bert", strategy, pooling, base=base, max_length=48, threshold=0.4, temperature=1.5)
        made.save(folder / name, dtype=dtype)


if __name__ == "__main__":
    write(Path(sys.argv[1]) / f"schema-{SCHEMA}")

"""What the jobs of speed_training.py are made of: a base, the data, the sizes.

Shapes: N texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import flops
import numpy as np
from our_training import tokenised_once
from trainer_recipe import ALPHA, RANK

from lora_clf.base.base import load_base
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import load_data, load_table
from lora_clf.errors import UsageError
from lora_clf.tuners import create

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset
    from lora_clf.tuners.base import Tuner

STEPS = 60  # of a long peer in every block
BOOK_WIDTH = 120  # tokens of the longest training text of the book's split, to which all are padded
SETUP = "python benchmarks/random_gpt2.py --tokenizer FOLDER --out {}"


@dataclass(frozen=True)
class Bench:
    """What the sides of a job are made of.

    Attributes:
        base: with a tokenizer that remembers.
        data: the split.
        steps: of long peers; None runs them to their end.
        lora: which of our LoRA strategies stands for ours.
        width: what the book's loop pads to.
        child: flags for a child that measures memory.
        evaluated: whether ours scores the whole validation part after every epoch, as people do.
    """

    base: Base
    data: Dataset
    steps: int | None = STEPS
    lora: str = "lora-scratch"
    width: int = BOOK_WIDTH
    child: Sequence[str] = ()
    evaluated: bool = False

    def small(self) -> Bench:
        """The same with few texts and steps: to warm a process up."""
        rows = range(min(32, len(self.data.train)))
        train = self.data.train.take(rows)
        few = self.data.validation.take(range(min(8, len(self.data.validation))))
        return replace(self, data=replace(self.data, train=train, validation=few), steps=2)

    def lora_tuner(self, blocks: int | None = None) -> Tuner:
        """LoRA r16 on all linears, as the peers have it."""
        return create(self.lora, rank=RANK, alpha=ALPHA, targets="all", blocks=blocks)

    @property
    def lengths(self) -> flops.Lengths:
        """Tokens of the training texts."""
        return self.base.encode(self.data.train.texts).lengths

    @property
    def distinct(self) -> flops.Lengths:
        """Tokens of the training texts, of copies once: all that there is to compute."""
        return distinct_lengths(self.base, self.data.train.texts)

    @property
    def shape(self) -> flops.Shape:
        """The size of the backbone."""
        return flops.Shape.of(self.base.config)


def distinct_lengths(base: Base, texts: Sequence[str]) -> flops.Lengths:
    """Tokens of each text, of copies once: (M,)."""
    tokens = base.encode(texts)
    return tokens.lengths[np.unique(tokens.firsts)]


def opened(name: str, flags: argparse.Namespace, folder: Path) -> Bench:
    """The base "minilm" or "gpt2" and the data, ready for a job."""
    child = [f"--{flag}={getattr(flags, flag)}" for flag in ("data", "device", "lora", "gpt2")]
    if flags.quick:
        from quick import quick_base, quick_data

        base = quick_base({"minilm": "bert"}.get(name, name), folder, "cpu" if flags.device == "auto" else flags.device)
        return Bench(tokenised_once(base), quick_data(), 3, flags.lora, base.max_length, [*child, "--quick"])
    if name == "gpt2" and not (flags.gpt2 / "config.json").is_file():
        raise UsageError(f"--gpt2 {flags.gpt2}: no base there. Make one: {SETUP.format(flags.gpt2)}")
    base = load_base(
        flags.gpt2 if name == "gpt2" else name, device=flags.device, pooling="last" if name == "gpt2" else "mean"
    )
    data = load_data(flags.data, protocol="book")
    return Bench(tokenised_once(base), data, STEPS, flags.lora, BOOK_WIDTH, child)


def all_rows(bench: Bench, flags: argparse.Namespace) -> Part:
    """Every row of the source; of --quick those of the three parts."""
    if not flags.quick:
        return load_table(flags.data)
    parts = bench.data.parts.values()
    return Part(
        tuple(text for part in parts for text in part.texts),
        tuple(label for part in parts for label in part.labels),
        tuple(row for part in parts for row in part.rows),
    )

"""Made the folders beside this file; run again it adds what is not there, and leaves what is there alone.

A tiny BERT of two blocks, 16 wide, with a tokenizer of single letters, a decoder of bytes, and adapters of several
strategies, tasks, heads and readings on them. What is kept is what users have: files of an old version, which must load
for as long as the version is read. A field that a header gets later is optional in it, and gets an adapter here.

    python -m tests.old_adapters.making FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from lora_clf.adapters.adapter import Adapter, make_header
from lora_clf.adapters.rules import SCHEMA
from lora_clf.base.base import Base, load_base
from lora_clf.base.reading import Reading
from lora_clf.base.verbalizer import Verbalizer
from lora_clf.tasks import Multilabel, Ordinal, Regression
from lora_clf.tasks.base import Task
from lora_clf.tuners import create
from tests.adapters.making import LABELS, make
from tests.adapters.whole_bases import whole_base
from tests.base.test_verbalizer import decoder

KINDS = {
    "lora-family": ("lora", "family", "fp32"),
    "lora-scratch-mean": ("lora-scratch", "mean", "fp32"),
    "lora-bf16": ("lora", "first", "bf16"),
    "head-only": ("head-only", "mean", "fp32"),
    "last-block": ("last-block", "family", "fp32"),
    "full-bf16": ("full", "mean", "bf16"),
}
TASKS: dict[str, Task] = {
    "regression": Regression(("stars",), "huber", 3.25, 1.5),
    "ordinal": Ordinal(("low", "middle", "high"), (1.0, 2.5)),
    "multilabel": Multilabel(("a", "b", "c"), "|", (0.4, 0.5, 0.6)),
}
READINGS = {
    "chunk": Reading("chunk", overlap=8, aggregate="score", clean="transcript", prior=(0.75, 0.25)),
    "hierarchical": Reading("hierarchical", overlap=8, combine="attention", segment="minutes", minutes=2),
}
VERBALIZER = Verbalizer("Text: {text}\nSpam?", {"ham": "no", "spam": "yes"})


def made(base: Base, outputs: int, pooling: str, combiner: str | None = None, **header: Any) -> Adapter:
    """An adapter of two small factors a layer, with weights at random."""
    tuned = create("lora-scratch", rank=2, alpha=5.0).prepare(base.view(outputs, pooling, 3, combiner))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return Adapter(base, tuned, make_header(base, tuned, seed=3, **header))


def later(name: str, base: Base, causal: Base) -> Adapter:
    """An adapter with a field that headers got after the first adapters were saved."""
    if name in TASKS:
        task = TASKS[name]
        return made(base, task.outputs, "mean", labels=task.labels, task=task, max_length=48)
    known = {"labels": LABELS, "positive_label": "spam", "threshold": 0.4, "temperature": 1.5, "max_length": 48}
    if name in READINGS:
        reading = READINGS[name]
        return made(base, 2, "mean", reading.combiner, reading=reading.settings(), **known)
    return made(VERBALIZER.on(causal, LABELS), 2, "last", **known)


LATER = (*TASKS, *READINGS, "verbalizer")


def write(folder: Path) -> None:
    """The bases and their adapters into ``folder``, those that are not in it."""
    if not (folder / "base").exists():
        whole_base(
            *("bert", folder / "base"), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=64,
        )  # fmt: skip
    if not (folder / "decoder").exists():
        decoder(folder / "decoder", "gpt2", tied=True, width=16)
    base, causal = (load_base(folder / name, device="cpu") for name in ("base", "decoder"))
    for name, (strategy, pooling, dtype) in KINDS.items():
        if not (folder / name).exists():
            one = make("bert", strategy, pooling, base=base, max_length=48, threshold=0.4, temperature=1.5)
            one.save(folder / name, dtype=dtype)
    for name in LATER:
        if not (folder / name).exists():
            later(name, base, causal).save(folder / name)


if __name__ == "__main__":
    write(Path(sys.argv[1]) / f"schema-{SCHEMA}")

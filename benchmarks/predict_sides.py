"""What the benchmarks of prediction compare: one classifier, run by us and by transformers' pipeline.

A LoRA adapter with the family head is trained for an epoch and exported as the folder that the pipeline runs: both
are the same function. Shapes: N texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.data.corpus import Part

BATCH = 32
OURS = {"ours-fp32": "fp32", "ours-auto": "auto"}
SIDES = (*OURS, "pipeline", "pipeline-tuned")


@dataclass(frozen=True)
class Bench:
    """What is compared: an adapter, the folder of the same function in plain weights, and the messages."""

    adapter: Adapter
    folder: Path
    rows: Part

    @property
    def texts(self) -> list[str]:
        """The messages."""
        return list(self.rows.texts)


class Ours:
    """`Adapter.predict`."""

    def __init__(self, bench: Bench, precision: str) -> None:
        self.adapter, self.precision = bench.adapter, precision

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [each.label for each in self.adapter.predict(texts, precision=self.precision)]


class Pipeline:
    """transformers' pipeline: as its documentation has it, or with what its user can do for speed."""

    def __init__(self, bench: Bench, *, tuned: bool) -> None:
        import torch
        from transformers import pipeline

        from lora_clf.inference.precision import has_native_bf16

        device = bench.adapter.base.device
        more = {"dtype": torch.bfloat16} if tuned and has_native_bf16(device) else {}
        made: Any = pipeline  # its overloads know no "text-classification" with a dtype
        self.tuned = tuned
        self.pipe = made("text-classification", model=str(bench.folder), batch_size=BATCH, device=device, **more)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        order = np.argsort([-len(text) for text in texts], kind="stable") if self.tuned else np.arange(len(texts))
        answers = self.pipe([texts[place] for place in order], truncation=True)
        found = [""] * len(texts)
        for place, answer in zip(order, answers, strict=True):
            found[place] = answer["label"]
        return found


def side_of(bench: Bench, name: str) -> Callable[[Sequence[str]], list[str]]:
    """A side by its name: what labels texts."""
    return Ours(bench, OURS[name]) if name in OURS else Pipeline(bench, tuned=name == "pipeline-tuned")


def opened(flags: argparse.Namespace, folder: Path, *, exported: bool = True) -> Bench:
    """The adapter, trained the first time, all messages and, where it is wanted, the exported folder."""
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.plain import export
    from lora_clf.base.base import load_base
    from lora_clf.data.dataset import load_data, load_table
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    if flags.quick:
        from quick import quick_base, quick_data

        base, data = quick_base("bert", folder), quick_data()
        rows = data.train
    else:
        base = load_base(flags.base, device=flags.device)
        data, rows = load_data(flags.data, protocol="book"), load_table(flags.data)
    place = (folder if flags.quick else flags.work) / f"adapter-{base.digest[:12]}-{data.digest[:12]}"
    if not place.is_dir():
        settings = TrainSettings(epochs=1, precision="auto")
        tuner = create("lora-scratch", rank=16, alpha=32.0)
        train(base, data, tuner, settings, pooling="family").save(place)
    adapter = load_adapter(place, base)
    if exported:
        export(adapter, folder / "exported")
    return Bench(adapter, folder / "exported", rows)


def computed(lengths: Any, distinct: Any) -> dict[str, Any]:
    """The padded length of every text that a side computes: (N,) each."""
    from lora_clf.inference.batches import inference_rows
    from lora_clf.inference.predict import CPU_BATCH_TOKENS

    def padded(of: Any, batches: Sequence[Any]) -> Any:
        return np.concatenate([np.full(len(rows), of[rows].max()) for rows in batches])

    ours = padded(distinct, inference_rows(distinct, CPU_BATCH_TOKENS))
    sides = {name: ours for name in OURS}
    for name, order in (("pipeline", np.arange(len(lengths))), ("pipeline-tuned", np.argsort(-lengths, kind="stable"))):
        cuts = range(0, len(order), BATCH)
        sides[name] = padded(lengths, [order[start : start + BATCH] for start in cuts])
    return sides

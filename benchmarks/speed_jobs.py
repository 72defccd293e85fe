"""The jobs of speed_training.py: what runs against what, the target, and the least that ours could take.

A job has the sides "ours" and "theirs" (some have more, for the record). Adding one is adding an entry to `JOBS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import flops
import numpy as np
from book_loop import BookLoop
from our_training import ForwardPass, OurTraining
from paired import Timing, in_child
from speed_bench import Bench, distinct_lengths
from trainer_recipe import RANK, TrainerRecipe

from lora_clf.inference.precision import resolve_precision
from lora_clf.tuners.full import Full
from lora_clf.tuners.head_only import HeadOnly
from lora_clf.tuners.last_block import LastBlock

if TYPE_CHECKING:
    from lora_clf.tuners.base import Tuner

BOOK_EPOCHS, EPOCHS = 5, 3
SCRIPT = Path(__file__).with_name("speed_training.py")


class Side(Protocol):
    """One side of a job: it runs and returns what it took."""

    timing: Timing | None

    def __call__(self) -> float:
        """Run once."""
        ...


Sides = dict[str, Side]


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes:
        name: what --job calls it.
        row: what people call it.
        base: "minilm" or "gpt2".
        precision: of our side, as --precision has it.
        sides: makes them.
        least: the fewest FLOPs that our side could do, and those that the other does, real padding included.
        target: the median ratio to reach; None where there is none.
        at_most: the ratio is ours over theirs and should be small; otherwise theirs over ours, and large.
        native_bf16: makes sense only where the device has it.
        unit: of the figures: "seconds" or "bytes".
        blocks: how many to measure.
        quality: whether --quality compares what both sides predict; "equal" or "non-inferior" by 0.5 points.
        about: what each side is, by name.
        within: the job in whose blocks this one is measured, as its side "ours-NAME" with the precision for a name:
            the other side of both is the same, and long.
    """

    name: str
    row: str
    base: str
    precision: str
    sides: Callable[[Bench], Sides]
    least: Callable[[Bench], tuple[float, float]] | None
    target: float | None
    at_most: bool = False
    native_bf16: bool = False
    unit: str = "seconds"
    blocks: int = 7
    quality: str | None = None
    about: dict[str, str] | None = None
    within: str | None = None


def _ours(bench: Bench, tuner: Tuner, precision: str, epochs: int = EPOCHS, **more: Any) -> OurTraining:
    more.setdefault("evaluated", bench.evaluated)
    return OurTraining(bench.base, bench.data, tuner, precision=precision, epochs=epochs, **more)


def _book(trains: str, precision: str, *also: str) -> Callable[[Bench], Sides]:
    def sides(bench: Bench) -> Sides:
        tuner: Tuner = LastBlock() if trains == "last-block" else Full()
        # Five epochs of full tuning take as long as the peer: one is timed.
        timed = 1 if trains == "full" and bench.steps is not None else None
        names = {"ours": precision, **{f"ours-{each}": each for each in also}}
        return {
            **{
                name: _ours(bench, tuner, each, BOOK_EPOCHS, evaluated=True, timed_epochs=timed)
                for name, each in names.items()
            },
            "theirs": BookLoop(
                bench.base, bench.data, trains, steps=bench.steps, epochs=BOOK_EPOCHS, width=bench.width
            ),
        }

    return sides


def _book_flops(trains: str) -> Callable[[Bench], tuple[float, float]]:
    def least(bench: Bench) -> tuple[float, float]:
        checked = distinct_lengths(bench.base, bench.data.validation.texts)
        if trains == "last-block":  # validation, too, starts behind the prefix
            ours = flops.least(bench.shape, bench.distinct, trains, BOOK_EPOCHS)
            ours += flops.forward(bench.shape, checked) * (1 - 1 / bench.shape.blocks)
            ours += BOOK_EPOCHS * flops.pooled_block(bench.shape, checked)
        else:
            ours = flops.least(bench.shape, bench.distinct, trains, BOOK_EPOCHS)
            ours += BOOK_EPOCHS * flops.forward(bench.shape, checked)
        loop = BookLoop(bench.base, bench.data, trains, steps=1, epochs=BOOK_EPOCHS, width=bench.width)
        steps = np.full(loop.total_steps * loop.batch_size, bench.width)
        evaluated = np.full(loop.evaluations * 2 * loop.eval_batches * loop.batch_size, bench.width)
        return ours, flops.epoch(bench.shape, steps, trains) + flops.forward(bench.shape, evaluated)

    return least


def _warm(precision: str) -> Callable[[Bench], Sides]:
    def sides(bench: Bench) -> Sides:
        return {
            name: _ours(bench, LastBlock(), precision, BOOK_EPOCHS, evaluated=True, warm=warm)
            for name, warm in (("ours", True), ("theirs", False))
        }

    return sides


def _warm_flops(bench: Bench) -> tuple[float, float]:
    checked = distinct_lengths(bench.base, bench.data.validation.texts)
    above = BOOK_EPOCHS * (
        3 * flops.pooled_block(bench.shape, bench.distinct) + flops.pooled_block(bench.shape, checked)
    )
    prefix = flops.forward(bench.shape, np.concatenate([bench.distinct, checked])) * (1 - 1 / bench.shape.blocks)
    return above, above + prefix


def _trainer(
    kind: str,
    precision: str,
    *,
    tuned: bool = False,
    blocks: int | None = None,
    over: str | None = None,
    batch: int = 16,
    also: int | None = None,
) -> Callable[[Bench], Sides]:
    """Ours against the Trainer; ``blocks`` and ``over`` where it trains something else.

    ``batch`` is the number of texts in a batch of ours, ``also`` that of one more side of ours, for the record.
    """

    def sides(bench: Bench) -> Sides:
        tuner: Tuner = {"lora": bench.lora_tuner(blocks), "head": HeadOnly(), "full": Full()}[kind]
        theirs = TrainerRecipe(
            bench.base,
            bench.data,
            over or kind,
            tuned=tuned,
            steps=bench.steps,
            epochs=EPOCHS,
            learning_rate=tuner.learning_rate,
            bf16=tuned and resolve_precision(precision, bench.base.device) == "bf16",
        )
        found: Sides = {"ours": _ours(bench, tuner, precision, batch_size=batch), "theirs": theirs}
        if also is not None:
            found[f"ours-{also}"] = _ours(bench, tuner, precision, batch_size=also)
        return found

    return sides


def _trainer_flops(
    kind: str, *, tuned: bool = False, depth: int | None = None
) -> Callable[[Bench], tuple[float, float]]:
    def least(bench: Bench) -> tuple[float, float]:
        ours = flops.least(bench.shape, bench.distinct, kind, EPOCHS, rank=RANK, depth=depth)
        computed = flops.padded(bench.lengths, 32 if tuned else 8, grouped=tuned, epochs=EPOCHS)
        return ours, flops.epoch(bench.shape, computed, kind, rank=RANK)

    return least


def _forward(precision: str) -> Callable[[Bench], Sides]:
    def sides(bench: Bench) -> Sides:
        return {
            "ours": _ours(bench, HeadOnly(), precision),
            "theirs": ForwardPass(bench.base, bench.data, precision=precision),
        }

    return sides


def _forward_flops(bench: Bench) -> tuple[float, float]:
    once = flops.forward(bench.shape, bench.distinct)
    return once, once


class Memory:
    """The peak memory of a side, JOB/SIDE, above the loaded base, in a process of its own."""

    def __init__(self, side: str, flags: Sequence[str]) -> None:
        self.side, self.flags = side, flags
        self.timing: Timing | None = None
        self.found: dict[str, Any] = {}

    def __call__(self) -> float:
        """Bytes."""
        self.found = in_child(SCRIPT, ["--memory-of", self.side, *self.flags])
        return float(self.found["above_bytes"])


MEMORY_SIDES = {
    "ours": "lora-auto/ours", "ours-fp32": "lora-fp32/ours", "theirs": "lora-auto/theirs",
    "theirs-tuned": "lora-tuned/theirs",
}  # fmt: skip


def _memory(bench: Bench) -> Sides:
    return {name: Memory(side, bench.child) for name, side in MEMORY_SIDES.items()}


def memory_sides(job: Job, bench: Bench) -> dict[str, Memory]:
    """What measures the memory of both sides of a job; nothing for the job that is about memory itself."""
    if job.unit != "seconds":
        return {}
    ours = f"ours-{job.precision}" if job.within else "ours"
    name = job.within or job.name
    return {"ours": Memory(f"{name}/{ours}", bench.child), "theirs": Memory(f"{name}/theirs", bench.child)}


def memory_side(name: str, bench: Bench) -> Side:
    """The side JOB/SIDE that a child runs: one epoch, which holds every batch there is, or steps that are all alike."""
    job, _, side = name.partition("/")
    found = JOBS[job].sides(bench)[side]
    if isinstance(found, OurTraining | TrainerRecipe | BookLoop):
        found.shorten()
    return found


_BOOK = "the book's loop: fp32, batch 8, padded to 120, last slot, no mask, evaluation every 50 steps"
_DEFAULT = "Trainer as a user would write it: fp32, batch 8"
_TUNED = "Trainer tuned: grouped by length, bf16 where native, batch 32"
_EACH = "lora_clf.train, batch 16"


def _about(ours: str, theirs: str) -> dict[str, str]:
    return {"ours": f"{_EACH}: {ours}", "theirs": theirs}


JOBS = {
    job.name: job
    for job in (
        Job("last-block-fp32", "last-block, 5 epochs, against the book's loop, fp32", "gpt2", "fp32",
            _book("last-block", "fp32", "auto"), _book_flops("last-block"), 12, quality="cache",
            about=_about("last-block, last pooling, fp32", _BOOK)),
        Job("last-block-auto", "last-block, 5 epochs, against the book's loop, auto with native bf16", "gpt2", "auto",
            _book("last-block", "auto"), _book_flops("last-block"), 30, native_bf16=True, within="last-block-fp32",
            about=_about("last-block, last pooling, auto", _BOOK)),
        Job("full-book", "full, 5 epochs, against the book's loop, auto", "gpt2", "auto",
            _book("full", "auto"), _book_flops("full"), None, about=_about("full, last pooling, auto", _BOOK)),
        Job("lora-auto", "LoRA r16 all linears, 3 epochs, against Trainer + peft, auto with native bf16", "minilm",
            "auto", _trainer("lora", "auto", also=32), _trainer_flops("lora"), 5, native_bf16=True, quality="equal",
            about={**_about("LoRA r16, mean pooling, auto", f"{_DEFAULT}, peft"),
                   "ours-32": "the same with batch 32"}),
        Job("lora-fp32", "LoRA r16 all linears, 3 epochs, against Trainer + peft, fp32", "minilm", "fp32",
            _trainer("lora", "fp32"), _trainer_flops("lora"), 2.5, quality="equal",
            about=_about("LoRA r16, mean pooling, fp32", f"{_DEFAULT}, peft")),
        Job("lora-tuned", "the same against Trainer + peft tuned, bf16 both", "minilm", "auto",
            _trainer("lora", "auto", tuned=True, batch=32, also=16), _trainer_flops("lora", tuned=True), 2.5,
            native_bf16=True, quality="equal",
            about={"ours": "lora_clf.train, batch 32 as theirs: LoRA r16, mean pooling, auto",
                   "ours-16": "the same with batch 16, the default", "theirs": f"{_TUNED}, peft"}),
        Job("lora-tuned-fp32", "the same against Trainer + peft tuned, fp32 both", "minilm", "fp32",
            _trainer("lora", "fp32", tuned=True, batch=32, also=16), _trainer_flops("lora", tuned=True), None,
            about={"ours": "lora_clf.train, batch 32 as theirs: LoRA r16, mean pooling, fp32",
                   "ours-16": "the same with batch 16, the default",
                   "theirs": "Trainer tuned: grouped by length, fp32, batch 32, peft"}),
        Job("head-forward", "head-only: whole training over one forward pass of the same texts", "minilm", "auto",
            _forward("auto"), _forward_flops, 1.15, at_most=True,
            about=_about("head-only, mean pooling, auto", "one forward pass of the training texts, auto")),
        Job("head-trainer", "head-only against Trainer, 3 epochs", "minilm", "auto",
            _trainer("head", "auto"), _trainer_flops("head"), 15, quality="equal",
            about=_about("head-only, mean pooling, auto", f"{_DEFAULT}, encoder frozen")),
        Job("head-tuned", "head-only against Trainer tuned, 3 epochs", "minilm", "auto",
            _trainer("head", "auto", tuned=True), _trainer_flops("head", tuned=True), None, quality="equal",
            about=_about("head-only, mean pooling, auto", f"{_TUNED}, encoder frozen")),
        Job("last-block-warm", "last-block, first run over a second one on the same texts (warm prefix)", "gpt2",
            "auto", _warm("auto"), _warm_flops, 4,
            about=_about("last-block, second run, another seed", f"{_EACH}: last-block, first run")),
        Job("lora-last-2", "LoRA on the last 2 blocks, 3 epochs, against Trainer + peft at full depth", "minilm",
            "auto", _trainer("lora", "auto", blocks=2), _trainer_flops("lora", depth=2), 8, quality="non-inferior",
            about=_about("LoRA r16 on the last 2 blocks, mean pooling, auto", f"{_DEFAULT}, peft, all blocks")),
        Job("full-trainer", "full against Trainer, 3 epochs", "minilm", "auto",
            _trainer("full", "auto"), _trainer_flops("full"), 2.5, quality="equal",
            about=_about("full, mean pooling, auto", _DEFAULT)),
        Job("full-tuned", "full against Trainer tuned, 3 epochs", "minilm", "auto",
            _trainer("full", "auto", tuned=True), _trainer_flops("full", tuned=True), None, quality="equal",
            about=_about("full, mean pooling, auto", _TUNED)),
        Job("memory", "peak memory above the loaded base, LoRA training over Trainer + peft", "minilm", "auto",
            _memory, None, 0.6, at_most=True, unit="bytes", blocks=3,
            about={**_about("LoRA r16, mean pooling, auto", f"{_DEFAULT}, peft"),
                   "ours-fp32": f"{_EACH}: LoRA r16, mean pooling, fp32", "theirs-tuned": f"{_TUNED}, peft"}),
    )
}  # fmt: skip

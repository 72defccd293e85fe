"""The short table of speed in README.md: what each job takes here and by the usual recipe, default and tuned."""

from __future__ import annotations

from typing import Any

from speed_table import figure

from lora_clf.comparison.table import markdown_table

HEADINGS = ["job", "beside", "ours", "theirs", "times as fast", "95 % interval", "peak memory, ours", "theirs"]
TUNED = "the same, tuned"
JOBS = {  # of speed_training.json: what is trained, and beside what
    "last-block-auto": ("last-block of GPT-2 small, 5 epochs", "the book's loop"),
    "lora-auto": ("LoRA, rank 16, 3 epochs", "Trainer + peft, defaults"),
    "lora-tuned": ("the same, batches of 32", TUNED),
    "head-trainer": ("head-only", "Trainer, defaults, 3 epochs"),
    "head-tuned": ("the same", TUNED),
    "full-trainer": ("full, 3 epochs", "Trainer, defaults"),
    "full-tuned": ("the same", TUNED),
}


def table(training: dict[str, Any], predict: dict[str, Any]) -> str:
    """A row a job, the last of them labelling, from the contents of speed_training.json and speed_predict.json."""
    rows = [[*words, *_trained(training[name])] for name, words in JOBS.items() if name in training]
    if speed := predict.get("speed"):
        rows.append([f"labelling {speed['messages']:,} messages", "transformers' pipeline", *_labelled(predict)])
    return markdown_table(HEADINGS, rows, [True, True] + [False] * 6)


def _trained(job: dict[str, Any]) -> list[str]:
    ours, theirs = (figure(job["sides"][side]["seconds"], "s") for side in ("ours", "theirs"))
    held = job.get("memory") or {}
    return [ours, theirs, *_ratio(job["ratio"]), *(_bytes(held.get(side)) for side in ("ours", "theirs"))]


def _labelled(predict: dict[str, Any]) -> list[str]:
    sides, held = predict["speed"]["sides"], predict.get("memory", {})
    names = ("ours-auto", "pipeline")
    seconds = [figure(sides[name]["seconds"], "s") for name in names]
    memory = [_bytes(held.get(name, {}).get("above_bytes")) for name in names]
    return [*seconds, *_ratio(sides["ours-auto"]["faster_than_pipeline"]), *memory]


def _ratio(found: dict[str, Any]) -> list[str]:
    interval = "–" if found["low"] is None else f"{found['low']:.3g} to {found['high']:.3g}"
    return [f"{found['median']:.3g}", interval]


def _bytes(count: float | None) -> str:
    return "–" if count is None else figure(count, "B")

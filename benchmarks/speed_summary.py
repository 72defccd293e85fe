"""The short table of speed in README.md: each job here and by the usual recipe, as its users write it and tuned."""

from __future__ import annotations

from typing import Any

from paired import ratio
from speed_table import figure

from lora_clf.reports.table import markdown_table

HEADINGS = ["job", "beside", "ours", "theirs", "times as fast", "95 % interval", "peak memory, ours", "theirs"]
TUNED = "the same, tuned"
JOBS = {  # of speed_training.json: what is trained, and beside what
    "last-block-fp32": ("last-block of GPT-2 small, 5 epochs, fp32", "the book's loop"),
    "last-block-auto": ("the same, auto", "the same"),
    "lora-fp32": ("LoRA, rank 16, 3 epochs, fp32", "Trainer + peft"),
    "lora-auto": ("the same, auto", "the same"),
    "lora-tuned": ("the same, auto, batches of 32", TUNED),
    "head-trainer": ("head-only, auto", "Trainer, 3 epochs"),
    "head-tuned": ("the same", TUNED),
    "full-trainer": ("full, 3 epochs, auto", "Trainer"),
    "full-tuned": ("the same", TUNED),
}
LABELLING = {  # sides of speed_predict.json, each pair with its words
    ("ours-fp32", "pipeline"): ("labelling all {:,} messages, fp32", "transformers' pipeline"),
    ("ours-auto", "pipeline"): ("the same, auto", "the same"),
    ("ours-auto", "pipeline-tuned"): ("the same, auto", TUNED),
}


def table(training: dict[str, Any], predict: dict[str, Any]) -> str:
    """A row a job, then labelling, from the contents of speed_training.json and speed_predict.json."""
    rows = [[*words, *_trained(training[name])] for name, words in JOBS.items() if "ratio" in training.get(name, {})]
    if "speed" in predict:
        rows += [_labelled(predict, *sides, *words) for sides, words in LABELLING.items()]
    return markdown_table(HEADINGS, rows, [True, True] + [False] * 6)


def _trained(job: dict[str, Any]) -> list[str]:
    names, held = ("ours", "theirs"), job.get("memory") or {}
    seconds = (figure(job["sides"][name]["seconds"], "s") for name in names)
    return [*seconds, *_times(job["ratio"]), *(_bytes(held.get(name)) for name in names)]


def _labelled(predict: dict[str, Any], ours: str, theirs: str, job: str, beside: str) -> list[str]:
    speed, held = predict["speed"], predict.get("memory", {})
    found = speed["sides"][ours]["faster_than_pipeline"]
    if theirs != "pipeline":
        slower, quicker = ([block[side] for block in speed["blocks"]] for side in (theirs, ours))
        found = ratio(slower, quicker).as_dict()
    seconds = (figure(speed["sides"][side]["seconds"], "s") for side in (ours, theirs))
    memory = (_bytes(held.get(side, {}).get("above_bytes")) for side in (ours, theirs))
    return [job.format(speed["messages"]), beside, *seconds, *_times(found), *memory]


def _times(found: dict[str, Any]) -> list[str]:
    return [f"{found['median']:.3g}", "–" if found["low"] is None else f"{found['low']:.3g} to {found['high']:.3g}"]


def _bytes(count: float | None) -> str:
    return "–" if count is None else figure(count, "B")

"""How long does it take to label many messages, beside transformers' pipeline on the same weights?

    python benchmarks/speed_predict.py --budget 540    # again until it says that it is done
    python benchmarks/speed_predict.py --memory        # what each side needs above the loaded model
    python benchmarks/speed_predict.py --choices       # batch size, kernel, merged or not: what the defaults come from
    python benchmarks/speed_predict.py --table

A LoRA adapter with the family head (rank 16 on all linear layers) is trained for an epoch, and exported as the folder
that the pipeline runs: both sides are the same function. Every side labels all messages, tokenising included, the
model loaded before. The sides run in turn in at least seven blocks, in shuffled order; what counts is the median of the
ratios inside the blocks. `pipeline` is ``pipeline("text-classification", batch_size=32)`` with the texts as they come;
`pipeline-tuned` the same with texts sorted by length and bf16 where the machine has it. Blocks are kept in --work as
they end, and the same command goes on where the last one stopped, unless code, versions or threads have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import script
from paired import (
    BLOCKS,
    RESULTS,
    Budget,
    in_child,
    interleave,
    key_of,
    merge_result,
    peak_above,
    provenance,
    ratio,
    read_json,
    short,
    timed,
    write_json,
)
from predict_sides import OURS, SIDES, Bench, computed, opened, side_of
from predict_table import table

OUT = RESULTS / "speed_predict.json"
TARGET = 3.0  # times the pipeline's speed
NET_FLIPS = 0.002  # of all rows
CODE = ("paired", "predict_sides", "speed_predict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; the exit status."""
    flags = parsed(arguments)
    return script.run(flags, lambda folder: measure(flags, folder), table)


def measure(flags: argparse.Namespace, folder: Path) -> None:
    """Measure what the flags say, put it into the result and print that; or be the child of one side."""
    bench = opened(flags, folder)
    if flags.memory_of:
        print(json.dumps(memory_of(bench, flags.memory_of)))
        return
    if flags.memory:
        merge_result(flags.out, "memory", memory(flags))
    elif flags.choices:
        from predict_choices import choices

        messages, blocks = (40, 1) if flags.quick else (2000, flags.blocks or 5)
        merge_result(flags.out, "choices", choices(bench, messages, blocks, flags.seed))
    elif (found := measured(bench, flags)) is not None:
        for name, value in found.items():
            merge_result(flags.out, name, value)
    print(table(read_json(flags.out)))


def measured(bench: Bench, flags: argparse.Namespace) -> dict[str, Any] | None:
    """Times, ratios and equal labels of all blocks; None where the budget ended before the last of them."""
    budget = Budget(flags.budget)
    facts = provenance(bench.adapter.base.device)
    kept = flags.work / f"speed_predict{'-quick' if flags.quick else ''}.json"
    rows = hashlib.sha256(json.dumps(bench.texts).encode()).hexdigest()
    key = key_of(CODE, facts, bench.adapter.header.digest, rows, flags.seed)
    state = read_json(kept)
    if state.get("key") != key:
        state = {"key": key, "blocks": [], "labels": {}}
    total = flags.blocks or (2 if flags.quick else BLOCKS)
    texts = bench.texts
    answering = {name: side_of(bench, name) for name in SIDES}
    for answer in answering.values():
        answer(texts[:64])  # what the first run of a process pays is nobody's
    sides = {}
    for name, answer in answering.items():

        def work(name: str = name, answer: Callable[[Sequence[str]], list[str]] = answer) -> None:
            state["labels"][name] = answer(texts)

        sides[name] = timed(work)
    while (done := len(state["blocks"])) < total:
        if not budget.allows_more():
            print(f"{done} of {total} blocks; the same command goes on.", flush=True)
            return None
        state["blocks"] += interleave(sides, 1, flags.seed, first=done, told=told)
        write_json(kept, state)
    return {"speed": {**speed(bench, state["blocks"]), "provenance": facts}, "quality": quality(bench, state["labels"])}


def speed(bench: Bench, blocks: list[dict[str, float]]) -> dict[str, Any]:
    """Seconds of each side, its ratio to the pipeline's, and how many tokens it computes for each real one."""
    tokens = bench.adapter.encode(bench.texts)
    distinct = np.array([len(ids) for ids in {ids.tobytes(): ids for ids in tokens.ids}.values()])
    spent = computed(tokens.lengths, distinct)
    sides = {}
    for name in SIDES:
        mine = [block[name] for block in blocks]
        found = ratio([block["pipeline"] for block in blocks], mine)
        sides[name] = {
            "seconds": short(median(mine)),
            "messages_a_second": round(len(tokens) / median(mine)),
            "computed_tokens": int(spent[name].sum()),
            "faster_than_pipeline": found.as_dict(),
            "met": found.median >= TARGET if name in OURS else None,
        }
    return {
        "base": {"name": bench.adapter.base.name, "digest": bench.adapter.base.digest},
        "adapter": {"strategy": bench.adapter.header.strategy, **bench.adapter.header.settings},
        "messages": len(tokens),
        "distinct": len(distinct),
        "tokens": int(tokens.lengths.sum()),
        "sides": sides,
        "blocks": [{name: short(value, 5) for name, value in block.items()} for block in blocks],
        "target": TARGET,
        "ceiling": ceiling(bench, spent, distinct, median(block["pipeline"] for block in blocks)),
    }


def ceiling(bench: Bench, spent: dict[str, Any], distinct: Any, theirs: float) -> dict[str, Any]:
    """How large the ratio would be if ours computed distinct real tokens only, at the speed of the matrix products."""
    import flops
    import precision

    from lora_clf.inference.precision import resolve_precision

    base = bench.adapter.base
    shape = flops.Shape.of(base.config)
    found = {}
    for side, asked in OURS.items():
        name = resolve_precision(asked, base.device)
        rate = precision.best_rate(shape, name, base.device)
        least = flops.forward(shape, distinct)
        figures = {
            "flops_least": least,
            "flops_pipeline": flops.forward(shape, spent["pipeline"]),
            "gflops": rate / 1e9,
            "seconds_least": least / rate,
            "ratio": theirs / (least / rate),
        }
        found[side] = {"precision": name, **{key: short(value) for key, value in figures.items()}}
    return found


def quality(bench: Bench, labels: dict[str, list[str]]) -> dict[str, Any]:
    """Rows that the pipeline gets right and a side wrong, less those the other way round; near copies count as one."""
    from lora_clf.data.near_copies import components
    from lora_clf.evaluation.intervals import paired_difference

    truth = np.array(bench.rows.labels)
    right = {name: np.array(found) == truth for name, found in labels.items()}
    groups = components(bench.texts)
    found: dict[str, Any] = {}
    for name in SIDES:
        gap = paired_difference(right["pipeline"], right[name], groups)
        found[name] = {
            "accuracy": round(float(right[name].mean()), 5),
            "other_labels": int(sum(a != b for a, b in zip(labels[name], labels["pipeline"], strict=True))),
            "net_flips": short(gap.value, 3),
            "low": short(gap.low, 3),
            "high": short(gap.high, 3),
            "met": abs(gap.value) <= NET_FLIPS if name in OURS else None,
        }
    return found


def memory(flags: argparse.Namespace) -> dict[str, Any]:
    """Bytes above the loaded model that each side needs, each in a process of its own."""
    given = [f"--{name}={getattr(flags, name)}" for name in ("data", "base", "device", "work")]
    more = ["--quick"] if flags.quick else []
    return {name: in_child(Path(__file__), [*given, *more, "--memory-of", name]) for name in SIDES}


def memory_of(bench: Bench, name: str) -> dict[str, Any]:
    """The same for one side in this process."""
    answer, texts = side_of(bench, name), bench.texts
    answer(texts[:64])  # what is built on first use is no cost of the job
    return peak_above(lambda: answer(texts))


def told(block: int, side: str, seconds: float) -> None:
    """Says on stderr what a side took."""
    print(f"block {block + 1}, {side}: {seconds:.1f} s", file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    shared = ("data", "base", "device", "budget", "seed", "quick", "table")
    parser = script.parser(__doc__, *shared, out=OUT)
    parser.add_argument("--blocks", type=int, help=f"{BLOCKS} by default")
    parser.add_argument("--memory", action="store_true", help="peak memory of each side instead of times")
    parser.add_argument("--choices", action="store_true", help="times of ours by batch size, kernel and merging")
    parser.add_argument("--work", type=Path, default=Path("runs") / "benchmarks" / "speed_predict")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # the pipeline's loader would warn of it, and go without
    sys.exit(main())

"""What is left when a training process is killed? This loop and transformers' Trainer, each with its own checkpoints.

    python benchmarks/kills.py            # 300 kills at random moments on each side, and one at every call of a save
    python benchmarks/kills.py --quick    # the same from end to end with few of the first, for no figures

Two ways of dying, on a tiny base, with a checkpoint after every step. *At random*: a child that trains gets ``kill -9``
at a random moment, and is started again with the same command until it comes to its end. *At every call*: the save of
a checkpoint or of an adapter is killed at its first system call that changes the disk, then at its second, and so on.
Counted is whether the next process can go on by itself, and whether it ends with the bytes of a run that nobody killed.
These are counts, no times; Linux on x86-64.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import script
from kill_sides import Ours, Trainer
from paired import RESULTS, merge_result, provenance
from quick import quick_base, quick_data
from tracing import can_trace, in_fork, killed_after, processor_seconds

OUT = RESULTS / "kills.json"
KILLS = 300
PER_RUN = 3  # kills at most before a run may come to its end


def random_kills(side: Any, kills: int, seed: int, place: Path) -> dict[str, int]:
    """Kill runs of ``side`` at random moments until there were so many kills; what became of the runs."""
    moments = random.Random(seed)
    expected, length = _done(in_fork(partial(_timed, side, place / "whole")))
    found = dict.fromkeys(("kills", "runs", "equal_bytes", "other_bytes", "could_not_go_on", "newest_not_whole"), 0)
    while found["kills"] < kills:
        run = place / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        found["runs"] += 1
        struck = 0
        while struck < min(PER_RUN, kills - found["kills"]):
            said = killed_after(partial(side.train, run), moments.uniform(0, length))
            if "killed" not in said:
                break
            struck += 1
            found["newest_not_whole"] += not side.newest_is_whole(run)
        else:
            said = in_fork(partial(side.train, run))
        found["kills"] += struck
        if "failed" in said:
            found["could_not_go_on"] += 1
        else:
            found["equal_bytes" if said["done"] == expected else "other_bytes"] += 1
    return found


def _timed(side: Any, place: Path) -> tuple[str, float]:
    """The bytes of a run that nobody kills, and how much of the processor's time it takes."""
    return side.train(place), processor_seconds(os.getpid())


def _done(said: dict[str, Any]) -> Any:
    if "done" not in said:
        raise RuntimeError(f"a child did not come to its end: {said}")
    return said["done"]


def measured(flags: argparse.Namespace, place: Path) -> None:
    """Kill, count, and write each part of the result when it is there."""
    from lora_clf.tuners import strategies

    base = quick_base("bert", place)
    data = quick_data(train=24)
    names = list(strategies())
    parts: dict[str, dict[str, Any]] = {
        "ours": {name: Ours(base, data, name) for name in names},
        "trainer": {"full": Trainer(base, data)},
    }
    for side, runs in parts.items():
        if side not in flags.sides:
            continue
        if "calls" in flags.ways:
            calls = _calls(side, runs["full"], place / f"{side}-calls")
            merge_result(flags.out, f"calls/{side}", calls)
        if "random" in flags.ways:
            each: dict[str, dict[str, int]] = {}
            for number, (name, run) in enumerate(runs.items()):
                share = flags.kills * (number + 1) // len(runs) - flags.kills * number // len(runs)
                each[name] = random_kills(run, share, number, place / f"{side}-{name}")
                print(side, name, each[name], flush=True)
                whole = {key: sum(found[key] for found in each.values()) for key in each[name]}
                merge_result(flags.out, f"random/{side}", {**whole, "strategies": each})
    merge_result(flags.out, "provenance", provenance())


def _calls(side: str, run: Any, place: Path) -> dict[str, Any]:
    """Kill each kind of save at every one of its calls."""
    works = {
        "checkpoint, the first": lambda at: run.checkpoint_calls(at, 0),
        "checkpoint, beside one": lambda at: run.checkpoint_calls(at, 1),
        "checkpoint, the oldest of three goes": lambda at: run.checkpoint_calls(at, 2),
    }
    if side == "ours":
        works |= {
            "adapter, to a free place": lambda at: run.adapter_calls(at, False),
            "adapter, over another": lambda at: run.adapter_calls(at, True),
        }
    found = {}
    for number, (name, work) in enumerate(works.items()):
        at = place / str(number)
        at.mkdir(parents=True)
        found[name] = _done(in_fork(partial(work, at)))
        print(side, name, found[name], flush=True)
    return found


def table(value: dict[str, Any]) -> str:
    """The file as two tables: kills at random moments, and at every call of a save."""
    from lora_clf.reports.table import markdown_table

    names = {"ours": "lora_clf", "trainer": "transformers' Trainer"}
    at_random, at_calls = [], []
    for side, name in names.items():
        if found := value.get(f"random/{side}"):
            keys = ("kills", "runs", "equal_bytes", "other_bytes", "could_not_go_on")
            at_random.append([name, *(str(found[key]) for key in keys)])
        for save, each in value.get(f"calls/{side}", {}).items():
            at_calls.append([name, save, str(each["calls"]), *_ends(each)])
    headings = ["side", "kills", "runs", "ended with equal bytes", "with other bytes", "could not go on"]
    first = markdown_table(headings, at_random, [True] + [False] * 5)
    headings = ["side", "save", "calls", "goes on with equal bytes", "with other bytes", "cannot go on"]
    return "\n".join([first, markdown_table(headings, at_calls, [True, True] + [False] * 4)])


def _ends(save: dict[str, Any]) -> list[str]:
    """Calls after which the next process goes on with equal bytes, with others, or not at all."""
    if "left" not in save:
        keys = ("goes_on_with_equal_bytes", "goes_on_with_other_bytes", "cannot_go_on")
        return [str(save[key]) for key in keys]
    whole = save["left"]["old"] + save["left"]["new"]
    equal = whole if save.get("end_with_equal_bytes", True) else 0
    return [str(equal), str(whole - equal), str(save["left"]["neither"])]


def main(words: Sequence[str] | None = None) -> int:
    """Kill and count; the exit status."""
    parser = script.parser(__doc__, "quick", out=OUT)
    parser.add_argument("--kills", type=int, default=KILLS, help="at random moments, on each side")
    parser.add_argument("--sides", nargs="+", choices=("ours", "trainer"), default=["ours", "trainer"])
    parser.add_argument("--ways", nargs="+", choices=("random", "calls"), default=["random", "calls"])
    flags = parser.parse_args(words)
    if not can_trace():
        parser.error("system calls are counted on Linux on x86-64 only")
    if flags.quick:
        flags.kills = min(flags.kills, 16)
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.monitor_interval = 0  # a thread, which does not survive a fork
    torch.set_num_threads(1)
    return script.run(flags, lambda place: measured(flags, place))


if __name__ == "__main__":
    sys.exit(main())

"""How long does training take, beside the usual recipes? One job is one row of the table of targets.

    python benchmarks/random_gpt2.py --tokenizer FOLDER_WITH_VOCAB_AND_MERGES --out runs/gpt2-random
    python benchmarks/speed_training.py --job lora-auto --budget 360    # again until it says that it is done
    python benchmarks/speed_training.py --job lora-auto --complete      # one whole run of each side, as a check
    python benchmarks/speed_training.py --job lora-auto --quality       # do both sides predict the same?
    python benchmarks/speed_training.py --job lora-auto --memory        # peak memory of both sides
    python benchmarks/speed_training.py --table

Both sides run in turn in at least seven blocks, in shuffled order, each in a process of its own; what counts is the
median of the ratios inside the blocks. Long peers are timed over 60 steps a block and extrapolated with their
evaluations. Every run of ours begins without anything kept of the frozen prefix, in memory or on disk. Blocks are kept
in --work as they end, and the same command goes on where the last one stopped, unless code, versions or threads have
changed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import script
from own_process import OwnProcess, answer
from paired import (
    BLOCKS,
    RESULTS,
    Budget,
    interleave,
    key_of,
    merge_result,
    peak_above,
    provenance,
    ratio,
    read_json,
    short,
    write_json,
)

if TYPE_CHECKING:
    from speed_bench import Bench
    from speed_jobs import Job, Side, Sides

OUT = RESULTS / "speed_training.json"
CODE = (
    "book_loop", "our_training", "own_process", "paired", "speed_bench", "speed_jobs", "speed_training",
    "trainer_recipe",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; the exit status."""
    flags = parsed(arguments)
    os.environ["LORA_CLF_CACHE_SIZE"] = "0"  # nothing of the frozen prefix is kept on disk
    from speed_table import table

    return script.run(flags, lambda folder: measure(flags, folder), table)


def measure(flags: argparse.Namespace, folder: Path) -> int:
    """Measure the jobs that the flags name, or be the child of one side; the exit status."""
    from speed_jobs import JOBS

    names = list(JOBS) if flags.job == ["all"] else flags.job or ["lora-auto"]
    if unknown := [name for name in names if name not in JOBS]:
        print(f"No job {', '.join(unknown)}; there are: {', '.join(JOBS)}, all.", file=sys.stderr)
        return 2
    if flags.memory_of:
        print(json.dumps(memory(flags, folder)))
    elif flags.side:
        answer(side_of(flags, folder))
    else:
        for name in names:
            one(JOBS[name], flags, folder)
    return 0


def one(job: Job, flags: argparse.Namespace, folder: Path) -> None:
    """Measure one job, or check it, as the flags say."""
    from speed_bench import all_rows, opened
    from speed_jobs import memory_sides

    from lora_clf.inference.precision import has_native_bf16

    bench = opened(job.base, flags, folder)
    if job.native_bf16 and not (flags.quick or has_native_bf16(bench.base.device)):
        print(f"{job.name}: left out, this {bench.base.device.type} has no native bf16.")
        return
    if flags.complete:
        put(flags.out, job, {"complete": complete(job, bench, flags)})
    elif flags.memory:
        if not (sides := memory_sides(job, bench)):
            print(f"{job.name}: its blocks are the memory already.")
            return
        peaks = {name: side() for name, side in sides.items()}
        put(flags.out, job, {"memory": {**peaks, "commit": provenance(bench.base.device)["commit"]}})
    elif flags.quality:
        from speed_quality import checked

        if (found := checked(job, bench, all_rows(bench, flags), flags.work, flags.seeds)) is None:
            print(f"{job.name}: both sides are the same computation, or have none to compare.")
            return
        put(flags.out, job, {"quality": {**found, "commit": provenance(bench.base.device)["commit"]}})
    elif (blocks := measured(job, bench, flags)) is not None:
        put(flags.out, job, blocks)


def put(out: Path, job: Job, value: dict[str, Any]) -> None:
    """Merge ``value`` into the job's entry, and say so in a line."""
    merge_result(out, job.name, {**read_json(out).get(job.name, {}), **value})
    print(
        f"{job.name}: {json.dumps({k: v for k, v in value.items() if k in ('ratio', 'complete', 'quality', 'memory')})}"
    )
    print(f"Written: {os.path.relpath(out)}", flush=True)


def measured(job: Job, bench: Bench, flags: argparse.Namespace) -> dict[str, Any] | None:
    """The result of all blocks; None where the budget ended before the last of them."""
    budget = Budget(flags.budget)
    facts = provenance(bench.base.device)
    kept, state = blocks_of(job, bench, flags, facts)
    total = flags.blocks or (2 if flags.quick else job.blocks)
    if job.within is not None:
        if len(state["blocks"]) < total:
            print(f"{job.name} is measured in the blocks of {job.within}, of which there are {len(state['blocks'])}.")
            return None
        return result(job, bench, of_side(state, f"ours-{job.precision}"), facts)
    with ExitStack() as stack:
        sides = warmed(job, bench, flags, stack) if len(state["blocks"]) < total else {}
        while (done := len(state["blocks"])) < total:
            if not budget.allows_more():
                print(f"{job.name}: {done} of {total} blocks; the same command goes on.", flush=True)
                return None
            state["blocks"] += interleave(sides, 1, flags.seed, first=done, told=told(job))
            state["timings"] = {name: timing_of(side) for name, side in sides.items()}
            write_json(kept, state)
    return result(job, bench, state, facts)


def warmed(job: Job, bench: Bench, flags: argparse.Namespace, stack: ExitStack) -> Sides:
    """The sides of a job, each in a process that has run a little; with --quick, for no figures, all in this one."""
    sides = job.sides(bench)
    if job.unit != "seconds":  # each run is a process
        return sides
    if flags.quick:
        for side in job.sides(bench.small()).values():
            side()
        return sides
    child = [*bench.child, *(["--complete"] if flags.complete else [])]
    processes = {name: OwnProcess(Path(__file__), [f"--side={job.name}/{name}", *child]) for name in sides}
    return {name: stack.enter_context(process) for name, process in processes.items()}


def side_of(flags: argparse.Namespace, folder: Path) -> Side:
    """The side JOB/SIDE for a process of its own, after what the first run of a process pays, which is nobody's."""
    from dataclasses import replace

    from speed_bench import opened
    from speed_jobs import JOBS

    name, _, side = flags.side.partition("/")
    bench = opened(JOBS[name].base, flags, folder)
    JOBS[name].sides(bench.small())[side]()
    return JOBS[name].sides(replace(bench, steps=None) if flags.complete else bench)[side]


def blocks_of(job: Job, bench: Bench, flags: argparse.Namespace, facts: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Where a job's blocks are kept, and those that were measured with this very code."""
    name = job.within or job.name
    kept = flags.work / f"{name}{'-quick' if flags.quick else ''}.json"
    key = key_of(CODE, facts, name, bench.base.digest, bench.data.digest, bench.steps, bench.lora, flags.seed)
    before = read_json(kept)
    if before and before["key"] != key:
        print(f"{name}: code, versions or settings have changed; {len(before['blocks'])} blocks are dropped.")
    anew = {"key": key, "own_processes": not flags.quick, "blocks": []}
    return kept, before if before.get("key") == key else anew


def of_side(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The same blocks with another side as ours."""
    timings = {"ours": state["timings"][name], "theirs": state["timings"]["theirs"]}
    blocks = [{"ours": block[name], "theirs": block["theirs"]} for block in state["blocks"]]
    return {**state, "blocks": blocks, "timings": timings}


def result(job: Job, bench: Bench, state: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """What goes into the file: sides, blocks, the ratio, the target and the ceiling."""
    blocks: list[dict[str, float]] = state["blocks"]
    ours, theirs = ([block[name] for block in blocks] for name in ("ours", "theirs"))
    found = ratio(ours, theirs) if job.at_most else ratio(theirs, ours)
    target = None
    if job.target is not None:
        met = found.median <= job.target if job.at_most else found.median >= job.target
        target = {"value": job.target, "at_most": job.at_most, "met": met}
    about = job.about or {}
    sides = {
        name: {
            "about": about.get(name, ""),
            job.unit: short(median(block[name] for block in blocks)),
            **state["timings"][name],
        }
        for name in blocks[0]
    }
    data = bench.data
    return {
        "row": job.row,
        "base": {"name": bench.base.name, "digest": bench.base.digest},
        "data": {
            "name": data.name,
            "protocol": data.protocol,
            "digest": data.digest,
            "train": len(data.train),
            "validation": len(data.validation),
            "tokens": int(bench.lengths.sum()),
        },
        "precision": job.precision,
        "own_processes": state["own_processes"],
        "lora": bench.lora if "lora" in job.name or job.name == "memory" else None,
        "unit": job.unit,
        "sides": sides,
        "blocks": [{name: short(value, 5) for name, value in block.items()} for block in blocks],
        "ratio": found.as_dict(),
        "target": target,
        "ceiling": ceiling(job, bench, median(theirs)),
        "provenance": facts,
    }


def ceiling(job: Job, bench: Bench, theirs: float) -> dict[str, Any] | None:
    """How large the ratio would be if ours did the least arithmetic there is at the speed of the matrix products."""
    if job.least is None:
        return None
    import precision

    from lora_clf.inference.precision import resolve_precision

    name = resolve_precision(job.precision, bench.base.device)
    rate = precision.best_rate(bench.shape, name, bench.base.device)
    ours, other = job.least(bench)
    least = 1.0 if job.at_most else theirs / (ours / rate)
    found = {
        "flops_least": ours,
        "flops_theirs": other,
        "gflops": rate / 1e9,
        "seconds_least": ours / rate,
        "ratio": least,
    }
    return {"precision": name, **{key: short(value) for key, value in found.items()}}


def complete(job: Job, bench: Bench, flags: argparse.Namespace) -> dict[str, Any]:
    """One whole run of each side, beside which the extrapolated figures can be held."""
    from dataclasses import replace

    if job.unit != "seconds":
        return {"unit": job.unit, "note": "nothing is extrapolated"}
    with ExitStack() as stack:
        sides = warmed(job, replace(bench, steps=None), flags, stack)
        found = interleave(sides, 1, told=told(job))[0]
    extra = {"commit": provenance(bench.base.device)["commit"], "steps": timing_of(sides["theirs"])["steps"]}
    over = found["ours"] / found["theirs"] if job.at_most else found["theirs"] / found["ours"]
    return {**{name: short(value) for name, value in found.items()}, "ratio": short(over), **extra}


def memory(flags: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What one side of the memory job needs above the loaded base, in this process: for a child."""
    from book_loop import BookLoop
    from quick import quick_base, quick_data
    from speed_bench import Bench, opened
    from speed_jobs import JOBS, memory_side
    from trainer_recipe import TrainerRecipe

    job = JOBS[flags.memory_of.partition("/")[0]]
    # What is imported and built on first use is no cost of the job, so a tiny one comes first.
    base = quick_base({"minilm": "bert"}.get(job.base, job.base), folder)
    memory_side(flags.memory_of, Bench(base, quick_data(), lora=flags.lora, width=base.max_length))()
    side = memory_side(flags.memory_of, opened(job.base, flags, folder))
    work: Any = side
    if isinstance(side, TrainerRecipe | BookLoop):
        model: Any = side.load()
        parts = model if isinstance(model, tuple) else (model,)
        for parameter in (parameter for part in parts for parameter in part.parameters()):
            parameter.detach().sum()  # pages that are only mapped come in
        work = lambda: side.run(model, 0)  # noqa: E731
    import torch

    if torch.cuda.is_available() and flags.device != "cpu":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        peak = torch.cuda.max_memory_allocated()
        return {"held_bytes": held, "peak_bytes": peak, "above_bytes": peak - held, "restarted": True}
    return peak_above(work)


def timing_of(side: Side) -> dict[str, Any]:
    """Whether a side ran completely, and over how many steps it was timed."""
    timing = side.timing
    if timing is None:
        return {}
    return {
        "kind": "complete" if timing.complete else "extrapolated",
        "steps": timing.steps,
        "total_steps": timing.total_steps,
    }


def told(job: Job) -> Any:
    """Says on stderr what each side took."""

    def tell(block: int, side: str, value: float) -> None:
        words = f"{value:.1f} s" if job.unit == "seconds" else f"{value / 1e6:,.0f} MB"
        print(f"{job.name}: block {block + 1}, {side}: {words}", file=sys.stderr, flush=True)

    return tell


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    shared = ("data", "device", "budget", "seed", "quick", "table")
    parser = script.parser(__doc__, *shared, out=OUT)
    parser.add_argument("--job", action="append", help="a job of speed_jobs.py, or all; may be given several times")
    parser.add_argument("--gpt2", type=Path, default=Path("runs") / "gpt2-random", help="a GPT-2 small")
    parser.add_argument("--lora", choices=("lora", "lora-scratch"), default="lora-scratch", help="which of ours")
    parser.add_argument("--blocks", type=int, help=f"{BLOCKS} by default, fewer for memory")
    parser.add_argument("--complete", action="store_true", help="one whole run of each side instead of blocks")
    parser.add_argument("--quality", action="store_true", help="train both sides and compare what they predict")
    parser.add_argument("--memory", action="store_true", help="peak memory of both sides instead of times")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each side for --quality")
    parser.add_argument("--work", type=Path, default=Path("runs") / "benchmarks" / "speed_training")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

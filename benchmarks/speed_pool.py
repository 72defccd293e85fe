"""What do many adapters on one base cost? Throughput, choosing, loading, memory, agreement; against PEFT.

    python benchmarks/speed_pool.py --data SMSSpamCollection         # every row of the table, then the table
    python benchmarks/speed_pool.py --only throughput --only load
    python benchmarks/speed_pool.py --table
    python benchmarks/speed_pool.py --quick                           # tiny bases, to see that it runs

Both sides get the same adapters, folders of rank 8 on all linear layers with the family head, the same batch of 32
texts in the same order, and the same precision; both go from texts to probabilities. Sides run in turn in shuffled
order; what counts is the median of the ratios inside the blocks, with a 95 % interval of the mean log ratio. Memory is
measured in a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import script
from paired import BLOCKS, RESULTS, in_child, interleave, merge_result, provenance, ratio, read_json, short, timed
from pool_agreement import agreement
from pool_sides import BATCH, Alone, Peft, adapter, filled, folders, one_merged, one_unmerged
from pool_size import folder, memory_of
from pool_table import table

if TYPE_CHECKING:
    from lora_clf.base.base import Base

OUT = RESULTS / "speed_pool.json"
BATCHES = 2  # of 32 texts, so that not everything hangs on the lengths of one


class Bench:
    """What the jobs share: the base, texts, saved adapters and the sizes to try."""

    def __init__(self, flags: argparse.Namespace, work: Path) -> None:
        from lora_clf.base.base import load_base
        from lora_clf.data.dataset import load_table
        from lora_clf.inference.precision import has_native_bf16

        self.flags, self.work = flags, work
        if flags.quick:
            from quick import quick_base

            self.base: Base = quick_base("bert", work)
        else:
            self.base = load_base(flags.base, device=flags.device)
        rows = load_table("demo" if flags.quick else flags.data)
        self.texts = [text for text in rows.texts if text.strip()]
        if flags.quick:
            self.texts = self.texts[:64]
        self.batch = self.texts[:BATCH]
        self.batches = [self.texts[start : start + BATCH] for start in range(0, BATCHES * BATCH, BATCH)]
        self.blocks = flags.blocks or (2 if flags.quick else BLOCKS)
        self.precisions = ["fp32", "bf16"] if has_native_bf16(self.base.device) else ["fp32"]
        self.many = (1, 4, 40) if flags.quick else (1, 10, 100, 1000)  # adapters resident
        self.distinct = (1, 4, 32) if flags.quick else (1, 2, 4, 8, 16, 32)  # adapters in a batch
        self._places: list[Path] = []

    @property
    def places(self) -> list[Path]:
        """32 saved adapters of rank 8."""
        if not self._places:
            self._places = folders(self.base, self.work, BATCH)
        return self._places

    def each_batch(self, work: Callable[[Sequence[str]], object]) -> None:
        """Run every batch of 32 texts through a side."""
        for batch in self.batches:
            work(batch)

    def interleaved(self, sides: dict[str, Callable[[], object]]) -> list[dict[str, float]]:
        """Seconds of every side in every block, after one run that is not counted."""
        for work in sides.values():
            work()
        return interleave({name: timed(work) for name, work in sides.items()}, self.blocks, self.flags.seed)


def throughput(bench: Bench) -> dict[str, Any]:
    """Batches of 32 texts with U distinct adapters of N resident, against one adapter alone."""
    found: dict[str, Any] = {}
    for precision in bench.precisions:
        pool = filled(bench.base, bench.places, 1, precision)
        header, cost = pool.header("n0"), pool._mixture.cost
        unmerged = Alone(bench.base, one_unmerged(bench.base, bench.places[0], precision), header, precision, cost)
        merged = Alone(bench.base, one_merged(bench.base, bench.places[0], precision), header, precision, cost)
        for resident in bench.many:
            pool = filled(bench.base, bench.places, resident, precision)
            sides: dict[str, Callable[[], object]] = {
                "unmerged": partial(bench.each_batch, unmerged),
                "merged": partial(bench.each_batch, merged),
            }
            for distinct in bench.distinct:
                if distinct <= resident:
                    names = _names(distinct, resident)
                    sides[f"U{distinct}"] = partial(bench.each_batch, partial(pool.predict, adapter=names))
            blocks = bench.interleaved(sides)
            found[f"{precision} N{resident}"] = {
                name: {
                    "seconds": short(median(block[name] for block in blocks)),
                    "over_unmerged": _ratio(blocks, "unmerged", name),
                    "over_pool_U1": _ratio(blocks, "U1", name),
                }
                for name in sides
            }
    return found


def _ratio(blocks: list[dict[str, float]], slow: str, quick: str) -> dict[str, Any]:
    """How many times as fast one side is as the other."""
    return ratio([block[slow] for block in blocks], [block[quick] for block in blocks]).as_dict()


def _names(distinct: int, resident: int) -> list[str]:
    """A batch's adapters, spread over those that are resident, in no order."""
    chosen = [f"n{number * resident // distinct}" for number in range(distinct)]
    order = np.random.default_rng(distinct).permutation(BATCH)
    return [chosen[place % distinct] for place in order]


def peft(bench: Bench) -> dict[str, Any]:
    """The same batches through PEFT's ``adapter_names``, with 32 adapters resident on both sides."""
    found: dict[str, Any] = {}
    for precision in bench.precisions:
        pool = filled(bench.base, bench.places, BATCH, precision)
        uncut = filled(bench.base, bench.places, BATCH, precision)
        uncut._mixture.cost = 0  # one padded batch, as PEFT has it
        theirs = Peft(bench.base, bench.places, BATCH, precision)
        for distinct in (1, 8, BATCH):
            names = _names(distinct, BATCH)
            blocks = bench.interleaved({
                "ours": partial(bench.each_batch, partial(pool.predict, adapter=names)),
                "ours uncut": partial(bench.each_batch, partial(uncut.predict, adapter=names)),
                "peft": partial(bench.each_batch, partial(theirs, names=names)),
            })  # fmt: skip
            found[f"{precision} U{distinct}"] = {
                "seconds": {name: short(median(block[name] for block in blocks)) for name in blocks[0]},
                "times": _ratio(blocks, "peft", "ours"),
                "times_uncut": _ratio(blocks, "peft", "ours uncut"),
            }
    return found


def select(bench: Bench) -> dict[str, Any]:
    """Choosing a resident adapter: ours all that `predict` does to choose, PEFT's ``set_adapter``."""
    found: dict[str, Any] = {}
    turns = 200 if bench.flags.quick else 5000
    at_peft = bench.many[-2]
    theirs = Peft(bench.base, bench.places, at_peft, "fp32")
    for resident in bench.many:
        pool = filled(bench.base, bench.places, resident, "fp32")

        def ours(pool: Any = pool, resident: int = resident) -> None:
            for turn in range(turns):
                with pool.use(f"n{turn * 7 % resident}"):
                    pass

        sides: dict[str, Callable[[], object]] = {"ours": ours}
        if resident == at_peft:
            few = max(1, turns // 500)

            def peft_side(resident: int = resident, few: int = few) -> None:
                for turn in range(few):
                    theirs.model.set_adapter(f"n{turn * 7 % resident}", inference_mode=True)

            sides["peft"] = peft_side
        blocks = bench.interleaved(sides)
        one = [block["ours"] / turns for block in blocks]
        found[f"N{resident}"] = {"microseconds": short(1e6 * median(one))}
        if "peft" in sides:
            other = [block["peft"] / few for block in blocks]
            times = ratio(other, one).as_dict()
            found[f"N{resident}"] |= {"peft_microseconds": short(1e6 * median(other)), "times": times}
    return found


def load(bench: Bench) -> dict[str, Any]:
    """One adapter more from its folder, digest check included, with N there already.

    All of it happens in one thread, so its processor time is taken too: on a machine with other work the longer side
    is interrupted more often, and its seconds by the clock say too much.
    """
    found: dict[str, Any] = {}
    for resident in (1, bench.many[-2]):
        pool = filled(bench.base, bench.places, resident, "fp32")
        theirs = Peft(bench.base, bench.places, resident, "fp32")
        turn = [0]
        busy: dict[str, list[float]] = {}

        def ours(verify: bool, pool: Any = pool, turn: list[int] = turn, busy: Any = busy) -> float:
            pool._verified.clear()
            place = bench.places[turn[0] % BATCH]
            with _watched(busy.setdefault("ours with canaries" if verify else "ours", [])) as seconds:
                pool.add("more", place, verify=verify)
            pool.remove("more")
            return seconds[0]

        def other(quickly: bool, theirs: Peft = theirs, turn: list[int] = turn, busy: Any = busy) -> float:
            place = bench.places[turn[0] % BATCH]
            with _watched(busy.setdefault("peft low_cpu_mem_usage" if quickly else "peft", [])) as seconds:
                theirs.load("more", place, quickly)
            theirs.model.delete_adapter("more")
            turn[0] += 1
            return seconds[0]

        sides = {
            "ours": partial(ours, False),
            "ours with canaries": partial(ours, True),
            "peft": partial(other, False),
            "peft low_cpu_mem_usage": partial(other, True),
        }
        for side in sides.values():
            side()
        busy.clear()
        blocks = interleave(sides, 3 * bench.blocks, bench.flags.seed)
        seconds = {name: [block[name] for block in blocks] for name in sides}
        best = min(("peft", "peft low_cpu_mem_usage"), key=lambda name: median(seconds[name]))
        found[f"N{resident}"] = {
            "milliseconds": {name: short(1e3 * median(values)) for name, values in seconds.items()},
            "processor_milliseconds": {name: short(1e3 * median(busy[name])) for name in sides},
            "load_average": short(os.getloadavg()[0]),
            "peft": best,
            "times": _ratio(blocks, best, "ours"),
            "times_of_processor": ratio(busy[best], busy["ours"]).as_dict(),
            "times_with_canaries": _ratio(blocks, best, "ours with canaries"),
        }
    return found


@contextmanager
def _watched(busy: list[float]) -> Iterator[list[float]]:
    """The seconds by the clock that the block takes; those of the processor are appended to ``busy``."""
    seconds: list[float] = []
    started, worked = time.perf_counter(), time.thread_time()
    yield seconds
    seconds.append(time.perf_counter() - started)
    busy.append(time.thread_time() - worked)


def memory(bench: Bench) -> dict[str, Any]:
    """Memory that one adapter more takes over the raw bytes of its tensors, in a process of its own."""
    flags = bench.flags
    given = [f"--base={flags.base}", f"--device={flags.device}", f"--work={bench.work}"]
    given += ["--quick"] if flags.quick else []
    return {kind: in_child(Path(__file__), [*given, f"--memory-of={kind}"]) for kind in ("equal", "mixed")}


def everyone(bench: Bench) -> dict[str, Any]:
    """8 adapters on the last 2 blocks, all on each text, against 8 passes."""
    from lora_clf.adapters.pool import AdapterPool
    from lora_clf.inference.precision import cast_frozen

    found: dict[str, Any] = {}
    for precision in bench.precisions:
        for strategy in ("lora-scratch", "last-block"):
            adapters = [adapter(bench.base, seed, "mean", strategy=strategy, blocks=2) for seed in range(8)]
            pool = AdapterPool(bench.base, precision=precision)
            alone = []
            for number, each in enumerate(adapters):
                pool.add(f"n{number}", each)
                view = each.tuned.view.requires_grad_(False)
                cast_frozen(view, precision)
                alone.append(Alone(bench.base, view, each.header, precision, pool._mixture.cost))
            for texts in (bench.batch, bench.texts[:512]):
                one_by_one = [partial(pool.predict, adapter=name) for name in pool.names]
                blocks = bench.interleaved({
                    "ours": partial(pool.predict_all, texts),
                    "passes": partial(_passes, alone, texts),
                    "passes of the pool": partial(_passes, one_by_one, texts),
                })  # fmt: skip
                found[f"{precision} {strategy} {len(texts)} texts"] = {
                    "seconds": {name: short(median(block[name] for block in blocks)) for name in blocks[0]},
                    "times": _ratio(blocks, "passes", "ours"),
                    "times_over_pool": _ratio(blocks, "passes of the pool", "ours"),
                }
    return found


def _passes(classifiers: Sequence[Callable[[Sequence[str]], object]], texts: Sequence[str]) -> None:
    for classifier in classifiers:
        classifier(texts)


JOBS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "throughput": throughput,
    "peft": peft,
    "select": select,
    "load": load,
    "memory": memory,
    "folder": folder,
    "agreement": agreement,
    "everyone": everyone,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; the exit status."""
    flags = parsed(arguments)
    return script.run(flags, lambda place: measure(Bench(flags, flags.work or place)), table)


def measure(bench: Bench) -> None:
    """Measure the jobs that the flags name, put each into the result and print that; or be the child of one."""
    flags = bench.flags
    if flags.memory_of:
        print(json.dumps(memory_of(bench, flags.memory_of)))
        return
    for name in flags.only or JOBS:
        begun = time.monotonic()
        result = {"found": JOBS[name](bench), "quick": flags.quick, "provenance": provenance(bench.base.device)}
        merge_result(flags.out, name, result)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(table(read_json(flags.out)))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    shared = ("data", "base", "device", "seed", "quick", "table")
    parser = script.parser(__doc__, *shared, out=OUT, data="demo", device="cpu")
    parser.add_argument("--only", action="append", choices=[*JOBS], help="one row of the table; may be given again")
    parser.add_argument("--blocks", type=int, help=f"times that every side runs; {BLOCKS} by default")
    parser.add_argument("--work", type=Path, help="where adapters are kept between runs; a temporary folder by default")
    parser.add_argument("--memory-of", choices=["equal", "mixed"], help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

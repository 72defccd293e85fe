"""Which learning rate should each strategy have by default?

Every rate of a grid is tried on folds of the whole SMS file, of TREC's training file and of the small demo corpus.
What counts is the loss and the error on each fold's *validation* part; test parts are not looked at, and TREC's test
file is not even read. Every run is appended to a JSON-lines file as it ends, so several processes can share the work
and an interrupted search goes on where it stopped. The rate chosen for a strategy is the one with the lowest loss
relative to the best of the same fold, averaged over the folds of a task and then over the tasks that were run; a rate
at which one run did not learn (its loss is many times the best's) is out, however good the others are. --seeds looks
for such runs: so many seeds on the whole SMS file in its default split.

With --climb a grid need not be known: three times and a third of the best rate so far are tried until both are worse,
fold after fold. --rows takes that many of a fold's training rows, drawn at random, where the whole takes too long.

    python benchmarks/learning_rates.py run --demo --sms SMSSpamCollection --trec trec-train.csv --strategy lora
    python benchmarks/learning_rates.py run --sms SMSSpamCollection --strategy ia3 dora bitfit
    python benchmarks/learning_rates.py run --sms SMSSpamCollection --climb --rows 800 --out learning_rates_family.jsonl
    python benchmarks/learning_rates.py run --sms SMSSpamCollection --seeds 5 --strategy lora --rates 1e-3 2e-3
    python benchmarks/learning_rates.py table
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import script
from paired import RESULTS, short, write_json

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset

RUNS = RESULTS / "learning_rates.jsonl"
GRID = {
    "last-block": (2e-4, 5e-4, 1e-3, 2e-3),
    "full": (2e-5, 5e-5, 1e-4, 2e-4),
    "lora": (3e-4, 5e-4, 1e-3, 2e-3),
}
"""A strategy that is not here is tried at its own default, which is its paper's until one is found, and around it."""
AROUND = (1 / 9, 1 / 3, 1, 3)
TWINS = ("head-only", "lora-scratch")
"""One is solved for, the other computes what `lora` computes."""
TASKS = ("sms-spam", "trec", "demo")
SEEDS = "sms-spam, seeds"
LOST = 5.0
"""A run did not learn whose loss is so many times that of the best rate on the same fold, or with the same seed."""
FOLDS = 3
MOST = 6
"""Rates that a climb tries on one fold at most."""


def run(arguments: argparse.Namespace) -> None:
    """Train every rate of each strategy's grid on every fold of the tasks that are given."""
    from lora_clf.base.base import load_base
    from lora_clf.data.dataset import folds, load_data, load_table
    from lora_clf.errors import UnsupportedBaseError
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    base = load_base(arguments.base, device=arguments.device)
    sources = (arguments.sms, arguments.trec, "demo" if arguments.demo else None)
    for task, path in ((SEEDS, arguments.sms),) if arguments.seeds else zip(TASKS, sources, strict=True):
        if path is None:
            continue
        if arguments.seeds:
            parts = [load_data(path, protocol="near-copy-free")] * arguments.seeds
        else:
            parts = folds(load_table(path), FOLDS, seed=arguments.seed, name=task)[: arguments.folds]
        for strategy, rate, number in cells(arguments, task, len(parts)):
            data = shortened(parts[number], arguments.rows, number)
            settings = TrainSettings(lr=rate, seed=number, batch_size=arguments.batch_size)
            if arguments.quick:
                settings = replace(settings, epochs=1)
            try:
                result = train(base, data, create(strategy), settings)
            except UnsupportedBaseError as error:
                print(f"{task} {strategy}: left out: {error}", file=sys.stderr)
                continue
            line = {
                "task": task,
                "strategy": strategy,
                "rate": rate,
                "fold": number,
                "batch_size": arguments.batch_size,
                "loss": result.validation["loss"],
                "error": 1 - result.validation["accuracy"],
                "best_epoch": result.best_epoch,
                "train_rows": len(data.train),
                "rows": len(data.validation),
                "precision": result.adapter.header.precision,
                "device": base.device.type,
                "base_digest": base.digest,
            }
            _append(arguments.out, line)
            print(f"{task} {strategy} {rate:g} fold {number}: loss {line['loss']:.4f}", file=sys.stderr, flush=True)


def cells(arguments: argparse.Namespace, task: str, count: int) -> Iterator[tuple[str, float, int]]:
    """What is still to be run of ``task``: strategy, rate and number of the fold."""
    if arguments.climb:
        for number in range(count):
            for strategy in chosen(arguments.strategy):
                yield from climb(arguments, task, strategy, number)
        return
    done = {(r["task"], r["strategy"], r["rate"], r["fold"], r["batch_size"]) for r in _read(arguments.out)}
    for strategy in chosen(arguments.strategy):
        for rate in (arguments.rates or grid(strategy))[: 1 if arguments.quick else None]:
            for number in range(count):
                if (task, strategy, rate, number, arguments.batch_size) not in done:
                    yield strategy, rate, number


def climb(arguments: argparse.Namespace, task: str, strategy: str, number: int) -> Iterator[tuple[str, float, int]]:
    """Rates for one fold, each chosen from the losses of those before, until the best has a worse one on either side.

    The first is the best of the folds before, at the start the strategy's own.
    """
    from lora_clf.tuners import strategies

    for _ in range(MOST):
        losses: dict[int, dict[float, float]] = {}
        for line in _read(arguments.out):
            if (line["task"], line["strategy"], line["batch_size"]) == (task, strategy, arguments.batch_size):
                losses.setdefault(line["fold"], {})[line["rate"]] = line["loss"]
        before = [losses[fold] for fold in sorted(losses) if fold < number]
        here = losses.get(number, {})
        if not here:
            start = min(before[-1], key=before[-1].__getitem__) if before else strategies()[strategy].learning_rate
            yield strategy, start, number
            continue
        best = min(here, key=here.__getitem__)
        wanted = [rate for rate in (_rounded(best / 3), _rounded(best * 3)) if not _has(here, rate)]
        if not wanted:
            return
        yield strategy, wanted[0], number


def _rounded(rate: float) -> float:
    """To one of 1, 3, 10, 30 ... where it lies near, so that steps up and down meet."""
    exponent = math.floor(math.log10(rate))
    lead = round(rate / 10**exponent, 1)
    lead = {0.9: 1.0, 3.3: 3.0, 9.0: 10.0, 6.7: 7.0}.get(lead, lead)
    return short(lead * 10**exponent, 2)


def _has(tried: dict[float, float], rate: float) -> bool:
    return any(abs(math.log(rate / other)) < math.log(1.5) for other in tried)


def shortened(data: Dataset, rows: int | None, seed: int) -> Dataset:
    """``data`` with at most ``rows`` of its training rows, drawn at random, and next to nothing of the test part.

    Nobody looks at the test part here, so answering it would be time lost; the validation part stays whole.
    """
    import numpy as np

    if rows is None or len(data.train) <= rows:
        return data
    places = np.sort(np.random.default_rng(seed).permutation(len(data.train))[:rows])
    return replace(data, train=data.train.take(places.tolist()), test=data.test.take([0]))


def chosen(names: list[str]) -> list[str]:
    """The strategies to search for: those named, or with ``all`` every one but `TWINS`."""
    from lora_clf.tuners import strategies

    return [name for name in strategies() if name not in TWINS] if names == ["all"] else names


def grid(strategy: str) -> tuple[float, ...]:
    """The rates to try: the default is one of them."""
    from lora_clf.tuners import strategies

    rate = strategies()[strategy].learning_rate
    return GRID.get(strategy) or tuple(short(rate * factor, 2) for factor in AROUND)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, line: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write in append mode: several processes may share the file.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, (json.dumps(line, sort_keys=True) + "\n").encode())
    finally:
        os.close(handle)


def table(value: dict[str, Any]) -> str:
    """Every rate that was tried with its loss, the chosen one and whether it lies between worse ones."""
    from lora_clf.reports.table import markdown_table

    rows = []
    for strategy, tasks in sorted(value["rates"].items()):
        (runs,) = tasks.values()  # of one task; several have means of their own, which the summary holds
        best = value["chosen"].get(strategy)
        tried = ", ".join(f"{run['rate']:g}: {run['loss']:.3f}" for run in sorted(runs, key=lambda run: run["rate"]))
        if best is None:  # a run did not learn at any of them
            rows.append([strategy, "none", "no", "–", tried])
            continue
        error = next(run["error"] for run in runs if run["rate"] == best["rate"])
        rows.append(
            [strategy, f"{best['rate']:g}", "no" if best["open"] else "yes", f"{error:.2%}".replace("%", " %"), tried]
        )
    headings = ["strategy", "chosen", "worse on either side", "validation error", "rate: validation loss"]
    return markdown_table(headings, rows, [True, False, False, False, True]) + "\n"


def summarise(arguments: argparse.Namespace) -> None:
    """Print the mean loss and error of every rate, and write the summary with the rate chosen."""
    lines = [line for line in _read(arguments.out) if line["batch_size"] == arguments.batch_size]
    lowest: dict[tuple[str, str, int], float] = {}
    groups: dict[str, dict[float, dict[str, list[dict[str, Any]]]]] = {}
    for line in lines:
        key = (line["strategy"], line["task"], line["fold"])
        lowest[key] = min(lowest.get(key, math.inf), line["loss"])
    lost: dict[tuple[str, float, str], int] = {}
    for line in lines:
        if line["loss"] > LOST * lowest[line["strategy"], line["task"], line["fold"]]:
            run = line["strategy"], line["rate"], line["task"]
            lost[run] = lost.get(run, 0) + 1
    for line in lines:
        if line["task"] == SEEDS:
            continue
        groups.setdefault(line["strategy"], {}).setdefault(line["rate"], {}).setdefault(line["task"], []).append(line)
    summary: dict[str, Any] = {"batch_size": arguments.batch_size, "rates": {}, "chosen": {}}
    ran = [task for task in TASKS if any(line["task"] == task for line in lines)]
    print(f"{'strategy':12} {'rate':>8}  " + "  ".join(f"{task:>27}" for task in TASKS) + "  relative loss")
    for strategy, rates in sorted(groups.items()):
        for rate, tasks in sorted(rates.items()):
            cells, relative = [], []
            for task in TASKS:
                runs = tasks.get(task, [])
                if not runs:
                    cells.append(f"{'-':>27}")
                    continue
                loss = sum(run["loss"] for run in runs) / len(runs)
                error = sum(run["error"] for run in runs) / len(runs)
                relative.append(sum(run["loss"] / lowest[strategy, task, run["fold"]] for run in runs) / len(runs))
                cells.append(f"loss {loss:.4f} error {error:6.2%} ({len(runs)})")
                row = {"rate": rate, "loss": loss, "error": error, "relative": relative[-1], "runs": len(runs)}
                row["lost"] = lost.get((strategy, rate, task), 0)
                summary["rates"].setdefault(strategy, {}).setdefault(task, []).append(row)
            mean = sum(relative) / len(relative)
            out = sum(lost.get((strategy, rate, task), 0) for task in (*TASKS, SEEDS))
            print(f"{strategy:12} {rate:8g}  " + "  ".join(cells) + f"  {mean:.3f}" + (f"  lost {out}" if out else ""))
            chosen = summary["chosen"].get(strategy)
            if not out and len(relative) == len(ran) and (chosen is None or mean < chosen["relative_loss"]):
                summary["chosen"][strategy] = {"rate": rate, "relative_loss": mean}
    for strategy, entry in summary["chosen"].items():
        tried = sorted(groups[strategy])
        # The rate that was chosen is the lowest or the highest of those tried: one further away may be better.
        entry["open"] = entry["rate"] in (tried[0], tried[-1])
    write_json(arguments.out.with_suffix(".json"), summary)
    print("chosen:", {name: entry["rate"] for name, entry in summary["chosen"].items()})
    print("open on one side:", [name for name, entry in summary["chosen"].items() if entry["open"]])


def main() -> int:
    """Run the search, or print what it found; the exit status."""
    from lora_clf.tuners import strategies

    parser = script.parser(__doc__, "base", "device", "seed", "quick", out=RUNS)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--sms", type=Path)
    parser.add_argument("--trec", type=Path)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--strategy", nargs="+", default=["lora"], help="names, or all")
    parser.add_argument("--rates", type=float, nargs="*")
    parser.add_argument("--climb", action="store_true", help="from the best rate so far, by thirds, in place of a grid")
    parser.add_argument("--rows", type=int, help="training rows of a fold, at most")
    parser.add_argument("--seeds", type=int, help="train so many seeds on the whole SMS file, in place of folds")
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the three folds to run")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.folds = 1
    if arguments.seeds and len(arguments.rates or ()) == 1:
        parser.error("--seeds compares rates with each other: give --rates two at least")
    known = {"all", *strategies()}
    if unknown := sorted(set(arguments.strategy) - known):
        parser.error(f"--strategy {', '.join(unknown)}: there are {', '.join(sorted(known))}")
    return script.run(arguments, lambda folder: {"run": run, "table": summarise}[arguments.what](arguments))


if __name__ == "__main__":
    sys.exit(main())

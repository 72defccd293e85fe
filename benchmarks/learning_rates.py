"""Which learning rate should each strategy have by default?

Every rate of a grid is tried on folds of the whole SMS file, of TREC's training file and of the small demo corpus.
What counts is the loss and the error on each fold's *validation* part; test parts are not looked at, and TREC's test
file is not even read. Every run is appended to a JSON-lines file as it ends, so several processes can share the work
and an interrupted search goes on where it stopped. The rate chosen for a strategy is the one with the lowest loss
relative to the best of the same fold, averaged over the folds of a task and then over the tasks.

    python benchmarks/learning_rates.py run --demo --sms SMSSpamCollection --trec trec-train.csv --strategy lora
    python benchmarks/learning_rates.py run --sms SMSSpamCollection --strategy ia3 dora bitfit
    python benchmarks/learning_rates.py table
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RUNS = HERE / "results" / "learning_rates.jsonl"
SUMMARY = HERE / "results" / "learning_rates.json"
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
FOLDS = 3


def run(arguments: argparse.Namespace) -> None:
    """Train every rate of each strategy's grid on every fold of the tasks that are given."""
    from lora_clf.base.base import load_base
    from lora_clf.data.dataset import folds, load_table
    from lora_clf.errors import UnsupportedBaseError
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    done = {(r["task"], r["strategy"], r["rate"], r["fold"], r["batch_size"]) for r in _read(arguments.out)}
    base = load_base(arguments.base, device=arguments.device)
    sources = (arguments.sms, arguments.trec, "demo" if arguments.demo else None)
    for task, path in zip(TASKS, sources, strict=True):
        if path is None:
            continue
        parts = folds(load_table(path), FOLDS, seed=arguments.seed, name=task)[: arguments.folds]
        cells = [
            (strategy, rate, number)
            for strategy in chosen(arguments.strategy)
            for rate in (arguments.rates or grid(strategy))[: 1 if arguments.quick else None]
            for number in range(len(parts))
            if (task, strategy, rate, number, arguments.batch_size) not in done
        ]
        for strategy, rate, number in cells:
            data = parts[number]
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
                "rows": len(data.validation),
                "precision": result.adapter.header.precision,
                "device": base.device.type,
                "base_digest": base.digest,
            }
            _append(arguments.out, line)
            print(f"{task} {strategy} {rate:g} fold {number}: loss {line['loss']:.4f}", file=sys.stderr)


def chosen(names: list[str]) -> list[str]:
    """The strategies to search for: those named, or with ``all`` every one but `TWINS`."""
    from lora_clf.tuners import strategies

    return [name for name in strategies() if name not in TWINS] if names == ["all"] else names


def grid(strategy: str) -> tuple[float, ...]:
    """The rates to try: the default is one of them."""
    from lora_clf.tuners import strategies

    rate = strategies()[strategy].learning_rate
    return GRID.get(strategy) or tuple(float(f"{rate * factor:.2g}") for factor in AROUND)


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


def table(arguments: argparse.Namespace) -> None:
    """Print the mean loss and error of every rate, and write the summary with the rate chosen."""
    lines = [line for line in _read(arguments.out) if line["batch_size"] == arguments.batch_size]
    lowest: dict[tuple[str, str, int], float] = {}
    groups: dict[str, dict[float, dict[str, list[dict[str, Any]]]]] = {}
    for line in lines:
        key = (line["strategy"], line["task"], line["fold"])
        lowest[key] = min(lowest.get(key, math.inf), line["loss"])
        groups.setdefault(line["strategy"], {}).setdefault(line["rate"], {}).setdefault(line["task"], []).append(line)
    summary: dict[str, Any] = {"batch_size": arguments.batch_size, "rates": {}, "chosen": {}}
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
                summary["rates"].setdefault(strategy, {}).setdefault(task, []).append(row)
            mean = sum(relative) / len(relative)
            print(f"{strategy:12} {rate:8g}  " + "  ".join(cells) + f"  {mean:.3f}")
            chosen = summary["chosen"].get(strategy)
            if len(relative) == len(TASKS) and (chosen is None or mean < chosen["relative_loss"]):
                summary["chosen"][strategy] = {"rate": rate, "relative_loss": mean}
    summary_at = SUMMARY if arguments.out == RUNS else arguments.out.with_suffix(".json")
    summary_at.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    print("chosen:", {name: entry["rate"] for name, entry in summary["chosen"].items()})


def main() -> None:
    """Run the search, or print what it found."""
    from lora_clf.tuners import strategies

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--sms", type=Path)
    parser.add_argument("--trec", type=Path)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--strategy", nargs="+", default=["lora"], help="names, or all")
    parser.add_argument(
        "--quick", action="store_true", help="one epoch, rate and fold: to see that it runs; with --out"
    )
    parser.add_argument("--rates", type=float, nargs="*")
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the three folds to run")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RUNS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.folds = 1
        if arguments.out.resolve().is_relative_to(HERE / "results"):
            parser.error("--quick is not for figures: give an --out elsewhere")
    known = {"all", *strategies()}
    if unknown := sorted(set(arguments.strategy) - known):
        parser.error(f"--strategy {', '.join(unknown)}: there are {', '.join(sorted(known))}")
    {"run": run, "table": table}[arguments.what](arguments)


if __name__ == "__main__":
    main()

"""Which strategy for a number, for ordered classes, for several labels? Scored beside TF-IDF on the same rows.

    python benchmarks/task_scores.py runs/sst5 --tasks regression,ordinal,multiclass --out runs/tasks-sst5.json
    python benchmarks/task_scores.py runs/questions --strategies head-only,last-block,lora --out runs/q.json

The folders come from ``task_tables.py``. Each run is written when it is done, and the same command goes on where it was
stopped. The interval of a score is over test rows (and seeds, where there are several); the difference to TF-IDF is
paired by row. Where labels are numbers, ``as_ratings`` holds the answers of every task on one footing: numbers rounded
to the nearest rating, classes as their number. Seconds are of a busy machine and only say how long one waits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import script

from lora_clf import load_base, load_data, train
from lora_clf.comparison import baselines, task_baselines
from lora_clf.data.cache import write_whole
from lora_clf.data.dataset import Dataset
from lora_clf.evaluation.intervals import cost_interval, crossed_mean
from lora_clf.experiment.environment import environment
from lora_clf.metrics.ordinal import ordinal_scores
from lora_clf.tasks.base import Task
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create

BASELINES = ("constant", "tfidf")


def main() -> None:
    """Run what is missing."""
    parser = script.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default="auto")
    parser.add_argument("--strategies", default="last-block,lora")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    found: dict[str, Any] = {"settings": {}, "runs": {}}
    if flags.out.exists():
        found = json.loads(flags.out.read_text(encoding="utf-8"))
    base = load_base("minilm")
    for name in flags.tasks.split(","):
        data = load_data(
            table(flags.folder, "train"),
            validation=table(flags.folder, "validation"),
            test=table(flags.folder, "test"),
            task=name,
        )
        name = data.task.name
        known = found["settings"].get(name, {"data_digest": data.digest, "epochs": flags.epochs})
        if (known["data_digest"], known["epochs"]) != (data.digest, flags.epochs):
            sys.exit(f"{flags.out} holds runs on other data or with other epochs. Name another file.")
        found["settings"][name] = {
            "task": name,
            "rows": {part: len(rows) for part, rows in data.parts.items()},
            "data_digest": data.digest,
            "epochs": flags.epochs,
            "precision": flags.precision,
            "primary": data.task.primary.key,
            "environment": environment(base),
        }
        costs: dict[str, list[Any]] = {}
        wanted = [(plain, 0) for plain in BASELINES]
        wanted += [(s, seed) for seed in range(flags.seeds) for s in flags.strategies.split(",")]
        for strategy, seed in wanted:
            key = f"{name} {strategy} {seed}"
            if key not in found["runs"]:
                print(key, file=sys.stderr, flush=True)
                found["runs"][key] = run(base, data, strategy, seed, flags)
                save(flags.out, found)
            costs.setdefault(strategy, []).append(found["runs"][key]["costs"])
        found["settings"][name]["compared"] = compared(costs, data.task)
        save(flags.out, found)


def table(folder: Path, part: str) -> Path:
    """The part's file, whatever its format."""
    return next(folder / f"{part}{ending}" for ending in (".csv", ".jsonl") if (folder / f"{part}{ending}").exists())


def run(base: Any, data: Dataset, strategy: str, seed: int, flags: Any) -> dict[str, Any]:
    """One run's scores on the test rows, and what each row cost."""
    task, targets = data.task, {name: data.task.targets(part.labels) for name, part in data.parts.items()}
    facts: dict[str, Any] = {}
    if strategy in BASELINES:
        validation, test, facts, settled = plain(data, strategy)
        task = settled or task.settled(targets["validation"], validation)
    else:
        settings = TrainSettings(epochs=flags.epochs, seed=seed, precision=flags.precision)
        result = train(base, data, create(strategy), settings)
        task, test = result.adapter.header.answering, result.test_logits
        facts = {
            "seconds": round(result.training_seconds, 1),
            "trainable_parameters": result.trainable_parameters,
            "best_epoch": result.best_epoch,
            "training": dict(result.adapter.header.training),
        }
    scores = {name: value for name, value in task.assess(targets["test"], test).items() if name != "per_class"}
    digits = 0 if task.primary.share or isinstance(task, Ordinal) else 4
    costs = [int(cost) if not digits else round(float(cost), digits) for cost in task.costs(targets["test"], test)]
    return {**facts, "scores": scores, **as_ratings(task, data, test), "costs": costs}


def plain(data: Dataset, name: str) -> tuple[Any, Any, dict[str, Any], Task | None]:
    """Validation and test logits of a baseline, facts, and the task where validation has nothing to settle."""
    if data.task.softmax:
        shares = (baselines.majority if name == "constant" else baselines.tfidf)(data)
        logits = [
            np.log(np.maximum(each, 1e-30)) for each in (shares.validation_probabilities, shares.test_probabilities)
        ]
        return logits[0], logits[1], {"seconds": round(shares.seconds, 1), "choice": shares.choice}, None
    found = task_baselines.constant(data) if name == "constant" else task_baselines.tfidf(data)
    facts = {"seconds": round(found.seconds, 1), "choice": found.choice}
    return found.validation_logits, found.test_logits, facts, found.settled


def as_ratings(task: Task, data: Dataset, logits: Any) -> dict[str, Any]:
    """What the answers are as ratings, where labels are whole numbers from 0."""
    ratings = sorted({label for part in data.parts.values() for label in part.labels})
    if not all(label.isdigit() for label in ratings) or ratings != [str(place) for place in range(len(ratings))]:
        return {}
    if isinstance(task, Regression):
        guess = np.clip(np.rint(task.values(logits)), 0, len(ratings) - 1).astype(int)
    else:
        guess = task.ranks(logits) if isinstance(task, Ordinal) else logits.argmax(axis=1)
    truth = np.array([int(label) for label in data.test.labels])
    names = ("mae", "accuracy", "within_one", "quadratic_kappa", "macro_f1", "spearman")
    return {"as_ratings": {name: ordinal_scores(truth, guess, ratings)[name] for name in names}}


def compared(costs: dict[str, list[Any]], task: Task) -> dict[str, Any]:
    """The primary score with its interval, and the difference to TF-IDF, rows paired; positive is better."""
    sign, offset = (-1.0, 1.0) if task.primary.higher else (1.0, 0.0)
    rows = {}
    for name, each in costs.items():
        table = np.array(each, dtype=float)
        rival = np.array(costs["tfidf"], dtype=float)
        mean = float(table.mean())
        both = 1.0 if task.primary.share else (mean + float(rival.mean())) / 2
        cost = cost_interval(table, None, mean, share=task.primary.share)
        ends = sorted(offset + sign * end for end in (cost.low, cost.high))
        better = crossed_mean((rival - table) / both)
        rows[name] = {
            "score": [round(value, 4) for value in (offset + sign * mean, *ends)],
            "better_than_tfidf": [round(value * both, 4) for value in (better.value, better.low, better.high)],
            "seeds": len(each),
        }
    return rows


def save(out: Path, found: dict[str, Any]) -> None:
    """Write what is there so far."""
    write_whole(out, (json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()

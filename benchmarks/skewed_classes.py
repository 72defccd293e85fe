"""What do class weights, balanced sampling and focal loss buy where one label is rare? SMS spam at its natural 13 %.

    python benchmarks/skewed_classes.py --data SMSSpamCollection      # 4 sides, 3 seeds; an hour on one idle thread
    python benchmarks/skewed_classes.py --quick                       # tiny base, a few messages: that it runs

Every recipe is trained with each seed on the same split (near copies on one side) and scored on the same test rows; so
is a threshold chosen on validation for the plain run, which costs no training. Intervals resample near copies of test
rows together, and seeds; differences are paired. A run is kept in the result as it ends, and the same command again
does only what is missing. The result holds row numbers, digests and logits, never a message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import script
from kept_runs import kept, runs_of, subject
from paired import RESULTS, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

OUT = RESULTS / "skewed_classes.json"
PLAIN, THRESHOLD = "none", "threshold for F1"
RECIPES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "balanced weights": {"class_weight": "balanced"},
    "balanced sampling": {"sampling": "balanced"},
    "focal loss": {"loss": "focal", "focal_gamma": 2.0},
}
# By name: the strategy, its flags and those of the loop. A head alone is solved for, or trained in steps by --lr.
SIDES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "head-only": ("head-only", {}, {}),
    "head in steps": ("head-only", {}, {"lr": 0.01, "epochs": 20}),
    "last-block": ("last-block", {}, {}),
    "lora": ("lora", {"blocks": 2}, {}),
}
SOLVED = (PLAIN, "balanced weights")  # the recipes under which head-only is a convex problem of its own
SCORES = ("recall", "precision", "macro_f1", "mcc", "pr_auc", "brier")
TITLES = ("found %", "precision %", "macro-F1 %", "MCC", "PR-AUC", "Brier")
RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; the exit status."""
    parser = script.parser(__doc__, "data", "base", "device", "quick", out=OUT)
    parser.add_argument("--sides", default=",".join(SIDES), help="in the order in which they are run")
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args(arguments)
    return script.run(flags, lambda folder: measure(flags, folder))


def measure(flags: argparse.Namespace, folder: Path) -> None:
    """Run what is missing, write the result after each run, and print it."""
    base, data = subject(flags, folder)
    settings = {
        "sides": {side: list(parts) for side, parts in SIDES.items()},
        "recipes": RECIPES,
        "positive_label": data.positive_label,
        "training_rows": {label: int((data.label_ids(data.train) == n).sum()) for n, label in enumerate(data.labels)},
        "quick": flags.quick,
        "truth": [int(label == data.positive_label) for label in data.test.labels],
    }
    found = kept(flags.out, base, data, settings)
    for side in flags.sides.split(","):
        for seed in range(flags.seeds):
            for recipe in SOLVED if side == "head-only" else RECIPES:
                name = f"{side}/{recipe}/{seed}"
                if name not in found["runs"]:
                    found["runs"][name] = run(base, data, flags, side, recipe, seed)
                    write_json(flags.out, found)
                print(f"{name}: {found['runs'][name]['validation']}", file=sys.stderr, flush=True)
    found["scores"] = summary(found)
    write_json(flags.out, found)
    print(table(found))


def run(base: Base, data: Dataset, flags: argparse.Namespace, side: str, recipe: str, seed: int) -> dict[str, Any]:
    """Train and answer once; the logits are those of the positive label less the other's, in hundredths."""
    from lora_clf.metrics.thresholds import best_threshold
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    strategy, own, loop = SIDES[side]
    settings = TrainSettings(seed=seed, **{**RECIPES[recipe], **loop, **({"epochs": 1} if flags.quick else {})})
    result = train(base, data, create(strategy, **own), settings)
    column = data.labels.index(str(data.positive_label))
    apart = {
        name: each[:, column].astype(np.float64) - each[:, 1 - column]
        for name, each in (("validation", result.validation_logits), ("test", result.test_logits))
    }
    hits = np.array([label == data.positive_label for label in data.validation.labels])
    best = best_threshold(hits, shares(apart["validation"]), "f1")
    return {
        "logits": [round(100 * value) for value in apart["test"]],
        "cut": None if best is None else round(100 * float(np.log(best.value / (1 - best.value)))),
        "best_epoch": result.best_epoch,
        "validation": {name: round(result.validation[name], 4) for name in ("loss", "macro_f1", "mcc")},
        "training_seconds": round(result.training_seconds, 1),
    }


def shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of the positive label."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return found


def scores(truth: NDArray[np.int64], logits: NDArray[np.float64], cut: float = 0.0) -> NDArray[np.float64]:
    """The `SCORES` of one run: truth (N,), logits (N,) -> (6,)."""
    from lora_clf.metrics.classification import average_precision, confusion_matrix, macro_f1, matthews

    guess = (logits >= cut).astype(np.int64)
    matrix = confusion_matrix(truth, guess, 2)
    hit, found = float((guess * truth).sum()), float(guess.sum())
    return np.array(
        [
            hit / max(1.0, float(truth.sum())),
            hit / found if found else 0.0,
            macro_f1(matrix),
            matthews(matrix),
            average_precision(truth == 1, logits),
            float(((shares(logits) - truth) ** 2).mean()),
        ]
    )


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Every strategy and recipe: scores with 95 % intervals, and what they are more than without."""
    truth = np.array(found["truth"])
    random = np.random.default_rng(0)
    picks = [np.arange(len(truth)), *resamples(np.array(found["groups"]), random)]
    told: dict[str, Any] = {}
    for side in found["sides"]:
        runs = {recipe: runs_of(found, f"{side}/{recipe}") for recipe in found["recipes"]}
        count = min((len(each) for each in runs.values() if each), default=0)
        if not count:
            continue
        chosen = random.integers(0, count, (RESAMPLES, count))  # seeds, the same for all recipes
        samples = {recipe: averaged(truth, each[:count], picks, chosen) for recipe, each in runs.items() if each}
        samples[THRESHOLD] = averaged(truth, runs[PLAIN][:count], picks, chosen, cut=True)
        for recipe, each in samples.items():
            more = each - samples[PLAIN]
            told[f"{side}/{recipe}"] = {
                "seeds": count,
                **{name: _interval(each[:, place]) for place, name in enumerate(SCORES)},
                "more": {name: _interval(more[:, place]) for place, name in enumerate(SCORES)},
            }
    return told


def resamples(groups: NDArray[np.int64], random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Test rows drawn anew, a whole group of near copies at a time."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    draws = random.integers(0, len(members), (RESAMPLES, len(members)))
    return [np.concatenate([members[group] for group in draw]) for draw in draws]


def averaged(
    truth: NDArray[np.int64],
    runs: Sequence[Mapping[str, Any]],
    picks: Sequence[NDArray[np.int64]],
    chosen: NDArray[np.int64],
    *,
    cut: bool = False,
) -> NDArray[np.float64]:
    """The mean scores over seeds: of all rows, then of each resample of rows and seeds: (1 + R, 6)."""
    each = np.stack(
        [
            [
                scores(truth[rows], np.array(run["logits"])[rows] / 100, (run["cut"] or 0) / 100 if cut else 0.0)
                for rows in picks
            ]
            for run in runs
        ]
    )  # (S, 1 + R, 6)
    drawn = np.take_along_axis(each[:, 1:], chosen.T[:, :, None], axis=0)  # (S, R, 6)
    return np.concatenate([each[:, :1].mean(axis=0), drawn.mean(axis=0)])


def _interval(sample: NDArray[np.float64]) -> list[float]:
    """A score and its 95 % interval."""
    return [round(float(value), 5) for value in (sample[0], *np.quantile(sample[1:], (0.025, 0.975)))]


def table(found: Mapping[str, Any]) -> str:
    """The result as Markdown: a line a recipe, then in words what is more than chance explains."""
    from lora_clf.reports.table import markdown_table

    lines, told = [], []
    names = [f"{side}/{recipe}" for side in SIDES for recipe in (*RECIPES, THRESHOLD)]
    for name in names:
        if (each := found["scores"].get(name)) is None:
            continue
        side, recipe = name.split("/")
        lines.append((side, recipe, *(_shown(key, each[key]) for key in SCORES)))
        if recipe != PLAIN and (apart := _apart(each["more"])):
            told.append(f"{side}, {recipe}: {', '.join(apart)}")
    text = markdown_table(["trained", "recipe", *TITLES], lines, [True, True] + len(TITLES) * [False]).rstrip("\n")
    against = f"Against the same with none of it, on the same rows ({_seeds(found)})"
    said = "; ".join(told) or "no score differs by more than its 95 % interval"
    absent = [side for side in SIDES if not any(name.startswith(f"{side}/") for name in found["scores"])]
    missing = f" Not run yet: {', '.join(absent)}." if absent else ""
    rows, hits = len(found["truth"]), sum(found["truth"])
    training = ", ".join(f"{count:,} {label}" for label, count in found["training_rows"].items())
    return (
        f"{text}\n\n{against}: {said}. All other differences may be chance.\n\n"
        f"{found['base']}, data {found['data']}, {found['protocol']}: trained on {training}; tested on {rows:,} rows, "
        f"{hits:,} of them {found['positive_label']}; data digest {found['data_digest'][:12]}. The "
        f"head in steps: 20 epochs at 0.01; lora: the last two blocks. Brier: lower is better.{missing}"
    )


def _shown(key: str, score: Sequence[float]) -> str:
    scale, digits = (1, 3) if key in ("mcc", "pr_auc") else (1, 4) if key == "brier" else (100, 1)
    value, low, high = (f"{scale * number:.{digits}f}" for number in score)
    return f"{value} ({low} to {high})"


def _apart(more: Mapping[str, Sequence[float]]) -> list[str]:
    """The scores whose difference is more than chance explains, in words."""
    found = []
    for key, title in zip(SCORES, TITLES, strict=True):
        value, low, high = more[key]
        if low > 0 or high < 0:
            scale, digits = (1, 4) if key in ("mcc", "pr_auc", "brier") else (100, 1)
            found.append(
                f"{title.removesuffix(' %')} {scale * value:+.{digits}f} ({scale * low:+.{digits}f} to "
                f"{scale * high:+.{digits}f})"
            )
    return found


def _seeds(found: Mapping[str, Any]) -> str:
    counts = sorted({each["seeds"] for each in found["scores"].values()})
    return f"{' or '.join(map(str, counts))} seed{'s' if counts != [1] else ''}"


if __name__ == "__main__":
    sys.exit(main())

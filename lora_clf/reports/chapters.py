"""What a report says of the learning curve, of tuning and of few false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.curve import Level, Point, sentence_of, sizes_of
from lora_clf.comparison.plan import LEAST_STEPS
from lora_clf.data.subsets import RULE
from lora_clf.evaluation.recall import RATES, negatives_needed
from lora_clf.reports.page import Block, Grid, Heading, Notes, Paragraph
from lora_clf.reports.plots import CURVE, shown
from lora_clf.reports.table import NONE, seconds_text

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison
    from lora_clf.comparison.plan import Plan
    from lora_clf.comparison.trials import TrialOutcome, Tuning
    from lora_clf.tasks.base import Measure

OVERLAP = (
    "The intervals of the levels cover other draws and seeds, not other test rows; those of the differences both. The "
    "nearer k comes to all rows the more the draws have in common, and the less their spread says."
)


def curve_blocks(comparison: Comparison, plot_format: str) -> list[Block]:
    """The section on the learning curve; nothing where there is none."""
    if comparison.curve is None:
        return []
    headings, accuracy = curve_table(comparison, "accuracy")
    _, f1 = curve_table(comparison, "macro_f1")
    gaps = [row for row in curve_table(comparison, "to_rival")[1] if set(row[1:]) != {NONE}]
    baselines = [place for place, row in enumerate(accuracy) if _kinds(comparison)[row[0]] == "baseline"]
    rule = frozenset(baselines[:1])
    blocks: list[Block] = [
        Heading("With fewer examples"),
        Paragraph(sentence_of(comparison)),
        *shown(comparison, [CURVE], plot_format),
        Paragraph("Test accuracy, %: mean over draws, and its 95 % interval, by examples of each class."),
        Grid(headings, accuracy, rule=rule),
        Paragraph("Test macro-F1, %, likewise."),
        Grid(headings, f1, rule=rule),
    ]
    if gaps:
        blocks += [
            Paragraph(
                "Accuracy minus that of TF-IDF + LR on the same examples, points; the intervals are corrected for all "
                "strategies and sizes."
            ),
            Grid(headings, gaps),
        ]
    curve = comparison.plan.curve
    assert curve is not None
    counts = ", ".join(f"{curve.draws_of(k)} draws of {k}" for k in curve.sizes)
    if "epochs" not in comparison.plan.training:
        counts += f"; of few examples as many epochs as make {LEAST_STEPS} steps"
    warnings = sorted({line for data in comparison.curve.datasets.values() for line in data.warnings})
    return [*blocks, Notes([RULE, f"{counts}; all points are tested on the same rows.", OVERLAP, *warnings])]


def curve_table(comparison: Comparison, name: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a contender or baseline a row, a size a column; ``name`` is a field of `Point`."""
    sizes = sizes_of(comparison)
    points: dict[str, dict[int | None, Point]] = {}
    for point in comparison.curve_points:
        points.setdefault(point.label, {})[point.k] = point
    rows = []
    for label, mine in points.items():
        levels: list[Level | None] = [getattr(mine[k], name) if k in mine else None for k in sizes]
        rows.append([label, *(_level(level, signed=name == "to_rival") for level in levels)])
    return ["strategy", *("all" if k is None else str(k) for k in sizes)], rows


def _level(level: Level | None, *, signed: bool) -> str:
    if level is None:
        return NONE
    sign = "+" if signed else ""
    mean = f"{level.mean * 100:{sign}.1f}"
    if level.low is None or level.high is None or (not level.sd and not signed):
        return mean  # runs that are all alike, as those of a solver, say nothing of how far others may be
    return f"{mean} ({level.low * 100:{sign}.1f} to {level.high * 100:{sign}.1f})"


def _kinds(comparison: Comparison) -> dict[str, str]:
    return {point.label: point.kind for point in comparison.curve_points}


def tuning_blocks(plan: Plan, tunings: Sequence[Tuning], measure: Measure) -> list[Block]:
    """The section on what was tried and chosen before the comparison; nothing where there was no tuning."""
    if plan.tune is None:
        return []
    unit = " %" if measure.share else ""
    scores = (f"held-out {measure.title}{unit}", f"of the first{unit}")
    headings = ["strategy", "training part", "trials", "chosen", *scores, "seconds"]

    def figure(trial: TrialOutcome | None) -> str:
        if trial is None or trial.cost is None:
            return NONE
        score = 1 - trial.cost if measure.higher else trial.cost
        return f"{score * 100:.1f}" if measure.share else f"{score:.3f}"

    rows = []
    for tuning in tunings:
        part = f"split {tuning.split_seed}" + ("" if tuning.fold is None else f", fold {tuning.fold}")
        first, chosen = next((trial for trial in tuning.trials if trial.number == 1), None), tuning.chosen
        failed = sum(trial.error is not None for trial in tuning.trials)
        count = f"{len(tuning.trials)} of {tuning.budget}" + (f", {failed} diverged" if failed else "")
        figures = [figure(chosen), figure(first), seconds_text(tuning.seconds)]
        rows.append([tuning.label, part, count, _chosen(tuning, chosen), *figures])
    return [
        Heading("What was tuned"),
        Paragraph(
            f"{plan.tune} trials for every strategy on every training part: the first with its usual "
            "settings, the others drawn at random from what it declares, without repeats; one that declares less has "
            "fewer. Each was scored on folds inside the training part. Seconds of tuning are in no other column."
        ),
        Grid(headings, rows, [True, True, False, True]),
    ]


def _chosen(tuning: Tuning, chosen: TrialOutcome | None) -> str:
    if chosen is None:
        return "usual settings: every trial failed"
    usual: dict[str, Any] = next((trial.settings for trial in tuning.trials if trial.number == 1), {})
    changed = {name: value for name, value in chosen.settings.items() if value != usual.get(name)}
    if chosen.rate is not None:
        changed["lr"] = chosen.rate
    return (
        ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in changed.items()
        )
        or "usual settings"
    )


def alarm_blocks(comparison: Comparison) -> list[Block]:
    """The section on recall at few false alarms; nothing where there is no positive class."""
    positive = comparison.positive_label
    if positive is None or not comparison.pools:
        return []
    heading = Heading("With few false alarms")
    if comparison.plan.data.folds is None:
        (part, *_) = next(iter(comparison.pools.values())).predictions
        negatives = int((part.labels != comparison.labels.index(positive)).sum())
        needs = " and ".join(f"{negatives_needed(rate):,} negatives at {_share(rate)}" for rate in RATES)
        return [
            heading,
            Paragraph(
                f"How much {positive} is found at a given share of false alarms is read off predictions for all rows "
                f"alone, each by a classifier that has not seen it: needs {needs}, has none, as this is one split (its "
                f"test part has {negatives:,}). --folds 5 makes every row a test row once."
            ),
        ]
    table = [[label, *(one.text for one in found)] for label, found in comparison.found_at.items()]
    return [
        heading,
        Paragraph(
            f"The share of {positive}, in %, at or above the lowest threshold that flags at most so many of the "
            "others, from the predictions for all rows, each by a classifier that has not seen it. The intervals are "
            "for other texts, with the threshold found anew; with several seeds from the lowest end to the highest. "
            "Fewer than 10 false alarms say nothing of a rate."
        ),
        Grid(["strategy", *(f"found at {_share(rate)} false alarms, %" for rate in RATES)], table),
    ]


def _share(rate: float) -> str:
    return f"{rate * 100:g} %"

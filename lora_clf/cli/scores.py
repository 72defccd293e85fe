"""How scores are shown: one line a part, then one line a class or label, with the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_clf.cli.output import line, measured, percent, table

if TYPE_CHECKING:
    from lora_clf.tasks.base import Task

MATRIX = 12  # labels; a wider confusion matrix fits no terminal
SHOWN = 30  # labels; of more those that go worst are shown
FIRST = 20  # labels, where a text may have several; of more the first are shown


def show_scores(task: Task | type[Task], parts: Mapping[str, Mapping[str, Any]], positive: str | None) -> None:
    """Print what the `assess` of ``task`` found for each part; ``positive`` is the label that is looked for."""
    shown = [each for each in task.shown if each.table and (positive is not None or not each.positive)]
    table(
        ("part", "texts", *(each.heading(positive) for each in shown)),
        [
            (name, scores["n"], *(measured(scores.get(each.key), each.share) for each in shown))
            for name, scores in parts.items()
        ],
    )
    for name, scores in parts.items():
        if "per_label" in scores:
            line()
            _show_labels(name, scores)
        elif "per_class" in scores:  # which the header of an adapter with very many labels does not hold
            line()
            (show_classes if task.softmax else _show_ranks)(name, scores)
    line()


def show_classes(name: str, scores: Mapping[str, Any]) -> None:
    """Print each class' scores beside its row of the confusion matrix (rows: true label)."""
    labels, of = list(scores["labels"]), scores["per_class"]
    matrix = len(labels) <= MATRIX
    rows = list(zip(labels, scores["confusion_matrix"], strict=True))
    if len(labels) > SHOWN:  # those without a text last
        rows = sorted(rows, key=lambda row: (not of[row[0]]["support"], of[row[0]]["f1"] or 0.0))[:SHOWN]
    table(
        (f"{name}: true label", "precision", "recall", "F1", *(f"as {label}" for label in labels if matrix)),
        [
            (
                label,
                percent(of[label]["precision"]),
                percent(of[label]["recall"]),
                percent(of[label]["f1"]),
                *(counts if matrix else ()),
            )
            for label, counts in rows
        ],
    )
    if len(labels) > SHOWN:
        line(f"These are the {SHOWN} of {len(labels)} labels with the lowest F1; --json has all.")
    if not matrix:
        line(f"The confusion matrix of {len(labels)} labels is in --json.")


def _show_labels(name: str, scores: Mapping[str, Any]) -> None:
    cuts = scores.get("thresholds", {})
    table(
        (f"{name}: label", "rows", "precision", "recall", "F1", "PR-AUC", "given from"),
        [
            (label, each["support"], *(percent(each[key]) for key in ("precision", "recall", "f1")),
             f"{each['pr_auc']:.4f}", f"{cuts.get(label, 0.5):.3g}")
            for label, each in list(scores["per_label"].items())[:FIRST]
        ],
    )  # fmt: skip
    if len(scores["per_label"]) > FIRST:
        line(f"{len(scores['per_label']) - FIRST} more labels are in --json.")


def _show_ranks(name: str, scores: Mapping[str, Any]) -> None:
    labels = list(scores["labels"])
    wide = len(labels) > MATRIX
    table(
        (f"{name}: true class", "precision", "recall", *(() if wide else (f"as {label}" for label in labels))),
        [
            (label, percent(scores["per_class"][label]["precision"]), percent(scores["per_class"][label]["recall"]),
             *(() if wide else counts))
            for label, counts in zip(labels, scores["confusion_matrix"], strict=True)
        ],
    )  # fmt: skip
    if wide:
        line(f"The confusion matrix of {len(labels)} classes is in --json.")

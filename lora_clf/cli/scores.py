"""How scores are shown: one line a part, one line a class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_clf.cli.output import line, percent, table
from lora_clf.cli.task_scores import of_task, show_task_scores

MATRIX = 12  # labels; a wider confusion matrix fits no terminal
SHOWN = 30  # labels; of more those that go worst are shown


def show_scores(parts: Mapping[str, Mapping[str, Any]], positive: str | None) -> None:
    """Print what `metrics.summarise` found for each part; or what another task's `assess` did."""
    if parts and of_task(next(iter(parts.values()))) is not None:
        show_task_scores(parts)
        return
    columns = ["part", "texts", "accuracy", "macro-F1"]
    if positive is not None:
        columns += [f"{positive} precision", f"{positive} recall", "false alarms"]
    rows = []
    for name, scores in parts.items():
        row: list[object] = [name, scores["n"], percent(scores["accuracy"]), percent(scores["macro_f1"])]
        if positive is not None:
            keys = ("precision", "recall", "false_positive_rate")
            row += [percent(scores.get(key)) for key in keys]
        rows.append(row)
    table(columns, rows)
    for name, scores in parts.items():
        if "per_class" in scores:  # which the header of an adapter with very many labels does not hold
            line()
            show_classes(name, scores)
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

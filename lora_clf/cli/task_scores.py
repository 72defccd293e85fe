"""How the scores of numbers, ordered classes and several labels are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_clf.cli.output import line, percent, shortened, table

if TYPE_CHECKING:
    from lora_clf.tasks.base import Measure

SHOWN, MATRIX = 20, 12

# What is shown of each part, by a score that only this task has: key, title, whether it is a share.
COLUMNS: Mapping[str, Sequence[tuple[str, str, bool]]] = {
    "r2": (
        ("mae", "MAE", False),
        ("rmse", "RMSE", False),
        ("r2", "R2", False),
        ("pearson", "Pearson", False),
        ("spearman", "Spearman", False),
    ),
    "quadratic_kappa": (
        ("mae", "MAE in ranks", False),
        ("quadratic_kappa", "quadratic kappa", False),
        ("accuracy", "accuracy", True),
        ("within_one", "at most one off", True),
        ("macro_f1", "macro-F1", True),
    ),
    "subset_accuracy": (
        ("subset_accuracy", "all labels right", True),
        ("micro_f1", "micro-F1", True),
        ("macro_f1", "macro-F1", True),
        ("hamming_loss", "Hamming loss", False),
        ("macro_pr_auc", "PR-AUC", False),
    ),
}


def of_task(scores: Mapping[str, Any]) -> Sequence[tuple[str, str, bool]] | None:
    """The columns for scores of one of these tasks; None where they are of one label of several."""
    return next((columns for key, columns in COLUMNS.items() if key in scores), None)


def show_task_scores(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a line a part, then what is known of each class or label."""
    columns = of_task(next(iter(parts.values()))) or ()
    table(
        ("part", "texts", *(title for _, title, _ in columns)),
        [
            (name, scores["n"], *(_shown(scores[key], share) for key, _, share in columns))
            for name, scores in parts.items()
        ],
    )
    for name, scores in parts.items():
        if "per_label" in scores:
            line()
            _show_labels(name, scores)
        if "confusion_matrix" in scores:
            line()
            _show_ranks(name, scores)
    line()


def _show_labels(name: str, scores: Mapping[str, Any]) -> None:
    cuts = scores.get("thresholds", {})
    table(
        (f"{name}: label", "rows", "precision", "recall", "F1", "PR-AUC", "given from"),
        [
            (label, each["support"], *(percent(each[key]) for key in ("precision", "recall", "f1")),
             f"{each['pr_auc']:.4f}", f"{cuts.get(label, 0.5):.3g}")
            for label, each in list(scores["per_label"].items())[:SHOWN]
        ],
    )  # fmt: skip
    if len(scores["per_label"]) > SHOWN:
        line(f"{len(scores['per_label']) - SHOWN} more labels are in --json.")


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


def show_task_breakdown(
    name: str, report: Mapping[str, Any], measure: Measure, errors: int, rests: str, *, numbers: bool = False
) -> None:
    """Print what stands behind a part's scores, and ``errors`` of its errors.

    ``rests`` says what its intervals rest on; whether answers are ``numbers``.
    """
    line(f"In detail, on {name}: {measure.title} (intervals: 95 %, over texts; {rests}):")
    groups = [("all", [{**report["overall"], "of": "all rows"}])]
    groups.append(("true label", [{**each, "of": each["label"]} for each in report["by_class"]]))
    groups.append(("length", [{**e, "of": f"{e['from']:,} to {e['to']:,} tokens"} for e in report["by_length"]]))
    groups += [(column, [{**e, "of": e["value"]} for e in values]) for column, values in report["by"].items()]
    for title, rows in groups:
        line()
        table(
            (title, "texts", measure.title, "95 %"),
            [(e["of"], e["n"], _shown(e["score"], measure.share), _interval(e, measure)) for e in rows[:SHOWN]],
        )
        if len(rows) > SHOWN:
            line(f"{len(rows) - SHOWN} more are in --json.")
    if report["reliability"]:
        line()
        table(
            ("probability", "holds", "answers"),
            [(f"{each['probability']:.3f}", percent(each["holds"]), each["n"]) for each in report["reliability"]],
            title="How far probabilities can be believed",
        )
    if report["thresholds"]:
        line()
        table(
            ("every label from", "given", "precision", "recall", "F1"),
            [
                (f"{e['threshold']:.2f}", e["flagged"], *(percent(e[key]) for key in ("precision", "recall", "f1")))
                for e in report["thresholds"]
            ],
        )
    line()
    if not report["errors"]:
        line("Errors: none.")
        return
    if errors:
        table(
            ("row", "label", "predicted", "cost", "text"),
            [
                (
                    e["row"],
                    e["label"] or "(none)",
                    _answer(e["predicted"], numbers),
                    f"{e['cost']:.4g}",
                    shortened(e["text"]),
                )
                for e in report["errors"][:errors]
            ],
            title=f"Errors: {len(report['errors']):,}, the worst first",
        )
    if len(report["errors"]) > errors:
        line(f"{len(report['errors']) - errors:,} more errors are in --json.")


def _shown(value: float | None, share: bool) -> str:
    if value is None:
        return ""
    return percent(value) if share else f"{value:.4f}"


def _interval(row: Mapping[str, Any], measure: Measure) -> str:
    if row["low"] is None:
        return ""
    if measure.share:
        return f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
    return f"{row['low']:.3f} to {row['high']:.3f}"


def _answer(predicted: str, number: bool) -> str:
    return f"{float(predicted):.4f}" if number else predicted or "(none)"

"""How `evaluate` tells where a classifier is right and where not: by class, length and column; thresholds; errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_clf.cli.output import line, measured, percent, shortened, table

if TYPE_CHECKING:
    from lora_clf.tasks.base import Measure

SHOWN = 20  # values of a column, classes


def show_breakdown(
    name: str,
    scores: Mapping[str, Any],
    report: Mapping[str, Any],
    positive: str | None,
    errors: int,
    rests: str,
    would: Mapping[str, Any] | None = None,
) -> None:
    """Print what stands behind a part's scores, ``errors`` of its errors, and what a temperature ``would`` do.

    ``rests`` says what its intervals rest on.
    """
    line(f"In detail, on {name} (intervals: 95 %, over texts; {rests}):")
    line()
    line(
        f"MCC {scores['mcc']:.4f}, balanced accuracy {percent(scores['balanced_accuracy'])}, "
        f"PR-AUC {scores['macro_pr_auc']:.4f} (mean of the classes), Brier {scores['brier']:.4f}."
    )
    line(calibration(scores, would))
    line()
    _show("true label", [{**each, "of": each["label"]} for each in report["by_class"][:SHOWN]], None)
    if len(report["by_class"]) > SHOWN:
        line(f"{len(report['by_class']) - SHOWN} more labels are in --json.")
    line()
    lengths = [{**each, "of": f"{each['from']:,} to {each['to']:,} tokens"} for each in report["by_length"]]
    _show("length", lengths, positive)
    for column, values in report["by"].items():
        line()
        _show(column, [{**each, "of": each["value"]} for each in values[:SHOWN]], positive)
        if len(values) > SHOWN:
            line(f"{len(values) - SHOWN} more values are in --json.")
    if report["thresholds"]:
        line()
        table(
            (f"{positive} from", "flagged", "precision", "recall", "F1", "false alarms", "accuracy"),
            [
                (
                    f"{each['threshold']:.2f}",
                    each["flagged"],
                    *(percent(each[key]) for key in ("precision", "recall", "f1", "false_positive_rate", "accuracy")),
                )
                for each in report["thresholds"]
            ],
        )
    if report["recall_at"]:
        line()
    for each in report["recall_at"]:
        line(f"{positive} found at {each['rate'] * 100:g} % false alarms: {each['text']}.")
    show_errors(
        ("row", "label", "predicted", "probability", "text"),
        [
            (each["row"], each["label"], each["predicted"], f"{each['probability']:.4f}", shortened(each["text"]))
            for each in report["errors"][:errors]
        ],
        len(report["errors"]),
        "the surest mistakes first",
    )


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
            [(e["of"], e["n"], *_score(e, measure)) for e in rows[:SHOWN]],
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
    show_errors(
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
        len(report["errors"]),
        "the worst first",
    )


def calibration(scores: Mapping[str, Any], would: Mapping[str, Any] | None = None) -> str:
    """How far the probabilities can be believed, before and after temperature scaling."""
    before = scores["calibration_error_equal_mass"]
    after = scores.get("calibrated")
    if after is not None:
        return (
            f"Calibration error {before:.4f} as trained, {after['calibration_error_equal_mass']:.4f} with the "
            f"temperature {after['temperature']:g}; loss {scores['loss']:.4f} and {after['loss']:.4f}."
        )
    said = f"Calibration error {before:.4f}, loss {scores['loss']:.4f}; the adapter has no temperature"
    if would is None:
        return f"{said}."
    if would["value"] is None:
        return f"{said}, and validation gives none: {would['reason']}."
    test = would["test"]
    return (
        f"{said}. One of {would['value']:g}, fitted on validation, would make them "
        f"{test['calibration_error_equal_mass']:.4f} and {test['loss']:.4f}."
    )


def _show(title: str, groups: Sequence[Mapping[str, Any]], positive: str | None) -> None:
    """Print one line a group."""
    from lora_clf.tasks.classification import Classification

    columns = [title, "texts", "errors", "right", "95 %"]
    more = [each for each in Classification.shown if each.positive and positive is not None]
    columns += [each.heading(positive) for each in more]
    rows = []
    for each in groups:
        interval = f"{100 * each['low']:.1f} to {100 * each['high']:.1f}"
        told = (percent(each[measure.key]) for measure in more)
        rows.append((each["of"], each["n"], each["errors"], percent(each["accuracy"]), interval, *told))
    table(columns, rows)


def _score(row: Mapping[str, Any], measure: Measure) -> tuple[str, str]:
    """The score of some rows and its interval, empty where there are no rows or no interval."""
    score = "" if row["score"] is None else measured(row["score"], measure.share)
    if row["low"] is None:
        return score, ""
    factor, digits = (100, 1) if measure.share else (1, 3)
    return score, f"{factor * row['low']:.{digits}f} to {factor * row['high']:.{digits}f}"


def _answer(predicted: str, number: bool) -> str:
    return f"{float(predicted):.4f}" if number else predicted or "(none)"


def show_errors(columns: Sequence[str], rows: Sequence[Sequence[object]], total: int, order: str) -> None:
    """Print ``rows``, which are the first of ``total`` errors in the ``order`` that is told."""
    line()
    if not total:
        line("Errors: none.")
        return
    if rows:
        table(columns, rows, title=f"Errors: {total:,}, {order}")
    if total > len(rows):
        line(f"{total - len(rows):,} more errors are in --json.")

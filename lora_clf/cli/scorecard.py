"""How `evaluate` tells where a classifier is right and where not: by class, length and column; thresholds; errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_clf.cli.output import line, percent, shortened, table

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
    _show_errors(report["errors"], errors)


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
    columns = [title, "texts", "errors", "right", "95 %"]
    if positive is not None:
        columns += [f"{positive} precision", f"{positive} recall", "false alarms"]
    rows = []
    for each in groups:
        interval = f"{100 * each['low']:.1f} to {100 * each['high']:.1f}"
        row: list[object] = [each["of"], each["n"], each["errors"], percent(each["accuracy"]), interval]
        if positive is not None:
            row += [percent(each[key]) for key in ("precision", "recall", "false_positive_rate")]
        rows.append(row)
    table(columns, rows)


def _show_errors(errors: Sequence[Mapping[str, Any]], shown: int) -> None:
    """Print the worst errors."""
    line()
    if not errors:
        line("Errors: none.")
        return
    if shown:
        table(
            ("row", "label", "predicted", "probability", "text"),
            [
                (each["row"], each["label"], each["predicted"], f"{each['probability']:.4f}", shortened(each["text"]))
                for each in errors[:shown]
            ],
            title=f"Errors: {len(errors):,}, the surest mistakes first",
        )
    if len(errors) > shown:
        line(f"{len(errors) - shown:,} more errors are in --json.")

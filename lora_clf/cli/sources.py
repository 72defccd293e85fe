"""What commands say about a data set: where it comes from, its parts, its positive label, its leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_clf.cli.output import line
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset
    from lora_clf.data.table import Table

SHOWN = 10  # labels


def one_source(argument: str | None, flag: str | None) -> str:
    """The data set's name, given as the first argument or as ``--data``.

    Raises:
        UsageError: neither, or two different ones.
    """
    if argument is not None and flag is not None and argument != flag:
        raise UsageError(f"Two data sets came: {argument!r} and --data {flag!r}. Give one.")
    found = argument if argument is not None else flag
    if not found:
        raise UsageError("No data set came. Give a table (CSV, TSV, JSONL, Parquet), or a corpus: sms-spam, demo.")
    return found


def read_once(origin: str, encoding: str | None) -> str | Table:
    """``origin``; its table where it can be read one time only, as a pipe can, and is needed several times."""
    from lora_clf.data.reader import is_pipe, read_table

    return read_table(origin, encoding=encoding) if is_pipe(origin) else origin


def show_source(data: Dataset, asked: str | None) -> None:
    """Print where the texts come from, the parts, and which label is the one to find and why."""
    rights = f", {data.licence}" if data.licence else ""
    line(f"Data: {data.name} ({data.source}{rights}), split: {data.protocol}, digest {data.digest[:12]}.")
    parts = ", ".join(f"{len(part):,} {name}" for name, part in data.parts.items())
    labels = f"{', '.join(data.labels[:SHOWN])}{_more(len(data.labels))}"
    numbers = data.task.name == "regression"
    line(f"Texts: {parts}; {f'the number {labels}' if numbers else f'{len(data.labels)} labels: {labels}'}.")
    line(f"Task: {data.task.name} ({data.task_reason or f'{len(data.labels)} labels'}).")
    if data.positive_label is not None:
        why = "as asked" if asked is not None else "the rarer of the two; --positive-label takes the other"
        line(f"Positive label: {data.positive_label} ({why}).")


def leak_lines(data: Dataset) -> str:
    """The share of validation and test texts with a copy in training, by class; one line where none has."""
    from lora_clf.data.leaks import LEVELS

    report = data.leaks()
    if not any(report.count(part, "0.5")[0] for part in report.copies):
        return "Copies in training: none of validation or test (exact, or like at 0.5 or above)."
    if len(data.labels) <= SHOWN and data.task.name not in ("multilabel", "regression"):
        return f"Copies in training (character 5-grams, Jaccard):\n{report.as_text()}"
    parts = []
    for name in report.copies:
        shares = [
            f"{level} {100 * found / max(1, total):.1f} %"
            for level in LEVELS
            for found, total in [report.count(name, level)]
        ]
        parts.append(f"{name} {', '.join(shares)}")
    return f"Copies in training: {'; '.join(parts)}; by class: lora-clf data leaks."


def _more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""

"""Rows of any table that is to be labelled: read with all their columns, written with two more.

Unlike the reader of training data, this keeps what it does not understand: numbers and lists of JSON Lines
and Parquet stay what they are, and a row without a text is a row with an empty text.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_clf.errors import DataError, UsageError

WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet")
JSON_LINES = (".jsonl", ".ndjson")
Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns of a table and which of them holds the texts."""

    columns: Columns
    text_column: str

    @property
    def texts(self) -> list[str]:
        """One text a row; empty where there is none."""
        return ["" if value is None else str(value) for value in self.columns[self.text_column]]

    def __len__(self) -> int:
        return len(self.columns[self.text_column])


def read_rows(file: Path, text_column: str | None, encoding: str | None = None) -> Rows:
    """Every row of ``file``, whatever its format; a ``.txt`` file holds one text a line.

    A blank line of a one-column CSV is an empty text.

    Raises:
        DataError: it is not there, cannot be read, or rows cannot be understood (all of them listed).
    """
    from lora_clf.data.reader import decoded, read_table

    if file.is_dir():
        raise DataError(f"--input {file} is a folder; expected a CSV, TSV, JSONL, Parquet or text file.")
    suffix = file.suffix.lower()
    if suffix == ".txt" and file.is_file():
        return Rows({"text": lines_of(decoded(file.read_bytes(), file.name, encoding))}, "text")
    if suffix in JSON_LINES and file.is_file():
        columns = _json_lines(decoded(file.read_bytes(), file.name, encoding), file.name)
    elif suffix == ".parquet" and file.is_file():
        columns = _parquet(file)
    else:
        table = read_table(file, encoding=encoding, blank_rows=True)
        if table.problems:
            raise DataError(f"{file.name} cannot be labelled whole; no row may be dropped.", table.problems)
        columns = dict(table.columns)
    return Rows(columns, find_text(columns, text_column, file.name))


def lines_of(text: str) -> list[str]:
    """One text a line; an empty line is a text, a last line break ends the last line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines and lines[-1] == "":
        lines.pop()
    return lines


def find_text(columns: Mapping[str, Sequence[Any]], asked: str | None, name: str) -> str:
    """The column of texts: the one asked for, one with a usual name, or the only one.

    Raises:
        DataError: there is no such column; the message lists those that there are.
    """
    from lora_clf.data.corpus import TEXT_NAMES, usual_column
    from lora_clf.data.table import Table, missing_columns

    table = Table(name, {column: () for column in columns}, ())
    if problems := missing_columns(table, [asked]):
        raise DataError(f"{name} does not have the column that was asked for.", problems)
    found = asked or usual_column(table, TEXT_NAMES, set())
    if found is None and len(columns) == 1:
        found = next(iter(columns))
    if found is None:
        there = ", ".join(columns) or "none"
        raise DataError(f"No column of {name} is known to hold texts; there are: {there}. Give --text-column.")
    return found


def _json_lines(text: str, name: str) -> Columns:
    records: list[dict[str, Any]] = []
    problems = []
    for number, content in enumerate((line for line in text.split("\n") if line.strip()), 1):
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            problems.append(f"row {number}: not JSON ({error})")
            continue
        if isinstance(record, dict):
            records.append(record)
        else:
            problems.append(f'row {number}: expected an object like {{"text": ...}}')
    if problems:
        raise DataError(f"{name} cannot be labelled whole; no row may be dropped.", problems)
    names = dict.fromkeys(key for record in records for key in record)
    return {key: [record.get(key) for record in records] for key in names}


def _parquet(file: Path) -> Columns:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"{file.name} needs pyarrow: pip install pyarrow, or use CSV.") from None
    try:
        content = parquet.read_table(file)
    except Exception as error:  # pyarrow raises its own kinds, all of them about the file
        raise DataError(f"{file.name} is a broken Parquet file: {error}.") from error
    named = zip(content.column_names, content.columns, strict=True)
    return {name: column.to_pylist() for name, column in named}


def check_writable_format(file: Path) -> None:
    """Refuse a name whose suffix is no format that can be written.

    Raises:
        UsageError: it is none.
    """
    if file.suffix.lower() not in (*WRITTEN, *JSON_LINES):
        raise UsageError(f"--output {file.name}: expected a name that ends in {', '.join(WRITTEN)}.")
    if file.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UsageError("Writing Parquet needs pyarrow: pip install pyarrow, or write CSV.") from None


def with_answers(rows: Rows, labels: Sequence[str], probabilities: Sequence[float]) -> tuple[Columns, list[str]]:
    """All columns and two more, ``label`` and ``probability``; ``predicted_...`` where a name is taken.

    Returns:
        The columns, and the names of the two.
    """
    columns: Columns = dict(rows.columns)
    names = []
    for plain, values in (("label", labels), ("probability", probabilities)):
        name = plain
        while name in columns:
            name = f"predicted_{name}"
        columns[name] = list(values)
        names.append(name)
    return columns, names


def serialise(columns: Columns, suffix: str) -> bytes:
    """The bytes of a file in the format of ``suffix``."""
    suffix = suffix.lower()
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet as parquet

        sink = io.BytesIO()
        parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), sink)
        return sink.getvalue()
    records = zip(*columns.values(), strict=True)
    text = io.StringIO(newline="")
    if suffix in JSON_LINES:
        for record in records:
            value = dict(zip(columns, record, strict=True))
            text.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    else:
        csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
        writer = csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
        writer.writerow(columns)
        for record in records:
            writer.writerow(["" if value is None else value for value in record])
    return text.getvalue().encode("utf-8", "backslashreplace")

"""Rows of any table that is to be labelled, some thousand at a time: all columns, in their order, none dropped.

Unlike the reader of training data, this keeps what it does not understand: numbers and lists of JSON Lines
and Parquet stay what they are, and a row without a text is a row with an empty text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_clf.errors import DataError

Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a table, and which of the columns holds the texts.

    Attributes:
        columns: by name, all of one length.
        text_column: the name of that with the texts.
        batch: the same rows as Arrow has them, where they came so: with types that the columns do not show.
    """

    columns: Columns
    text_column: str
    batch: Any = field(default=None, repr=False)

    @property
    def texts(self) -> list[str]:
        """One text a row, as training reads it; empty where there is none."""
        from lora_clf.data.table import cell

        return [cell(value) or "" for value in self.columns[self.text_column]]

    def __len__(self) -> int:
        return len(self.columns[self.text_column])


class RowSource(ABC):
    """A table that is read some rows at a time, any number of times.

    Attributes:
        columns: the names of all columns.
        text_column: the name of that with the texts.
        count: how many rows there are.
    """

    columns: list[str]
    text_column: str
    count: int

    @abstractmethod
    def chunks(self, size: int) -> Iterator[Rows]:
        """All rows in their order, at most ``size`` at a time."""

    def schema(self) -> Any:
        """The Arrow schema of the columns: text, where the source knows no more of them."""
        import pyarrow

        return pyarrow.schema([(name, pyarrow.string()) for name in self.columns])


class HeldRows(RowSource):
    """Rows that are in memory."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.columns, self.text_column, self.count = list(rows.columns), rows.text_column, len(rows)

    def chunks(self, size: int) -> Iterator[Rows]:
        """All rows in their order, at most ``size`` at a time."""
        for start in range(0, self.count, size):
            columns = {name: values[start : start + size] for name, values in self._rows.columns.items()}
            yield Rows(columns, self.text_column)


def held(texts: Sequence[str]) -> HeldRows:
    """A table of nothing but ``texts``."""
    return HeldRows(Rows({"text": texts}, "text"))


def read_whole(file: Path, text_column: str | None, encoding: str | None = None) -> HeldRows:
    """The rows of a file that has to be seen as a whole to be read: a zip, a JSON list, a pipe.

    A blank line of a one-column CSV is an empty text.

    Raises:
        DataError: it is not there, cannot be read, or rows cannot be understood (all of them listed).
    """
    from lora_clf.data.reader import read_table
    from lora_clf.data.table import Nested

    table = read_table(file, encoding=encoding, blank_rows=True)
    if table.problems:
        raise unreadable(file.name, table.problems)
    found = find_text(table.columns, text_column, file.name)
    pairs = zip(table.rows, table.columns[found], strict=True)
    if odd := [no_text(row, found, cell.startswith("[")) for row, cell in pairs if isinstance(cell, Nested)]:
        raise unreadable(file.name, odd)
    return HeldRows(Rows(dict(table.columns), found))


def lines_of(text: str) -> list[str]:
    """One text a line; an empty line is a text, a last line break ends the last line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines and lines[-1] == "":
        lines.pop()
    return lines


def find_text(columns: Iterable[str], asked: str | None, name: str) -> str:
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
    if found is None and len(table.columns) == 1:
        found = next(iter(table.columns))
    if found is None:
        there = ", ".join(table.columns) or "none"
        raise DataError(f"No column of {name} is known to hold texts; there are: {there}. Give --text-column.")
    return found


def no_text(row: int, column: str, several: bool) -> str:
    """What is wrong with a row that holds a list (``several``) or an object where its text is expected."""
    return f"row {row}: column {column!r} holds {'a list' if several else 'an object'}, expected text"


def unreadable(name: str, problems: Iterable[str]) -> DataError:
    """The error for a table with rows that cannot be read."""
    return DataError(f"{name} cannot be labelled whole; no row may be dropped.", problems)

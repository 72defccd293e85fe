"""A table: named columns of text with the number of every row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of one file as text; ``None`` where a row has nothing.

    ``rows`` holds each row's number, ``problems`` one line for each row that could not be read (it is then in
    no column). ``stopped`` is the last of them where nothing behind it could be read: how many rows are there is
    not known. ``raw_sms`` holds the whole text of a file in the header-less ``label<TAB>text`` form.
    """

    name: str
    columns: dict[str, tuple[str | None, ...]]
    rows: tuple[int, ...]
    problems: tuple[str, ...] = ()
    raw_sms: str | None = None
    stopped: str | None = None

    def __len__(self) -> int:
        return len(self.rows)


def missing_columns(table: Table, asked: Iterable[str | None]) -> list[str]:
    """One line for each column that was asked for and is not there, with the nearest that is."""
    problems = []
    for name in dict.fromkeys(asked):
        if name is not None and name not in table.columns:
            lowered = {column.lower(): column for column in table.columns}
            near = get_close_matches(name.lower(), lowered, n=1)
            hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
            problems.append(f"no column {name!r}.{hint} There are: {', '.join(table.columns) or 'none'}.")
    return problems


def filled_lines(text: str) -> list[str]:
    """The lines that are not empty, split at LF or CRLF only: texts may hold other separators."""
    return [line for raw in text.split("\n") if (line := raw.removesuffix("\r"))]


def from_records(records: Sequence[tuple[int, Any]], name: str, problems: list[str]) -> Table:
    """The table of (row number, object) pairs; what is no object joins ``problems``."""
    rows, kept = [], []
    for number, record in records:
        if not isinstance(record, dict):
            problems.append(f'row {number}: expected an object like {{"text": ..., "label": ...}}')
            continue
        kept.append({str(key): _cell_or_nested(value) for key, value in record.items()})
        rows.append(number)
    names = dict.fromkeys(key for record in kept for key in record)
    columns = {key: tuple(record.get(key) for record in kept) for key in names}
    return Table(name, columns, tuple(rows), tuple(problems))


class Nested(str):
    """What is more than one value, as JSON text: neither a text nor a label."""

    __slots__ = ()


class Listed(Nested):
    """A list of names or numbers: perhaps several labels of one row."""

    __slots__ = ()


def _cell_or_nested(value: object) -> str | None:
    if not isinstance(value, (list, dict, tuple)):
        return cell(value)
    names = isinstance(value, list) and all(isinstance(each, (str, int, float)) for each in value)
    return (Listed if names else Nested)(json.dumps(value, ensure_ascii=False, default=str))


def cell(value: object) -> str | None:
    """A value of JSON or Parquet as text: 1.0 is "1", true is "true", null and NaN are nothing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, dict, tuple)):
        raise TypeError(f"a cell holds a {type(value).__name__}, expected text")
    return str(value)

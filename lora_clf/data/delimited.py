"""CSV and its relatives, read strictly: a stray quote is a problem with a row number, not a swallowed row."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence

from lora_clf.data.table import Table, filled_lines
from lora_clf.errors import DataError

DELIMITERS = (",", "\t", ";", "|")
MARK = "sep="  # and the delimiter: the first line of some files for Excel


def parse_delimited(text: str, name: str, *, blank_rows: bool = False) -> Table:
    """The table in ``text``: its first line names the columns and shows the delimiter.

    With ``blank_rows`` a blank line below the header of a one-column table is a row with nothing in it.
    """
    delimiter = delimiter_of(text.lstrip("\r\n").split("\n", 1)[0])
    header: list[str] = []
    records: list[tuple[int, list[str]]] = []
    stopped: str | None = None
    for number, fields in quoted_records(io.StringIO(text, newline=""), delimiter, blank_rows=blank_rows):
        if isinstance(fields, str):
            stopped = fields
        elif number:
            records.append((number, fields))
        else:
            header = fields
    if delimiter == "\t":
        lines = [line.split("\t") for line in without_mark(filled_lines(text), delimiter)]
        plain = bool(lines) and all(len(fields) == len(lines[0]) for fields in lines)
        if plain and quotes_are_text(lines[0][0], stopped is not None, len(lines) - 1, len(records)):
            header, stopped = lines[0], None
            records = list(enumerate(lines[1:], 1))
    header = column_names(header or text.split("\n", 1)[0].split(delimiter), name)
    kept, rows, problems = [], [], []
    for number, fields in records:
        if misfit := misfit_of(number, fields, header, delimiter):
            problems.append(misfit)
            continue
        kept.append(fields)
        rows.append(number)
    columns = {column: tuple(fields[place] or None for fields in kept) for place, column in enumerate(header)}
    problems += [] if stopped is None else [stopped]
    return Table(name, columns, tuple(rows), tuple(problems), stopped=stopped)


def delimiter_of(header_line: str) -> str:
    """The delimiter that the first line has most of."""
    return max(DELIMITERS, key=header_line.count)


def without_mark(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """The lines without the first where it is Excel's own ``sep=,``, which names the delimiter."""
    return (line for number, line in enumerate(lines) if number or line.lower() != MARK + delimiter)


def quotes_are_text(header: str, failed: bool, lines: int, records: int) -> bool:
    """Whether quotes belong to the texts of a tab-separated file all of whose lines fit the ``header``.

    Such files are written with and without quoting. Where quoting fails or swallows lines, there is none, unless the
    names of the columns are quoted.
    """
    return not header.startswith('"') and (failed or lines > records)


def column_names(header: Sequence[str], name: str) -> list[str]:
    """The names of the columns; one without a name gets its place.

    Raises:
        DataError: one comes twice.
    """
    names = [column.strip() or f"column {place}" for place, column in enumerate(header, 1)]
    doubled = sorted({column for column in names if names.count(column) > 1})
    if doubled:
        raise DataError(f"{name} names a column twice: {', '.join(doubled)}. Rename one in the first line.")
    return names


def misfit_of(number: int, fields: Sequence[str], header: Sequence[str], delimiter: str) -> str | None:
    """What is wrong with a row that has not as many fields as the header; None where nothing is."""
    if len(fields) == len(header):
        return None
    return (
        f"row {number}: {len(fields)} fields where the header has {len(header)} "
        f"(a text with {delimiter!r} in it needs quotes): {delimiter.join(fields)[:40]!r}"
    )


def quoted_records(
    stream: Iterable[str], delimiter: str, *, blank_rows: bool = False
) -> Iterator[tuple[int, list[str] | str]]:
    """(0, the header), then (row, fields) for each row; where reading cannot go on, (row, what is wrong) at last.

    Args:
        stream: the file's lines with their ends, as ``newline=""`` gives them.
        delimiter: between two fields.
        blank_rows: whether a blank line below a header of one column is a row.
    """
    # The default limit of 131,072 characters a field is global; documents are longer. Only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    columns = number = before = 0
    marked = False
    try:
        for fields in reader:
            before = reader.line_num
            if not fields:
                if not (blank_rows and columns == 1):
                    continue
                fields = [""]
            if not columns:
                if not marked and [field.lower() for field in fields] == [MARK, ""]:
                    marked = True
                    continue
                columns = len(fields)
                yield 0, fields
                continue
            number += 1
            yield number, fields
    except csv.Error as error:
        what = "a quote that opens here is never closed" if "end of data" in str(error) else str(error)
        yield (
            number + 1,
            f"row {number + 1}: {what} (line {before + 1} of the file); nothing after it could be read. "
            f"A quote inside a quoted text is written twice.",
        )

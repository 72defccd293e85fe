"""CSV and its relatives, read strictly: a stray quote is a problem with a row number, not a swallowed row."""

from __future__ import annotations

import csv
import io
import sys

from lora_clf.data.table import Table, filled_lines
from lora_clf.errors import DataError

DELIMITERS = (",", "\t", ";", "|")


def parse_delimited(text: str, name: str, *, blank_rows: bool = False) -> Table:
    """The table in ``text``: its first line names the columns and shows the delimiter.

    With ``blank_rows`` a blank line below the header of a one-column table is a row with nothing in it.
    """
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header_line.count)
    header, records, problems = _quoted(text, delimiter, blank_rows)
    if delimiter == "\t":
        # Tab-separated files are written with and without quoting. Where plain lines fit the header and
        # quoting fails or swallows lines, the quotes are part of the texts.
        lines = [line.split("\t") for line in filled_lines(text)]
        plain = all(len(fields) == len(lines[0]) for fields in lines)
        if plain and (problems or len(lines) - 1 > len(records)):
            header, problems = lines[0], []
            records = list(enumerate(lines[1:], 1))
    header = [column.strip() or f"column {place}" for place, column in enumerate(header, 1)]
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise DataError(f"{name} names a column twice: {', '.join(doubled)}. Rename one in the first line.")
    kept, rows = [], []
    for number, fields in records:
        if len(fields) != len(header):
            problems.append(
                f"row {number}: {len(fields)} fields where the header has {len(header)} "
                f"(a text with {delimiter!r} in it needs quotes): {delimiter.join(fields)[:40]!r}"
            )
            continue
        kept.append(fields)
        rows.append(number)
    columns = {column: tuple(fields[place] or None for fields in kept) for place, column in enumerate(header)}
    problems.sort(key=lambda line: int(line.split(":")[0].removeprefix("row ")))
    return Table(name, columns, tuple(rows), tuple(problems))


def _quoted(text: str, delimiter: str, blank_rows: bool) -> tuple[list[str], list[tuple[int, list[str]]], list[str]]:
    # The default limit of 131,072 characters a field is global; documents are longer. Only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    records: list[tuple[int, list[str]]] = []
    number = 0
    before = 0
    try:
        for fields in reader:
            before = reader.line_num
            if not fields:
                if not (blank_rows and len(header) == 1):
                    continue
                fields = [""]
            if not header:
                header = fields
                continue
            number += 1
            records.append((number, fields))
    except csv.Error as error:
        if not header:
            header = text.split("\n", 1)[0].split(delimiter)
        what = "a quote that opens here is never closed" if "end of data" in str(error) else str(error)
        problem = (
            f"row {number + 1}: {what} (line {before + 1} of the file); nothing after it could be read. "
            f"A quote inside a quoted text is written twice."
        )
        return header, records, [problem]
    return header, records, []

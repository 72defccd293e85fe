"""Reads a table of texts from any of the formats people have, keeping every row or saying which it could not.

CSV and its relatives (the delimiter is found in the header line), JSON Lines, a JSON list, Parquet, the raw
``SMSSpamCollection`` (``label<TAB>text``, no header, no quoting) and a zip that holds one of these. What a
file is follows from its content, not from its name. Rows are numbered from 1, the header not counted; blank
lines between rows are not rows.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import zipfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from lora_clf.data.archive import open_zip, read_member
from lora_clf.data.delimited import parse_delimited
from lora_clf.data.table import Table, filled_lines, from_records
from lora_clf.errors import DataError, UsageError

SMS_MEMBER = "SMSSpamCollection"
SMS_LABELS = ("ham", "spam")
LARGEST_MEMBER = 2_000_000_000  # bytes unpacked from a zip
LARGEST_RATIO = 100  # of them to a byte of the zip, where they are more than the next number; tables have 3 to 20
LARGEST_UNASKED = 100_000_000

_UNPACK = "Unpack it first, or use a zip."
_EXPORT = "Save the table as 'CSV UTF-8' and give that file."
_BZIP2: Final = tuple(b"BZh%d1AY&SY" % level for level in range(1, 10))
BINARY: Final = {
    **dict.fromkeys((b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", *_BZIP2), ("a compressed file", _UNPACK)),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"PK\x03\x04": ("a zip or an office document", "Give it as it is, or the table in it."),
    b"PAR1\x15": ("a Parquet file", "Give it under a name that ends in .parquet."),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old office document (.xls, .doc)", _EXPORT),
    b"SQLite format 3\0": ("an SQLite database", _EXPORT),
    b"%PDF-": ("a PDF", _EXPORT),
    b"ARROW1\0\0": ("an Arrow file", "Save it as Parquet."),
    b"\x89PNG\r\n\x1a\n": ("a picture", "Expected a table."),
}
"""How files begin that are no text, what they are, and what to do with them."""


def read_table(path: str | Path, *, encoding: str | None = None, blank_rows: bool = False) -> Table:
    """Read one file, whatever its format.

    ``encoding`` names the one of a text file that is not UTF-8 (``cp1252``, ``iso-8859-1``, ``utf-16``). With
    ``blank_rows`` a blank line of a one-column CSV is a row with nothing in it, not a line to pass over.
    Raises DataError where there is no such file or its bytes are no table at all; single rows that could not
    be read are listed in ``problems`` of the table.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(_not_there(path)) from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return parse_table(data, path.name, encoding=encoding, blank_rows=blank_rows)


def is_pipe(path: str | Path) -> bool:
    """Whether there is something that is neither a file nor a folder: a pipe, which can be read one time only."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def parse_table(data: bytes, name: str, *, encoding: str | None = None, blank_rows: bool = False) -> Table:
    """The table in ``data``, the bytes of a file called ``name``."""
    if data.startswith(b"PK\x03\x04"):
        member, data = _unpacked(data, name)
        return parse_table(data, f"{name}/{member}", encoding=encoding, blank_rows=blank_rows)
    if data.startswith(b"PAR1"):
        return _parquet(data, name)
    text = decoded(data, name, encoding)
    if not text.strip():
        raise DataError(f"{name} is empty. Expected a row with the names of columns, then a row for each text.")
    start = text.lstrip()[:1]
    if is_raw_sms(text):
        return _raw_sms(text, name)
    if start == "{":
        return _json_lines(text, name)
    if start == "[":
        named = name.lower().endswith((".json", ".jsonl"))
        if (table := _json_list(text, name, sure=named)) is not None:
            return table
    return parse_delimited(text, name, blank_rows=blank_rows)


def decoded(data: bytes, name: str, encoding: str | None = None) -> str:
    """The text of a file; without ``encoding`` it must be UTF-8, with or without a byte order mark."""
    refuse_no_text(data, name, encoding)
    if encoding is None and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            f"{name} is UTF-16; expected UTF-8. Save it as UTF-8 ('CSV UTF-8' in a spreadsheet) or give "
            f"encoding='utf-16' (--encoding utf-16)."
        )
    try:
        return data.decode(codec(encoding))
    except LookupError:
        raise UsageError(
            f"Unknown encoding {encoding!r}. There are, among others: utf-8, cp1252, iso-8859-1, utf-16."
        ) from None
    except UnicodeError as error:
        if not isinstance(error, UnicodeDecodeError):  # of codecs that are about no files, such as undefined
            raise UsageError(f"The encoding {encoding!r} cannot read {name}: {error}.") from None
        if encoding is not None:
            raise DataError(
                f"{name} is not {encoding}: byte {error.start + 1:,} of the file cannot be read as that. "
                f"Without an encoding the file is read as UTF-8."
            ) from None
    if b"\0" in data:
        raise DataError(
            f"{name} is no text: it holds NUL bytes, and is not UTF-8. Expected a CSV, TSV, JSONL, Parquet or zip "
            "file. Of UTF-16 name the byte order, as encoding='utf-16-le' (--encoding utf-16-le)."
        )
    problems = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            seen = line[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace").strip()
            problems.append(
                f"line {number}, byte {error.start + 1} of the line: 0x{line[error.start]:02X} near {seen!r}"
            )
    raise DataError(
        f"{name} is not UTF-8: {len(problems)} of its lines hold bytes that UTF-8 does not have. It is "
        f"probably Windows-1252 or ISO-8859-1. Save it as UTF-8 ('CSV UTF-8' in a spreadsheet), or give "
        f"encoding='cp1252' (--encoding cp1252).",
        problems,
    )


def refuse_no_text(start: bytes, name: str, encoding: str | None) -> None:
    """Refuse a file that begins as one of `BINARY` does, or, without ``encoding``, in Latin letters of two bytes each.

    Raises:
        DataError: it does; the message says what it is.
    """
    for magic, (what, do) in BINARY.items():
        if start.startswith(magic):
            raise DataError(f"{name} is {what}. {do}")
    low, high = start[0:16:2], start[1:16:2]
    if encoding is not None or len(high) < 4:
        return
    for order, letters, nothing in (("le", low, high), ("be", high, low)):
        if not nothing.strip(b"\0") and b"\0" not in letters:  # which UTF-8 would take, NULs and all
            raise DataError(
                f"{name} is UTF-16 without a byte order mark; expected UTF-8. Save it as UTF-8, or give "
                f"encoding='utf-16-{order}' (--encoding utf-16-{order})."
            )


def codec(encoding: str | None) -> str:
    """Python's name of the encoding that was asked for: UTF-8 always with or without a byte order mark.

    Raises:
        LookupError: there is none of that name.
    """
    return "utf-8-sig" if encoding is None or codecs.lookup(encoding).name == "utf-8" else encoding


def is_raw_sms(text: str) -> bool:
    """Whether a file has the form of ``SMSSpamCollection``: ham or spam, a tab, the text, and no header."""
    from lora_clf.data.corpus import TEXT_NAMES, is_usual

    first, *more = (line.rstrip("\r").split("\t") for line in text.split("\n", 2)[:2])
    if len(first) != 2 or first[0] not in SMS_LABELS:
        return False
    # A column may be called spam, beside one that is called text.
    return not is_usual(first[1], TEXT_NAMES) or any(fields[0] in SMS_LABELS for fields in more)


def _not_there(path: Path) -> str:
    folder = path.parent
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if path.parent != Path(".") and not folder.is_dir():
        hint = f" The folder {folder.name!r} is not there either."
    return f"There is no file {path.name!r}.{hint} Expected a CSV, TSV, JSONL, Parquet or zip file."


def _unpacked(data: bytes, name: str) -> tuple[str, bytes]:
    try:
        with open_zip(data) as archive:
            member = _table_member(archive, name)
            largest = min(LARGEST_MEMBER, max(LARGEST_UNASKED, LARGEST_RATIO * len(data)))
            content = read_member(archive, member, largest)
    except zipfile.BadZipFile as error:
        raise DataError(f"{name} is a zip that cannot be unpacked ({error}). Unpack it yourself.") from error
    if len(content) > largest:
        raise DataError(
            f"{member.filename} in {name} unpacks to over {largest:,} bytes, out of {len(data):,}. Where you trust it, "
            "unpack it and give the table inside."
        )
    if content.startswith(b"PK\x03\x04"):
        raise DataError(f"{name} holds another zip. Unpack it and give the table inside.")
    return member.filename, content


def _table_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
    names = [info.filename for info in members]
    if "[Content_Types].xml" in names:
        raise DataError(f"{name} is an office document. Save the sheet as 'CSV UTF-8' and give that file.")
    found = [info for info in members if Path(info.filename).name == SMS_MEMBER]
    if not found:
        found = [info for info in members if not Path(info.filename).name.lower().startswith("readme")]
    if len(found) != 1:
        raise DataError(
            f"{name} holds {len(found)} files; expected one table. There are: "
            f"{', '.join(names[:10]) or 'none'}. Unpack it and give one of them."
        )
    if found[0].file_size > LARGEST_MEMBER:
        raise DataError(f"{found[0].filename} in {name} is over {LARGEST_MEMBER:,} bytes. Unpack it first.")
    return found[0]


def _raw_sms(text: str, name: str) -> Table:
    labels: list[str | None] = []
    texts: list[str | None] = []
    rows, problems = [], []
    for number, line in enumerate(filled_lines(text), 1):
        label, tab, message = line.partition("\t")
        if not tab:
            problems.append(f"row {number}: no tab between label and text: {line[:40]!r}")
            continue
        rows.append(number)
        labels.append(label)
        texts.append(message)
    columns = {"label": tuple(labels), "text": tuple(texts)}
    return Table(name, columns, tuple(rows), tuple(problems), raw_sms=text)


def _json_lines(text: str, name: str) -> Table:
    records: list[tuple[int, Any]] = []
    problems = []
    for number, line in enumerate((line for line in filled_lines(text) if line.strip()), 1):
        try:
            records.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            problems.append(f"row {number}: not JSON ({error}): {line[:40]!r}")
    return from_records(records, name, problems)


def _json_list(text: str, name: str, *, sure: bool) -> Table | None:
    """The table of a list of objects; without ``sure`` None where it is none, as a CSV may begin with a bracket too."""
    if not (sure or is_list_of_objects(text)):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not sure:
            return None
        raise DataError(f"{name} is not JSON: {error}.") from None
    return from_records(list(enumerate(values, 1)), name, [])


def cells(column: Any) -> list[Any]:
    """The values of an Arrow column; as text where Python has none of them, as times beyond the year 9999."""
    try:
        found = column.to_pylist()
    except (OverflowError, ValueError):
        import pyarrow

        found = column.cast(pyarrow.string()).to_pylist()
    return list(found)


def is_list_of_objects(start: str) -> bool:
    """Whether what begins so may be a JSON list of objects."""
    return re.match(r"\s*\[\s*(\{|$)", start) is not None


def _parquet(data: bytes, name: str) -> Table:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"{name} is Parquet: that needs pyarrow (pip install pyarrow). Or save it as CSV.") from None
    try:
        content = parquet.read_table(io.BytesIO(data))
    except Exception as error:  # pyarrow raises its own kinds, all of them about the file
        raise DataError(f"{name} is a broken Parquet file: {error}.") from error
    named = zip(content.column_names, content.columns, strict=True)
    values = {column: cells(chunks) for column, chunks in named}
    records = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    table = from_records(list(enumerate(records, 1)), name, [])
    return table if records else Table(name, {column: () for column in values}, ())

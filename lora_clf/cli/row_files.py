"""Files of rows, read some thousand rows at a time and never held as a whole: lines, JSON Lines, CSV, Parquet.

A file is read twice: once to see that all of it can be read, so that what is wrong is said together and before any
work is done; once for the answers.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final

from lora_clf.cli.rows import Rows, RowSource, find_text, no_text, read_whole, unreadable
from lora_clf.errors import DataError, UsageError

JSON_LINES: Final = (".jsonl", ".ndjson")
_TABLES: Final = (b"PK\x03\x04", b"PAR1\x15")  # how files begin that are no text, and hold a table


def open_rows(file: Path, text_column: str | None, encoding: str | None = None) -> RowSource:
    """The rows of ``file``, whatever its format; a ``.txt`` file holds one text a line, unless a column is asked for.

    A blank line of a one-column CSV is an empty text.

    Raises:
        DataError: it is not there, cannot be read, or rows cannot be understood (all of them listed).
    """
    from lora_clf.data.reader import refuse_no_text

    if file.is_dir():
        raise DataError(f"--input {file} is a folder; expected a CSV, TSV, JSONL, Parquet or text file.")
    if not file.is_file():  # a pipe, which can be read once only; or nothing, and the reader says what is near
        return read_whole(file, text_column, encoding)
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        if encoding is not None:
            raise UsageError(f"--encoding {encoding} is about text files; {file.name} is Parquet.")
        return ParquetRows(file, text_column)
    with file.open("rb") as binary:
        start = binary.read(16)
    if not start.startswith(_TABLES):
        refuse_no_text(start, file.name, encoding)
    try:
        if suffix == ".txt" and text_column is None:
            return LineRows(file, encoding)
        if suffix in JSON_LINES and not _starts_as_list(file, encoding):
            return JsonRows(file, encoding, text_column)
        if _is_delimited(file, encoding):
            return DelimitedRows(file, encoding, text_column)
    except (UnicodeError, LookupError):  # wrong bytes, or an unknown encoding
        _complain(file, encoding)
    return read_whole(file, text_column, encoding)


def _is_delimited(file: Path, encoding: str | None) -> bool:
    """Whether the reader of training data would take the file for CSV or a relative with a header line."""
    from lora_clf.data.reader import is_list_of_objects, is_raw_sms

    with file.open("rb") as binary:
        if binary.read(8).startswith(_TABLES):
            return False
    with _opened(file, encoding, "\n") as stream:
        two = [stream.readline(), stream.readline()]
        if is_raw_sms("".join(two)):
            return False
        line = next((line for line in chain(two, stream) if line.strip()), "")
    start = line.lstrip()[:1]
    listed = start == "[" and (file.name.lower().endswith((".json", ".jsonl")) or is_list_of_objects(line))
    return start not in ("", "{") and not listed


def _starts_as_list(file: Path, encoding: str | None) -> bool:
    """Whether a file begins as a list of objects: JSON, but not one object a line."""
    from lora_clf.data.reader import is_list_of_objects

    with _opened(file, encoding, "\n") as stream:
        return is_list_of_objects(next((line for line in stream if line.strip()), ""))


def _complain(file: Path, encoding: str | None) -> None:
    """Raise the error that names every line which cannot be decoded, or the encodings that there are."""
    from lora_clf.data.reader import decoded

    decoded(file.read_bytes(), file.name, encoding)


def _opened(file: Path, encoding: str | None, newline: str) -> IO[str]:
    """The file as text; lines end where ``newline`` says as `open` has it, and keep their ends."""
    from lora_clf.data.reader import codec

    return file.open(encoding=codec(encoding), newline=newline)


class TextRows(RowSource):
    """Rows of a text file, which is decoded as it is read."""

    def __init__(self, file: Path, encoding: str | None) -> None:
        self.file, self.encoding = file, encoding

    @abstractmethod
    def records(self) -> Iterator[Sequence[Any]]:
        """The cells of each row, in the order of the columns."""

    def chunks(self, size: int) -> Iterator[Rows]:
        """All rows in their order, at most ``size`` at a time.

        Raises:
            DataError: the file is no longer what it was when it was looked through.
        """
        seen = 0
        records = self.records()
        while True:
            try:
                chunk = list(islice(records, size))
            except (ValueError, RecursionError) as error:  # of decoding, of JSON, of a row with other fields
                raise self._changed(str(error)) from error
            if not chunk:
                break
            seen += len(chunk)
            yield Rows(dict(zip(self.columns, zip(*chunk, strict=True), strict=True)), self.text_column)
        if seen != self.count:
            raise self._changed(f"{seen:,} rows in place of {self.count:,}")

    def _changed(self, how: str) -> DataError:
        return DataError(f"{self.file.name} was changed while it was read: {how}. Try again.")

    def lines(self) -> Iterator[str]:
        """The lines, split at LF or CRLF only: texts may hold other separators."""
        with _opened(self.file, self.encoding, "\n") as stream:
            for line in stream:
                if line != "\r":  # which, without LF, only the end of the file can be
                    yield line.removesuffix("\n").removesuffix("\r")


class LineRows(TextRows):
    """A file with one text a line; an empty line is a text."""

    def __init__(self, file: Path, encoding: str | None) -> None:
        super().__init__(file, encoding)
        self.columns, self.text_column = ["text"], "text"
        self.count = sum(1 for _ in self.lines())

    def records(self) -> Iterator[Sequence[Any]]:
        """Each line is a row of one cell."""
        return ((line,) for line in self.lines())


class JsonRows(TextRows):
    """A file with one JSON object a line."""

    def __init__(self, file: Path, encoding: str | None, text_column: str | None) -> None:
        super().__init__(file, encoding)
        names: dict[str, None] = {}
        nested: set[str] = set()
        problems = []
        self.count = 0
        for number, content in enumerate(self._filled(), 1):
            try:
                record = json.loads(content)
            except (ValueError, RecursionError) as error:
                problems.append(f"row {number}: not JSON ({error})")
                continue
            if isinstance(record, dict):
                names.update(dict.fromkeys(record))
                nested.update(name for name, value in record.items() if isinstance(value, (list, dict)))
                self.count += 1
            else:
                problems.append(f'row {number}: expected an object like {{"text": ...}}')
        if problems:
            raise unreadable(file.name, problems)
        self.columns = list(names)
        self.text_column = find_text(names, text_column, file.name)
        if self.text_column in nested:
            place = self.columns.index(self.text_column)
            texts = enumerate((cells[place] for cells in self.records()), 1)
            odd = ((number, text) for number, text in texts if isinstance(text, (list, dict)))
            raise unreadable(file.name, [no_text(row, self.text_column, isinstance(text, list)) for row, text in odd])

    def records(self) -> Iterator[Sequence[Any]]:
        """The cells of each object; None where it has none of that name."""
        for content in self._filled():
            record = json.loads(content)
            if not isinstance(record, dict):
                raise ValueError("a row is no object")
            yield [record.get(name) for name in self.columns]

    def schema(self) -> Any:
        """The types that the values of each column have together.

        Raises:
            DataError: there is none for a column.
        """
        import pyarrow

        found = pyarrow.schema([(name, pyarrow.null()) for name in self.columns])
        for rows in self.chunks(4096):
            for place, (name, values) in enumerate(rows.columns.items()):
                try:
                    here = pyarrow.schema([(name, pyarrow.infer_type(values))])
                    both = [pyarrow.schema([found.field(place)]), here]
                    found = found.set(place, pyarrow.unify_schemas(both, promote_options="permissive").field(0))
                except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
                    raise DataError(
                        f"The column {name!r} of {self.file.name} holds what no one type of Parquet takes ({error}). "
                        "Write .jsonl."
                    ) from error
        return found

    def _filled(self) -> Iterator[str]:
        return (line for line in self.lines() if line.strip())


class DelimitedRows(TextRows):
    """A CSV file or a relative, understood as `lora_clf.data.delimited` understands it."""

    def __init__(self, file: Path, encoding: str | None, text_column: str | None) -> None:
        from lora_clf.data.delimited import column_names, delimiter_of, misfit_of, quotes_are_text

        super().__init__(file, encoding)
        first = next(line for line in self._raw_lines() if line.lstrip("\r\n"))
        self._delimiter = delimiter_of(first)
        self._plain = False
        header: list[str] = []
        self.count = 0
        stopped: list[str] = []
        misfits: list[str] = []
        for number, fields in self._quoted():
            if isinstance(fields, str):
                stopped.append(fields)
            elif not number:
                header = fields
            else:
                self.count += 1
                if misfit := misfit_of(number, fields, header, self._delimiter):
                    misfits.append(misfit)
        if self._delimiter == "\t":
            lines, wide, plain = 0, 0, True
            for line in self._filled():
                width = line.count("\t") + 1
                lines, plain, wide = lines + 1, plain and (not lines or width == wide), width
            if plain and quotes_are_text(first, bool(stopped), lines - 1, self.count):
                self._plain, header, self.count = True, next(self._filled()).split("\t"), lines - 1
                stopped, misfits = [], []
        self.columns = column_names(header or next(self._raw_lines()).rstrip("\n").split(self._delimiter), file.name)
        if stopped or misfits:
            raise unreadable(file.name, [*misfits, *stopped])
        self.text_column = find_text(self.columns, text_column, file.name)

    def records(self) -> Iterator[Sequence[Any]]:
        """The cells of each row; None where one is empty."""
        rows = self._unquoted() if self._plain else self._quoted()
        for number, fields in rows:
            if isinstance(fields, str) or len(fields) != len(self.columns):
                raise ValueError("a row has other fields")
            if number:
                yield [cell or None for cell in fields]

    def _quoted(self) -> Iterator[tuple[int, list[str] | str]]:
        from lora_clf.data.delimited import quoted_records

        with _opened(self.file, self.encoding, "") as stream:
            yield from quoted_records(stream, self._delimiter, blank_rows=True)

    def _unquoted(self) -> Iterator[tuple[int, list[str] | str]]:
        return ((number, line.split("\t")) for number, line in enumerate(self._filled()))

    def _filled(self) -> Iterator[str]:
        from lora_clf.data.delimited import without_mark

        return without_mark((line for line in self.lines() if line), self._delimiter)

    def _raw_lines(self) -> Iterator[str]:
        with _opened(self.file, self.encoding, "\n") as stream:
            yield from stream


class ParquetRows(RowSource):
    """A Parquet file, read by row groups."""

    def __init__(self, file: Path, text_column: str | None) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise DataError(f"{file.name} needs pyarrow: pip install pyarrow, or use CSV.") from None
        self._name = file.name
        try:
            self._file = parquet.ParquetFile(file)
            self._schema = self._file.schema_arrow
            self.count = self._file.metadata.num_rows
        except Exception as error:  # pyarrow raises its own kinds, all of them about the file
            raise self._broken(error) from error
        self.columns = list(self._schema.names)
        if doubled := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise DataError(f"{file.name} names a column twice: {', '.join(doubled)}. Rename one.")
        self.text_column = find_text(self.columns, text_column, file.name)
        kind = self._schema.field(self.text_column).type
        if pyarrow.types.is_nested(kind):
            raise DataError(
                f"The column {self.text_column!r} of {file.name} holds {kind}, expected text. Name another with "
                "--text-column."
            )

    def chunks(self, size: int) -> Iterator[Rows]:
        """All rows in their order, at most ``size`` at a time; bytes are decoded, as in training.

        Raises:
            DataError: a part of the file cannot be read.
        """
        from lora_clf.data.reader import cells

        batches = self._file.iter_batches(batch_size=size)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                columns = {name: _decoded(cells(batch.column(name))) for name in self.columns}
            except Exception as error:
                raise self._broken(error) from error
            if batch.num_rows:
                yield Rows(columns, self.text_column, batch)

    def schema(self) -> Any:
        """The file's own."""
        return self._schema

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"{self._name} is a broken Parquet file: {error}.")


def _decoded(values: list[Any]) -> Sequence[Any]:
    """Cells of a column, bytes as text."""
    from lora_clf.data.table import cell

    return [cell(value) if isinstance(value, bytes) else value for value in values]

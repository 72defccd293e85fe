"""Writes labelled rows as they come, into a file that is there whole in the end or not at all."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from lora_clf.cli.output import finite
from lora_clf.cli.row_files import JSON_LINES
from lora_clf.cli.rows import Rows, RowSource
from lora_clf.errors import DataError, UsageError

WRITTEN: Final = (".csv", ".tsv", ".jsonl", ".parquet")
_GROUP: Final = 1 << 16  # rows of a row group
TEXTS: Final = ("label", "labels", "probabilities")  # columns of answers that hold text; the others hold numbers


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


class RowWriter(ABC):
    """Takes rows with their answers.

    Attributes:
        names: of the columns for the answers; ``predicted_...`` where a name is taken.
    """

    def __init__(self, stream: IO[bytes], source: RowSource, columns: Sequence[str]) -> None:
        self.names = [_free(name, source.columns) for name in columns]

    @abstractmethod
    def write(self, rows: Rows, *answers: Sequence[str | float]) -> None:
        """Append some rows; ``answers`` holds a column for each of ``names``."""

    @abstractmethod
    def end(self) -> None:
        """Write what is still held back."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of a file that will not be finished."""


@contextmanager
def row_writer(file: Path, source: RowSource, columns: Sequence[str] = ("label", "probability")) -> Iterator[RowWriter]:
    """A writer of the rows of ``source`` and answers in ``columns``, in the format of the suffix of ``file``.

    Raises:
        DataError: the columns do not fit into the format.
    """
    from lora_clf.data.cache import whole_file

    kinds: dict[str, type[RowWriter]] = {".parquet": _ParquetWriter, **dict.fromkeys(JSON_LINES, _JsonWriter)}
    kind = kinds.get(file.suffix.lower(), _TsvWriter if file.suffix.lower() == ".tsv" else _CsvWriter)
    with whole_file(file) as stream:
        writer = kind(stream, source, columns)
        try:
            yield writer
            writer.end()
        except BaseException:
            writer.abandon()
            raise


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name = f"predicted_{name}"
    return name


class _TextWriter(RowWriter):
    """A file of lines; what UTF-8 does not have is written as its escape."""

    def __init__(self, stream: IO[bytes], source: RowSource, columns: Sequence[str]) -> None:
        super().__init__(stream, source, columns)
        self.columns = [*source.columns, *self.names]
        self._stream = stream

    def write(self, rows: Rows, *answers: Sequence[str | float]) -> None:
        """Append some rows."""
        text = io.StringIO(newline="")
        self.put(text, zip(*rows.columns.values(), *answers, strict=True))
        self._stream.write(text.getvalue().encode("utf-8", "backslashreplace"))

    @abstractmethod
    def put(self, text: io.StringIO, records: Iterable[Sequence[Any]]) -> None:
        """Write some records."""

    def end(self) -> None:
        """Nothing is held back."""

    def abandon(self) -> None:
        """Nothing is held on to."""


class _JsonWriter(_TextWriter):
    """JSON Lines."""

    def put(self, text: io.StringIO, records: Iterable[Sequence[Any]]) -> None:
        """One object a line; numbers that JSON does not have are null."""
        for record in records:
            value = dict(zip(self.columns, record, strict=True))
            try:
                content = json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
            except ValueError:
                content = json.dumps(finite(value), ensure_ascii=False, default=str)
            text.write(content + "\n")


class _Lines:
    """Takes records that end in CRLF and ends them in LF: with CRLF the writer quotes a cell with a bare CR as well."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, record: str) -> None:
        """One record, as `csv.writer` hands it on."""
        self._text.write(record.removesuffix("\r\n") + "\n")


class _CsvWriter(_TextWriter):
    """CSV with a header line."""

    delimiter = ","

    def __init__(self, stream: IO[bytes], source: RowSource, columns: Sequence[str]) -> None:
        super().__init__(stream, source, columns)
        header = io.StringIO(newline="")
        self.put(header, [self.columns])
        stream.write(header.getvalue().encode("utf-8", "backslashreplace"))

    def put(self, text: io.StringIO, records: Iterable[Sequence[Any]]) -> None:
        """One record a line, quoted where that is needed."""
        writer = csv.writer(_Lines(text), delimiter=self.delimiter)
        writer.writerows(["" if value is None else value for value in record] for record in records)


class _TsvWriter(_CsvWriter):
    """The same with tabs."""

    delimiter = "\t"


class _ParquetWriter(RowWriter):
    """Parquet with the types that the columns came with."""

    def __init__(self, stream: IO[bytes], source: RowSource, columns: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        super().__init__(stream, source, columns)
        self._own = source.schema()
        self._schema = self._own
        for place, name in enumerate(self.names):
            kind = pyarrow.string() if columns[place] in TEXTS else pyarrow.float64()
            self._schema = self._schema.append(pyarrow.field(name, kind))
        self._writer = parquet.ParquetWriter(stream, self._schema)
        self._waiting: list[Any] = []

    def write(self, rows: Rows, *answers: Sequence[str | float]) -> None:
        """Append some rows; they wait until a row group is full."""
        import pyarrow

        columns = rows.columns if rows.batch is None else {name: rows.batch.column(name) for name in rows.columns}
        arrays = []
        for field, values in zip(self._schema, [*columns.values(), *answers], strict=True):
            try:
                arrays.append(values if isinstance(values, pyarrow.Array) else pyarrow.array(values, field.type))
            except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
                raise DataError(
                    f"The column {field.name!r} does not fit into Parquet ({error}). Write .jsonl."
                ) from error
        self._waiting.append(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        if sum(table.num_rows for table in self._waiting) >= _GROUP:
            self._flush()

    def end(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Close the writer while its stream is open; it would try to when it is too late."""
        with suppress(Exception):
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow

        if self._waiting:
            self._writer.write_table(pyarrow.concat_tables(self._waiting))
            self._waiting = []

"""`lora-clf predict`: label texts from arguments, a file or stdin, in their order, dropping none."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_clf.cli.flags import AdapterFlags, Force, Json, Precision, takes
from lora_clf.cli.long_texts import show_explanation
from lora_clf.cli.opening import open_adapter
from lora_clf.cli.output import documents, line, note, one_line, row_progress, table
from lora_clf.cli.places import check_free_file
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.cli.row_files import open_rows
from lora_clf.cli.row_writer import check_writable_format, row_writer
from lora_clf.cli.rows import Rows, RowSource, held, lines_of
from lora_clf.errors import DataError, UsageError

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.tasks.base import Answer

app = typer.Typer(add_completion=False)
# Every batch has another shape, and oneDNN keeps what it made for each of the last 1,024, some hundred MB in all.
# What it made for one batch is enough: its layers are alike.
_LEAN = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}


@app.command()
@takes
def predict(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; lines of stdin if none.")] = None,
    read: Annotated[
        Path | None, typer.Option("--input", help="A table: CSV, TSV, JSONL, Parquet; or lines in a .txt.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--output", help="A new table with all columns, label and probability.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="The column of texts in --input; with it a .txt is a table.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of an --input or stdin that is not UTF-8, as cp1252.")] = None,
    explained: Annotated[
        bool,
        typer.Option("--explain", help="Under each answer the chunks of the text, and the share of each in it."),
    ] = False,
    precision: Precision = "fp32",
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
) -> None:
    """Label texts: arguments, a file, or lines from stdin; each gets its most probable label, labels or number."""
    prepare()
    if texts and read is not None:
        raise UsageError("Texts came as arguments and with --input. Give one of the two.")
    if read is None and text_column:
        raise UsageError("--text-column is about --input, which was not given.")
    if explained and write is not None:
        raise UsageError("--explain shows the chunks of each text; --output has a row a text. Use --json for a file.")
    if explained and precision != "fp32":
        raise UsageError(f"--explain computes in fp32; --precision {precision} does not apply.")
    if texts and encoding:
        raise UsageError("--encoding is about --input or stdin; texts came as arguments.")
    if write is not None:
        check_writable_format(write)
        if read is not None and write.exists() and read.exists() and write.samefile(read):
            raise UsageError(f"--output {write} is the --input itself. Give another name.")
        check_free_file(write, force)
    from lora_clf.adapters.file import read_header
    from lora_clf.adapters.origin import adapter_folder

    read_header(adapter_folder(adapter, file_cap=how.cap))  # no adapter, no wait for texts
    source = _source(texts, read, text_column, encoding)
    from lora_clf.inference.precision import resolve_precision

    loaded = open_adapter(adapter, how, "predict")
    number = resolve_precision(precision, loaded.base.device)
    if explained:
        show_explained(loaded, source, as_json=as_json)
        return
    cut = 0

    def answered() -> Iterator[tuple[str, Answer]]:
        nonlocal cut
        for rows, found in labelled(loaded, source, number, tell):
            cut += sum(each.truncated for each in found)
            if writer is not None:
                writer.write(rows, *zip(*(each.cells() for each in found), strict=True))
            yield from zip(rows.texts, found, strict=True)

    columns = loaded.header.answering.columns
    with row_progress(source.count) as tell, row_writer(write, source, columns) if write else nullcontext() as writer:
        if as_json:
            documents({"text": text, **each.as_dict()} for text, each in answered())
        elif writer is not None:
            deque(answered(), maxlen=0)
        elif sys.stdout.isatty():
            table((*columns, "text"), [(*map(_cell, each.cells()), text) for text, each in answered()])
        else:
            for text, each in answered():
                line("\t".join([*map(_cell, each.cells()), one_line(text)]))
    if cut:
        marked = "they are marked as truncated" if as_json else "--json marks them as truncated"
        note(
            f"{cut:,} of {source.count:,} texts were not read whole, since they are longer than the adapter reads or "
            f"spell special tokens at an end; {marked}."
        )
    if writer is not None:
        note(f"Wrote {write}: {source.count:,} rows with {' and '.join(writer.names)}.")


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"


def show_explained(adapter: Adapter, source: RowSource, *, as_json: bool) -> None:
    """Print each text's answer with its chunks, some texts at a time."""
    from lora_clf.inference.predict import LONG_CHUNK

    found = (each for rows in source.chunks(LONG_CHUNK) for each in adapter.explain(rows.texts))
    if as_json:
        documents({"text": each.text, **each.as_dict()} for each in found)
        return
    for each in found:
        show_explanation(each)


def prepare() -> None:
    """Called before anything heavy is imported: flat memory, all cores for the tokenizer, nothing said by others."""
    for name, value in {**_LEAN, "TOKENIZERS_PARALLELISM": "true"}.items():
        os.environ.setdefault(name, value)
    quiet_third_parties()


def labelled(
    adapter: Adapter, source: RowSource, precision: str, tell: Callable[[int], None]
) -> Iterator[tuple[Rows, list[Answer]]]:
    """The rows of ``source``, some thousand at a time, each with its answer; ``tell`` hears how many are done."""
    from lora_clf.inference.predict import CHUNK

    waiting: deque[Rows] = deque()

    def texts() -> Iterator[str]:
        for rows in source.chunks(CHUNK):
            waiting.append(rows)
            yield from rows.texts

    answers = adapter.stream(texts(), precision=precision)
    done = 0
    for first in answers:
        rows = waiting.popleft()
        found = [first, *islice(answers, len(rows) - 1)]
        done += len(rows)
        tell(done)
        yield rows, found


def _source(texts: list[str] | None, read: Path | None, text_column: str | None, encoding: str | None) -> RowSource:
    if read is not None:
        return open_rows(read, text_column, encoding)
    if texts:
        return held(texts)
    if sys.stdin is None:
        raise UsageError("No texts came. Give them as arguments, with --input, or on stdin.")
    if sys.stdin.isatty():
        note("One text a line; Ctrl-D ends.")
    return held(lines_of(_stdin_text(sys.stdin.buffer.read(), encoding)))


def _stdin_text(data: bytes, encoding: str | None) -> str:
    """What came on stdin as text; without ``encoding`` it must be UTF-8, with or without a byte order mark.

    Raises:
        DataError: it is not; the line with the first wrong byte is named.
    """
    if encoding is not None:
        from lora_clf.data.reader import decoded

        return decoded(data, "stdin", encoding)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"stdin is not UTF-8: line {number} holds the byte 0x{error.object[error.start]:02X} where UTF-8 has "
            f"none. Name its encoding, as --encoding cp1252."
        ) from None

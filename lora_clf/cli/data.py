"""`lora-clf data prepare | leaks | clean`: split a data set, find copies across its parts, clean transcripts."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.cli.flags import DataFlags, Force, Json, Seed, takes
from lora_clf.cli.output import document, documents, line, note
from lora_clf.cli.places import check_writable
from lora_clf.cli.row_files import open_rows
from lora_clf.cli.sources import leak_lines, one_source, read_once, show_source
from lora_clf.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_clf.data.dataset import Dataset
    from lora_clf.data.transcript import Cleaning

app = typer.Typer(
    help="Look into a data set, split it, find copies across its parts.",
    no_args_is_help=True,
    add_completion=False,
)
PROSE = (".txt", ".vtt", ".srt", ".md")
Source = Annotated[str | None, typer.Argument(metavar="DATA", help="A table, or a corpus: sms-spam, demo.")]
SourceFlag = Annotated[str | None, typer.Option("--data", help="The same as DATA.", rich_help_panel="Data")]


@app.command()
@takes
def prepare(
    source: Source = None,
    data: SourceFlag = None,
    out: Annotated[Path | None, typer.Option(help="The folder for train, validation and test.csv.")] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    *,
    columns: DataFlags,
) -> None:
    """Write train.csv, validation.csv and test.csv, which every command then takes as DATA."""
    from lora_clf.data.dataset import load_data
    from lora_clf.data.export import export

    origin = one_source(source, data)
    if out is None:
        raise UsageError("No place for the files came. Give --out FOLDER.")
    check_writable(out, "--out")
    dataset = load_data(origin, **columns.settings(), seed=seed)
    _warn(dataset)
    export(dataset, out, force=force)
    files = {name: out / f"{name}.csv" for name in dataset.parts}
    if as_json:
        document({**facts(dataset), "files": {name: str(file) for name, file in files.items()}})
        return
    show_source(dataset, columns.positive_label)
    line(leak_lines(dataset))
    for name, file in files.items():
        line(f"Wrote {file} ({len(dataset.parts[name]):,} rows).")
    line(f"Use it: {shlex.join(['lora-clf', 'train', str(out), *_prepared(dataset, columns)])}")


def _prepared(dataset: Dataset, columns: DataFlags) -> list[str]:
    """The flags that go with the files that were written: numbers are cut into classes there, and have their names."""
    flags = columns.task_flags()
    if columns.bins is not None:
        flags = ["--label-order", ",".join(dataset.labels)]
    kept = {"--positive-label": columns.positive_label, "--group-column": columns.group_column}
    return [*flags, *(word for name, value in kept.items() if value is not None for word in (name, value))]


@app.command()
@takes
def leaks(
    source: Source = None,
    data: SourceFlag = None,
    seed: Seed = 0,
    as_json: Json = False,
    *,
    columns: DataFlags,
    context: typer.Context,
) -> None:
    """Show how many validation and test texts have a copy, exact or near, in training; by class.

    Without --protocol two splits are shown, a plain random one and the default, which keeps near copies together.
    """
    from lora_clf.data.dataset import GIVEN, load_data

    origin = one_source(source, data)
    table = read_once(origin, columns.encoding)
    dataset = load_data(table, **columns.settings(), seed=seed)
    _warn(dataset)
    plain = None
    if dataset.protocol != GIVEN and not _came(context, "protocol"):
        plain = load_data(table, **{**columns.settings(), "protocol": "random"}, seed=seed)
    if as_json:
        found = {**facts(dataset), "leaks": dataset.leaks().as_dict()}
        if plain is not None:
            found["random"] = {**facts(plain), "leaks": plain.leaks().as_dict()}
        document(found)
        return
    show_source(dataset, columns.positive_label)
    line()
    line("Texts with a copy in training (like: Jaccard of character 5-grams):")
    if plain is not None:
        line()
        line("A plain split (--protocol random):")
        line(plain.leaks().as_text())
        line()
        line(f"The split that is made (--protocol {dataset.protocol}):")
    line(dataset.leaks().as_text())


@app.command()
def clean(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A transcript as text, or a table of texts.")],
    text_column: Annotated[str | None, typer.Option(help="The column of texts in a table.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a file that is not UTF-8, as cp1252.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Every change, with its place, in place of the text.")] = False,
    as_json: Json = False,
) -> None:
    """Show what --clean transcript makes of texts: numbered speakers, no time stamps, no filler words.

    A .txt (or .vtt, .srt) file is one transcript; of a table each row is one.
    """
    from lora_clf.data.reader import decoded
    from lora_clf.data.traced import Traced
    from lora_clf.data.transcript import clean as cleaning_of

    if not file.exists():
        raise DataError(f"There is no file {file}.")
    if file.is_dir():
        raise DataError(f"{file} is a folder; expected a transcript as text, or a table of texts.")
    if file.suffix.lower() in PROSE:
        texts = [decoded(file.read_bytes(), file.name, encoding)]
    else:
        texts = [text for rows in open_rows(file, text_column, encoding).chunks(4096) for text in rows.texts]
    counts: Counter[str] = Counter()

    def cleanings() -> Iterator[tuple[int, str, Cleaning]]:
        for number, text in enumerate(texts, start=1):
            found = cleaning_of(text)
            counts.update(edit.kind for edit in found.edits)
            yield number, text, found

    if as_json:
        documents(
            {
                "row": number,
                "text": Traced(text).edited(found.edits).text,
                "speakers": list(found.speakers),
                "changes": [{**edit._asdict(), "was": text[edit.start : edit.end]} for edit in found.edits],
            }
            for number, text, found in cleanings()
        )
    for number, text, found in () if as_json else cleanings():
        for edit in found.edits if show else ():
            line(f"{number}\t{edit.start}-{edit.end}\t{edit.kind}\t{text[edit.start : edit.end]!r}\t{edit.put!r}")
        if not show:
            line(Traced(text).edited(found.edits).text)
    kinds = ", ".join(f"{counts[kind]:,} {kind}s" for kind in ("speaker", "timestamp", "filler"))
    note(f"{len(texts):,} text{'s' * (len(texts) != 1)}; changed or taken out: {kinds}.")


def _came(context: typer.Context, name: str) -> bool:
    """Whether the flag was given, be it with its default."""
    origin = context.get_parameter_source(name)
    return origin is not None and origin.name != "DEFAULT"


def facts(dataset: Dataset) -> dict[str, Any]:
    """What a data set is, ready for JSON; no texts."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "licence": dataset.licence,
        "protocol": dataset.protocol,
        "digest": dataset.digest,
        "labels": list(dataset.labels),
        "positive_label": dataset.positive_label,
        "warnings": list(dataset.warnings),
        "parts": {
            name: {"rows": len(part), "labels": {label: counts.get(label, 0) for label in dataset.labels}}
            for name, part in dataset.parts.items()
            for counts in [Counter(each for label in part.labels for each in dataset.task.parts(label))]
        },
    }


def _warn(dataset: Dataset) -> None:
    for warning in dataset.warnings:
        note(f"Warning: {warning.rstrip('.')}.")

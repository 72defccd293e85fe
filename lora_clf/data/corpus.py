"""A corpus: the labelled texts of one source before they are split, checked as a whole."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from lora_clf.data.hard import COLUMN as HARD
from lora_clf.data.reader import SMS_MEMBER, read_table
from lora_clf.data.table import Listed, Nested, Table, missing_columns
from lora_clf.errors import DataError, UsageError
from lora_clf.tasks.base import as_number

SOURCES = ("demo", "sms-spam")
_HALF = re.compile("[\ud800-\udfff]")  # of a pair that stands for one character; UTF-8 has it in no file
FEW = 20
NOTHING = frozenset(("nan", "NaN", "None", "null", "NULL", "Null", "NA", "N/A", "<NA>", "NaT"))

# Names people give to such columns, the likeliest first; v1 and v2 are those of a spam.csv that many have.
TEXT_NAMES = (
    *("text", "message", "sms", "sentence", "content", "body", "review", "comment", "question", "query"),
    *("utterance", "tweet", "post", "email", "mail", "document", "article", "transcript", "description"),
    *("summary", "title", "input", "texts", "messages", "v2"),
)
LABEL_NAMES = (
    *(
        "label",
        "category",
        "class",
        "target",
        "sentiment",
        "intent",
        "topic",
        "tag",
        "type",
        "rating",
        "score",
    ),
    *("stars", "output", "labels", "y", "is_spam", "spam", "v1"),
)


@dataclass(frozen=True, eq=False)
class Part:
    """Labelled texts: ``texts[i]`` has the label ``labels[i]`` and comes from row ``rows[i]`` of the source.

    Rows are numbered from 1, the header not counted. ``columns`` holds further columns that were asked for
    (a group, a marker of hard rows), each as long as ``texts``.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    rows: tuple[int, ...]
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def joined(cls, parts: Sequence[Part]) -> Part:
        """The rows of all ``parts``, one part behind the other, with the columns that all of them have."""
        shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
        return cls(
            tuple(text for part in parts for text in part.texts),
            tuple(label for part in parts for label in part.labels),
            tuple(row for part in parts for row in part.rows),
            {name: tuple(cell for part in parts for cell in part.columns[name]) for name in shared},
        )

    def take(self, places: Sequence[int]) -> Part:
        """The rows at ``places``, in that order."""
        return Part(
            tuple(self.texts[place] for place in places),
            tuple(self.labels[place] for place in places),
            tuple(self.rows[place] for place in places),
            {name: tuple(column[place] for place in places) for name, column in self.columns.items()},
        )


@dataclass(frozen=True, eq=False)
class Corpus:
    """One source: its rows, what it is called, where it comes from and what is worth a warning."""

    name: str
    part: Part
    licence: str | None
    source: str
    warnings: tuple[str, ...]
    text_column: str
    label_column: str
    table: Table


def load_corpus(
    source: str | Path | Table = "sms-spam",
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    columns: Sequence[str] = (),
    required: Sequence[str] = (),
    encoding: str | None = None,
    skip_bad_rows: bool = False,
    empty_labels: bool = False,
) -> Corpus:
    """Read a source and check it row by row: ``sms-spam``, ``demo``, the path of a table, or a table.

    Args:
        source: the corpus' name, or a file's path.
        text_column: where it has another name than the usual ones.
        label_column: likewise.
        columns: carried along, and a column ``hard`` wherever there is one.
        required: those of ``columns`` that may not be empty.
        encoding: that of a text file which is not UTF-8.
        skip_bad_rows: leave out rows that cannot be used, and name each in ``warnings``.
        empty_labels: a row may have no label.

    Raises:
        UsageError: no such corpus.
        DataError: the file cannot be read, columns are missing, or rows cannot be used; all of them are named.
    """
    table, name, licence, origin = _source_table(source, encoding)
    text_column, label_column = find_columns(table, text_column, label_column, columns, apart=required)
    if HARD in table.columns and HARD not in (text_column, label_column):
        columns = tuple(dict.fromkeys([*columns, HARD]))
    return checked(
        table,
        text_column,
        label_column,
        columns,
        required=required,
        name=name,
        licence=licence,
        origin=origin,
        skip_bad_rows=skip_bad_rows,
        empty_labels=empty_labels,
    )


def checked(
    table: Table,
    text_column: str,
    label_column: str,
    columns: Sequence[str] = (),
    *,
    required: Sequence[str] = (),
    name: str,
    licence: str | None = None,
    origin: str = "",
    skip_bad_rows: bool = False,
    empty_labels: bool = False,
) -> Corpus:
    """The usable rows of ``table`` as a corpus; every row that is not usable is a problem with its number."""
    problems = list(table.problems)
    texts, labels = table.columns[text_column], table.columns[label_column]
    usable, unlabelled = [], False
    for place, (row, text, label) in enumerate(zip(table.rows, texts, labels, strict=True)):
        reasons = []
        if isinstance(text, Nested):
            reasons.append(f"column {text_column!r} holds {_kind(text)}, expected text")
        elif text is None or not text.strip():
            reasons.append(f"no text in column {text_column!r}")
        elif _HALF.search(text):
            reasons.append("the text holds half of a character (a lone surrogate)")
        if isinstance(label, Nested) and not isinstance(label, Listed):
            reasons.append(f"column {label_column!r} holds {_kind(label)}, expected a label or a list of labels")
        if not empty_labels and (label is None or not label.strip()):
            reasons.append(f"no label in column {label_column!r}")
            unlabelled = True
        carried = ((column, table.columns[column][place]) for column in dict.fromkeys([label_column, *columns]))
        halves = (column for column, cell in carried if cell is not None and _HALF.search(cell))
        reasons.extend(f"column {column!r} holds half of a character (a lone surrogate)" for column in halves)
        reasons.extend(f"nothing in column {column!r}" for column in required if not table.columns[column][place])
        if reasons:
            problems.append(f"row {row}: {', '.join(reasons)}")
        else:
            usable.append(place)
    if table.stopped is not None:  # nobody knows what is behind it, so leaving that row out is no answer
        raise DataError(
            f"{table.name} cannot be read from row {len(table) + len(table.problems):,} on, and how many rows that "
            "are is not known, so they cannot be left out. Correct the file.",
            problems,
        )
    if problems and not skip_bad_rows:
        several = unlabelled and any(label and "|" in label for label in labels)
        raise DataError(
            f"{table.name} cannot be used as it is: {_number(len(problems), 'row')} of "
            f"{len(table) + len(table.problems):,}. Correct them, or leave them out with skip_bad_rows "
            f"(--skip-bad-rows)."
            f"{' Where a row may have several labels or none, give --task multilabel.' if several else ''}",
            problems,
        )
    part = Part(
        tuple(str(texts[place]) for place in usable),
        tuple((labels[place] or "").strip() for place in usable),
        tuple(table.rows[place] for place in usable),
        {name: tuple(table.columns[name][place] or "" for place in usable) for name in dict.fromkeys(columns)},
    )
    warnings = [f"left out {problem}" for problem in problems]
    warnings += _swallowed_rows(part)
    return Corpus(name, part, licence, origin, tuple(warnings), text_column, label_column, table)


def _kind(cell: Nested) -> str:
    return "a list" if cell.startswith("[") else "an object"


def label_problems(labels: Sequence[str], rows: Sequence[int]) -> list[str]:
    """Why nothing can be learnt from such labels: none, only one class, or a label that occurs once."""
    counts = Counter(labels)
    if not counts:
        return ["there is no row with a text and a label"]
    problems = []
    if len(counts) == 1:
        problems.append(f"there is only one class, {labels[0]!r}; a classifier needs at least two")
    for label in sorted(label for label, count in counts.items() if count == 1):
        problems.append(
            f"label {label!r} occurs once (row {rows[labels.index(label)]}); at least 2 are needed, one to "
            f"learn from and one to test on"
        )
    return problems


def label_warnings(labels: Sequence[str]) -> list[str]:
    """What is doubtful about the labels: classes with few rows, names that hardly differ, names that say nothing."""
    counts = Counter(labels)
    warnings = [
        f"class {label!r} has {counts[label]} examples; below {FEW} its figures mean little"
        for label in sorted(counts)
        if counts[label] < FEW
    ]
    alike: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
        "differ in case only": (str.casefold, str),
        "look alike, with other characters or invisible ones,": (_seen, ascii),
        "are one number": (_number_in, str),
    }
    told: set[tuple[str, ...]] = set()
    for how, (key, shown) in alike.items():
        groups: dict[str, list[str]] = {}
        for label in sorted(counts):
            groups.setdefault(key(label), []).append(label)
        for names in groups.values():
            if len(names) > 1 and tuple(names) not in told:
                told.add(tuple(names))
                warnings.append(f"labels that {how} are taken as different: {', '.join(map(shown, names))}")
    warnings += [
        f"class {label!r} is what programs write where there is nothing; where that is meant, empty the cells"
        for label in sorted(counts.keys() & NOTHING)
    ]
    return warnings


def _seen(label: str) -> str:
    """What a person sees of a label: one Unicode form, without invisible characters, whatever its case."""
    letters = (letter for letter in unicodedata.normalize("NFKC", label) if unicodedata.category(letter) != "Cf")
    return " ".join("".join(letters).casefold().split())


def _number_in(label: str) -> str:
    """The number that a label is, in one spelling; the label itself where it is none."""
    try:
        return str(as_number(label))
    except ValueError:
        return label


def find_columns(
    table: Table,
    text_column: str | None,
    label_column: str | None,
    columns: Sequence[str] = (),
    *,
    apart: Sequence[str] = (),
) -> tuple[str, str]:
    """The columns of texts and labels: those asked for, else those with a usual name; problems at once.

    ``columns`` have to be there; those in ``apart`` (a group, a split) are guessed last, though a label may be one.
    """
    problems = missing_columns(table, [text_column, label_column, *columns])
    text = text_column or usual_column(table, TEXT_NAMES, {label_column, *apart})
    text = text or usual_column(table, TEXT_NAMES, {label_column})
    label = label_column or usual_column(table, LABEL_NAMES, {text, *apart})
    label = label or usual_column(table, LABEL_NAMES, {text})
    named = text is not None
    others = [column for column in table.columns if column not in apart]
    if len(others) == 2:  # where one of two is known, the other is the other
        text = text or next((column for column in others if column != label and label in others), None)
        label = label or next((column for column in others if column != text and text in others), None)
    there = ", ".join(table.columns) or "none"
    if label_column is None and label is not None and not named and label in table.columns[label]:
        problems.append(
            f"the line of names says {label!r}, and so do rows below it: is it a row itself? Add a line of names, such "
            f"as label,text, or name the columns with text_column and label_column (--text-column, --label-column)"
        )
    for kind, found in (("text", text), ("label", label)):
        if found is None:
            problems.append(
                f"no column is known to hold the {kind}s. There are: {there}. Name one with {kind}_column "
                f"(--{kind}-column); if the file has no header line, add one, such as: label,text"
            )
    if text is not None and text == label:
        problems.append(f"column {text!r} cannot be both the texts and the labels. There are: {there}.")
    if problems or text is None or label is None:
        raise DataError(f"{table.name} does not have the columns it needs.", [*problems, *table.problems])
    return text, label


def usual_column(table: Table, names: Sequence[str], taken: set[str | None]) -> str | None:
    """The first of ``names`` that the table has, whatever its case."""
    lowered: dict[str, str] = {}
    for column in table.columns:
        if column not in taken:
            lowered.setdefault(_plain(column), column)
    return next((lowered[name] for name in names if name in lowered), None)


def is_usual(column: str, names: Sequence[str]) -> bool:
    """Whether a column has one of ``names``, whatever its case."""
    return _plain(column) in names


def _plain(column: str) -> str:
    return column.lower().replace(" ", "_")


def is_prepared(folder: Path) -> bool:
    """Whether ``folder`` holds a split in files: train.csv, test.csv and perhaps validation.csv."""
    # Not by Path, whose errors would name a file that nobody asked for.
    return all(os.path.isfile(folder / name) for name in ("train.csv", "test.csv"))


def _source_table(source: str | Path | Table, encoding: str | None) -> tuple[Table, str, str | None, str]:
    """The table, and its name, licence and attribution; the latter never a path of this machine."""
    from lora_clf.data import demo, sms_spam  # here, because most tables need no network code

    if isinstance(source, Table):
        return _known(source, Path(source.name))
    if source == "demo":
        return demo.read_demo(), "demo", demo.LICENCE, demo.ATTRIBUTION
    if source == "sms-spam":
        path = sms_spam.locate()
    else:
        path = Path(source).expanduser()
        if isinstance(source, str) and not path.exists() and re.fullmatch(r"[\w-]+", source):
            near = get_close_matches(source, SOURCES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"Unknown data {source!r}.{hint} There are: {', '.join(SOURCES)}; or give the path of a CSV, "
                f"TSV, JSONL or Parquet file."
            )
        if path.is_dir():
            if is_prepared(path):
                raise DataError(
                    f"{path.resolve().name!r} holds prepared splits, which are not joined again or cut into folds; "
                    f"give the original table, or one of its files, such as test.csv."
                )
            if not (path / SMS_MEMBER).is_file():
                raise DataError(
                    f"{path.name!r} is a folder; expected a file, or a folder with train.csv and test.csv. "
                    f"There are: {', '.join(sorted(os.listdir(path))[:10]) or 'no files'}."
                )
            path = path / SMS_MEMBER
    return _known(read_table(path, encoding=encoding), path)


def _known(table: Table, path: Path) -> tuple[Table, str, str | None, str]:
    """The same for a table that was read from ``path``."""
    from lora_clf.data import sms_spam

    if table.raw_sms is not None and sms_spam.is_genuine(table.raw_sms.encode("utf-8")):
        return table, "sms-spam", sms_spam.LICENCE, sms_spam.ATTRIBUTION
    return table, path.stem, None, path.name


def _swallowed_rows(part: Part) -> list[str]:
    """Warn of texts with a line that looks like a row of its own: a stray quote has probably eaten it."""
    counts: Mapping[str, int] = Counter(part.labels)
    if len(counts) > 100:
        return []
    either = "|".join(re.escape(label) for label in sorted(counts))
    row = re.compile(rf"\n(?:(?:{either})[,;\t|]|[^\n]*[,;\t|](?:{either})(?:\n|$))")
    return [
        f"row {number} holds a line break and what looks like another row: is a quote missing or stray there?"
        for number, text in zip(part.rows, part.texts, strict=True)
        if "\n" in text and row.search(text)
    ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

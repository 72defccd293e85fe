"""The data of the classification chapter of "Build a Large Language Model (From Scratch)", to the row.

pandas reads the file with its default quoting (which swallows two messages: a quote at the start of a text
runs on to the next quote at the end of one), as many of the frequent class are sampled as the rare one has,
with ``random_state=123``; the two are put one after the other, shuffled with the same state and cut at 70 %
and 80 % by integer truncation.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from lora_clf.data.corpus import Corpus, checked
from lora_clf.data.table import Table
from lora_clf.errors import DataError

STATE = 123
TRAIN, VALIDATION = 0.7, 0.1
TOKENIZING = "Error tokenizing data. C error: "


def quoted_corpus(corpus: Corpus, columns: Sequence[str] = (), *, skip_bad_rows: bool = False) -> Corpus:
    """``SMSSpamCollection`` as pandas reads it by default: 5,572 of its 5,574 rows.

    A row keeps the number of the line on which it begins; the quotes around a text are gone. A warning names
    the rows that are swallowed; the warnings of ``corpus`` and of this reading follow it. Rows that
    ``corpus`` leaves out are left out here. Raises DataError where pandas cannot read the file.
    """
    import pandas as pd

    table = corpus.table
    assert table.raw_sms is not None
    try:
        frame = pd.read_csv(
            io.StringIO(table.raw_sms),
            sep="\t",
            header=None,
            names=["label", "text"],
            dtype=str,
            keep_default_na=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _unreadable(table.name, " ".join(str(error).split()).removeprefix(TOKENIZING)) from None
    texts = tuple(str(text) for text in frame["text"])
    rows, line = [], 1
    for text in texts:
        rows.append(line)
        line += 1 + text.count("\n")
    usable = set(corpus.part.rows)
    labelled = zip(rows, frame["label"].astype(str), texts, strict=True)
    kept = {row: (label, text) for row, label, text in labelled if row in usable}
    cells: dict[str, tuple[str | None, ...]] = {
        "label": tuple(label for label, _ in kept.values()),
        "text": tuple(text for _, text in kept.values()),
    }
    read = checked(
        Table(table.name, cells, tuple(kept), raw_sms=table.raw_sms),
        "text",
        "label",
        columns,
        name=corpus.name,
        licence=corpus.licence,
        origin=corpus.source,
        skip_bad_rows=skip_bad_rows,
    )
    lost = [str(row) for row in corpus.part.rows if row not in kept]
    swallowed = (
        f"protocol book reads {len(kept):,} of {len(usable):,} rows: the default quoting of pandas swallows "
        f"{', '.join(lost)}"
    )
    warnings = dict.fromkeys([*([swallowed] if lost else []), *corpus.warnings, *read.warnings])
    return replace(read, warnings=tuple(warnings))


def _unreadable(name: str, reason: str) -> DataError:
    return DataError(
        f"{name} cannot be read as the book reads it, with the default quoting of pandas: {reason}. Correct the "
        f"file, or take --protocol near-copy-free or random, which read it without quoting."
    )


def book_parts(labels: Sequence[str]) -> list[list[int]]:
    """Positions of train, validation and test rows, in the book's order, for a table of two classes."""
    import pandas as pd

    rare, frequent = sorted(set(labels), key=lambda label: (labels.count(label), label))[:2]
    frame = pd.DataFrame({"place": range(len(labels)), "label": list(labels)})
    rare_rows, frequent_rows = frame[frame["label"] == rare], frame[frame["label"] == frequent]
    sampled = frequent_rows.sample(len(rare_rows), random_state=STATE)
    balanced = pd.concat([sampled, rare_rows]).sample(frac=1, random_state=STATE)
    places = [int(place) for place in balanced["place"]]
    first = int(len(places) * TRAIN)
    second = first + int(len(places) * VALIDATION)
    return [places[:first], places[first:second], places[second:]]

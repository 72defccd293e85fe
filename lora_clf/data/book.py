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

STATE = 123
TRAIN, VALIDATION = 0.7, 0.1


def quoted_corpus(corpus: Corpus, columns: Sequence[str] = ()) -> Corpus:
    """``SMSSpamCollection`` as pandas reads it by default: 5,572 of its 5,574 rows.

    A row keeps the number of the line on which it begins; the quotes around a text are gone. A warning names
    the rows that are swallowed.
    """
    import pandas as pd

    table = corpus.table
    assert table.raw_sms is not None
    frame = pd.read_csv(
        io.StringIO(table.raw_sms),
        sep="\t",
        header=None,
        names=["label", "text"],
        dtype=str,
        keep_default_na=False,
    )
    texts = tuple(str(text) for text in frame["text"])
    rows, line = [], 1
    for text in texts:
        rows.append(line)
        line += 1 + text.count("\n")
    cells: dict[str, tuple[str | None, ...]] = {"label": tuple(frame["label"].astype(str)), "text": texts}
    quoted = Table(table.name, cells, tuple(rows), raw_sms=table.raw_sms)
    read = checked(quoted, "text", "label", columns, name=corpus.name, licence=corpus.licence, origin=corpus.source)
    kept = set(rows)
    lost = [str(row) for row in table.rows if row not in kept]
    warning = (
        f"protocol book reads {len(rows):,} of {len(table):,} rows: the default quoting of pandas swallows "
        f"{', '.join(lost)}"
    )
    return replace(read, warnings=(warning,) if lost else ())


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

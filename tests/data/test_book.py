"""The book's data to the row, on the real file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lora_clf.data.book import quoted_corpus
from lora_clf.data.corpus import load_corpus
from lora_clf.data.dataset import Dataset, load_data
from lora_clf.errors import DataError, UsageError


@pytest.fixture(scope="module")
def dataset(sms_file: Path) -> Dataset:
    return load_data(sms_file, protocol="book")


def test_default_quoting_reads_two_rows_less(sms_file: Path) -> None:
    corpus = quoted_corpus(load_corpus(sms_file))
    assert Counter(corpus.part.labels) == {"ham": 4825, "spam": 747}
    assert len(corpus.part) == 5572
    first, *others = corpus.warnings
    assert first == "protocol book reads 5,572 of 5,574 rows: the default quoting of pandas swallows 5083, 5084"
    assert [other.split(" holds")[0] for other in others] == ["row 5082"]  # the reader's own, of the row that swallows


def test_the_parts(dataset: Dataset) -> None:
    assert [len(part) for part in dataset.parts.values()] == [1045, 149, 300]
    assert Counter(label for part in dataset.parts.values() for label in part.labels) == {
        "ham": 747,
        "spam": 747,
    }
    assert Counter(dataset.test.labels) == {"spam": 151, "ham": 149}
    assert dataset.labels == ("ham", "spam") and dataset.positive_label == "spam"
    assert dataset.protocol == "book" and dataset.licence == "CC BY 4.0"
    assert dataset.digest == "bdd82265151b5170" + dataset.digest[16:]


def test_it_is_what_the_book_computes(dataset: Dataset, sms_file: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(sms_file, sep="\t", header=None, names=["Label", "Text"])
    spam = frame[frame["Label"] == "spam"]
    ham = frame[frame["Label"] == "ham"].sample(spam.shape[0], random_state=123)
    balanced = pd.concat([ham, spam]).sample(frac=1, random_state=123).reset_index(drop=True)
    ours = [pair for part in dataset.parts.values() for pair in zip(part.labels, part.texts, strict=True)]
    assert ours == list(balanced.itertuples(index=False, name=None))


def test_row_numbers_are_lines_of_the_file(dataset: Dataset, sms_file: Path) -> None:
    lines = sms_file.read_text(encoding="utf-8").split("\n")
    for part in dataset.parts.values():
        for row, label, text in zip(part.rows, part.labels, part.texts, strict=True):
            own, _, written = lines[row - 1].partition("\t")
            assert own == label
            assert written.strip('"').replace('""', '"')[:20] == text.split("\n")[0].strip('"')[:20]


def test_what_it_leaks(dataset: Dataset) -> None:
    report = dataset.leaks()
    assert report.count("test", "exact") == (37, 300)
    assert report.count("test", "exact", "spam") == (33, 151)
    assert report.count("test", "0.7", "spam") == (63, 151)
    assert dataset.leaks() is report


def test_the_seed_changes_nothing(sms_file: Path, dataset: Dataset) -> None:
    assert load_data(sms_file, protocol="book", seed=5).digest == dataset.digest


def test_any_two_classes_by_the_same_procedure() -> None:
    dataset = load_data("demo", protocol="book")
    counts = Counter(label for part in dataset.parts.values() for label in part.labels)
    assert counts["ham"] == counts["spam"] == sum(counts.values()) // 2
    total = sum(counts.values())
    assert [len(part) for part in dataset.parts.values()][:2] == [int(total * 0.7), int(total * 0.1)]
    assert len(dataset.test.columns["hard"]) == len(dataset.test)


def test_more_classes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "topics.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{'abc'[n % 3]}\n" for n in range(30)))
    with pytest.raises(UsageError, match=r"book balances two classes; topics\.csv has 3: a, b, c"):
        load_data(path, protocol="book")
    with pytest.raises(UsageError, match="one fixed split"):
        load_data(path, protocol="book", group_column="label")


def raw_sms(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ('spam\t"never closed', 3, "EOF inside string"),
        ("spam\twin\tcash", 3, "Expected 2 fields in line 4, saw 3"),
    ],
)
def test_what_pandas_cannot_read_is_one_line(tmp_path: Path, line: str, place: int, words: str) -> None:
    lines = [f"{'ham' if n % 2 else 'spam'}\tnumber {n}" for n in range(20)]
    lines.insert(place, line)
    path = tmp_path / "sms.tsv"
    path.write_text(raw_sms(*lines))
    assert len(load_data(path, protocol="random").train)  # read without quoting it is fine
    with pytest.raises(DataError, match=words) as caught:
        load_data(path, protocol="book")
    assert "\n" not in str(caught.value) and "near-copy-free" in str(caught.value)


def test_bad_rows_are_refused_or_left_out_and_named_once(tmp_path: Path) -> None:
    lines = [f"{'ham' if n % 2 else 'spam'}\tnumber {n}" for n in range(20)]
    path = tmp_path / "sms.tsv"
    path.write_text(raw_sms(*lines[:4], "no tab", 'ham\t""', *lines[4:]))
    with pytest.raises(DataError, match="1 row of"):
        load_data(path, protocol="book")
    dataset = load_data(path, protocol="book", skip_bad_rows=True)
    named = [warning for warning in dataset.warnings if warning.startswith("left out row")]
    assert [warning.split(":")[0] for warning in named] == ["left out row 5", "left out row 6"]
    assert {5, 6}.isdisjoint(row for part in dataset.parts.values() for row in part.rows)


def test_other_shares_or_balance_are_refused() -> None:
    for arguments in ({"split": "80/10/10"}, {"balance": "undersample"}):
        with pytest.raises(UsageError, match="neither --split nor --balance"):
            load_data("demo", protocol="book", **arguments)  # type: ignore[arg-type]
    assert load_data("demo", protocol="book", split=(7, 1, 2)).protocol == "book"

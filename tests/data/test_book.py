"""The book's data to the row, on the real file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lora_clf.data.book import quoted_corpus
from lora_clf.data.corpus import load_corpus
from lora_clf.data.dataset import Dataset, load_data
from lora_clf.errors import UsageError


@pytest.fixture(scope="module")
def dataset(sms_file: Path) -> Dataset:
    return load_data(sms_file, protocol="book")


def test_default_quoting_reads_two_rows_less(sms_file: Path) -> None:
    corpus = quoted_corpus(load_corpus(sms_file))
    assert Counter(corpus.part.labels) == {"ham": 4825, "spam": 747}
    assert len(corpus.part) == 5572
    [warning] = corpus.warnings
    assert warning == ("protocol book reads 5,572 of 5,574 rows: the default quoting of pandas swallows 5083, 5084")


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

"""Which task a table's labels ask for, what they may not be, and how rows of each task are divided."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lora_clf.comparison.arguments import DataArguments
from lora_clf.data.dataset import load_data
from lora_clf.data.question import Question
from lora_clf.errors import DataError, UsageError

ROWS = range(1, 1000)
WORDS = ["red", "green", "blue", "gold", "pink", "grey", "teal", "lime", "navy", "plum"]


def asked(labels: list[str], **flags: str) -> tuple[str, str]:
    task, why = Question(**flags).answer(labels, ROWS[: len(labels)], "stars")
    return ("classes" if task.softmax else task.name), why


def text(number: int) -> str:
    return " ".join(WORDS[(number * step + number // 7) % 10] for step in (1, 3, 7, 9)) + f" {number * 7919}"


def table(folder: Path, labels: list[str], name: str = "t.csv") -> Path:
    file = folder / name
    lines = [f'{text(n)},"{label}"' for n, label in enumerate(labels)]
    file.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return file


def test_the_task_is_found_out_and_the_reason_said() -> None:
    assert asked(["a", "b", "a"]) == ("classes", "2 different labels")
    assert asked(["1", "2", "3", "1"])[1].endswith("--task ordinal or regression would use their order")
    assert asked([str(n / 7) for n in range(30)]) == ("regression", "the labels are 30 different numbers")
    assert asked([f"10_{n}" for n in range(30)])[0] == "classes"  # codes, though Python reads a number in each
    assert asked(["a|b", "a", "b", "b"]) == ("multilabel", "3 different labels are 2 between '|'")
    assert asked(["a|b", "c|d", "a|b"])[0] == "classes"  # nothing is shared: the bar is part of two names
    assert asked(['["a","b"]', "[]"]) == ("multilabel", "the labels are lists")
    assert asked(["1", "2", "3"], task="ordinal")[0] == "ordinal"
    assert asked(["1", "2", "3", "9"], bins="low:1,mid:3,high") == ("ordinal", "--bins was given")
    assert asked(["bad", "fair", "good"], label_order="bad,fair,good")[0] == "ordinal"
    assert asked(["a;b", "a"], label_separator=";")[0] == "multilabel"


COUNTED = [str(n % 77) for n in range(308)]


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (COUNTED, "classes"),  # numbers of classes
        ([str(n % 77 + 1) for n in range(308)], "classes"),
        ([f"{n % 30}.0" for n in range(90)], "classes"),
        ([str(n % 77 + 2) for n in range(308)], "regression"),  # counted from 2
        ([label for label in COUNTED if label != "40"], "regression"),  # with a gap
        ([*COUNTED, "77"], "regression"),  # 77 once
        ([*COUNTED, "0.0", "0.0"], "regression"),  # 0 spelt in two ways
        ([str(n) for n in range(30)], "regression"),
    ],
)
def test_numbers_that_count_without_a_gap_are_classes(labels: list[str], task: str) -> None:
    found, why = asked(labels)
    assert found == task and ("they count from" in why) == (task == "classes")
    assert asked(labels, task="regression") == ("regression", "as asked")


@pytest.mark.parametrize("count", [12, 90])
def test_numbers_of_rows_are_no_labels(tmp_path: Path, count: int) -> None:
    lines = [f"{1000 + n},{text(n)}" for n in range(count)]
    for column in ("id", "score"):
        (tmp_path / f"{column}.csv").write_text("\n".join([f"{column},text", *lines]), encoding="utf-8")
    arguments = [DataArguments(str(tmp_path / "id.csv"), {}, folds) for folds in (None, 3)]
    for each in arguments:
        with pytest.raises(DataError, match=r"id\.csv seems to have no labels: column 'id' .*--label-column"):
            each.load(0)
    assert load_data(tmp_path / "id.csv", task="regression").label_column == "id"
    if count > 20:
        assert load_data(tmp_path / "id.csv", label_column="id").task.name == "regression"
        assert load_data(tmp_path / "score.csv").task.name == "regression"


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["['x', 'y']", "['x']", "[]", "['y']"], ("x", "y")),  # as pandas writes lists
        (["['x','y z']", "[\"it's\", 'x']"], ("it's", "x", "y z")),
        (['["x"]', "['x', 'y']"], ("x", "y")),
        (["[1, 2]", "[1]"], ("1", "2")),
        (["[ham]", "[spam]"], None),  # names in brackets
        (["['x' 'y']", "['x']"], None),  # as numpy writes arrays
        (["['x', 1]", "['x']"], None),
        (['["x"]', "y"], None),
        (["[(1)]", "[x"], None),
    ],
)
def test_cells_are_lists_where_every_one_is(cells: list[str], names: tuple[str, ...] | None) -> None:
    task, why = Question().answer(cells, ROWS[: len(cells)], "labels")
    assert (None if task.softmax else task.labels) == names
    assert (why == "the labels are lists") == (names is not None)


@pytest.mark.parametrize(
    ("labels", "flags", "said"),
    [
        (["a", "b"], {"task": "multiclas"}, "multiclass"),
        (["a", "b"], {"task": "multiclass"}, "three or more different labels; there are 2"),
        (["a", "b", "c"], {"task": "binary"}, "two different labels; there are 3"),
        (["a", "b", "c"], {"task": "ordinal"}, "--label-order a,b,c"),
        (["1", "2"], {"task": "ordinal"}, "three classes or more"),
        (["1", "2", "3", "1.0"], {"task": "ordinal"}, "told apart by their numbers; 1(.0)? and 1(.0)? are the same"),
        (["a", "b", "c"], {"label_order": "a,b"}, "each label of the data once"),
        (["a", "a"], {"task": "multilabel"}, "two labels or more"),
        (["1", "2", "3"], {"bins": "low:2,high:1,x"}, "rising upper ends"),
        (["1", "2", "3"], {"bins": "low:-1,mid:2,high"}, "no row lies in low; numbers go from 1 to 3"),
        (["1", "1", "1", "2"], {"bins": "3"}, "Name the cuts"),
        (["1", "2", "3", "4"], {"bins": "10000000000"}, "there are 4 rows"),
        (["1", "2", "3", "4"], {"bins": "\u00b2"}, "expected three or more names with rising upper ends"),
        (["1"], {"bins": "2"}, "three classes or more"),
        (["1", "2", "3", "4", "5"], {"bins": "1:2,2:4,3"}, "1, 2, 3 could be a number of the table as well as a class"),
        (["a"], {"task": "binary", "label_separator": ";", "bins": "3"}, "about a multilabel task.*--bins is about"),
        (["a"], {"label_separator": ";", "bins": "3"}, "different tasks"),
        (["a"], {"label_order": "a,b,c", "bins": "3"}, "nothing to say"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(labels: list[str], flags: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(labels, **flags)


def test_rows_whose_label_is_no_number_are_all_named(tmp_path: Path) -> None:
    file = table(tmp_path, ["1", "two", "3", "nan", "5"])
    with pytest.raises(DataError) as caught:
        load_data(file, task="regression")
    assert "row 2: 'two'" in str(caught.value) and "row 4: 'nan'" in str(caught.value)


def test_numbers_are_divided_evenly_by_value(tmp_path: Path) -> None:
    data = load_data(table(tmp_path, [f"{n * n / 100:.2f}" for n in range(200)]))
    assert data.task.name == "regression" and data.labels == ("label",) and data.positive_label is None
    means = [np.mean([float(label) for label in part.labels]) for part in data.parts.values()]
    assert [len(part) for part in data.parts.values()] == pytest.approx([140, 20, 40], abs=6)
    assert max(means) / min(means) < 1.15
    assert data.task.settings()["mean"] == pytest.approx(means[0])
    assert set(data.leaks().as_dict()["parts"]["test"]["per_class"]) == {"any"}


def test_quantile_bins_name_their_ranges(tmp_path: Path) -> None:
    data = load_data(table(tmp_path, [str(n % 50) for n in range(150)]), bins="3")
    assert data.labels == ("up to 16", "above 16 to 33", "above 33")
    assert set(data.train.labels) == set(data.labels) and data.task.settings()["edges"] == [16.0, 33.0]
    assert load_data(table(tmp_path, [str(n % 50) for n in range(150)]), task=data.task).digest == data.digest


def test_bins_of_large_numbers_have_names_of_their_own(tmp_path: Path) -> None:
    data = load_data(table(tmp_path, [str(1_700_000_000 + n % 50) for n in range(150)]), bins="5")
    assert len(set(data.labels)) == 5 and data.labels[0] == "up to 1700000009"
    assert len(set(data.task.targets(data.train.labels).tolist())) == 5


def test_rows_may_have_several_labels_or_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    sets = [["b"], ["a", "b"], [], ["c"]]
    file.write_text("".join(json.dumps({"text": text(n), "labels": sets[n % 4]}) + "\n" for n in range(120)))
    data = load_data(file)
    assert data.labels == ("a", "b", "c") and data.task.name == "multilabel"
    for part in data.parts.values():
        assert data.task.targets(part.labels).any(0).all() and "" in part.labels
    plain = table(tmp_path, ["b", "a;b", "", "c"] * 30)
    assert load_data(plain, label_separator=";").train.labels.count("") == pytest.approx(21, abs=3)
    with pytest.raises(DataError, match="no label in column"):
        load_data(table(tmp_path, ["a", "", "b"] * 10, "v.csv"))
    with pytest.raises(DataError, match="'z' occurs once"):
        load_data(table(tmp_path, ["a|b", "a", "b", "z|a", *["a|b", "a", "b"] * 9], "w.csv"))


def test_settings_about_one_label_are_refused_for_the_others(tmp_path: Path) -> None:
    file = table(tmp_path, [str(n / 3) for n in range(90)])
    with pytest.raises(UsageError, match="--positive-label 1, --balance undersample does not apply"):
        load_data(file, positive_label="1", balance="undersample")


def test_a_list_in_the_text_column_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": [text(n)], "label": "ab"[n % 2]}) + "\n" for n in range(20)))
    with pytest.raises(DataError, match="holds a list, expected text"):
        load_data(file)


def test_nested_columns_trouble_nobody_who_does_not_ask_for_them(tmp_path: Path) -> None:
    extra = {"meta": {"id": 1}, "spans": [{"a": 1}], "vector": [0.5, 1]}
    records = [{"text": text(n), "label": "ab"[n % 2], **extra} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    (tmp_path / "rows.json").write_text(json.dumps(records))
    pd.DataFrame(records).to_parquet(tmp_path / "rows.parquet")
    for file in sorted(tmp_path.iterdir()):
        data = load_data(file)
        assert sum(map(len, data.parts.values())) == 40 and data.labels == ("a", "b"), file
        for column, kind in (("meta", "an object"), ("spans", "a list"), ("vector", "a list")):
            with pytest.raises(DataError, match=f"column '{column}' holds {kind}, expected text"):
                load_data(file, text_column=column)
        with pytest.raises(DataError, match="column 'meta' holds an object, expected a label or a list of labels"):
            load_data(file, label_column="meta")


def test_labels_may_be_lists_of_numbers(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": text(n), "labels": [n % 3, 7] if n % 2 else [n % 3]} for n in range(60)]
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    data = load_data(file)
    assert data.task.name == "multilabel" and data.labels == ("0", "1", "2", "7")


def test_a_table_without_names_loses_no_row_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"{'spam' if n % 2 else 'ham'},{text(n)}" for n in range(1, 60)]
    file.write_text("\n".join(lines) + "\n")  # the first line is a row, and says spam
    with pytest.raises(DataError, match="the line of names says 'spam', and so do rows below it"):
        load_data(file)
    named = tmp_path / "named.csv"
    named.write_text("\n".join(["spam,body", *lines]) + "\n")  # the same word, as the name of a column
    assert sum(map(len, load_data(named).parts.values())) == 59

"""What a user names, columns and splits, is taken as it is, refused, or named in a warning."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lora_clf.data import export, load_data
from lora_clf.data.corpus import FEW, find_columns, label_warnings
from lora_clf.data.table import Table
from lora_clf.errors import DataError, UsageError
from tests.data.test_dataset import rows, write


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"split": "80/10/10"}, "--split 80/10/10"),
        ({"split": "60/20/20", "protocol": "random"}, "--split 60/20/20, --protocol random"),
        ({"split": "7/1/2", "seed": 5, "balance": "undersample", "group_column": "who"}, None),  # the usual shares
    ],
    ids=str,
)
def test_flags_about_a_split_do_not_apply_to_a_whole_one(
    tmp_path: Path, flags: dict[str, Any], named: str | None
) -> None:
    table = [each | {"part": ["train", "dev", "test"][n // 3 % 3], "who": str(n)} for n, each in enumerate(rows(60))]
    path = write(tmp_path / "a.csv", table)
    half = write(tmp_path / "b.csv", [each | {"part": each["part"].replace("dev", "train")} for each in table])
    assert load_data(half, split_column="part", **flags).protocol == "given"  # validation is taken out of training
    if named is None:
        load_data(path, split_column="part", **flags)
        return
    with pytest.raises(UsageError, match=rf"a\.csv comes with a whole split of its own: {named} does not apply"):
        load_data(path, split_column="part", **flags)


@pytest.mark.parametrize(
    ("header", "carried", "apart", "found"),
    [
        ("text,label,more", ["label"], [], ("text", "label")),  # --by, --drop-rows
        ("text,verdict", ["verdict"], [], ("text", "verdict")),
        ("text,label,more", ["label"], ["label"], ("text", "label")),  # --group-column
        ("text,category,class", ["category"], ["category"], ("text", "class")),
        ("text,speaker,verdict", ["speaker"], ["speaker"], ("text", "verdict")),
        ("message,text,label", ["text"], ["text"], ("message", "label")),
        ("text,speaker,verdict", ["speaker"], [], None),
    ],
    ids=str,
)
def test_columns_that_are_asked_for_do_not_hide_the_labels(
    header: str, carried: list[str], apart: list[str], found: tuple[str, str] | None
) -> None:
    table = Table("t.csv", {name: () for name in header.split(",")}, ())
    if found is None:
        with pytest.raises(DataError, match=r"no column is known to hold the labels"):
            find_columns(table, None, None, carried, apart=apart)
    else:
        assert find_columns(table, None, None, carried, apart=apart) == found


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_behind_a_stray_quote_is_never_left_out(tmp_path: Path, skip: bool) -> None:
    rows = [f"text number {n} of the table,{'ab'[n % 2]}" for n in range(100)]
    rows[40], rows[20] = f'"{rows[40]}', "no label here,"
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read from row 41 on") as told:
        load_data(path, skip_bad_rows=skip)
    assert "skip" not in str(told.value)
    assert [problem.split(":")[0] for problem in told.value.problems] == ["row 41", "row 21"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Spam", "spam"], ["labels that differ in case only are taken as different: Spam, spam"]),
        (["caf\u00e9", "cafe\u0301"], [r"labels that look alike, .*: 'cafe\\u0301', 'caf\\xe9'"]),
        (["spam", "spam\u200b"], [r"labels that look alike, .*: 'spam', 'spam\\u200b'"]),
        (["big deal", "Big\u00a0deal"], [r"labels that look alike, .*: 'Big\\xa0deal', 'big deal'"]),
        (["1", "1.0", "2"], ["labels that are one number are taken as different: 1, 1.0"]),
        (["NaN", "a", "none"], ["class 'NaN' is what programs write where there is nothing; .*empty the cells"]),
        (["1_0", "10", "a", "\u00e4", "\u0430"], []),
    ],
    ids=ascii,
)
def test_names_of_classes_that_are_doubtful(names: list[str], said: list[str]) -> None:
    found = label_warnings([name for name in names for _ in range(FEW)])
    assert len(found) == len(said)
    assert all(re.fullmatch(each, warning) for each, warning in zip(said, found, strict=True)), found


def test_a_class_called_all_is_in_the_report_of_leaks(tmp_path: Path) -> None:
    table = [each | {"label": ["all", "none"][n % 2]} for n, each in enumerate(rows(60))]
    leaks = load_data(write(tmp_path / "a.csv", table), split="1/1/1").leaks()
    test = leaks.as_dict()["parts"]["test"]
    counts = {label: each["rows"] for label, each in test["per_class"].items()}
    assert set(counts) == {"all", "none"} and test["all"]["rows"] == sum(counts.values()) > counts["all"]
    assert leaks.as_text().count("  all  ") == 4  # of two parts, all rows and the class


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as told:
        load_data(tmp_path / ("a" * 300))
    assert Path(str(told.value.filename)).name == "a" * 300


def test_half_of_a_character_is_a_problem_wherever_it_is_read(tmp_path: Path) -> None:
    records = [{"text": f"text {n} {n * n}", "label": "ab"[n % 2], "who": "x", "more": "y"} for n in range(40)]
    records[3]["text"], records[5]["label"], records[8]["who"], records[9]["more"] = ["\ud83d"] * 4
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    half = "half of a character (a lone surrogate)"
    with pytest.raises(DataError) as told:
        load_data(path, columns=["who"])
    assert list(told.value.problems) == [
        f"row 4: the text holds {half}", f"row 6: column 'label' holds {half}", f"row 9: column 'who' holds {half}",
    ]  # fmt: skip
    kept = load_data(path, columns=["who"], skip_bad_rows=True)
    export(kept, tmp_path / "out")
    assert sum(map(len, kept.parts.values())) == 37

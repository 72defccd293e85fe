"""What a user names, columns and splits, is taken as it is, refused, or named in a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_clf.data import load_data
from lora_clf.data.corpus import find_columns
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

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_clf.data import Dataset, Part, export, folds, load_data, load_table
from lora_clf.errors import DataError, UsageError
from tests.data.test_near_copies import similar_pairs


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    words = [
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "haven",
        "inlet",
        "jetty",
        "knoll",
    ]
    words.append("larch")
    return [
        {
            "text": f"{words[n % 12]} {words[n * 5 % 11]} {n} {words[n // 12]}",
            "label": "rare" if n % 3 == 0 else "frequent",
            **{name: value(n) for name, value in more.items()},
        }
        for n in range(count)
    ]


def everything(dataset: Dataset) -> list[tuple[int, str, str]]:
    return sorted(
        triple for part in dataset.parts.values() for triple in zip(part.rows, part.texts, part.labels, strict=True)
    )


def test_every_row_is_in_one_part(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.csv", rows())
    for protocol in ("near-copy-free", "random"):
        dataset = load_data(path, protocol=protocol)
        assert everything(dataset) == [(n + 1, row["text"], row["label"]) for n, row in enumerate(rows())]
        assert dataset.labels == ("frequent", "rare") and dataset.positive_label == "rare"
        assert (dataset.name, dataset.source, dataset.licence) == ("notes", "notes.csv", None)
        assert dataset.protocol == protocol
        assert dataset.label_ids(dataset.test).tolist() == [
            dataset.labels.index(label) for label in dataset.test.labels
        ]
    assert [len(part) for part in load_data(path, protocol="random").parts.values()] == [42, 6, 12]


def test_the_digest_is_stable_and_sees_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.csv", rows())
    first = load_data(path, protocol="random")
    assert first.digest == load_data(path, protocol="random").digest
    assert first.digest == "10c5b2383d2bf688e8fc06cd598c3893afe86fb4dcdd984b63fb60d43fc32c96"
    others = [load_data(path, protocol="random", seed=1), load_data(path, protocol="random", split="6/2/2")]
    changed = rows()
    changed[5]["text"] += "!"
    others.append(load_data(write(tmp_path / "b.csv", changed), protocol="random"))
    assert len({first.digest, *(other.digest for other in others)}) == 4


def test_near_copies_of_the_real_file_stay_together(sms_file: Path) -> None:
    dataset = load_data(sms_file)
    assert [len(part) for part in dataset.parts.values()] == [3902, 558, 1114]
    assert Counter(dataset.test.labels) == {"ham": 965, "spam": 149}
    assert (dataset.name, dataset.licence) == ("sms-spam", "CC BY 4.0")
    assert "UCI" in dataset.source
    report = dataset.leaks()
    for part in ("validation", "test"):
        for level in ("exact", "0.7"):
            assert report.count(part, level)[0] == 0
    assert report.method == "exact"
    texts = [text for part in dataset.parts.values() for text in part.texts]
    side = np.repeat([0, 1, 2], [len(part) for part in dataset.parts.values()])
    pairs = similar_pairs(texts, 0.7)
    assert len(pairs) > 1000 and all(side[left] == side[right] for left, right in pairs)


def test_a_random_split_of_the_real_file_leaks(sms_file: Path) -> None:
    report = load_data(sms_file, protocol="random").leaks()
    assert report.count("test", "exact", "spam")[0] / 149 > 0.1
    assert report.count("test", "0.7", "spam")[0] / 149 > 0.3


def test_the_leak_report_is_json_and_a_table(tmp_path: Path) -> None:
    table = rows(40)
    for row in table[20:]:
        row["text"] = table[0]["text"]
    dataset = load_data(write(tmp_path / "a.csv", table), protocol="random")
    report = dataset.leaks()
    content = json.loads(json.dumps(report.as_dict()))
    assert content["parts"]["test"]["all"]["rows"] == len(dataset.test)
    expected = sum(text in set(dataset.train.texts) for text in dataset.test.texts)
    assert content["parts"]["test"]["all"]["exact"] == {
        "count": expected,
        "share": expected / len(dataset.test),
    }
    assert set(content["parts"]["test"]["per_class"]) == set(dataset.test.labels)
    assert report.as_text().splitlines()[0].split()[:3] == ["part", "class", "rows"]
    assert report.copies["test"]["exact"].sum() == expected
    with pytest.raises(UsageError, match=r"Unknown level '0\.6'"):
        report.count("test", "0.6")


def test_groups_stay_on_one_side_with_and_without_near_copies(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(90, speaker=lambda n: f"s{n % 15}"))
    for protocol in ("near-copy-free", "random"):
        dataset = load_data(path, group_column="speaker", protocol=protocol)
        sides = [set(part.columns["speaker"]) for part in dataset.parts.values()]
        assert all(sides) and sum(map(len, sides)) == 15
        assert len(everything(dataset)) == 90


def test_a_split_that_near_copies_make_lopsided_is_said(tmp_path: Path) -> None:
    table = rows(60)
    for number, row in enumerate(table[:52]):
        row["text"] = f"{table[0]['text']} {number}"
    path = write(tmp_path / "a.csv", table)
    dataset = load_data(path)
    sizes = [len(part) for part in dataset.parts.values()]
    assert sizes[0] >= 52 and sum(sizes) == 60
    said = [warning for warning in dataset.warnings if "stay together" in warning]
    assert len(said) == 1 and f"of 60 rows {sizes[0]} are train, " in said[0] and "not 70/10/20 %" in said[0]
    assert not any("stay together" in warning for warning in load_data(path, protocol="random").warnings)
    assert not any("stay together" in w for w in load_data(write(tmp_path / "b.csv", rows(60))).warnings)


def test_too_few_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(30, speaker=lambda n: f"s{n % 2}"))
    with pytest.raises(
        DataError,
        match=r"too few rows or groups in column 'speaker' to fill every part: (validation|test) would",
    ):
        load_data(path, group_column="speaker")


def test_a_split_column(tmp_path: Path) -> None:
    sides = ["Train", "dev", "test", "train", "training"]
    path = write(tmp_path / "a.csv", rows(50, part=lambda n: sides[n % 5]))
    dataset = load_data(path, split_column="part")
    assert [len(part) for part in dataset.parts.values()] == [30, 10, 10]
    assert dataset.protocol == "given"
    assert all(n % 5 == 3 for n in dataset.test.rows)
    path = write(tmp_path / "b.csv", rows(50, part=lambda n: "test" if n % 5 == 2 else "train"))
    dataset = load_data(path, split_column="part", protocol="random")
    assert [len(part) for part in dataset.parts.values()] == [35, 5, 10]
    path = write(tmp_path / "c.csv", rows(50, part=lambda n: "left" if n in (3, 4) else "train"))
    with pytest.raises(DataError, match="row 4: 'left'; expected train, validation or test") as caught:
        load_data(path, split_column="part")
    assert len(caught.value.problems) == 2


def test_own_files(tmp_path: Path) -> None:
    train, test = write(tmp_path / "x.csv", rows(60)), write(tmp_path / "y.csv", rows(12))
    dataset = load_data(train, test=test, balance="undersample")
    assert dataset.test.texts == tuple(row["text"] for row in rows(12))
    assert Counter(dataset.train.labels + dataset.validation.labels) == {"rare": 20, "frequent": 20}
    dataset = load_data(train, validation=test, test=test)
    assert len(dataset.train) == 60 and dataset.validation.texts == dataset.test.texts
    assert dataset.leaks().count("test", "exact") == (12, 12)
    odd = write(tmp_path / "z.csv", [{"text": "a", "label": "new"}, {"text": "b", "label": "new"}])
    with pytest.raises(DataError, match=r"label 'new' of the test part \(row 1\) is not in training"):
        load_data(train, test=odd)
    with pytest.raises(UsageError, match="not both"):
        load_data(train, test=test, split_column="part")


def test_undersampling_before_the_split(tmp_path: Path) -> None:
    dataset = load_data(write(tmp_path / "a.csv", rows(90)), balance="undersample", protocol="random")
    assert [Counter(part.labels) for part in dataset.parts.values()] == [
        {"rare": 21, "frequent": 21},
        {"rare": 3, "frequent": 3},
        {"rare": 6, "frequent": 6},
    ]
    assert dataset.positive_label == "rare"


def test_undersampling_training_alone_leaves_the_test_natural(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(90))
    natural, evened = (load_data(path, balance=b, protocol="random") for b in ("natural", "undersample-train"))
    assert Counter(evened.train.labels) == {"rare": 21, "frequent": 21}
    assert Counter(natural.train.labels) == {"rare": 21, "frequent": 42}
    assert evened.test.rows == natural.test.rows and evened.validation.rows == natural.validation.rows
    assert set(evened.train.rows) < set(natural.train.rows) and evened.digest != natural.digest
    cut = folds(load_table(path), 3, balance="undersample-train")
    assert len(cut) == 3 and sum(len(fold.test) for fold in cut) == 90
    for fold in cut:
        counts = Counter(fold.train.labels)
        assert counts["rare"] == counts["frequent"] and Counter(fold.test.labels)["frequent"] == 20
    with pytest.raises(UsageError, match="balance for folds"):
        folds(load_table(path), 3, balance="undersample")


def test_the_positive_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows())
    assert load_data(path, positive_label="frequent").positive_label == "frequent"
    with pytest.raises(UsageError, match=r"Unknown positive label 'rar'\. Did you mean 'rare'"):
        load_data(path, positive_label="rar")
    three = [row | {"label": f"c{n % 3}"} for n, row in enumerate(rows())]
    path = write(tmp_path / "b.csv", three)
    assert load_data(path).positive_label is None
    with pytest.raises(UsageError, match="is for two classes; there are 3"):
        load_data(path, positive_label="c1")
    even = [row | {"label": "yes" if n % 2 else "no"} for n, row in enumerate(rows())]
    assert load_data(write(tmp_path / "c.csv", even)).positive_label == "yes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"protocol": "near-copy"}, "Unknown protocol 'near-copy'. Did you mean 'near-copy-free'"),
        ({"balance": "oversample"}, "There are: natural, undersample"),
        ({"split": "80/20"}, "expected three numbers"),
        ({"seed": -1}, "The seed is -1"),
        ({"source": "sms-spm"}, "Unknown data 'sms-spm'. Did you mean 'sms-spam'"),
    ],
)
def test_wrong_settings(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_data(**({"source": "demo"} | arguments))


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    def renamed(**names: str) -> list[dict[str, Any]]:
        return [{new: row[old] for old, new in names.items()} for row in rows()]

    for text, label in (("Message", "Category"), ("v2", "v1"), ("sentence", "odd"), ("odd", "label")):
        part = load_table(write(tmp_path / "a.csv", renamed(text=text, label=label)))
        assert part.texts[0] == rows()[0]["text"] and part.labels[0] == "rare"
    path = write(tmp_path / "b.csv", renamed(text="x1", label="x2"))
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert len(caught.value.problems) == 2
    assert "There are: x1, x2. Name one with text_column (--text-column)" in str(caught.value)
    assert load_table(path, text_column="x1").labels[0] == "rare"
    with pytest.raises(DataError) as caught:
        load_data(path, text_column="x_1", label_column="x3")
    assert caught.value.problems[0] == "no column 'x_1'. Did you mean 'x1'? There are: x1, x2."
    assert len(caught.value.problems) == 2
    with pytest.raises(DataError, match="cannot be both"):
        load_data(path, text_column="x1", label_column="x1")


def test_all_problems_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,text\nham,fine\nham,\n,no label\nham,a,b\nspam,win\nham,good\nspam,cash\n")
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["row 4", "row 2", "row 3"]
    assert "no text in column 'text'" in str(caught.value) and "no label in column 'label'" in str(caught.value)
    dataset = load_data(path, skip_bad_rows=True, split="2/1/1", protocol="random")
    assert [row for row, _, _ in everything(dataset)] == [1, 5, 6, 7]
    assert sum(warning.startswith("left out row") for warning in dataset.warnings) == 3


def test_labels_nothing_can_be_learnt_from(tmp_path: Path) -> None:
    table = rows(30)
    table[4]["label"] = "lonely"
    with pytest.raises(DataError, match=r"label 'lonely' occurs once \(row 5\)"):
        load_data(write(tmp_path / "a.csv", table))
    same = [row | {"label": "same"} for row in rows(30)]
    path = write(tmp_path / "b.csv", same)
    with pytest.raises(DataError, match="only one class, 'same'"):
        load_data(path)
    assert len(load_table(path)) == 30  # evaluation may meet one class only
    path.write_text("text,label\n")
    with pytest.raises(DataError, match="no row with a text and a label"):
        load_data(path)


def test_warnings(tmp_path: Path) -> None:
    table = rows(60)
    for n in (3, 6, 9):
        table[n]["label"] = "Frequent"
    table[1]["text"] = "stray\nrare,another row"
    warnings = load_data(write(tmp_path / "a.csv", table)).warnings
    assert "row 2 holds a line break and what looks like another row: is a quote missing or stray there?" in warnings
    assert "class 'Frequent' has 3 examples; below 20 its figures mean little" in warnings
    assert "labels that differ in case only are taken as different: Frequent, frequent" in warnings


def test_half_a_character_is_a_problem_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row) for row in rows(20)]
    lines[3] = '{"text": "broken \\ud83d", "label": "rare"}'
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="row 4: the text holds half of a character"):
        load_data(path)


def test_the_demo_has_its_hard_rows_marked() -> None:
    dataset = load_data("demo")
    assert len(everything(dataset)) >= 600
    assert set(dataset.test.columns["hard"]) == {"0", "1"}
    assert (dataset.name, dataset.licence) == ("demo", "Apache-2.0")
    assert dataset.leaks().count("test", "0.5") == (0, len(dataset.test))


def test_folds(sms_file: Path) -> None:
    part = load_table(sms_file)
    assert len(part) == 5574
    fine = folds(part, 5, seed=1, name="sms-spam")
    assert len(fine) == 5
    tested = sorted(row for dataset in fine for row in dataset.test.rows)
    assert tested == list(range(1, 5575))
    for dataset in fine:
        assert len(everything(dataset)) == 5574
        assert abs(len(dataset.test) - 1115) < 40
        assert abs(Counter(dataset.test.labels)["spam"] - 149) < 15
    assert fine[0].leaks().count("test", "0.7")[0] == 0
    assert fine[0].leaks().count("validation", "0.7")[0] == 0
    assert fine[2].name == "sms-spam fold 3 of 5"


def test_folds_with_groups_and_wrong_folds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(90, speaker=lambda n: f"s{n % 15}"))
    part = load_table(path, columns=["speaker"])
    cut = folds(part, 3, 0, "random", group_column="speaker")
    assert len(cut) == 3
    for dataset in cut:
        sides = [set(side.columns["speaker"]) for side in dataset.parts.values()]
        assert sum(map(len, sides)) == 15
    with pytest.raises(UsageError, match="Unknown protocol for folds 'book'"):
        folds(part, 3, 0, "book")
    with pytest.raises(UsageError, match=r"Unknown group column 'spaker'\. Did you mean 'speaker'"):
        folds(part, 3, 0, group_column="spaker")
    with pytest.raises(UsageError, match="validation share"):
        folds(part, 3, 0, validation=1.0)


def test_a_part_can_be_cut() -> None:
    part = Part(("a", "b", "c"), ("x", "y", "x"), (4, 5, 9), {"hard": ("0", "1", "1")})
    cut = part.take([2, 0])
    assert (cut.texts, cut.labels, cut.rows, cut.columns) == (
        ("c", "a"),
        ("x", "x"),
        (9, 4),
        {"hard": ("1", "0")},
    )


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=20, max_size=40), seed=st.integers(0, 9))
def test_what_is_exported_is_read_back(texts: list[str], seed: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"text": text, "label": f"c{n % 2}"} for n, text in enumerate(texts)]
    path.write_text("\n".join(json.dumps(record) for record in records))
    dataset = load_data(path, seed=seed, protocol="random")
    folder = export(dataset, tmp_path / "out", force=True)
    again = load_data(folder, columns=["row"])
    assert again.digest == dataset.digest
    assert tuple(map(int, again.test.columns["row"])) == dataset.test.rows


def test_export_overwrites_only_when_told(tmp_path: Path) -> None:
    dataset = load_data("demo")
    export(dataset, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "test.csv",
        "train.csv",
        "validation.csv",
    ]
    before = (tmp_path / "out" / "train.csv").read_bytes()
    with pytest.raises(UsageError, match=r"already train\.csv, validation\.csv, test\.csv in 'out'"):
        export(load_data("demo", seed=1), tmp_path / "out")
    assert (tmp_path / "out" / "train.csv").read_bytes() == before
    export(load_data("demo", seed=1), tmp_path / "out", force=True)
    assert (tmp_path / "out" / "train.csv").read_bytes() != before


def test_a_prepared_folder_keeps_its_hard_rows_and_has_its_own_name(tmp_path: Path) -> None:
    dataset = load_data("demo")
    again = load_data(export(dataset, tmp_path / "Mine"))
    assert (again.name, again.source, again.protocol, again.digest) == ("Mine", "Mine", "given", dataset.digest)
    for name, part in dataset.parts.items():
        assert again.parts[name].columns["hard"] == part.columns["hard"]


def test_a_prepared_folder_is_no_table(tmp_path: Path) -> None:
    folder = export(load_data("demo"), tmp_path / "parts")
    with pytest.raises(DataError, match=r"'parts' holds prepared splits, .* give the original table") as caught:
        load_table(folder)
    assert "\n" not in str(caught.value)
    assert len(load_table(folder / "test.csv").columns["hard"]) == len(load_data("demo").test)


def test_a_column_called_hard_may_be_the_text_or_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"text": row["text"], "hard": row["label"]} for row in rows()])
    dataset = load_data(path, label_column="hard")
    assert dataset.label_column == "hard" and not dataset.train.columns


@pytest.mark.parametrize("failing", range(1, 10))  # three files written, three old ones moved away, three in
def test_an_export_that_fails_leaves_the_split_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    import os

    first, second = (load_data(write(tmp_path / "a.csv", rows()), seed=seed) for seed in (0, 1))
    out = tmp_path / "deep" / "out"
    export(first, out)
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    real, calls = os.replace, []

    def full(come: Any, go: Any) -> None:
        calls.append(come)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        real(come, go)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="'out' cannot be written to: No space left"):
        export(second, out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.undo()
    export(second, out, force=True)
    assert load_data(out).digest == second.digest and (out / "notes.txt").read_text() == "mine"
    assert len(list(out.iterdir())) == 4


def test_an_export_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    dataset = load_data(write(tmp_path / "a.csv", rows()))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        export(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()

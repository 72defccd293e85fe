from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lora_clf.comparison.comparison import Comparison, without_folder
from lora_clf.comparison.standing import Standing
from lora_clf.reports.made import used_by
from lora_clf.reports.table import as_csv, cells_of, columns_of, escaped, footnotes, share_text, size_text
from tests.comparison.invented import invented, write


def by_label(rows: list[Standing]) -> dict[str, Standing]:
    return {row.label: row for row in rows}


def test_what_can_be_told_apart_is() -> None:
    found = invented({"head-only": 0.7, "lora": 0.95, "full": 0.95}, baseline=0.8)
    rows = by_label(found.standings)
    assert rows["lora"].best and not rows["lora"].tied  # of equals the smaller
    assert rows["full"].tied and not rows["head-only"].tied
    worse = rows["head-only"].to_best
    assert worse is not None and worse.high < 0 and worse.mean == pytest.approx(-0.25)
    assert rows["full"].accuracy.low < 0.95 < rows["full"].accuracy.high and rows["full"].accuracy.sd == pytest.approx(
        0
    )
    _, _, first, *rest = found.verdict_lines
    assert first.startswith("lora got most right: 95.0 % of 400 test rows") and "cannot tell it from full." in first
    assert "head-only is worse by more than chance explains." in rest
    assert "lora and full beat TF-IDF + LR (80.0 %) by more than the interval." in rest
    assert "head-only is worse than TF-IDF + LR (80.0 %)." in rest


def test_a_tie_with_the_baseline_is_said() -> None:
    found = invented({"head-only": 0.95, "lora": 0.96}, rows=100, seeds=1, baseline=0.95)
    assert "No strategy beats TF-IDF + LR (95.0 %) by more than the interval." in found.verdict_lines
    assert "use --seeds 3 or more" in found.verdict
    assert "cannot tell it from head-only" in found.verdict_lines[2]


def test_more_strategies_widen_the_interval() -> None:
    few = by_label(invented({"head-only": 0.9, "lora": 0.93}).standings)["head-only"].to_best
    many = {"head-only": 0.9, "lora": 0.93, "full": 0.5, "last-block": 0.5, "lora-scratch": 0.5}
    wide = by_label(invented(many).standings)["head-only"].to_best
    assert few is not None and wide is not None and wide.high - wide.low > few.high - few.low


def test_letters_show_what_can_be_told_apart() -> None:
    found = invented({"head-only": 0.7, "last-block": 0.9, "lora": 0.95, "full": 0.95}, baseline=0.8, rows=1000)
    rows = by_label(found.standings)
    groups = {label: row.group for label, row in rows.items()}
    assert groups["lora"] == groups["full"] == "a" and len(set(groups.values())) == 4
    assert set(groups["head-only"] + groups["last-block"]).isdisjoint("a") and rows["TF-IDF + LR"].group
    headings = [column.heading for column in columns_of(found)]
    assert [cells[headings.index("group")] for cells in cells_of(found)] == [row.group for row in found.standings]
    assert any("share a letter" in note for note in footnotes(found))
    assert rows["TF-IDF + LR"].to_best is not None and rows["TF-IDF + LR"].to_best.high < 0
    assert found.power is not None and 0 < found.power["1"] < found.power["2"] <= 1


def test_seeds_of_one_strategy_that_are_missing_are_left_out_for_all() -> None:
    from dataclasses import replace

    found = invented({"head-only": 0.7, "lora": 0.95, "full": 0.95})
    kept = tuple(o for o in found.outcomes if not (o.label == "full" and o.seed > 0))
    rows = by_label(replace(found, outcomes=kept).standings)
    assert rows["full"].seeds == 1 and rows["lora"].seeds == 3
    assert rows["full"].to_best is not None and rows["full"].tied and not rows["head-only"].tied


def test_near_copies_count_as_one() -> None:
    from dataclasses import replace

    found = invented({"head-only": 0.9, "lora": 0.9}, rows=300, seeds=1)
    data = found.datasets[0, None]
    copies = replace(data.test, texts=tuple(text for text in data.test.texts[:30] for _ in range(10)))
    again = replace(found, datasets={(0, None): replace(data, test=copies)})
    narrow, wide = found.standings[0].accuracy, again.standings[0].accuracy
    assert narrow.mean == wide.mean and wide.high - wide.low > (narrow.high - narrow.low) * 1.02


def test_rows_of_one_group_count_as_one() -> None:
    """In every interval: of scores, of differences and of what the recommendation may lose."""
    from dataclasses import replace

    found = invented({"head-only": 0.9, "lora": 0.93}, rows=300)
    data = found.datasets[0, None]
    speakers = {"who": tuple(f"s{number // 30}" for number in range(300))}
    parts = {name: replace(part, columns=speakers) for name, part in data.parts.items()}
    again = replace(found, datasets={(0, None): replace(data, **parts, group_column="who")})
    narrow, wide = found.standings[0], again.standings[0]
    assert len(set(again.groups.values())) == 10 and len(set(found.groups.values())) == 300
    assert narrow.accuracy.mean == wide.accuracy.mean
    assert wide.accuracy.high - wide.accuracy.low > 1.05 * (narrow.accuracy.high - narrow.accuracy.low)
    assert wide.to_best is not None and narrow.to_best is not None
    assert wide.to_best.high - wide.to_best.low > 1.05 * (narrow.to_best.high - narrow.to_best.low)
    one, other = found.recommendation, again.recommendation
    assert one is not None and other is not None
    assert other.candidate("head-only").bound != one.candidate("head-only").bound


def test_macro_f1_has_no_interval() -> None:
    import csv
    import json

    from lora_clf.reports.table import as_json

    for seeds in (1, 3):
        found = invented({"head-only": 0.7, "full": 0.9}, seeds=seeds)
        row = json.loads(as_json(found))["rows"][0]["macro_f1"]
        assert row["low"] is None and row["high"] is None and (row["sd"] is None) == (seeds == 1)
        line = next(csv.DictReader(as_csv(found).splitlines()))
        assert line["macro_f1_low"] == line["macro_f1_high"] == "" and float(line["macro_f1"]) == row["mean"]


def test_one_strategy_is_not_called_better_than_others() -> None:
    alone, two = invented({"lora": 0.9}), invented({"lora": 0.95, "head-only": 0.7})
    assert "others" not in footnotes(alone)[0] and "all others are worse" in footnotes(two)[0]


@pytest.mark.usefixtures("inside")
def test_the_report_names_the_intervals_that_are_used(tmp_path: Path) -> None:
    from dataclasses import replace

    def line(found: Comparison, name: str) -> str:
        report = (write(found, tmp_path / name) / "report.md").read_text()
        (line,) = [line for line in report.splitlines() if "intervals: " in line]
        assert "max-T" in line and "Bonferroni" not in line and "Wilson" in line
        return line

    rates = {"head-only": 0.7, "lora": 0.95}
    several = invented(rates)
    assert "corrected for near-copy groups and seeds" in line(several, "several")
    assert "groups and seeds" in line(several, "several") and "widened as seeds are few" in line(several, "several")
    assert "seeds" not in line(invented(rates, seeds=1), "one")
    assert "the wider of" in line(replace(several, plan=replace(several.plan, resplit=True)), "resplit")


def test_a_data_name_may_hold_the_word_fold() -> None:
    from dataclasses import replace

    from lora_clf.comparison.comparison import facts_of_data

    found = invented({"lora": 0.9})
    data, plan = found.datasets[0, None], found.plan
    named = {(0, None): replace(data, name="a fold 1 of 2 b")}
    assert facts_of_data(plan, named)["name"] == "a fold 1 of 2 b"
    cut = replace(plan, data=replace(plan.data, folds=3))
    named = {(0, 0): replace(data, name="the fold 1 of 2 b fold 1 of 3")}
    assert facts_of_data(cut, named)["name"] == "the fold 1 of 2 b"


@pytest.mark.usefixtures("inside")
def test_several_classes_have_no_positive_columns(tmp_path: Path) -> None:
    found = invented({"head-only": 0.7, "full": 0.9}, labels=("a", "b|c", "<d>"))
    row = found.standings[0]
    assert row.recall is None and row.false_positives is None
    assert not any("found" in column.heading for column in columns_of(found))
    out = write(found, tmp_path / "out")
    assert "&lt;d&gt;" in (out / "report.html").read_text() and "<d>" not in (out / "report.html").read_text()
    assert "b\\|c" in (out / "report.md").read_text()
    assert "recall" in as_csv(found).splitlines()[0]


def test_the_same_findings_give_the_same_files(tmp_path: Path) -> None:
    rates = {"head-only": 0.7, "lora": 0.95, "full": 0.95}
    one, two = write(invented(rates), tmp_path / "one"), write(invented(rates), tmp_path / "two")
    names = sorted(file.name for file in one.iterdir())
    assert len(names) == 9
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_numbers_for_people() -> None:
    assert [size_text(n) for n in (None, 12, 8557, 999_499, 999_500, 1_350_000, 90_300_000)] == [
        "–",
        "12 B",
        "8.56 kB",
        "999 kB",
        "1 MB",
        "1.35 MB",
        "90.3 MB",
    ]
    assert [share_text(x) for x in (1.0, 0.0788, 3.4e-5)] == ["100 %", "7.9 %", "0.0034 %"]
    assert escaped("a|b*c_d") == "a\\|b\\*c\\_d"
    assert escaped("R&D &lt;b&gt;") == "R\\&D \\&lt;b\\&gt;"  # which is no tag
    assert escaped("a\n# b ![x](http://c)\t") == "a \\# b \\!\\[x\\](http:\\//c)"  # one line, no image, no link


def test_the_order_of_the_strategies_changes_nothing() -> None:
    found = invented({"head-only": 0.9, "lora": 0.93, "full": 0.92}, seeds=3)
    other = replace(found, plan=replace(found.plan, contenders=found.plan.contenders[::-1]))
    rows, again = ({row.label: row.to_json() for row in one.standings} for one in (found, other))
    assert rows == again and len(rows) == 4
    assert found.recommendation is not None and found.recommendation == other.recommendation
    assert found.power == other.power and found.verdict_lines[0] == other.verdict_lines[0]


def test_what_went_wrong_in_training_is_told_once_for_each_contender() -> None:
    found = invented({"lora": 0.9, "full": 0.9})
    assert not any("lora: " in note for note in footnotes(found))
    finding = {"name": "overfitting", "found": "the loss is 0.01 in training", "advice": "try fewer --epochs"}
    runs = tuple(
        replace(run, diagnosis=[finding]) if run.label == "lora" and run.seed != 1 else run for run in found.outcomes
    )
    told = [note for note in footnotes(replace(found, outcomes=runs)) if "overfitting" in note]
    assert told == ["lora: overfitting in 2 of 3 runs: the loss is 0.01 in training; try fewer --epochs."]


def test_no_folder_in_a_command() -> None:
    words = [
        "compare",
        "/home/Jane Doe/Secret Client/a b.csv",
        "--out=C:\\Users\\x\\runs",
        "--data=~/x/y.csv",
        "runs/z",
        "--k=3",
    ]
    expected = ["compare", "a b.csv", "--out=runs", "--data=y.csv", "runs/z", "--k=3"]
    assert [without_folder(word) for word in words] == expected


def test_settings_are_told_as_they_were_used() -> None:
    assert used_by([]) == {} and used_by([{"rank": 4, "lr": 0.1}]) == {"rank": 4, "lr": 0.1}
    several = used_by([{"rank": 4, "lr": 0.1}, {"rank": 8, "lr": 0.1}])
    assert several == {"rank": "as tuned, not the same in all runs", "lr": 0.1}

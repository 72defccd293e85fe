"""`evaluate` in detail: by class, length and column, calibration, thresholds, errors, rows left out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.data import partition
from tests.cli.conftest import rows, run_cli

Cli = Callable[..., Any]
SPLIT = ("--split", "40/40/20")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the shared table, with speakers, one of whom mislabels, and numbers that make lengths differ."""
    file = tmp_path_factory.mktemp("spoken") / "Spoken.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("text", "label", "speaker"))
        for number, (text, label) in enumerate(rows(180)):
            speaker = ("ann", "bob", "")[number // 3 % 3]
            if speaker == "bob" and number % 4 == 0:
                label = "ham" if label == "spam" else "spam"
            writer.writerow((f"{text} {number}" + f" {text}" * (number % 4), label, speaker))
    return file


@pytest.fixture(scope="module")
def tuned(base: Path, spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "spam"
    run_cli(
        "train", spoken, "--base", base, "--strategy", "head-only", "--precision", "fp32", "--device", "cpu", *SPLIT,
        "--threshold", "f1", "--out", folder, "--json",
    ).ok()  # fmt: skip
    return folder


def test_json_holds_everything(cli: Cli, tuned: Path, base: Path, spoken: Path) -> None:
    said = cli("evaluate", tuned, spoken, "--base", base, *SPLIT, "--by", "speaker", "--json").ok()
    found = said.json()
    header = json.loads((tuned / "adapter_config.json").read_text(encoding="utf-8"))
    assert found["temperature"] == header["temperature"] is not None
    assert found["threshold"] == header["threshold"] is not None and found["dropped"] == {}
    assert set(found["reports"]) == {"validation", "test"}
    for part, report in found["reports"].items():
        n, scores = found[part]["n"], found[part]
        wrong = n - sum(scores["confusion_matrix"][place][place] for place in (0, 1))
        assert 2 <= wrong == len(report["errors"]) < n / 2
        assert [each["label"] for each in report["by_class"]] == ["ham", "spam"]
        assert {each["value"] for each in report["by"]["speaker"]} == {"ann", "bob", "(empty)"}
        for parts in (report["by_class"], report["by_length"], report["by"]["speaker"]):
            assert sum(each["n"] for each in parts) == n and sum(each["errors"] for each in parts) == wrong
        by = {each["value"]: each for each in report["by"]["speaker"]}
        assert by["bob"]["accuracy"] < by["ann"]["accuracy"]
        assert len(report["by_length"]) >= 3 and len(report["thresholds"]) == 12
        assert set(report["reliability"]) == {"before_temperature", "after_temperature"}
        assert scores["calibrated"]["temperature"] == found["temperature"]
        assert {"mcc", "balanced_accuracy", "brier", "macro_pr_auc", "calibration_error_equal_mass"} <= scores.keys()
    with spoken.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    for each in found["reports"]["test"]["errors"]:
        assert (table[each["row"] - 1]["text"], table[each["row"] - 1]["label"]) == (each["text"], each["label"])
    # what is reported is what predict answers
    texts = [each["text"] for each in found["reports"]["test"]["errors"]]
    answers = cli("predict", tuned, *texts, "--base", base, "--json").ok().json()
    for answer, each in zip(answers, found["reports"]["test"]["errors"], strict=True):
        assert answer["label"] == each["predicted"]
        assert answer["probability"] == pytest.approx(each["probability"], abs=1e-5)


def test_the_text_form(cli: Cli, tuned: Path, base: Path, spoken: Path) -> None:
    out = cli("evaluate", tuned, spoken, "--base", base, *SPLIT, "--by", "speaker", "--errors", 1).ok().out
    for words in (
        "In detail, on test (intervals: 95 %", "balanced accuracy", "with the temperature", "true label  texts",
        " tokens ", "speaker  texts  errors", "(empty)", "spam from  flagged", "the surest mistakes first",
        "more errors are in --json.",
    ):  # fmt: skip
        assert words in out, words
    none = cli("evaluate", tuned, spoken, "--base", base, *SPLIT, "--errors", 0).ok().out
    assert "more errors are in --json." in none and "surest mistakes" not in none


def test_many_rows_count_by_themselves_and_it_says_so(
    cli: Cli, tuned: Path, base: Path, spoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ("evaluate", tuned, spoken, "--base", base, *SPLIT, "--errors", 0)
    assert "(intervals: 95 %, over texts; near copies count as one)" in cli(*ask).ok().out
    monkeypatch.setattr("lora_clf.cli.companions.SEARCHED", 3)
    asked: list[str] = []
    looked = partition.groups_of

    def groups_of(part: Any, how: str, column: str | None) -> Any:
        asked.append(how)
        return looked(part, how, column)

    monkeypatch.setattr(partition, "groups_of", groups_of)
    assert "each counts by itself, as near copies are looked for among up to 3)" in cli(*ask).ok().out
    assert asked[-2:] == ["random", "random"]  # of validation and of the test


def test_rows_are_left_out_of_what_is_scored_only(cli: Cli, tuned: Path, base: Path, spoken: Path) -> None:
    args = ("evaluate", tuned, spoken, "--base", base, *SPLIT)
    whole = cli(*args, "--by", "speaker", "--json").ok().json()
    bob = {part: {e["value"]: e["n"] for e in whole["reports"][part]["by"]["speaker"]} for part in whole["reports"]}
    less = cli(*args, "--drop-rows", "speaker=bob", "--json").ok().json()
    assert less["same_split_as_training"] is True
    for part in ("validation", "test"):
        assert less["dropped"][part] == bob[part]["bob"] > 0
        assert less[part]["n"] == whole[part]["n"] - bob[part]["bob"]
    assert less["test"]["accuracy"] > whole["test"]["accuracy"]
    both = cli(*args, "--all-rows", "--split", "70/10/20", "--drop-rows", "speaker=bob", "--drop-rows", "speaker=").ok()
    assert "Left out of all: 120 rows (speaker=bob, speaker=)." in both.out and "all      60" in both.out


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--drop-rows", "speaker"), 2, "--drop-rows 'speaker': expected column=value"),
        (("--drop-rows", "speaker=eve"), 2, "no row has it. Column 'speaker' holds 'ann' (38), 'bob' (35), '' (35)"),
        (("--drop-rows", "spekaer=bob"), 1, "speaker"),
        (("--by", "spekaer"), 1, "speaker"),
        (("--errors", -1), 2, "--errors -1: expected 0 or more."),
        (
            ("--drop-rows", "speaker=ann", "--drop-rows", "speaker=bob", "--drop-rows", "speaker="), 1,
            "No row of validation is left: --drop-rows leaves out all 72.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(
    cli: Cli, tuned: Path, base: Path, spoken: Path, flags: tuple[object, ...], code: int, said: str
) -> None:
    ran = cli("evaluate", tuned, spoken, "--base", base, *SPLIT, *flags)
    assert (ran.code, ran.out) == (code, "") and said in ran.err and "Traceback" not in ran.err


def test_another_positive_label_keeps_the_answers(cli: Cli, tuned: Path, base: Path, spoken: Path) -> None:
    """The threshold is about the label that the adapter was trained to find, whichever is reported."""
    args = ("evaluate", tuned, spoken, "--base", base, *SPLIT, "--json")
    spam, ham = (cli(*args, "--positive-label", label).ok().json()["test"] for label in ("spam", "ham"))
    assert spam["confusion_matrix"] == ham["confusion_matrix"] and spam["recall"] != ham["recall"]
    assert ham["recall"] == spam["per_class"]["ham"]["recall"]


def test_what_a_temperature_would_do_where_there_is_none(cli: Cli, base: Path, spoken: Path, tmp_path: Path) -> None:
    """As for adapters that were trained before there were temperatures."""
    cli(
        "train", spoken, "--base", base, "--strategy", "head-only", "--precision", "fp32", "--device", "cpu", *SPLIT,
        "--no-temperature", "--out", tmp_path / "a",
    ).ok()  # fmt: skip
    args = ("evaluate", tmp_path / "a", spoken, "--base", base, *SPLIT)
    found = cli(*args, "--json").ok().json()
    assert found["temperature"] is None and "calibrated" not in found["test"]
    would = found["temperature_would_be"]
    assert would["value"] > 0 and would["rows"] == 72 and would["loss_after"] < would["loss_before"]
    assert would["loss_before"] == pytest.approx(found["validation"]["loss"])
    assert f"One of {would['value']:g}, fitted on validation, would make them" in cli(*args).ok().out
    assert "the adapter has no temperature." in cli(*args[:5], "--all-rows").ok().out

"""`train` and `evaluate`: what they print, what they save, what they refuse before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.adapters.adapter import read_header
from lora_clf.errors import TrainingError

Cli = Callable[..., Any]
SCORES = {"accuracy", "macro_f1", "mcc", "confusion_matrix", "per_class", "n"}


def test_json_holds_everything(trained: tuple[Path, Any]) -> None:
    folder, said = trained
    for part, rows in (("validation", 18), ("test", 36)):
        assert said[part].keys() >= SCORES and said[part]["n"] == rows
    assert said["test"]["accuracy"] > 0.9  # the words tell the labels apart
    assert said["strategy"] == "lora" and said["settings"]["rank"] == 4
    assert said["positive_label"] == "spam" and said["labels"] == ["ham", "spam"]
    assert said["trainable_parameters"] == 2 * (4 * 4 * (32 + 32) + 2 * 4 * (32 + 48)) + 2 * 33
    assert said["share"] == pytest.approx(said["trainable_parameters"] / said["total_parameters"])
    assert said["adapter_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert len(said["history"]) == 6 and said["seconds"] > 0 and said["base"] == "tiny-bert"
    assert {"exact", "0.7", "0.5"} <= said["leaks"]["test"]["all"].keys()


def test_the_text_form(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    ran = cli(
        "train", "--data", table, "--base", base, "--strategy", "last-block", "--epochs", 2, "--out", tmp_path / "a",
        "--precision", "fp32", "--protocol", "random",
    ).ok()  # fmt: skip
    for words in (
        "Data: Messages (Messages.csv), split: random",
        "Texts: 126 train, 18 validation, 36 test; 2 labels: ham, spam.",
        "Positive label: spam (the rarer of the two",
        "Copies in training",
        "epoch  training loss  validation accuracy  validation macro-F1",
        "part        texts  accuracy  macro-F1  spam precision  spam recall",
        "test: true label  precision",
        "Trainable parameters: ",
        "Use it: lora-clf predict",
    ):
        assert words in ran.out, words
    assert [line.split(":")[0] for line in ran.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file()


def test_the_default_place_is_named_after_data_and_strategy(
    cli: Cli, base: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("train", table, "--base", base, "--strategy", "head-only", "--epochs", 1, "--precision", "fp32", "--json")
    assert cli(*args).ok().json()["adapter"] == str(Path("my-adapters", "messages-head-only"))
    again = cli(*args)
    assert again.code == 2 and "There is an adapter in my-adapters/messages-head-only" in again.err
    assert cli(*args, "--force").code == 0


def test_an_adapter_is_not_overwritten_and_nothing_is_loaded_before_saying_so(
    cli: Cli, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lora_clf.data.dataset

    def never(*args: object, **named: object) -> None:
        raise AssertionError("the data was read")

    monkeypatch.setattr(lora_clf.data.dataset, "load_data", never)
    ran = cli("train", "demo", "--out", adapter)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"Error: There is an adapter in {adapter}. Choose another folder, or use --force.\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Interrupted; nothing half-written is left behind."),
        (TrainingError("The loss became nan."), 1, "Error: The loss became nan."),
        (KeyError("a\nb"), 1, "Error: Unexpected KeyError: 'a\\nb'. LORA_CLF_TRACEBACK=1 shows where."),
        (OSError(28, "No space left on device", "there"), 1, "Error: there: No space left on device."),
    ],
)  # fmt: skip
def test_what_ends_a_run_leaves_nothing(
    cli: Cli, base: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    error: BaseException, code: int, said: str,
) -> None:  # fmt: skip
    import lora_clf.training.loop

    def ends(*args: object, progress: Callable[..., None], **named: object) -> None:
        raise error

    monkeypatch.setattr(lora_clf.training.loop, "train", ends)
    ran = cli("train", table, "--base", base, "--out", tmp_path / "deep" / "a", "--json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.splitlines()[-1] == said and "Traceback" not in ran.err
    assert not list(tmp_path.iterdir())


def test_a_traceback_for_those_who_ask(cli: Cli, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_clf.data.dataset

    def broken(*args: object, **named: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(lora_clf.data.dataset, "load_data", broken)
    monkeypatch.setenv("LORA_CLF_TRACEBACK", "1")
    ran = cli("train", table, "--out", tmp_path / "a")
    assert ran.code == 1 and "Traceback" in ran.err and ran.err.endswith("Error: Unexpected RuntimeError: oh.\n")


def test_rows_marked_hard_are_reported_apart(cli: Cli, base: Path, tmp_path: Path) -> None:
    args = ("train", "demo", "--base", base, "--strategy", "head-only", "--epochs", 1, "--precision", "fp32")
    said = cli(*args, "--out", tmp_path / "a", "--json").ok().json()
    assert said["hard"]["test"]["n"] > 10 and 0 <= said["hard"]["test"]["accuracy"] <= 1
    assert "rows of test marked hard: accuracy" in cli(*args, "--out", tmp_path / "b").ok().out


def test_small_classes_are_warned_of(cli: Cli, base: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.csv"
    lines = [f"{word} {number},{word}" for word in ("a", "b", "c") for number in range(9)]
    file.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    ran = cli(
        "train", file, "--base", base, "--strategy", "head-only", "--epochs", 1, "--out", tmp_path / "a",
        "--precision", "fp32", "--json",
    ).ok()  # fmt: skip
    assert "Warning: class 'a' has 9 examples; below 20 its figures mean little." in ran.err.splitlines()
    assert ran.err.count("class 'a'") == 1 and len(ran.json()["warnings"]) >= 3
    assert ran.json()["positive_label"] is None


def test_a_threshold_for_a_precision(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    """Chosen, said with what stands behind it, stored, shown by inspect, used by predict and evaluate."""
    args = (
        "train", table, "--base", base, "--strategy", "head-only", "--precision", "fp32", "--split", "30/50/20",
    )  # fmt: skip
    folder = tmp_path / "a"
    said = cli(*args, "--target-precision", 0.9, "--out", folder, "--json").ok()
    found = said.json()["threshold"]
    assert found["rule"] == "precision" and found["target"] == 0.9 and found["rows"] == 90 and found["positives"] == 30
    assert found["precision"] >= 0.9 > found["precision_bound"] > 0
    assert "Warning: A precision of 0.9 for spam is not shown: " in said.err
    shown = cli(*args, "--target-precision", 0.9, "--out", tmp_path / "b").ok().out
    assert f"Threshold: spam from a probability of {found['value']:g} on (the lowest with a precision of 0.9)." in shown
    assert f"Of 90 validation rows, 30 of them spam, it flags {found['flagged']}, {found['hits']} rightly" in shown
    assert "Temperature: " in shown
    inspected = cli("adapters", "inspect", folder).ok().out
    assert f"{found['value']:g}, found on 90 validation rows, 30 of them spam; precision there at least" in inspected
    texts = [line.split(",")[0] for line in table.read_text(encoding="utf-8").splitlines()[1:40]]
    answers = cli("predict", folder, *texts, "--base", base, "--json").ok().json()
    assert len(answers) == 39
    assert all((each["label"] == "spam") == (each["probabilities"]["spam"] >= found["value"]) for each in answers)
    again = cli("evaluate", folder, table, "--base", base, "--split", "30/50/20", "--json").ok().json()
    assert again["test"]["precision"] == said.json()["test"]["precision"]
    assert again["test"]["threshold"] == found["value"] and again["validation"]["recall"] == found["recall"]


def test_the_threshold_that_is_told_is_the_one_that_is_stored(cli: Cli, base: Path, tmp_path: Path) -> None:
    """Labels that have nothing to do with the texts: where no threshold is always right, none is stored."""
    file = tmp_path / "noise.csv"
    lines = [f"{number * 7919 % 100_003} {number * 31 % 97},{'spam' if number % 3 else 'ham'}" for number in range(90)]
    file.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    args = ("train", file, "--base", base, "--strategy", "head-only", "--precision", "fp32", "--split", "30/50/20")
    ran = cli(*args, "--target-precision", 1, "--positive-label", "ham", "--out", tmp_path / "a", "--json").ok()
    told = ran.json()["threshold"]
    if told is None:
        assert "No threshold has a precision of 1 for ham" in ran.err
    else:  # the surest row happened to be right
        assert "no number of rows would lift it to 1" in ran.err
    assert read_header(tmp_path / "a").threshold == (None if told is None else told["value"])
    free = cli(*args, "--threshold", 0.3, "--no-temperature", "--out", tmp_path / "b", "--json").ok().json()
    header = read_header(tmp_path / "b")
    assert free["threshold"]["value"] == header.threshold == 0.3 and free["temperature"] is header.temperature is None


def test_evaluate_repeats_what_training_said(cli: Cli, trained: tuple[Path, Any], base: Path, table: Path) -> None:
    folder, said = trained
    found = cli("evaluate", folder, table, "--base", base, "--json").ok()
    assert found.err == ""
    for part in ("validation", "test"):
        assert found.json()[part]["confusion_matrix"] == said[part]["confusion_matrix"]
        assert found.json()[part]["loss"] == pytest.approx(said[part]["loss"], rel=1e-4)
    assert found.json()["same_split_as_training"] is True
    text = cli("evaluate", folder, "--data", table, "--base", base, "--seed", 3).ok()
    assert "spam recall" in text.out and "texts of its training may be among them" in text.err


def test_evaluate_finds_the_split_of_another_seed(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    """As `compare` does: the training has a seed of its own."""
    from lora_clf import HeadOnly, TrainSettings, load_base, load_data, train

    settings = TrainSettings(epochs=1, seed=2, precision="fp32")
    for seed, folder in ((0, tmp_path / "zero"), (7, tmp_path / "seven")):
        train(load_base(base, device="cpu"), load_data(table, seed=seed), HeadOnly(), settings).save(folder)
    args = (table, "--base", base, "--json")
    found = cli("evaluate", tmp_path / "zero", *args).ok()
    assert found.err == "" and found.json()["same_split_as_training"] is True and found.json()["test"]["n"] == 36
    refused = cli("evaluate", tmp_path / "seven", *args)
    assert (refused.code, refused.out) == (1, "") and refused.err.count("\n") == 1
    assert "tried (seeds 2 and 0)" in refused.err and "--all-rows" in refused.err and "--seed" in refused.err
    assert cli("evaluate", tmp_path / "seven", *args, "--seed", 7).ok().json()["same_split_as_training"] is True
    told = cli("evaluate", tmp_path / "seven", *args, "--all-rows").ok()
    assert told.json()["all"]["n"] == 180 and "texts of its training may be among them" in told.err


def test_evaluate_refuses_another_split_without_a_word_printed(
    cli: Cli, adapter: Path, base: Path, table: Path
) -> None:
    refused = cli("evaluate", adapter, table, "--base", base, "--split", "60/20/20")
    assert (refused.code, refused.out) == (1, "") and "tried (seed 0)" in refused.err


def test_evaluate_every_row(cli: Cli, adapter: Path, base: Path, table: Path) -> None:
    found = cli("evaluate", adapter, table, "--base", base, "--all-rows", "--json").ok().json()
    assert found["all"]["n"] == 180 and found["validation"] is None and found["positive_label"] == "spam"
    shown = cli("evaluate", adapter, table, "--base", base, "--all-rows").ok().out
    assert "all     180" in shown and "as ham  as spam" in shown


def test_evaluate_refuses_labels_that_the_adapter_does_not_know(
    cli: Cli, adapter: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "other.csv"
    file.write_text("text,label\na,spam\nb,eggs\nc,eggs\n", encoding="utf-8")
    ran = cli("evaluate", adapter, file, "--base", base, "--all-rows")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "Error: Rows (all) have labels that the adapter does not know; it knows: ham, spam.",
        "  'eggs': 2 rows",
    ]


def test_the_base_that_an_adapter_names_and_that_is_not_here(
    cli: Cli, adapter: Path, base: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cli("predict", adapter, "hello")
    assert ran.code == 1 and "'tiny-bert', which is not here" in ran.err and "--base FOLDER" in ran.err
    monkeypatch.setenv("LORA_CLF_BASES", str(base.parent))
    assert json.loads(cli("predict", adapter, "win cash", "--json").ok().out)[0]["label"] in ("ham", "spam")


def test_the_recipe_is_a_matter_of_flags(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    args = ("train", table, "--base", base, "--strategy", "last-block", "--epochs", 3, "--precision", "fp32", "--json")
    recipe = (
        "--class-weight", "spam=4", "--schedule", "cosine", "--layer-decay", 0.9, "--label-smoothing", 0.1,
        "--head-dropout", 0.1, "--stop-on", "macro-f1", "--patience", 2,
    )  # fmt: skip
    plain = cli(*args, "--out", tmp_path / "plain").ok().json()
    said = cli(*args, *recipe, "--out", tmp_path / "asked").ok().json()
    assert said["history"][0]["train_loss"] != plain["history"][0]["train_loss"]
    kept = json.loads(cli("adapters", "inspect", tmp_path / "asked", "--json").ok().out)["training"]
    assert {name: kept[name] for name in ("class_weight", "schedule", "layer_decay", "stop_on")} == {
        "class_weight": "spam=4", "schedule": "cosine", "layer_decay": 0.9, "stop_on": "macro-f1",
    }  # fmt: skip
    kept = json.loads(cli("adapters", "inspect", tmp_path / "plain", "--json").ok().out)["training"]
    assert "class_weight" not in kept and "schedule" not in kept


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--class-weight", "spma=4"), "--class-weight names spma; the data has no such label, it has ham, spam."),
        (("--loss", "huber"), "Unknown loss of a binary task 'huber'. There are: cross-entropy, focal."),
        (("--sampling", "even"), "--sampling even: expected natural or balanced."),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused_before_the_base_is_loaded(
    cli: Cli, table: Path, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    ran = cli("train", table, "--base", tmp_path / "nowhere", *flags)
    assert (ran.code, ran.out, ran.err) == (2, "", f"Error: {said}\n")


def test_what_went_wrong_is_said_in_a_line_each(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    args = ("train", table, "--base", base, "--strategy", "last-block", "--epochs", 3, "--precision", "fp32")
    ran = cli(*args, "--lr", 1e-9, "--out", tmp_path / "still").ok()
    assert "\nNot learning: the validation loss is 0." in ran.out
    assert " The rate 1e-09 is low: try --lr 0.0005, the usual one.\n" in ran.out
    said = cli(*args, "--lr", 1e-9, "--out", tmp_path / "again", "--json").ok().json()["diagnosis"]
    assert said[0]["name"] == "not learning" and said[0]["numbers"]["steps"] == 24
    assert said[0]["advice"].startswith("the rate 1e-09 is low")
    healthy = (
        cli(*args, "--strategy", "full", "--lr", 3e-3, "--epochs", 4, "--out", tmp_path / "healthy", "--json")
        .ok()
        .json()
    )
    assert healthy["test"]["accuracy"] > 0.9 and healthy["diagnosis"] == []

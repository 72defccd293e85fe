"""Numbers, ordered classes and several labels through the commands: train, predict, evaluate, inspect, export."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from tests.cli.conftest import WORDS, Ran

Cli = Callable[..., Ran]
FLAGS = ("--epochs", 2, "--max-length", 24, "--batch-size", 8)


def text(number: int, spam: bool) -> str:
    words = WORDS["spam" if spam else "ham"]
    return " ".join(words[(number * step + step) % 12] for step in (1, 5, 7)) + f" {number}"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A number that is high for spam words; the same in sets of labels."""
    folder = tmp_path_factory.mktemp("tables")
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "stars", "source"))
        for n in range(90):
            writer.writerow((text(n, n % 2 == 0), 3 + n % 3 if n % 2 == 0 else n % 3, f"s{n % 2}"))
    with (folder / "sets.jsonl").open("w") as file:
        for n in range(90):
            labels = [["spam"], ["ham"], [], ["spam", "odd"]][n % 4]
            file.write(json.dumps({"text": text(n, "spam" in labels), "labels": labels}) + "\n")
    return folder


def trained(cli: Cli, base: Path, out: Path, *args: object) -> dict[str, object]:
    found = cli("train", *args, "--base", base, "--out", out, *FLAGS, "--json").ok().json()
    assert isinstance(found, dict)
    return found


def test_a_number(cli: Cli, base: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "stars"
    flags = ("--text-column", "text", "--label-column", "stars")
    scores = tables / "scores.csv"
    found = trained(
        cli, base, out, scores, *flags, "--task", "regression", "--loss", "huber", "--strategy", "last-block"
    )
    assert found["task"] == "regression" and found["labels"] == ["stars"] and found["task_reason"] == "as asked"
    answers = cli("predict", out, "win prize", "tea", "--base", base, "--json").ok().json()
    assert [set(each) for each in answers] == [{"text", "value", "truncated"}] * 2 and all(
        -5 < a["value"] < 10 for a in answers
    )
    written = tmp_path / "labelled.csv"
    cli("predict", out, "--input", scores, "--output", written, "--base", base).ok()
    rows = list(csv.DictReader(written.open()))
    assert len(rows) == 90 and list(rows[0]) == ["text", "stars", "source", "value"] and float(rows[0]["value"])
    plot = tmp_path / "fit.png"
    shown = cli("evaluate", out, scores, *flags, "--base", base, "--by", "source", "--plot", plot).ok().out
    assert (
        "Pearson" in shown and "mean absolute error" in shown and "worst first" in shown and plot.stat().st_size > 5000
    )
    assert "; the number stars." in shown
    errors = shown.split("worst first\n")[1].splitlines()[1:3]
    assert all(len(row.split()[2].partition(".")[2]) == 4 for row in errors), errors
    told_why = cli("predict", out, "win prize", "--base", base, "--explain").ok().out.splitlines()
    assert len(told_why) == 2 and told_why[0].startswith(f"{answers[0]['value']:.4f}\t"), told_why
    told = cli(
        "evaluate", out, scores, *flags, "--base", base, "--by", "source", "--drop-rows", "source=s1", "--json"
    ).json()
    report = told["reports"]["test"]
    assert told["same_split_as_training"] is True and told["dropped"]["test"] > 0
    assert told["primary"] == "mae" and report["overall"]["low"] <= told["test"]["mae"] <= report["overall"]["high"]
    assert [each["value"] for each in report["by"]["source"]] == ["s0"]
    costs = [each["cost"] for each in report["errors"]]
    assert costs == sorted(costs, reverse=True) and np.mean(costs) == pytest.approx(told["test"]["mae"])
    inspected = cli("adapters", "inspect", out).ok().out
    assert "regression" in inspected and "Spearman" in inspected
    assert "mean absolute error" in (out / "README.md").read_text()
    assert cli("evaluate", out, scores, *flags, "--base", base, "--plot", tmp_path / "fit.txt").code == 2
    for place, force, said in (
        (plot, (), "fit.png is there already. Give another --plot, or --force"),
        (tmp_path, ("--force",), "ends in .png"),
        (out / "README.md" / "f.png", (), "'README.md' is a file, expected a folder"),
    ):  # fmt: skip
        refused = cli("evaluate", out, scores, *flags, "--base", base, "--plot", place, *force)
        assert (refused.code, refused.out) == (2, "") and said in refused.err, refused.err
    before = plot.read_bytes()
    full = OSError(28, "No space left on device", str(plot))
    with monkeypatch.context() as patched:  # the scores are there before the disk is asked
        patched.setattr("lora_clf.evaluation.fit_plot.write_whole", Mock(side_effect=full))
        ran = cli("evaluate", out, scores, *flags, "--base", base, "--plot", plot, "--force")
    assert ran.code == 1 and "worst first" in ran.out and "No space left" in ran.err and plot.read_bytes() == before
    cli("evaluate", out, scores, *flags, "--base", base, "--plot", plot, "--force").ok()
    assert plot.read_bytes() == before


def test_ordered_classes_of_a_number(cli: Cli, base: Path, tables: Path, tmp_path: Path) -> None:
    out, scores = tmp_path / "bins", tables / "scores.csv"
    flags = ("--text-column", "text", "--label-column", "stars")
    found = trained(cli, base, out, scores, *flags, "--bins", "low:1,medium:3,high", "--strategy", "head-only")
    assert found["task"] == "ordinal" and found["labels"] == ["low", "medium", "high"]
    assert found["test"]["confusion_matrix"] and "quadratic_kappa" in found["test"]  # type: ignore[index]
    # The adapter knows its cuts: the raw numbers are scored, and the split is found.
    told = cli("evaluate", out, scores, *flags, "--base", base, "--json").ok().json()
    assert told["same_split_as_training"] is True and told["test"]["mae"] == found["test"]["mae"]  # type: ignore[index]
    assert [each["label"] for each in told["reports"]["test"]["by_class"]] == ["low", "medium", "high"]
    shown = cli("evaluate", out, scores, *flags, "--base", base, "--all-rows").ok().out
    assert "as medium" in shown and "quadratic kappa" in shown and "probabilities can be believed" in shown
    answer = cli("predict", out, "win prize", "--base", base).ok().out.split("\t")
    assert answer[0] in found["labels"] and 0 <= float(answer[1]) <= 1 and 0 <= float(answer[2]) <= 2  # type: ignore[operator]
    refused = cli("adapters", "export", out, "--merged", tmp_path / "plain", "--base", base)
    assert refused.code == 2 and "no classification class" in refused.err


def test_several_labels(cli: Cli, base: Path, tables: Path, tmp_path: Path) -> None:
    out, sets = tmp_path / "sets", tables / "sets.jsonl"
    found = trained(cli, base, out, sets, "--strategy", "lora-scratch", "--pooling", "family")
    assert found["task"] == "multilabel" and found["task_reason"] == "the labels are lists"
    assert found["labels"] == ["ham", "odd", "spam"] and set(found["test"]["thresholds"]) == set(found["labels"])  # type: ignore
    answer = cli("predict", out, "win prize", "--base", base, "--json").ok().json()[0]
    assert set(answer) == {"text", "labels", "probabilities", "truncated"} and set(answer["probabilities"]) == {
        "ham",
        "odd",
        "spam",
    }
    told = cli("evaluate", out, sets, "--base", base, "--json").ok().json()
    assert told["test"] == found["test"] and told["reports"]["test"]["thresholds"]
    shown = cli("evaluate", out, sets, "--base", base, "--all-rows").ok().out
    assert "all labels right" in shown and "every label from" in shown and "Hamming" in shown
    assert "Nothing wrong was found" in cli("adapters", "verify", out, "--base", base).ok().out
    for bad, said in (
        ("--sampling", "The task is multilabel, but --sampling draws texts by their one label."),
        ("--target-precision", "the task is multilabel"),
    ):
        refused = cli(
            "train", sets, "--base", base, bad, "balanced" if "sampling" in bad else 0.9, "--out", tmp_path / "x"
        )
        assert refused.code == 2 and said in refused.err


def test_what_a_task_refuses_is_said_in_one_line(cli: Cli, base: Path, tables: Path, tmp_path: Path) -> None:
    scores = tables / "scores.csv"
    flags = ("--text-column", "text", "--label-column", "stars", "--base", base, "--out", tmp_path / "x")
    for args, said in (
        (("--task", "regresion"), "regression"),
        (("--task", "binary"), "two different labels; there are 6"),
        (("--task", "regression", "--loss", "focal"), "mse"),
        (("--bins", "a:9,b:10,c"), "no row lies in"),
        (("--task", "ordinal", "--positive-label", "1"), "does not apply"),
    ):
        refused = cli("train", scores, *flags, *args)
        assert refused.code == 2 and said in refused.err and "Traceback" not in refused.err
    table = tmp_path / "cells.csv"
    table.write_text("text,topics\n" + "".join(f"{text(n, False)},{'a|b' if n % 3 else ''}\n" for n in range(30)))
    refused = cli("train", table, *flags[4:])
    assert refused.code == 1 and "or none, give --task multilabel." in refused.err.splitlines()[0]
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("name", "flags", "key", "higher"),
    [
        ("scores.csv", ("--task", "regression"), "mae", False),
        ("scores.csv", ("--bins", "low:1,medium:3,high"), "mae", False),
        ("sets.jsonl", (), "subset_accuracy", True),
    ],
)
def test_strategies_are_compared_by_the_score_of_the_task(
    cli: Cli, base: Path, tables: Path, tmp_path: Path, name: str, flags: tuple[str, ...], key: str, higher: bool
) -> None:
    columns = ("--text-column", "text", "--label-column", "stars") if name == "scores.csv" else ()
    args = (tables / name, *columns, *flags, "--base", base, "--strategies", "head-only,last-block")
    args = (*args, "--out", tmp_path / "x", "--seeds", 2, "--epochs", 1, "--max-length", 24)
    shown = cli("compare", *args).ok().out
    assert "TF-IDF" in shown and "constant" in shown and "95 % interval" in shown
    results = json.loads((tmp_path / "x" / "results.json").read_text())
    assert results["task"]["primary"] == key and len(results["runs"]) == 2 * 2 + 2 and results["failures"] == []
    places = {place["label"]: place for place in results["standing"]["places"]}
    assert list(places) == ["head-only", "last-block", "constant", "TF-IDF"]
    for label, place in places.items():
        runs = [run for run in results["runs"] if run["label"] == label]
        assert place["score"] == pytest.approx(np.mean([run["scores"][key] for run in runs]), abs=1e-5)
        assert place["low"] <= place["score"] <= place["high"] and len(runs[0]["costs"]) == len(results["test_rows"])
    gap = places["last-block"]["to_rival"]
    better = places["last-block"]["score"] - places["TF-IDF"]["score"]
    assert gap["mean"] == pytest.approx(better if higher else -better, abs=1e-5)
    assert gap["low"] <= gap["mean"] <= gap["high"] and places["head-only"]["bound"] >= 0
    assert places["last-block"]["peak_memory_bytes"] > 1e6
    page = (tmp_path / "x" / "report.html").read_text()
    assert page.count("<svg") == 0 and page.count("<img") == (3 if "regression" in flags else 1)
    assert "How it was made" in page and str(tmp_path) not in page
    assert " win " not in (tmp_path / "x" / "results.json").read_text()  # no text of a row
    again = cli("compare", *args, "--json").ok()
    assert again.err.count("kept from before") == 4 and ": done" not in again.err
    found, timed = again.json()["standing"], {"seconds"}  # a baseline is made anew, and takes its time
    assert [{k: v for k, v in place.items() if k not in timed} for place in found["places"]] == [
        {k: v for k, v in place.items() if k not in timed} for place in results["standing"]["places"]
    ]
    if "regression" not in flags:
        return
    more = ("--seeds", 1, "--jobs", 2, "--threads", 1, "--save-adapters", "--out", tmp_path / "y")
    cli("compare", *args, *more).ok()
    assert {path.name for path in (tmp_path / "y" / "adapters").iterdir() if path.is_dir()} == {
        "head-only",
        "last-block",
    }
    other = cli("compare", *args, "--curve", "2,4", "--force")
    assert other.code == 2 and "For a regression task leave out --curve" in other.err
    other = cli("compare", *args, "--resplit", "--force")
    assert other.code == 2 and "leave out --resplit and --repeats" in other.err


@pytest.mark.usefixtures("inside")
def test_a_comparison_reads_long_texts_as_it_is_told(cli: Cli, base: Path, tables: Path, tmp_path: Path) -> None:
    columns = ("--text-column", "text", "--label-column", "stars", "--task", "regression", "--max-length", 6)
    args = (tables / "scores.csv", *columns, "--base", base, "--strategies", "head-only", "--seeds", 1)
    errors = []
    for number, flags in enumerate([(), ("--long", "chunk", "--overlap", 0, "--aggregate", "max")]):
        cli("compare", *args, *flags, "--out", tmp_path / str(number)).ok()
        results = json.loads((tmp_path / str(number) / "results.json").read_text())
        assert ("reading" in results["plan"]) == bool(flags)
        errors.append(results["runs"][0]["costs"])
    assert errors[0] != errors[1]
    refused = cli("compare", *args, "--long", "chunk", "--aggregate", "vote", "--out", tmp_path / "x")
    assert refused.code == 2 and "the task is regression. Use mean or max" in refused.err
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("inside")
def test_folds_of_several_labels(cli: Cli, base: Path, tables: Path, tmp_path: Path) -> None:
    args = (tables / "sets.jsonl", "--base", base, "--strategies", "last-block", "--seeds", 1, "--folds", 2)
    cli("compare", *args, "--out", tmp_path / "x", "--max-length", 24, "--epochs", 1, "--tune", 2).ok()
    results = json.loads((tmp_path / "x" / "results.json").read_text())
    assert len(results["facts"]["data"]["splits"]) == 2 and results["failures"] == []
    everything = sum(results["facts"]["data"]["splits"][0]["rows"].values())
    assert results["test_rows"] == sorted(set(results["test_rows"])) and len(results["test_rows"]) == everything
    assert len(results["runs"]) == 3 and [len(part["trials"]) for part in results["tuning"]] == [2, 2]
    for part in results["tuning"]:
        chosen, best = part["trials"][part["chosen"] - 1], min(trial["cost"] for trial in part["trials"])
        assert chosen["cost"] == best and 0 < best <= 1
    assert "held-out all labels right %" in (tmp_path / "x" / "report.md").read_text()
    for run in results["runs"]:
        assert run["scores"]["n"] == len(run["costs"]) == everything

"""`compare`: what it hands to the comparison, and one small comparison for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.cli.compare import numbers

Cli = Callable[..., Any]


def test_seeds() -> None:
    assert numbers("3") == 3 and numbers("0,1,5") == [0, 1, 5] and numbers("7,") == [7]


def asked(cli: Cli, monkeypatch: pytest.MonkeyPatch, *args: object) -> dict[str, Any]:
    """The keyword arguments that the comparison gets."""
    import lora_clf.experiment.run

    got: dict[str, Any] = {}

    def instead(*positional: Any, **named: Any) -> None:
        got.update(named, base=positional[0], data=positional[1], strategies=positional[2])
        raise KeyboardInterrupt

    monkeypatch.setattr(lora_clf.experiment.run, "compare", instead)
    ran = cli("compare", *args)
    assert ran.code == 130 and "the same command does only what is missing" in ran.err
    return got


def test_what_is_asked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    got = asked(cli, monkeypatch, "demo")
    assert got["data"] == "demo" and got["seeds"] == 3 and got["out"] == Path("runs/demo")
    assert got["strategies"] == ["head-only", "last-block", "full", "lora", "lora-scratch"]
    assert got["data_settings"]["protocol"] == "near-copy-free" and got["training"] == {}
    assert got["base"].name == "minilm" and not got["save_adapters"] and not got["strategy_settings"]
    got = asked(
        cli, monkeypatch, "--data", "a/Some File.csv", "--strategies", "lora, last-block", "--rank", 2, "--blocks", 1,
        "--epochs", 2, "--seeds", "1,4", "--save-adapters", "--plot-format", "svg", "--base", "gpt2",
        "--pooling", "last",
    )  # fmt: skip
    assert got["strategy_settings"] == {"lora": {"rank": 2, "blocks": 1}, "last-block": {"blocks": 1}}
    assert got["training"] == {"epochs": 2} and got["seeds"] == [1, 4] and got["save_adapters"]
    assert got["out"] == Path("runs/some-file") and got["plot_format"] == "svg" and got["base"].pooling == "last"
    recipe = ("--class-weight", "spam=3", "--sampling", "natural", "--loss", "focal", "--stop-on", "mcc")
    got = asked(cli, monkeypatch, "demo", *recipe, "--layer-decay", 0.9)
    assert got["training"] == {
        "class_weight": "spam=3", "sampling": "natural", "loss": "focal", "stop_on": "mcc", "layer_decay": 0.9,
    }  # fmt: skip
    got = asked(cli, monkeypatch, "demo", "--folds", 5, "--strategies", "all", "--protocol", "random")
    assert got["folds"] == 5 and got["data_settings"]["protocol"] == "random"
    assert "split" not in got["data_settings"] and got["strategies"] == "all"


def test_curves_tuning_repeats_and_jobs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    got = asked(cli, monkeypatch, "demo")
    assert (got["curve"], got["draws"], got["tune"], got["jobs"], got["threads"]) == (None, 10, None, 1, None)
    got = asked(cli, monkeypatch, "demo", "--curve", "16,64,all", "--draws", 4, "--jobs", 2, "--threads", 1)
    assert (got["curve"], got["draws"], got["jobs"], got["threads"]) == ("16,64,all", 4, 2, 1) and not got["resplit"]
    got = asked(cli, monkeypatch, "demo", "--folds", 5, "--repeats", 3, "--tune", 6, "--balance", "undersample-train")
    assert got["seeds"] == [0, 1, 2] and got["resplit"] and got["folds"] == 5 and got["tune"] == 6
    assert got["data_settings"]["balance"] == "undersample-train"
    assert asked(cli, monkeypatch, "demo", "--repeats", 2, "--seed", 7)["seeds"] == [7, 8]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--repeats", 3, "--seeds", 3), "--repeats gives each repeat a split and a seed of its own"),
        (("--repeats", 0), "--repeats 0: expected at least 1"),
        (("--draws", 3), "--draws 3 is about --curve"),
        (("--curve", "16,few"), "--curve few: expected examples of each class"),
        (("--curve", "16", "--folds", 3), "--curve takes one split"),
        (("--curve", "16", "--tune", 3), "--tune and --curve together"),
        (("--tune", 0), "--tune 0: expected at least 1 trial"),
        (("--jobs", 0), "--jobs 0: expected at least 1"),
        (("--threads", 0), "--threads 0: expected at least 1"),
    ],
)
def test_flags_that_do_not_go_together(cli: Cli, tmp_path: Path, flags: tuple[object, ...], words: str) -> None:
    ran = cli("compare", "demo", "--base", "nowhere", "--out", tmp_path / "out", *flags)
    assert ran.code == 2 and words in ran.err and not (tmp_path / "out").exists()


def test_folds_keep_groups_together_and_the_label_to_find(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--folds", 3, "--group-column", "sender", "--positive-label", "ham", "--text-column", "words")
    got = asked(cli, monkeypatch, "a.csv", *flags)["data_settings"]
    assert (got["group_column"], got["positive_label"], got["text_column"]) == ("sender", "ham", "words")
    ran = cli("compare", "a.csv", "--folds", 3, "--split", "60/20/20")
    assert ran.code == 2 and "--split does not apply" in ran.err


def test_folds_are_cut_by_groups(table: Path, tmp_path: Path) -> None:
    from lora_clf.cli.compare import fold_settings
    from lora_clf.cli.flags import DataFlags
    from lora_clf.comparison.arguments import DataArguments

    head, *lines = table.read_text().splitlines()
    file = tmp_path / "grouped.csv"
    # Blocks of twelve rows, each with both labels.
    file.write_text("\n".join([f"{head},sender", *(f"{row},s{place // 12}" for place, row in enumerate(lines))]) + "\n")
    settings = fold_settings(DataFlags(group_column="sender", positive_label="ham"))
    found = DataArguments(str(file), settings, 3).load_all(0)
    assert len(found) == 3
    for data in found:
        assert data.positive_label == "ham"
        of = [set(part.columns["sender"]) for part in data.parts.values()]
        assert not of[0] & of[1] and not of[0] & of[2] and not of[1] & of[2]


@pytest.mark.usefixtures("inside")
def test_a_small_comparison(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    args = (
        "compare", table, "--base", base, "--strategies", "head-only", "--seeds", 1, "--epochs", 1, "--out",
        tmp_path / "run", "--precision", "fp32", "--save-adapters",
    )  # fmt: skip
    ran = cli(*args).ok()
    assert "head-only" in ran.out and "accuracy" in ran.out and f"results: {tmp_path / 'run'}" in ran.out
    assert "head-only-seed-0: done, 1 of 1" in ran.err
    again = cli(*args, "--json").ok()
    assert "kept from before" in again.err
    assert {"verdict", "rows", "facts", "out"} <= again.json().keys() and "predictions" not in again.json()
    listed = cli("adapters", "list", tmp_path / "run", "--json").ok().json()
    assert [each["strategy"] for each in listed] == ["head-only"]


def test_the_margin(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = cli("compare", "demo", "--margin", 0, "--out", tmp_path / "out")
    assert ran.code == 2 and "--margin 0: expected points of accuracy" in ran.err and not (tmp_path / "out").exists()
    assert asked(cli, monkeypatch, "demo")["margin"] == 1.0
    assert asked(cli, monkeypatch, "demo", "--margin", 0.5)["margin"] == 0.5

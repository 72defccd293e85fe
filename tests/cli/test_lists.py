"""`strategies`, `bases`, `adapters` and `data`: their text and JSON forms."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.errors import BaseNotFoundError

Cli = Callable[..., Any]
KEYS = {"name", "summary", "trains", "refused", "trainable_parameters", "share", "learning_rate", "flags"}


def test_strategies_as_json(cli: Cli, base: Path) -> None:
    found = cli("strategies", "--base", base, "--json").ok().json()
    by_name = {each["name"]: each for each in found}
    assert list(by_name)[:5] == ["head-only", "last-block", "full", "lora", "lora-scratch"]
    assert all(each.keys() == KEYS for each in found)
    assert by_name["head-only"]["trainable_parameters"] == 2 * 33 and by_name["head-only"]["flags"] == {}
    assert by_name["lora"]["trainable_parameters"] == by_name["lora-scratch"]["trainable_parameters"]
    assert by_name["lora"]["flags"] == {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "all", "blocks": None}
    assert by_name["full"]["share"] == 1.0
    three = cli("strategies", "--base", base, "--json", "--labels", 3).ok().json()
    assert three[0]["trainable_parameters"] == 3 * 33


def test_strategies_counts_what_training_trains(cli: Cli, base: Path, trained: tuple[Path, Any]) -> None:
    from lora_clf.base.base import load_base
    from lora_clf.cli.opening import weightless
    from lora_clf.cli.strategies import describe
    from lora_clf.tuners import strategies

    loaded = load_base(base, device="cpu")
    before = loaded.backbone.get_parameter("encoder.layer.0.attention.self.query.weight").clone()
    for name, kind in strategies().items():
        real = kind().prepare(loaded.view(2))
        said = describe(kind, weightless(loaded), 2)
        assert said["trainable_parameters"] == real.trainable_parameters, name
        assert said["share"] == real.trainable_parameters / sum(p.numel() for p in real.view.parameters())
    after = loaded.backbone.get_parameter("encoder.layer.0.attention.self.query.weight")
    assert after.device.type == "cpu" and bool((after == before).all())


def test_strategies_for_people(cli: Cli, base: Path) -> None:
    shown = cli("strategies", "--base", base).ok().out
    assert shown.startswith("On tiny-bert (") and "--rank 8 --alpha 16.0" in shown and "100 %" in shown


def test_strategies_without_the_default_base(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_clf.base.base

    def away(*args: object, **named: object) -> None:
        raise BaseNotFoundError("It is away.")

    monkeypatch.setattr(lora_clf.base.base, "load_base", away)
    ran = cli("strategies", "--json").ok()
    assert ran.err == "Parameters are not counted, the base is not here: It is away.\n"
    assert [each["trainable_parameters"] for each in ran.json()] == [None] * len(ran.json())
    assert "lora-scratch" in cli("strategies").ok().out
    assert cli("strategies", "--base", "minilm").code == 1


def test_bases(cli: Cli, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_CLF_BASES", str(base.parent))
    found = {each["name"]: each for each in cli("bases", "list", "--json").ok().json()}
    assert {"minilm", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "tiny-bert"} == found.keys()
    assert found["tiny-bert"]["here"] and not found["gpt2"]["here"] and found["minilm"]["size_bytes"] > 9e7
    shown = cli("bases", "list").ok().out
    assert "22,713,216" in shown and "91.6 MB" in shown
    ran = cli("bases", "fetch", "tiny-bert", "--json").ok()
    assert ran.json() == {"name": "tiny-bert", "folder": str(base), "here": True}
    assert "tiny-bert is here" in cli("bases", "fetch", base).ok().out


def test_adapters(cli: Cli, trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, said = trained
    found = cli("adapters", "list", folder.parent, "--json").ok().json()
    assert [each["adapter"] for each in found] == [str(folder)]
    assert found[0]["labels"] == ["ham", "spam"] and found[0]["strategy"] == "lora"
    assert found[0]["parameters"] == said["trainable_parameters"]
    assert found[0]["metrics"]["test"]["accuracy"] == said["test"]["accuracy"]
    shown = cli("adapters", "list", folder.parent).ok().out
    assert "tiny-bert" in shown and "test score" in shown and re.search(r"accuracy \d+\.\d\d %", shown)
    assert cli("adapters", "list", tmp_path).ok().out == f"No adapters in {tmp_path}.\n"
    assert cli("adapters", "list", tmp_path, "--json").ok().json() == []
    assert cli("adapters", "inspect", folder, "--json").ok().json() == found[0]
    shown = cli("adapters", "inspect", folder).ok().out
    for words in ("binary, 2 labels: ham, spam", "rank 4", "spam recall", "lora-clf predict"):
        assert words in shown


def test_a_broken_adapter_does_not_hide_the_others(cli: Cli, adapter: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(adapter, tmp_path / "good")
    shutil.copytree(adapter, tmp_path / "bad")
    (tmp_path / "bad" / "adapter_model.safetensors").write_bytes(b"nonsense")
    ran = cli("adapters", "list", tmp_path, "--json").ok()
    assert [Path(each["adapter"]).name for each in ran.json()] == ["good"]
    assert "bad cannot be used" in ran.err
    assert cli("adapters", "inspect", tmp_path / "bad").code == 1


def test_a_damaged_adapter_is_not_shown_as_sound(cli: Cli, adapter: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(adapter, tmp_path / "flipped")
    model = tmp_path / "flipped" / "adapter_model.safetensors"
    data = bytearray(model.read_bytes())
    data[-9] ^= 1
    model.write_bytes(data)
    ran = cli("adapters", "inspect", tmp_path / "flipped")
    assert ran.code == 1 and "digest" in ran.err and not ran.out


def test_what_our_modules_log_is_read_by_a_person(cli: Cli, adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    cli("adapters", "list", adapter.parent, "--json").ok()
    logging.getLogger("lora_clf.base.sources").info("minilm: fetching 92 MB")
    assert capfd.readouterr().err.count("minilm: fetching 92 MB") == 1


def test_data_prepare_and_what_it_wrote(cli: Cli, table: Path, tmp_path: Path) -> None:
    said = cli("data", "prepare", table, "--out", tmp_path / "parts", "--json", "--split", "60/20/20").ok().json()
    assert {name: part["rows"] for name, part in said["parts"].items()} == {"train": 108, "validation": 36, "test": 36}
    seen = set()
    for name, file in said["files"].items():
        with Path(file).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == said["parts"][name]["rows"]
        seen |= {int(row["row"]) for row in rows}
    assert seen == set(range(1, 181))
    again = cli("data", "leaks", tmp_path / "parts", "--json").ok().json()
    assert again["digest"] == said["digest"] and again["protocol"] == "given"
    refused = cli("data", "prepare", table, "--out", tmp_path / "parts")
    assert refused.code == 2 and "already" in refused.err
    shown = cli("data", "prepare", table, "--out", tmp_path / "parts", "--force").ok().out
    assert "Positive label: spam" in shown and "Use it: lora-clf train" in shown


def test_data_leaks(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "copies.csv"
    texts = [f"the very same message for every one of you {number % 10}" for number in range(60)]
    rows = [f"{text},{'a' if number % 10 < 5 else 'b'}" for number, text in enumerate(texts)]
    file.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    said = cli("data", "leaks", file, "--protocol", "random", "--json").ok().json()
    assert said["leaks"]["parts"]["test"]["all"]["exact"]["share"] > 0.9
    shown = cli("data", "leaks", "--data", file, "--protocol", "random").ok().out
    assert "exact copy" in shown and "like >= 0.7" in shown and "A plain split" not in shown


def test_a_prepared_folder_is_not_cut_into_folds_or_read_whole(
    cli: Cli, adapter: Path, base: Path, table: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    cli("data", "prepare", table, "--out", parts).ok()
    for args in (
        ("evaluate", adapter, parts, "--base", base, "--all-rows"),
        ("compare", parts, "--base", base, "--folds", 3, "--out", tmp_path / "run", "--strategies", "head-only"),
    ):
        ran = cli(*args)
        assert (ran.code, ran.out) == (1, "") and ran.err.count("\n") == 1, ran.err
        assert "'parts' holds prepared splits" in ran.err and "give the original table" in ran.err
    same = cli("evaluate", adapter, parts, "--base", base, "--json").ok().json()
    assert same["same_split_as_training"] is True and same["protocol"] == "given"


def test_data_leaks_of_a_plain_split_and_of_the_one_that_is_made(cli: Cli, tmp_path: Path) -> None:
    words = ["amber birch", "cedar delta", "ember fjord", "grove haven", "inlet jetty", "knoll larch"]
    texts = [f"{words[number % 6]} {words[number // 6 % 6]} {number // 12 * 1111}" for number in range(120)]
    rows = [f"{text},{'a' if number % 10 < 5 else 'b'}" for number, text in enumerate([*texts, *texts[:40]])]
    file = tmp_path / "copies.csv"
    file.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    said = cli("data", "leaks", file, "--json").ok().json()
    assert said["protocol"] == "near-copy-free" and said["random"]["protocol"] == "random"
    assert said["leaks"]["parts"]["test"]["all"]["0.7"]["count"] == 0
    single = cli("data", "leaks", file, "--json", "--protocol", "random").ok().json()
    assert single == said["random"] and single["leaks"]["parts"]["test"]["all"]["exact"]["count"] > 0
    made = cli("data", "leaks", file, "--json", "--protocol", "near-copy-free").ok().json()
    assert made == {name: value for name, value in said.items() if name != "random"}
    shown = cli("data", "leaks", file).ok().out
    assert shown.index("A plain split (--protocol random):") < shown.index("The split that is made")
    assert shown.count("exact copy") == 2
    cli("data", "prepare", file, "--out", tmp_path / "parts").ok()
    assert "random" not in cli("data", "leaks", tmp_path / "parts", "--json").ok().json()

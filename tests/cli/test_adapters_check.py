"""`adapters verify`, `diff` and `inspect`: a line a check, the exit status, and what tells two adapters apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lora_clf.cli.adapters_check import _scores

Cli = Callable[..., Any]
MODEL = "adapter_model.safetensors"
STEPS = ("file", "config", "digest", "tensors", "base", "tokenizer", "canaries")


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    shutil.copytree(adapter, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def other_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the same shape with other weights, and another tokenizer."""
    folder = tmp_path_factory.mktemp("other") / "stranger"
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("query.weight"))
    save_file({**weights, name: weights[name] * 1.5}, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def test_a_sound_adapter_has_a_line_a_check(cli: Cli, adapter: Path, base: Path) -> None:
    ran = cli("adapters", "verify", adapter, "--base", base, "--device", "cpu").ok()
    lines = ran.out.splitlines()
    assert [line.split()[:2] for line in lines[:-2]] == [["ok", name] for name in STEPS]
    assert lines[-1] == "Nothing wrong was found." and ran.err.startswith(f"Checked {adapter} in ")
    said = cli("adapters", "verify", adapter, "--base", base, "--json").ok().json()
    assert said["sound"] is True and [check["name"] for check in said["checks"]] == list(STEPS)
    found = {check["name"]: check["found"] for check in said["checks"]}
    assert "schema 1" in found["file"] and "the card is as written" in found["config"]
    assert "0.0001 allowed" in found["canaries"] and found["canaries"].endswith(" s")


def wrong(ran: Any) -> dict[str, str]:
    """The checks that failed, by name, with what was found; a program sees the same as a person."""
    assert ran.code == 1 and ran.err == ""
    assert ran.json()["sound"] is False
    return {check["name"]: check["found"] for check in ran.json()["checks"] if check["passed"] is False}


def skipped(ran: Any) -> set[str]:
    return {check["name"] for check in ran.json()["checks"] if check["passed"] is None}


def test_what_is_wrong_with_the_files(cli: Cli, copy: Path, base: Path) -> None:
    def verify() -> Any:
        return cli("adapters", "verify", copy, "--base", base, "--json")

    (copy / "README.md").write_text("My own words.", encoding="utf-8")
    assert "the card was edited" in verify().ok().out
    (copy / "README.md").unlink()
    assert "there is no card" in verify().ok().out
    config = (copy / "adapter_config.json").read_text()
    (copy / "adapter_config.json").write_text(config.replace('"r": 4', '"r": 5'))
    ran = verify()
    assert wrong(ran) == {"config": wrong(ran)["config"]} and "r is 5, expected 4" in wrong(ran)["config"]
    assert skipped(ran) == set()  # the rest is checked all the same
    (copy / "adapter_config.json").unlink()
    assert "missing" in wrong(verify())["config"]
    (copy / "adapter_config.json").write_text(config)
    data = (copy / MODEL).read_bytes()
    (copy / MODEL).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ran = verify()
    assert set(wrong(ran)) == {"digest"} and "changed or damaged" in wrong(ran)["digest"]
    assert skipped(ran) == {"tensors", "base", "tokenizer", "canaries"}
    (copy / MODEL).write_bytes(b"nonsense")
    assert set(wrong(verify())) == {"file"} and skipped(verify()) == set(STEPS) - {"file"}
    shown = cli("adapters", "verify", copy, "--base", base)
    assert shown.code == 1 and "WRONG file" in shown.out and "-> Copy it again." in shown.out
    assert shown.out.splitlines()[-1] == "1 of 7 checks found something wrong."
    gone = cli("adapters", "verify", copy.parent / "none")
    assert gone.code == 1 and "There is no adapter in" in gone.err


def test_another_base_shows_in_all_three(cli: Cli, adapter: Path, other_base: Path) -> None:
    ran = cli("adapters", "verify", adapter, "--base", other_base, "--json")
    found = wrong(ran)
    assert set(found) == {"base", "tokenizer", "canaries"}
    assert "stranger" in found["base"] and "tiny-bert" in found["base"] and "other base" in found["canaries"]
    lost = cli("adapters", "verify", adapter, "--json")  # nothing here has the digest
    assert set(wrong(lost)) == {"tensors"} and "adapters verify" in wrong(lost)["tensors"]


def test_an_adapter_that_drifts(cli: Cli, adapter: Path, base: Path, tmp_path: Path) -> None:
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.file import write_folder
    from lora_clf.base.base import load_base

    loaded = load_adapter(adapter, load_base(base, device="cpu"))
    stored = loaded.header.canaries
    assert stored is not None
    moved = {name: [value + 0.01 for value in row] for name, row in stored["logits"].items()}
    header = replace(loaded.header, canaries={**stored, "logits": moved})
    write_folder(tmp_path / "drifts", header, loaded.tuned.state_dict())
    found = wrong(cli("adapters", "verify", tmp_path / "drifts", "--base", base, "--json"))
    assert set(found) == {"canaries"} and "Likely cause" in found["canaries"]


# diff


@pytest.fixture(scope="session")
def full(base: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.cli.conftest import run_cli

    folder = tmp_path_factory.mktemp("adapters") / "full"
    run_cli(
        "train", table, "--base", base, "--strategy", "full", "--epochs", 1, "--precision", "fp32",
        "--device", "cpu", "--out", folder, "--seed", 5,
    ).ok()  # fmt: skip
    return folder


def test_an_adapter_and_itself(cli: Cli, adapter: Path, copy: Path) -> None:
    assert f"{adapter} and {copy} are the same adapter" in cli("adapters", "diff", adapter, copy).ok().out
    said = cli("adapters", "diff", adapter, copy, "--json").ok().json()
    assert said["same"] is True and said["fields"] == {} and len(said["layers"]) == 2 * 6 + 2
    assert all(layer["apart"] == 0 and layer["cosine"] == pytest.approx(1) for layer in said["layers"])
    assert all(layer["first"] > 0 for layer in said["layers"])


def test_two_strategies(cli: Cli, adapter: Path, full: Path, base: Path) -> None:
    said = cli("adapters", "diff", adapter, full, "--base", base, "--json").ok().json()
    assert said["fields"]["strategy"] == ["lora", "full"] and said["fields"]["settings.rank"] == [4, None]
    assert said["fields"]["seed"] == [0, 5] and "labels" not in said["fields"] and "base_digest" not in said["fields"]
    assert set(said["metrics"]) >= {"test.accuracy", "validation.macro_f1"}
    layers = {layer["name"]: layer for layer in said["layers"]}
    query = layers["encoder.layer.0.attention.self.query.weight"]
    assert query["first"] > 0 < query["second"] and abs(query["cosine"]) <= 1
    assert abs(query["first"] - query["second"]) <= query["apart"] <= query["first"] + query["second"]
    norm = layers["encoder.layer.0.output.LayerNorm.weight"]
    assert norm["first"] == 0 and norm["cosine"] is None and norm["apart"] == pytest.approx(norm["second"])
    assert said["layers_not_compared"] is None and "head.linear.weight" in layers
    shown = cli("adapters", "diff", adapter, full, "--base", base).ok().out
    for words in ("settings.rank", "test.accuracy", "points", "|A - B|", f"A is {adapter}, B is {full}"):
        assert words in shown
    alone = cli("adapters", "diff", adapter, full).ok().out  # the headers are worth showing without the base
    assert "The changes of the layers were not compared: The adapter was made on the base 'tiny-bert'" in alone


def test_scores_of_every_task_are_told_apart() -> None:
    pair = {"test.mae": (0.5, 0.25), "test.subset_accuracy": (0.5, None), "test.n": (3.0, 4.0), "test.loss": (1.0, 1.5)}
    assert _scores(pair) == [
        ("test.mae", "0.5000", "0.2500", "-0.2500"),
        ("test.subset_accuracy", "50.00 %", "-", "-"),
        ("test.loss", "1.0000", "1.5000", "+0.5000"),
    ]


def test_the_change_of_a_layer_is_what_merging_adds(cli: Cli, adapter: Path, full: Path, base: Path) -> None:
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.base.base import load_base

    on = load_base(base, device="cpu")
    name = "encoder.layer.1.intermediate.dense.weight"
    plain = on.backbone.get_parameter(name).detach().double()
    merged = [
        load_adapter(folder, on).tuned.merge().backbone.get_parameter(name).detach().double() - plain
        for folder in (adapter, full)
    ]
    said = cli("adapters", "diff", adapter, full, "--base", base, "--json").ok().json()
    layer = next(layer for layer in said["layers"] if layer["name"] == name)
    assert layer["apart"] == pytest.approx(float((merged[0] - merged[1]).norm()), rel=1e-4)
    assert layer["first"] == pytest.approx(float(merged[0].norm()), rel=1e-4)


def test_other_bases_and_labels(cli: Cli, adapter: Path, tmp_path: Path) -> None:
    from tests.adapters.making import make

    other = make("gpt2", "lora-scratch", "family", labels=("a", "b", "c")).save(tmp_path / "other")
    said = cli("adapters", "diff", adapter, other, "--json").ok().json()
    assert said["layers"] == [] and said["layers_not_compared"] == "they stand on different bases"
    assert said["fields"]["labels"] == [["ham", "spam"], ["a", "b", "c"]]
    shown = cli("adapters", "diff", adapter, other).ok().out
    assert "a, b, c" in shown and "they stand on different bases." in shown


def test_conv1d_changes_are_turned(tmp_path: Path) -> None:
    import torch

    from lora_clf.adapters.contrast import layers_apart
    from lora_clf.adapters.file import read_folder
    from tests.adapters.making import make

    adapter = make("gpt2", "lora-scratch")
    read = read_folder(adapter.save(tmp_path / "a"))
    merged = dict(adapter.tuned.merge().backbone.named_parameters())
    plain = dict(adapter.base.backbone.named_parameters())
    state = {**{n: p.detach() for n, p in merged.items()}, "head.linear.weight": torch.ones(2, 32)}
    whole = (replace(read[0], scaling=None, fan_in_fan_out=None), state)
    layers = {each.name: each for each in layers_apart(read, whole, adapter.base)}
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert len(changed) == 12
    for name in changed:
        assert layers[name].apart < 1e-5 < layers[name].first


# inspect


def test_inspect_says_where_the_base_is_and_how_to_run_it(
    cli: Cli, adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_CLF_BASES", str(base.parent))
    shown = cli("adapters", "inspect", adapter).ok().out
    assert next(line for line in shown.splitlines() if line.startswith("base is here")).split()[-1] == "yes"
    for words in (
        "binary, 2 labels: ham, spam", "positive label", "tiny-bert (bert, digest", "rank 4", "kB (F32)",
        "test", f'lora-clf predict {adapter} "..."', f"load_adapter('{adapter}', load_base('tiny-bert'))",
        f"lora-clf adapters verify {adapter}",
    ):  # fmt: skip
        assert words in shown, words
    monkeypatch.delenv("LORA_CLF_BASES")
    assert "not by this name; it is found by digest in LORA_CLF_BASES" in cli("adapters", "inspect", adapter).ok().out


def test_the_lines_of_inspect_run(cli: Cli, adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    monkeypatch.setenv("LORA_CLF_BASES", str(base.parent))
    shown = cli("adapters", "inspect", adapter).ok().out.splitlines()
    line = next(line for line in shown if line.startswith("Use it:")).split("lora-clf ")[1]
    assert cli(*shlex.split(line.replace("...", "win cash now"))).ok().out.startswith("spam")
    check = next(line for line in shown if line.startswith("Check it:")).split("lora-clf ")[1]
    assert cli(*shlex.split(check)).code == 0
    python = next(line for line in shown if line.startswith("In Python:")).split(": ")[1]
    from lora_clf import load_adapter, load_base

    assert python == f"load_adapter({str(adapter)!r}, load_base('tiny-bert')).predict([...])"
    assert load_adapter(str(adapter), load_base("tiny-bert")).predict(["win cash now"])[0].label == "spam"

"""How `predict` and `evaluate` open an adapter: which base, what is checked, what a person reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

Cli = Callable[..., Any]


@pytest.fixture(scope="session")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the same shape with other weights."""
    folder = tmp_path_factory.mktemp("other") / "stranger"
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("query.weight"))
    save_file({**weights, name: weights[name] * 1.5}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def drifting(adapter: Path, base: Path, tmp_path: Path) -> Path:
    """An adapter whose header promises other logits than it has."""
    from lora_clf.adapters.adapter import Adapter, load_adapter
    from lora_clf.adapters.file import pack_state, write_folder
    from lora_clf.base.base import load_base

    loaded: Adapter = load_adapter(adapter, load_base(base, device="cpu"))
    stored = loaded.header.canaries
    assert stored is not None
    swapped = {name: row[::-1] for name, row in stored["logits"].items()}
    header = replace(loaded.header, canaries={**stored, "logits": swapped})
    assert pack_state(header, loaded.tuned.state_dict())
    write_folder(tmp_path / "drifting", header, loaded.tuned.state_dict())
    return tmp_path / "drifting"


def test_canaries_are_computed_unless_told_otherwise(
    cli: Cli, adapter: Path, base: Path, table: Path, drifting: Path
) -> None:
    for command in (("predict", drifting, "win cash"), ("evaluate", drifting, table, "--all-rows")):
        ran = cli(*command, "--base", base)
        assert (ran.code, ran.out) == (1, "") and ran.err.count("\n") <= 2
        assert "does not compute what it computed" in ran.err and "permuted labels" in ran.err
        assert cli(*command, "--base", base, "--no-verify").code == 0
    assert "--no-verify" in cli("predict", "--help").ok().out


def test_another_base_is_refused_said_or_let_pass(cli: Cli, adapter: Path, base: Path, other: Path) -> None:
    ask = ("predict", adapter, "win cash", "--base", other)
    for flags in ((), ("--base-check", "strict")):
        ran = cli(*ask, *flags)
        assert (ran.code, ran.out) == (1, "") and ran.err.count("\n") == 1
        assert "tiny-bert" in ran.err and "stranger" in ran.err
        assert f"`lora-clf predict {adapter} --base FOLDER`" in ran.err
    ran = cli(*ask, "--base-check", "warn").ok()
    assert ran.err.count("\n") == 1 and ran.err.startswith("Warning: The adapter in ")
    assert "tiny-bert" in ran.err and "stranger" in ran.err and "canaries drift by" in ran.err
    assert "canaries" not in cli(*ask, "--base-check", "warn", "--no-verify").ok().err
    silent = cli(*ask, "--base-check", "off").ok()
    assert silent.err == "" and silent.out == ran.out
    assert cli("predict", adapter, "win cash", "--base", base, "--base-check", "warn").ok().err == ""
    wrong = cli(*ask, "--base-check", "wran")
    assert wrong.code == 2 and "Did you mean 'warn'" in wrong.err


def test_the_base_is_found_under_another_name(
    cli: Cli, adapter: Path, base: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORA_CLF_BASES", raising=False)
    ran = cli("predict", adapter, "win cash")
    assert ran.code == 1 and f"`lora-clf predict {adapter} --base FOLDER`" in ran.err and "'tiny-bert'" in ran.err
    shutil.copytree(base, tmp_path / "bases" / "renamed")
    shutil.copytree(other, tmp_path / "bases" / "tiny-bert")  # the right name, and another base
    monkeypatch.setenv("LORA_CLF_BASES", str(tmp_path / "bases"))
    said = cli("predict", adapter, "win cash", "--json").ok()
    assert said.err == ""
    assert said.json() == cli("predict", adapter, "win cash", "--json", "--base", base).ok().json()
    refused = cli("predict", adapter, "win cash", "--base", other)
    assert f"That base is here: `lora-clf predict {adapter} --base {tmp_path}/bases/renamed`" in refused.err
    shutil.rmtree(tmp_path / "bases" / "renamed")
    lost = cli("evaluate", adapter, "demo", "--all-rows")
    assert lost.code == 1 and "names are equal" in lost.err and "No base here has that digest" in lost.err
    assert f"`lora-clf evaluate {adapter} --base FOLDER`" in lost.err


def test_the_cap_of_the_file(cli: Cli, adapter: Path, base: Path) -> None:
    ask = ("predict", adapter, "win cash", "--base", base)
    ran = cli(*ask, "--file-cap", "0.000001")
    assert ran.code == 1 and "at most 1,073 are read" in ran.err and "--file-cap" in ran.err
    assert cli(*ask, "--file-cap", "4").code == 0
    for wrong in ("0", "-1", "nan", "inf"):
        ran = cli(*ask, "--file-cap", wrong)
        assert ran.code == 2 and "expected a number of GiB above 0" in ran.err


def test_an_adapter_of_the_hub_that_is_out_of_reach(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("predict", "ann/spam", "hello")
    assert ran.code == 1 and ran.err.count("\n") == 1 and "There is no folder 'ann/spam', and the Hub" in ran.err


def test_the_json_of_predict_is_clean(cli: Cli, adapter: Path, base: Path, other: Path) -> None:
    ran = cli("predict", adapter, "win", "--json", "--base", other, "--base-check", "warn").ok()
    assert json.loads(ran.out)[0]["label"] in ("ham", "spam")

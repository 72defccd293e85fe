"""`cache` and `--cache-size`: what is kept on disk, for whom, and that results do not depend on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, nothing in it."""
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "0")
    return tmp_path / "cache" / "prefix"


@pytest.fixture
def train(cli: Cli, base: Path, table: Path, tmp_path: Path) -> Cli:
    def run(name: str, *args: object) -> Any:
        return cli(
            "train", table, "--base", base, "--strategy", "last-block", "--epochs", 1, "--precision", "fp32",
            "--device", "cpu", "--out", tmp_path / name, "--json", *args,
        )  # fmt: skip

    return run


def test_states_are_kept_listed_used_and_dropped(cli: Cli, train: Cli, here: Path, tmp_path: Path) -> None:
    cold = train("cold", "--cache-size", "1GB").ok().json()
    assert os.environ["LORA_CLF_CACHE_SIZE"] == "1GB"  # for the processes that a comparison starts
    files = sorted(here.glob("*/*.safetensors"))
    assert len(files) == 1
    found = cli("cache", "list", "--json").ok().json()
    assert (found["folder"], found["budget"]) == (str(here), 10**9)
    assert found["size"] == sum(file.stat().st_size for file in files)
    (entry,) = found["entries"]
    assert (entry["base"], entry["blocks"], entry["pooled"], entry["files"]) == ("tiny-bert", 1, None, 1)
    assert entry["texts"] == 180 and entry["precision"] == "fp32" and entry["last_used"].endswith("Z")
    shown = cli("cache", "list").ok().out
    assert "tiny-bert" in shown and "behind block 1" in shown and "of at most 1 GB (LORA_CLF_CACHE_SIZE)" in shown
    warm = train("warm").ok().json()
    assert warm["history"] == cold["history"] and warm["test"] == cold["test"]
    assert sorted(here.glob("*/*.safetensors")) == files
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("cold", "warm")]
    assert weights[0] == weights[1]
    assert cli("cache", "clear", "--json").ok().json() == {"files": 1, "size": found["size"]}
    assert cli("cache", "list", "--json").ok().json()["entries"] == []
    assert cli("cache", "clear").ok().out == "Dropped 0 files, 0 B.\n"


@pytest.mark.parametrize("flags", [["--cache-size", "0"], ["--cache-size", "1GB", "--no-cache"]], ids=str)
def test_nothing_is_kept_where_that_is_asked_for(train: Cli, here: Path, flags: list[str]) -> None:
    train("a", *flags).ok()
    assert not here.exists()


def test_a_size_that_is_none(train: Cli, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = train("a", "--cache-size", "plenty")
    assert ran.code == 2 and ran.err.count("\n") == 1 and "--cache-size plenty: expected a size, as 4GB" in ran.err
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "plenty")
    for ran in (cli("cache", "list"), train("a")):
        assert ran.code == 2 and ran.err.startswith("Error: LORA_CLF_CACHE_SIZE plenty") and ran.err.count("\n") == 1


def test_a_folder_that_is_not_there_is_an_empty_one(cli: Cli, here: Path) -> None:
    assert cli("cache", "list").ok().out == f"0 B of at most 0 B (LORA_CLF_CACHE_SIZE) in {here}\n"
    assert not here.exists()

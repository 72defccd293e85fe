"""`doctor` on the command line: a line a check, JSON, and the exit status."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

Cli = Callable[..., Any]
NAMES = ["targets", "padding", "special tokens", "truncation", "tokenizer", "determinism", "precision"]


def test_a_sound_base_and_a_sound_adapter(cli: Cli, base: Path, adapter: Path) -> None:
    said = cli("doctor", base, "--device", "cpu", "--json").ok().json()
    assert (said["kind"], said["base"], said["healthy"]) == ("base", "tiny-bert", True)
    assert [check["name"] for check in said["checks"]] == ["weights", *NAMES]
    assert len(said["base_digest"]) == len(said["tokenizer_digest"]) == 64
    shown = cli("doctor", base, "--device", "cpu").ok().out.splitlines()
    assert shown[0].startswith("Base: tiny-bert, ") and shown[-1] == "Nothing wrong was found."
    assert sum(line.startswith("ok    ") for line in shown) >= 7 and not any("->" in line for line in shown)
    said = cli("doctor", adapter, "--base", base, "--device", "cpu", "--json").ok().json()
    assert said["kind"] == "adapter" and [check["name"] for check in said["checks"]] == ["weights", "canaries", *NAMES]
    assert cli("doctor", adapter, "--base", base).ok().out.startswith(f"Adapter: {adapter}.\nBase: tiny-bert")


def test_what_is_wrong_is_said_with_what_to_do(cli: Cli, base: Path, adapter: Path, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    shutil.copytree(base, sick)
    weights = load_file(sick / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("output.dense.weight"))
    weights[name].zero_()
    save_file(weights, sick / "model.safetensors", metadata={"format": "pt"})
    ran = cli("doctor", sick, "--device", "cpu")
    assert ran.code == 1 and ran.err == ""
    lines = ran.out.splitlines()
    assert lines[-1] == "1 of 8 checks found something wrong."
    place = next(place for place, line in enumerate(lines) if line.startswith("WRONG weights"))
    assert "1 matrices of the blocks are all zero" in lines[place] and "-> Fetch the base again" in lines[place + 1]
    ran = cli("doctor", adapter, "--base", sick, "--device", "cpu", "--json")  # another base is a finding too
    assert ran.code == 1
    wrong = {check["name"]: check for check in ran.json()["checks"] if check["passed"] is False}
    assert set(wrong) == {"weights", "canaries"} and "other base" in wrong["canaries"]["found"]
    assert not ran.json()["healthy"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ("{base} --prompt hello", 2, "is no decoder"),
        ("{adapter} --tokens 12", 2, "are about a base"),
        ("{base} --base {base}", 2, "taken for a base itself"),
        ("{tmp}/none", 1, "There is no folder"),
        ("{tmp}", 1, "has no config.json"),
    ],
)
def test_what_cannot_be_asked(
    cli: Cli, base: Path, adapter: Path, tmp_path: Path, args: str, code: int, says: str
) -> None:
    ran = cli("doctor", *args.format(base=base, adapter=adapter, tmp=tmp_path).split())
    assert (ran.code, ran.out) == (code, "") and ran.err.count("\n") == 1 and says in ran.err


def test_a_decoder_shows_what_it_writes(cli: Cli, tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from lora_clf.base.byte_pairs import byte_of_character

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=256, eos_token_id=256
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "random")
    vocabulary = {character: id for id, character in enumerate(byte_of_character())}
    (tmp_path / "random" / "vocab.json").write_text(json.dumps({**vocabulary, "<|endoftext|>": 256}))
    (tmp_path / "random" / "merges.txt").write_text("#version: 0.2\n")
    ran = cli("doctor", tmp_path / "random", "--device", "cpu", "--prompt", "Every effort moves you", "--tokens", 10)
    shown = next(line for line in ran.out.splitlines() if "continuation" in line)
    assert "'Every effort moves you'" in shown and "nats a token" in shown
    said = cli("doctor", tmp_path / "random", "--device", "cpu", "--json").json()["checks"][-1]
    assert said["name"] == "continuation" and said["numbers"]["prompt"] == "Every effort moves you"
    assert said["numbers"]["uniform"] == pytest.approx(5.549, abs=1e-3)
    assert cli("doctor", tmp_path / "random", "--tokens", 9).code == 2

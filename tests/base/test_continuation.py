"""What a decoder writes behind a prompt: English where it was loaded as it should be, and not otherwise."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, LlamaModel

from lora_clf.adapters.canary import SENTENCES
from lora_clf.adapters.doctor import continued, examine_base
from lora_clf.base import continuation as module
from lora_clf.base.base import Base, load_base
from lora_clf.base.byte_pairs import byte_of_character
from lora_clf.base.continuation import KNOWN, PROMPT, continuation
from lora_clf.errors import UsageError
from tests.bases import ByteTokenizer, tiny_base, tiny_config

WRITTEN = " forward and on.\n"


def byte_vocabulary(folder: Path) -> None:
    """GPT-2's files with no merges: a token is a byte."""
    vocabulary = {character: id for id, character in enumerate(byte_of_character())}
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "<|endoftext|>": 256}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 that knows two sentences by heart, one byte a token."""
    folder = tmp_path_factory.mktemp("decoders") / "parrot"
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_embd=48, n_layer=2, n_head=4, n_positions=96, bos_token_id=256, eos_token_id=256
    )
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(config, name, 0.0)
    model = GPT2LMHeadModel(config)
    folder.mkdir()
    byte_vocabulary(folder)
    model.save_pretrained(folder)
    tokenizer = load_base(folder, device="cpu").tokenizer
    texts = [PROMPT + WRITTEN * 2, SENTENCES["plain"]]
    rows = [torch.tensor(tokenizer.encode([text], 96).ids[0].tolist())[None] for text in texts]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        loss = sum(model(input_ids=row, labels=row).loss for row in rows)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def test_it_goes_on_as_it_was_taught(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(gpt2, device="cpu")
    made = continuation(base, tokens=len(WRITTEN))
    assert made is not None and made.text == WRITTEN and made.prompt == PROMPT
    assert made.nats < 1 < made.uniform == pytest.approx(math.log(257)) and made.drift < 1e-5
    longer = continuation(base, tokens=25)
    assert longer is not None and longer.text == (WRITTEN * 2)[:25]
    other = continuation(base, "Zq xvj", tokens=10)
    assert other is not None and other.nats > 2 * made.nats
    finding = next(finding for finding in examine_base(base) if finding.name == "continuation")
    assert finding.passed and repr(WRITTEN[:15]) in finding.found and finding.numbers["uniform"] > 5
    # A base of the catalogue has to go on as it is known to.
    named = replace(base, name="gpt2")
    assert "it is known to go on with ' forward." in continued(named, None, None).found
    assert continued(named, "Every effort moves", None).passed
    monkeypatch.setattr(module, "KNOWN", {"gpt2": WRITTEN})
    assert continued(named, None, None).passed


def sabotaged(gpt2: Path, folder: Path, change: Any) -> Base:
    shutil.copytree(gpt2, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return load_base(folder, device="cpu")


def test_a_wrongly_loaded_base_shows_at_once(gpt2: Path, tmp_path: Path) -> None:
    def permute(weights: dict[str, torch.Tensor]) -> None:
        weights["transformer.wte.weight"] = weights["transformer.wte.weight"].roll(1, 0)

    def transpose(weights: dict[str, torch.Tensor]) -> None:
        for name in weights:
            if name.endswith("attn.c_proj.weight"):  # square, so that nothing else tells
                weights[name] = weights[name].T

    base = sabotaged(gpt2, tmp_path / "permuted", permute)
    finding = continued(base, None, None)
    assert finding.passed is False and "more surprised than by chance" in finding.found
    assert "not the weights of a language model" in finding.advice
    turned = continuation(sabotaged(gpt2, tmp_path / "transposed", transpose), measured=SENTENCES["plain"])
    sound = continuation(load_base(gpt2, device="cpu"), measured=SENTENCES["plain"])
    assert turned is not None and sound is not None
    assert turned.text != sound.text and turned.nats > 3 * sound.nats


def test_a_backbone_that_is_not_the_folder_s(gpt2: Path) -> None:
    base = load_base(gpt2, device="cpu")
    with torch.no_grad():
        base.backbone.h[1].mlp.c_fc.weight.mul_(1.1)  # type: ignore[union-attr, index, operator]
    finding = continued(base, None, None)
    assert finding.passed is False and "transformers' own model gives other logits" in finding.found


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "opt", "opt-projected", "qwen3"])
def test_every_kind_of_decoder(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(name)).eval()
    model.save_pretrained(tmp_path / name)
    base = tiny_base(name)
    backbone = getattr(model, base.architecture.prefix)
    own = replace(base, backbone=backbone, folder=tmp_path / name, tokenizer=ByteTokenizer())
    made = continuation(own, tokens=10)
    assert made is not None and made.drift < 1e-5 and made.uniform == pytest.approx(math.log(300))
    assert made.nats > 3  # a random one knows nothing


def test_a_folder_without_a_head(tmp_path: Path) -> None:
    config = tiny_config("llama")
    assert config.tie_word_embeddings is False
    LlamaModel(config).save_pretrained(tmp_path / "body")
    base = replace(tiny_base("llama"), folder=tmp_path / "body")
    assert continuation(base) is None
    finding = continued(base, None, None)
    assert finding.passed is None and "no head of a language model" in finding.found
    LlamaForCausalLM(config).save_pretrained(tmp_path / "whole")
    assert continuation(replace(base, folder=tmp_path / "whole")) is not None


def test_what_cannot_be_asked(gpt2: Path) -> None:
    base = load_base(gpt2, device="cpu")
    for tokens in (0, 9, 26):
        with pytest.raises(UsageError, match=f"--tokens {tokens}: expected 10 to 25"):
            examine_base(base, tokens=tokens)
    with pytest.raises(UsageError, match="too short"):
        examine_base(base, prompt="a")
    with pytest.raises(UsageError, match="no decoder"):
        continuation(tiny_base("bert"))
    long = continuation(base, "a b " * 100)
    assert long is not None and len(long.text) == module.TOKENS
    assert KNOWN["gpt2"] == " forward.\n\nThe first step is to understand the importance of your work"

"""A head in words: equal to transformers' language model, blind to padding, and exact about what it cannot take."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lora_clf.base.base import Base, load_base
from lora_clf.base.byte_pairs import byte_of_character
from lora_clf.base.verbalizer import LEAST, PromptTokenizer, Verbalizer, unprompted
from lora_clf.base.view import View
from lora_clf.errors import UnsupportedBaseError, UsageError
from lora_clf.inference.batches import collate
from lora_clf.inference.predict import logits
from lora_clf.tuners import create
from tests.bases import randomise, tiny_base

TEXTS = ("WIN a prize now", "ok", "", "Grüße, 5 €", "see you at home tonight, mum", "<|endoftext|> [PAD]")
TEMPLATE = "Text: {text}\nSpam:"
WORDS = {"ham": "no", "other": "maybe", "spam": "yes"}
LABELS = tuple(WORDS)


def decoder(folder: Path, kind: str, *, tied: bool, width: int = 32) -> Path:
    """A tiny random language model, one byte a token."""
    torch.manual_seed(0)
    common = {"vocab_size": 257, "bos_token_id": 256, "eos_token_id": 256, "tie_word_embeddings": tied}
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=2, n_head=4, n_positions=96, **common))
    else:
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        model = LlamaForCausalLM(
            LlamaConfig(**shape, num_key_value_heads=2, max_position_embeddings=96, pad_token_id=256, **common)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir()
    model.save_pretrained(folder)
    vocabulary = {character: id for id, character in enumerate(byte_of_character())} | {"<|endoftext|>": 256}
    if kind == "gpt2":
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    else:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<|endoftext|>"])
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module", params=[("gpt2", True), ("llama", True), ("llama", False)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One language model with its output layer tied to the embeddings, and one of its own."""
    kind, tied = request.param
    return decoder(tmp_path_factory.mktemp("decoders") / f"{kind}-{tied}", kind, tied=tied)


@pytest.fixture
def base(folder: Path) -> Base:
    return load_base(folder, device="cpu")


def prompt_of(base: Base, words: dict[str, str] | None = None, template: str = TEMPLATE) -> Base:
    return Verbalizer(template, words or WORDS).on(base, LABELS)


def test_scores_are_those_of_the_language_model(folder: Path, base: Base) -> None:
    seen = prompt_of(base)
    assert seen.prompt is not None and seen.digest == base.digest and seen.tokenizer_digest == base.tokenizer_digest
    tuned = create("head-only").prepare(seen.view(3))
    assert {name: tuple(p.shape) for name, p in tuned.trainable().items()} == {"head.bias": (3,)}
    ours = torch.from_numpy(logits(tuned.view, seen.encode(TEXTS, 96))).log_softmax(dim=-1)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for text, row in zip(TEXTS, ours, strict=True):
        # A token is a byte, so every answer begins with the space; then n, m or y.
        ids = base.tokenizer.encode([TEMPLATE.replace("{text}", text) + " "], 96).ids[0].tolist()
        firsts = [base.tokenizer.encode([word], 96).ids[0][0] for word in WORDS.values()]
        with torch.no_grad():
            shares = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)  # (V,)
        theirs = shares[firsts]
        assert torch.allclose(row, theirs - theirs.logsumexp(0), atol=1e-5)
    assert ours.std() > 0.01


def test_padding_and_company_change_nothing(base: Base) -> None:
    seen = prompt_of(base)
    tuned = create("lora-scratch", rank=2).prepare(seen.view(3))
    randomise(tuned)
    view = tuned.view
    tokens = seen.encode(TEXTS, 96)
    together = logits(view, tokens)
    assert together.std(axis=0).min() > 1e-3
    for place in range(len(TEXTS)):
        batch = collate(tokens.ids, np.array([place]), 96)
        left = torch.roll(batch.input_ids, 5, dims=1), torch.roll(batch.attention_mask, 5, dims=1)
        with torch.no_grad():
            assert np.allclose(view(*left).numpy(), together[place : place + 1], atol=1e-5)


@pytest.mark.parametrize("strategy", ["head-only", "last-block", "full", "lora", "prefix-tuning", "p-tuning", "ia3"])
def test_any_strategy_tunes_it(base: Base, strategy: str) -> None:
    tuned = create(strategy).prepare(prompt_of(base).view(3, seed=3))
    randomise(tuned)
    tuned.view.train()
    tokens = base.encode(TEXTS[:2], 96)
    batch = collate(tokens.ids, np.arange(2))
    tuned.view(batch.input_ids, batch.attention_mask).square().sum().backward()
    assert all(p.grad is not None for p in tuned.trainable().values()) and "head.bias" in tuned.trainable()
    assert not tuned.view.head.rows.requires_grad  # type: ignore[union-attr]
    again = create(strategy).prepare(prompt_of(base).view(3, seed=4))
    again.load_state_dict(tuned.state_dict())
    with torch.no_grad():
        one, other = (view(batch.input_ids, batch.attention_mask) for view in (tuned.view.eval(), again.view.eval()))
    assert torch.equal(one, other)
    if tuned.tuner.mergeable:
        with torch.no_grad():
            merged = tuned.merge()(batch.input_ids, batch.attention_mask)
        assert torch.allclose(merged, one, atol=1e-4)


def test_the_base_stays_as_it_is(base: Base) -> None:
    seen = prompt_of(base)
    plain = unprompted(seen)
    assert plain.tokenizer is base.tokenizer and plain.prompt is None and plain.pooling == base.pooling
    assert seen.backbone is base.backbone and isinstance(seen.view(3), View)
    with pytest.raises(UsageError, match="3 words on the last token does not fit 2"):
        seen.view(2)
    with pytest.raises(UsageError, match="pooling mean"):
        seen.view(3, "mean")


def test_a_long_text_is_cut_and_the_template_is_not(base: Base) -> None:
    seen = prompt_of(base)
    long = "abcdefghij" * 30
    right, left = (seen.tokenizer.encode([long], 40, side) for side in ("right", "left"))
    for tokens, kept in ((right, "Text: abcdefghij"), (left, "defghij\nSpam: ")):
        said = base.tokenizer.decode(tokens.ids[0].tolist())
        assert bool(tokens.truncated[0]) and len(tokens.ids[0]) == 40 and kept in said
        assert said.startswith("Text: ") and said.endswith("\nSpam: ")
    assert not seen.encode(TEXTS, 96).truncated.any()
    least = len("Text: \nSpam: ") + LEAST
    assert len(seen.encode([long], least).ids[0]) == least
    with pytest.raises(UsageError, match=rf"has 13 tokens and leaves {LEAST - 1} of {least - 1}"):
        seen.encode([long], least - 1)


@pytest.mark.parametrize(
    ("words", "template", "message"),
    [
        ({"ham": "no", "spam": "yes"}, TEMPLATE, "no word for other"),
        ({**WORDS, "eggs": "perhaps"}, TEMPLATE, "no label eggs"),
        ({**WORDS, "other": "yellow"}, TEMPLATE, "'yellow', 'yes' begin with the same token"),
        ({**WORDS, "other": "  "}, TEMPLATE, "the word '  ' is empty"),
        (WORDS, "Text:\nSpam:", r"expected \{text\} once"),
        (WORDS, "{text} or {text}:", r"expected \{text\} once"),
        (WORDS, "Text: {text}\n", "expected words behind"),
    ],
)
def test_what_makes_no_sense_is_refused(words: dict[str, str], template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Verbalizer(template, words).on(tiny_base("gpt2"), LABELS)


def test_words_are_labels_by_default_and_their_common_beginning_is_asked_for() -> None:
    seen = Verbalizer().on(tiny_base("gpt2"), ("spicy", "spam"))
    assert seen.prompt is not None and seen.prompt.words == ("spicy", "spam")
    assert isinstance(seen.tokenizer, PromptTokenizer)
    assert bytes(id - 10 for id in seen.tokenizer.lead) == b" sp"
    assert [id - 10 for id in seen.prompt.ids] == list(b"ia")


def test_encoders_and_folders_without_the_head_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedBaseError, match=r"needs a decoder.*bert, an encoder"):
        Verbalizer().on(tiny_base("bert"), LABELS)
    folder = decoder(tmp_path / "whole", "llama", tied=False)
    bare = shutil.copytree(folder, tmp_path / "bare")
    tensors = load_file(bare / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, bare / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedBaseError, match="holds no language model's head"):
        prompt_of(load_base(bare, device="cpu"))
    with pytest.raises(UnsupportedBaseError, match="holds no language model's head"):
        prompt_of(replace(load_base(folder, device="cpu"), folder=None))


def test_what_spells_a_special_token_at_an_end_of_the_template_stays_as_letters(base: Base) -> None:
    labels = {"ham": "no", "spam": "yes"}
    framed = Verbalizer("<|endoftext|>{text}\nSpam:", labels).on(base, ("ham", "spam")).tokenizer
    plain = Verbalizer("{text}\nSpam:", labels).on(base, ("ham", "spam")).tokenizer
    for tokenizer, text in ((framed, "tea"), (plain, "<|endoftext|>tea")):  # one string, however it came about
        found = tokenizer.encode([text], 200)
        assert tokenizer.decode(found.ids[0]).startswith("<|endoftext|>tea") and not found.truncated.any()
        assert not set(found.ids[0].tolist()) & set(base.tokenizer.special.values())

"""An adapter runs on its own base however that is stored, and on no other, however alike the two are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertForMaskedLM, GPT2LMHeadModel

from lora_clf.adapters.adapter import load_adapter
from lora_clf.base.base import Base, load_base
from lora_clf.errors import WrongBaseError
from tests.adapters.making import TEXTS, make
from tests.adapters.whole_bases import whole_base
from tests.stress.conftest import Counted

Change = Callable[[Path], object]
WEIGHTS, CONFIG, TOKENIZER, ABOUT = "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"


class Whole:
    """A base in a folder and an adapter that was made on it."""

    def __init__(self, name: str, root: Path, bytes_only: bool = False) -> None:
        self.folder, self.adapter = root / f"{name}-base", root / f"{name}-adapter"
        self.base = whole_base(name, self.folder, bytes_only=bytes_only)
        half_exact(self.folder)
        self.base = load_base(self.folder, device="cpu")
        made = make(name, "lora", "mean", base=self.base)
        made.save(self.adapter)
        self.logits = made.logits(TEXTS)


def half_exact(folder: Path) -> None:
    """Round the weights to what bf16 holds, so that a file in bf16 is the same base."""
    tensors = {name: tensor.bfloat16().float() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    root = tmp_path_factory.mktemp("wholes")
    return {"bert": Whole("bert", root), "gpt2": Whole("gpt2", root, bytes_only=True)}


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """A change of the weights."""

    def apply(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        found = {name: tensor.contiguous() for name, tensor in found.items()}
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def values(file: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """A change of a JSON file."""

    def apply(folder: Path) -> None:
        found = json.loads((folder / file).read_text(encoding="utf-8"))
        change(found)
        (folder / file).write_text(json.dumps(found), encoding="utf-8")

    return apply


def setting(**fields: Any) -> Change:
    return values(CONFIG, lambda config: config.update(fields))


def one_ulp(number: int) -> Change:
    """One number of tensor ``number``, to the next float32 up or down."""

    def change(found: dict[str, torch.Tensor]) -> None:
        draw = np.random.default_rng(number)
        name = sorted(found)[number % len(found)]
        flat = found[name].reshape(-1)
        place = int(draw.integers(len(flat)))
        flat[place] = torch.nextafter(flat[place], torch.tensor(float("inf") if number % 2 else float("-inf")))

    return tensors(change)


def tuned_further(number: int) -> Change:
    """The whole of it after a little more training, say."""

    def change(found: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(number)
        for name in found:
            found[name] += torch.randn(found[name].shape, generator=generator) * 10.0 ** -(2 + number % 4)

    return tensors(change)


def exchanged(first: str, second: str) -> Change:
    def change(found: dict[str, torch.Tensor]) -> None:
        found[first], found[second] = found[second].clone(), found[first].clone()

    return tensors(change)


def _swap(vocabulary: dict[str, int], one: str, other: str) -> None:
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


WORDS = "embeddings.word_embeddings.weight"
BLOCK = "encoder.layer.{}.attention.self.query.weight"
OTHER: dict[str, dict[str, Change]] = {
    "bert": {
        **{f"one ulp, {number}": one_ulp(number) for number in range(14)},
        **{f"fine-tuned, {number}": tuned_further(number) for number in range(6)},
        "two blocks exchanged": exchanged(BLOCK.format(0), BLOCK.format(1)),
        "two tensors exchanged": exchanged(BLOCK.format(0), BLOCK.format(0).replace("query", "key")),
        "one sign": tensors(lambda found: found[BLOCK.format(2)].view(-1)[:1].mul_(-1)),
        "two rows of the vocabulary": tensors(
            lambda found: found.update({WORDS: found[WORDS][[*range(40), 41, 40, *range(42, 300)]]})
        ),
        "a scale": tensors(lambda found: found.update({name: tensor * 1.0001 for name, tensor in found.items()})),
        "hidden_act": setting(hidden_act="gelu_new"),
        "relu": setting(hidden_act="relu"),
        "layer_norm_eps": setting(layer_norm_eps=1e-6),
        "heads": setting(num_attention_heads=8),
        "decoder": setting(is_decoder=True),
        "upper case": values(TOKENIZER, lambda made: made["normalizer"].update(lowercase=False)),
        "accents": values(TOKENIZER, lambda made: made["normalizer"].update(strip_accents=False)),
        "control characters": values(TOKENIZER, lambda made: made["normalizer"].update(clean_text=False)),
        "no normaliser": values(TOKENIZER, lambda made: made.update(normalizer=None)),
        "white space": values(TOKENIZER, lambda made: made.update(pre_tokenizer={"type": "WhitespaceSplit"})),
        "nothing around": values(TOKENIZER, lambda made: made.update(post_processor=None)),
        "two letters exchanged": values(TOKENIZER, lambda made: _swap(made["model"]["vocab"], "a", "b")),
        "another mark of pieces": values(TOKENIZER, lambda made: made["model"].update(continuing_subword_prefix="#")),
        "longest word": values(TOKENIZER, lambda made: made["model"].update(max_input_chars_per_word=5)),
        "a letter less": values(TOKENIZER, lambda made: made["model"]["vocab"].pop("##z")),
    },
    "gpt2": {
        **{f"one ulp, {number}": one_ulp(100 + number) for number in range(4)},
        **{f"fine-tuned, {number}": tuned_further(100 + number) for number in range(2)},
        "activation": setting(activation_function="gelu"),
        "scaled by block": setting(scale_attn_by_inverse_layer_idx=True),
        "not scaled": setting(scale_attn_weights=False),
        "heads": setting(n_head=8),
        "epsilon": setting(layer_norm_epsilon=1e-6),
        "merges in another order": lambda folder: (folder / "merges.txt").write_text(
            "#version: 0.2\nth e\nt h\nĠ a\n", encoding="utf-8"
        ),
        "two bytes exchanged": values("vocab.json", lambda vocabulary: _swap(vocabulary, "a", "b")),
    },
}  # fmt: skip


def _saved_as(kind: Any, **how: Any) -> Change:
    """Read and written again by a class of transformers."""

    def apply(folder: Path) -> None:
        kind.from_pretrained(folder, dtype=torch.float32).save_pretrained(folder, **how)

    return apply


def _sharded(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 3 and not (folder / WEIGHTS).exists()


def _linked(folder: Path) -> None:
    """As the Hub's library keeps a snapshot: links into a folder of blobs."""
    blobs = folder.parent / f"{folder.name}-blobs"
    folder.rename(blobs)
    folder.mkdir()
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(file)


def _tokenizer_saved_again(folder: Path) -> None:
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def _prefixed(folder: Path) -> None:
    """As saved under a head: names with the model's prefix, and tensors of the head."""
    found = load_file(folder / WEIGHTS)
    renamed = {f"bert.{name}": tensor for name, tensor in found.items()}
    save_file(renamed | {"classifier.weight": torch.ones(2, 32)}, folder / WEIGHTS, metadata={"format": "pt"})


def _old_names(folder: Path) -> None:
    """As old checkpoints have it: masks among the tensors, and the prefix of the language model."""
    found = {f"transformer.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    found |= {f"transformer.h.{block}.attn.bias": torch.ones(1, 1, 96, 96).tril() for block in range(3)}
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})


def _stored_as(dtype: torch.dtype) -> Change:
    def apply(folder: Path) -> None:
        tensors(lambda found: found.update({name: tensor.to(dtype) for name, tensor in found.items()}))(folder)
        setting(dtype=str(dtype).removeprefix("torch."))(folder)

    return apply


def _both_kinds(folder: Path) -> None:
    """A tokenizer.json made of vocab.json and merges.txt, in their place."""
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    assert (folder / TOKENIZER).is_file()


SAME: dict[str, dict[str, Change]] = {
    "bert": {
        "as it is": lambda folder: None,
        "sharded": _sharded,
        "links into blobs": _linked,
        "saved again": _saved_as(AutoModel),
        "saved under a head": _saved_as(AutoModelForSequenceClassification),
        "prefixed by hand": _prefixed,
        "bf16, exact": _stored_as(torch.bfloat16),
        "fp64": _stored_as(torch.float64),
        "another order": tensors(lambda found: [found.update({name: found.pop(name)}) for name in sorted(found)[::-1]]),
        "an older config": values(CONFIG, lambda config: [config.pop(name, None) for name in (
            "transformers_version", "dtype", "use_cache", "add_cross_attention", "bos_token_id", "layer_norm_eps"
        )]),
        "a config with more": setting(architectures=["BertForMaskedLM"], _name_or_path="elsewhere", num_labels=7,
                                      hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0),
        "truncation and padding": values(TOKENIZER, lambda made: made.update(
            truncation={"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            padding={"strategy": {"Fixed": 16}, "direction": "Right", "pad_id": 0, "pad_type_id": 0,
                     "pad_token": "[PAD]", "pad_to_multiple_of": None},
        )),
        "tokenizer saved again": _tokenizer_saved_again,
        "its length in another place": values(ABOUT, lambda about: about.update(model_max_length=17)),
        "files beside": lambda folder: (folder / "README.md").write_text("A base."),
    },
    "gpt2": {
        "as it is": lambda folder: None,
        "sharded": _sharded,
        "tied language model": _saved_as(GPT2LMHeadModel),
        "masks and prefixes": _old_names,
        "bf16, exact": _stored_as(torch.bfloat16),
        "tokenizer.json": _both_kinds,
        "saved again": _saved_as(AutoModel),
    },
}  # fmt: skip


def changed(whole: Whole, change: Change, folder: Path) -> Base:
    shutil.copytree(whole.folder, folder)
    change(folder)
    return load_base(folder, device="cpu")


def tried(wholes: dict[str, Whole], table: dict[str, dict[str, Change]], root: Path) -> list[tuple[str, str, bool]]:
    """Base, change, and whether the adapter was taken."""
    came = []
    for name, changes in table.items():
        for number, (what, change) in enumerate(changes.items()):
            whole = wholes[name]
            base = changed(whole, change, root / f"other-{name}-{number}")
            try:
                adapter = load_adapter(whole.adapter, base, verify=True)
            except WrongBaseError as error:
                assert f"{name}-base" in str(error) and f"other-{name}-{number}" in str(error), error
                came.append((name, what, False))
                continue
            np.testing.assert_array_equal(adapter.logits(TEXTS), whole.logits, err_msg=what)
            came.append((name, what, True))
    return came


def test_fifty_bases_that_differ_are_refused(wholes: dict[str, Whole], tmp_path: Path, counted: Counted) -> None:
    came = tried(wholes, OTHER, tmp_path)
    assert [each for each in came if each[2]] == []
    assert len(came) == 53
    counted("wrong bases", {"of equal shape": len(came), "refused": len(came), "accepted": 0})


def test_twenty_that_are_the_same_are_accepted(wholes: dict[str, Whole], tmp_path: Path, counted: Counted) -> None:
    came = tried(wholes, SAME, tmp_path)
    assert [each for each in came if not each[2]] == []
    assert len(came) == 22
    counted("the same base, stored otherwise", {"bases": len(came), "accepted": len(came), "refused": 0})


def test_a_language_model_without_the_pooler_is_another_base(wholes: dict[str, Whole], tmp_path: Path) -> None:
    """Its family head would have nothing to stand on."""
    base = changed(wholes["bert"], _saved_as(BertForMaskedLM), tmp_path / "without")
    with pytest.raises(WrongBaseError):
        load_adapter(wholes["bert"].adapter, base)

"""Loading a base: what is wrong with a folder is one line, and transformers is heard neither before nor after."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Engine
from tokenizers import models
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from lora_clf.adapters.rules import is_name
from lora_clf.base.base import load_base, name_of, pick_device, position_limit
from lora_clf.base.weights import read_language_model
from lora_clf.errors import BaseError, BaseNotFoundError, LoraClfError, UnsupportedBaseError, UsageError
from tests.bases import POSITIONS, tiny_base, tiny_config


def save(folder: Path) -> Path:
    """A folder of a tiny BERT as transformers writes it, with a tokenizer of a few letters."""
    AutoModel.from_config(tiny_config("bert")).save_pretrained(folder)
    letters = {letter: id for id, letter in enumerate(["[UNK]", *"abcdefgh"])}
    Engine(models.WordLevel(letters, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    return folder


def configure(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def more_words(folder: Path) -> None:
    words = {"[UNK]": 0, "a": 1, "b": POSITIONS, "c": 300}  # of 300 rows
    Engine(models.WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.2.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


# Damage, the error, and what its line says besides the name of the base.
DAMAGES: dict[str, tuple[Callable[[Path], object], type[LoraClfError], list[str]]] = {
    "weights cut off": (cut("model.safetensors", 20_000), BaseError, ["model.safetensors", "damaged", "Fetch"]),
    "weights empty": (cut("model.safetensors", 0), BaseError, ["model.safetensors", "damaged", "Fetch"]),
    "weights a page": (lambda folder: (folder / "model.safetensors").write_text("<html>" * 99), BaseError,
                       ["model.safetensors", "damaged", "Fetch"]),
    "a tensor missing": (drop_tensor, BaseError, ["1 missing", "layer.2.output.dense.weight", "fetch"]),
    "other sizes": (configure(vocab_size=400), BaseError,
                    ["embeddings.word_embeddings.weight is 300 x 32 and should be 400 x 32 (1 such)", "config.json"]),
    "no number": (configure(hidden_size="wide"), UnsupportedBaseError, ["config.json", "hidden_size", "Check it"]),
    "no such activation": (configure(hidden_act="nonsense"), UnsupportedBaseError,
                           ["config.json", "hidden_act is 'nonsense'"]),
    "heads that do not divide": (configure(num_attention_heads=5), UnsupportedBaseError, ["config.json", "5"]),
    "below nothing": (configure(intermediate_size=-1), UnsupportedBaseError, ["config.json", "Check it"]),
    "no padding": (configure(model_type="roberta", pad_token_id=None), UnsupportedBaseError, ["no pad_token_id"]),
    "no type": (configure(model_type="homemade"), UnsupportedBaseError, ["config.json", "homemade"]),
    "no JSON": (cut("config.json", 40), UnsupportedBaseError, ["config.json", "Check it"]),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), UnsupportedBaseError, ["config.json"]),
    "another's tokenizer": (more_words, UnsupportedBaseError, ["ids up to 300", "end with 299", "Restore"]),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), BaseNotFoundError, ["has no tokenizer"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_line(damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "mine")
    capfd.readouterr()
    spoil, error, said = DAMAGES[damage]
    spoil(folder)
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with pytest.raises(error) as caught:
        load_base(folder, device="cpu")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500 and str(tmp_path) not in line
    assert all(part in line for part in ["'mine'", *said]), line
    assert "ignore_mismatched_sizes" not in line and "trust_remote_code" not in line
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_an_adapter_in_the_folder_of_a_base_is_not_loaded_into_it(tmp_path: Path) -> None:
    folder = save(tmp_path / "mine")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    torch.save({}, folder / "adapter_model.bin")
    for read in (
        lambda: load_base(folder, device="cpu"),
        lambda: read_language_model(folder, tiny_config("gpt2"), "mine"),
    ):
        with pytest.raises(UnsupportedBaseError, match=r"'mine' holds an adapter too .* on this base, or merge it\.$"):
            read()


def test_a_whole_folder_loads_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "mine")
    capfd.readouterr()
    base = load_base(folder, device="cpu", max_length=7)
    assert (base.name, base.max_length, load_base(folder, device="cpu").max_length) == ("mine", 7, POSITIONS)
    configure(return_dict=False)(folder)
    again = load_base(folder, device="cpu")
    assert again.digest == base.digest and again.view(2)(*[torch.ones(1, 3, dtype=torch.long)] * 2).shape == (1, 2)
    assert capfd.readouterr() == ("", "")
    for length in (0, POSITIONS + 1):
        with pytest.raises(UsageError, match=f"--max-length {length}: the base mine takes 1 to {POSITIONS} tokens"):
            load_base(folder, device="cpu", max_length=length)


def test_a_base_from_the_hub_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_clf.base.base
    from lora_clf.base.sources import Located

    folder = save(tmp_path / ("c" * 40))
    monkeypatch.setattr(lora_clf.base.base, "locate", lambda name, revision: Located(folder, "gpt2"))
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (folder / name).write_bytes(b"")
        with pytest.raises(BaseError, match="base 'gpt2'") as caught:
            load_base("gpt2", device="cpu")
        assert "cccc" not in str(caught.value)


def test_one_text_is_not_a_list_of_texts(tmp_path: Path) -> None:
    base = load_base(save(tmp_path / "mine"), device="cpu")
    with pytest.raises(UsageError, match="Expected a list of texts, got one text"):
        base.encode("hello")
    assert len(base.encode(["hello"])) == 1


def test_a_copy_of_a_view_shares_the_base() -> None:
    base = tiny_base("bert")
    view = base.view(2, seed=5)
    copied = copy.deepcopy(view)
    assert copied._held.base is base and copied.fresh()._held.base is base
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in view.parameters()}
    ids = torch.ones(1, 3, dtype=torch.long)
    assert torch.equal(copied(ids, ids), view(ids, ids))


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:0", ":0"])
def test_a_device_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="Unknown device"):
        pick_device(name)


def test_one_of_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"--device cuda:0: this machine has cpu\. Use --device auto"):
        pick_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = ("auto", "cuda", "cuda:0", "cuda:1", "cuda:01", "cpu")
    assert [str(pick_device(name)) for name in asked] == ["cuda", "cuda", "cuda:0", "cuda:1", "cuda:1", "cpu"]
    with pytest.raises(UsageError, match=r"--device cuda:2: this machine has cuda:0, cuda:1, cpu\."):
        pick_device("cuda:2")


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps:0"])
def test_the_device_of_a_tensor_is_found_again_by_its_name(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (torch.backends.mps, torch.cuda):
        monkeypatch.setattr(kind, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = pick_device(name_of(torch.device(device)))
    assert (found.type, found.index or 0) == (torch.device(device).type, torch.device(device).index or 0)


@pytest.mark.parametrize("name", [".minilm", "~minilm", "..minilm"])
def test_a_hidden_folder_has_a_name_that_an_adapter_can_hold(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / name)
    assert load_base(folder, device="cpu").name == "minilm" and is_name("minilm") and not is_name(name)


def test_a_user_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseNotFoundError, match="There is no folder '~nosuchuserhere/base'"):
        load_base("~nosuchuserhere/base")
    monkeypatch.setenv("LORA_CLF_BASES", "~nosuchuserhere")
    with pytest.raises(BaseError):
        load_base("nosuchbase-anywhere/at-all/x")


def test_positions_that_turn_by_the_longest_text_of_a_batch_end_where_they_would() -> None:
    turning = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
    config = SimpleNamespace(model_type="llama", max_position_embeddings=131_072, rope_parameters=turning)
    assert position_limit(config) == 4096
    assert position_limit(SimpleNamespace(**{**vars(config), "rope_parameters": {"rope_type": "default"}})) == 131_072

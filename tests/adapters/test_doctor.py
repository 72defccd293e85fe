"""The doctor finds nothing wrong with what is well, and each check catches what it is there for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lora_clf.adapters import doctor
from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.doctor import examine_adapter, examine_base
from lora_clf.adapters.finding import Finding
from lora_clf.base.base import Base
from lora_clf.base.digest import backbone_digest
from lora_clf.base.tokenizer import Tokens
from lora_clf.errors import UsageError
from tests.adapters.making import STRATEGIES, make, shared_base
from tests.bases import ARCHITECTURE_NAMES, ByteTokenizer, tiny_base

NAMES = ("weights", "targets", "padding", "special tokens", "truncation", "tokenizer", "determinism", "precision")


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 is computed whatever the processor has; a tiny base is quick without."""
    monkeypatch.setattr(doctor, "has_native_bf16", lambda device: True)


def wrong(found: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found if finding.passed is False}


def of_base(base: Base) -> dict[str, Finding]:
    found = examine_base(base)
    assert tuple(finding.name for finding in found[:8]) == NAMES
    return wrong([finding for finding in found if finding.name != "continuation"])


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_a_sound_base(name: str) -> None:
    assert of_base(shared_base(name)) == {}


def test_every_finding_says_what_the_number_and_what_to_do() -> None:
    for finding in examine_base(shared_base("bert")):
        assert finding.checked and finding.found and finding.numbers and not finding.advice
        assert any(letter.isdigit() for letter in finding.found + finding.checked), finding
        assert set(finding.as_dict()) == {"name", "passed", "checked", "found", "advice", "numbers"}


class Noisy(nn.Module):
    """A layer with a little noise, as of a dropout that nobody switched off."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.inner(states)
        return output + 1e-6 * torch.randn_like(output)


class Tokenised(ByteTokenizer):
    """The byte tokenizer with one fault."""

    def __init__(self, fault: Callable[[list[int]], list[int]], highest: int = 265, **limits: Any) -> None:
        super().__init__()
        self.fault, self.limits, self.highest = fault, limits, highest

    @property
    def highest_id(self) -> int:
        return self.highest

    def encode(self, texts: Sequence[str], max_length: int, side: Any = "right") -> Tokens:
        tokens = super().encode(texts, self.limits.get("max_length", max_length), side)
        return Tokens([np.array(self.fault(row.tolist()), dtype=np.int32) for row in tokens.ids], tokens.truncated)


def reads_padding(ids: list[int]) -> list[int]:
    """``[PAD]`` in a text is the token that pads."""
    spelled, text = [byte + 10 for byte in b"[PAD]"], list(ids)
    for start in range(len(ids) - 5, -1, -1):
        if text[start : start + 5] == spelled:
            text[start : start + 5] = [0]
    return text


def with_backbone(change: Callable[[Any], object]) -> Callable[[], Base]:
    def made() -> Base:
        base = tiny_base("bert")
        with torch.no_grad():
            change(base.backbone)
        return replace(base, digest=backbone_digest(base.backbone.named_parameters(), base.config.to_dict()))

    return made


def with_tokenizer(*fault: Any, **limits: Any) -> Callable[[], Base]:
    return lambda: replace(tiny_base("bert"), tokenizer=Tokenised(*fault, **limits))


def unmasked(backbone: Any) -> None:
    real = backbone.forward

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        return real(input_ids=input_ids, attention_mask=torch.ones_like(attention_mask), **more)

    backbone.forward = forward


def changed_in_memory() -> Base:
    base = tiny_base("bert")
    with torch.no_grad():
        next(base.backbone.parameters())[0, 0] += 1e-6
    return base


def misnamed() -> Base:
    base = tiny_base("bert")
    return replace(base, architecture=replace(base.architecture, attention=("attention.self.qkv",)))


def layer(backbone: Any, number: int) -> Any:
    return backbone.encoder.layer[number]


# What is wrong with a base, the checks that must say so, and a part of what they say.
SABOTAGE: dict[str, tuple[Callable[[], Base], set[str], str]] = {
    "a number that is none": (
        with_backbone(lambda b: layer(b, 1).output.dense.weight[0].fill_(float("nan"))),
        {"weights", "padding", "truncation", "determinism", "precision"}, "1 tensors hold NaN or infinity"),
    "a layer of zeros": (
        with_backbone(lambda b: layer(b, 2).attention.self.value.weight.zero_()),
        {"weights"}, "1 matrices of the blocks"),
    "weights that changed in memory": (changed_in_memory, {"weights"}, "changed after they were loaded"),
    "a layer that is no linear one in one block": (
        with_backbone(lambda b: setattr(layer(b, 1).attention.self, "key", Noisy(layer(b, 1).attention.self.key))),
        {"targets", "determinism"}, "attention matches {'0': 3, '1': 2, '2': 3}"),
    "targets that match nothing": (misnamed, {"targets"}, "match no linear layer"),
    "a mask that nobody looks at": (with_backbone(unmasked), {"padding"}, "differ by"),
    "special tokens read out of texts": (with_tokenizer(reads_padding), {"special tokens"}, "1 became one: [PAD]"),
    "texts that are not cut": (
        with_tokenizer(list, max_length=1 << 16), {"truncation"}, "tokens are left where 64 are allowed"),
    "texts cut on the wrong side": (
        with_tokenizer(lambda ids: ids[::-1]), {"truncation"}, "what is left is not its start"),
    "a larger vocabulary than the base has": (
        with_tokenizer(lambda ids: [id + 200 for id in ids], highest=465),
        set(NAMES) - {"weights", "targets", "special tokens"}, "ids go up to 465, the base has embeddings for 300"),
    "noise": (
        with_backbone(lambda b: setattr(layer(b, 0).output, "dense", Noisy(layer(b, 0).output.dense))),
        {"determinism"}, "numbers differ"),
    "a layer that bf16 cannot hold": (
        with_backbone(lambda b: layer(b, 2).output.dense.bias.fill_(3000.0)), {"precision"}, "0.1 allowed"),
}  # fmt: skip


@pytest.mark.parametrize("what", SABOTAGE)
def test_what_is_wrong_with_a_base_is_found(what: str) -> None:
    made, names, says = SABOTAGE[what]
    found = of_base(made())
    assert set(found) == names
    assert any(says in finding.found for finding in found.values())
    assert all(finding.advice for finding in found.values())


def test_every_check_caught_something() -> None:
    assert set().union(*(names for _, names, _ in SABOTAGE.values())) == set(NAMES) and len(SABOTAGE) == 12


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_sound_adapter(strategy: str, tmp_path: Any) -> None:
    adapter = make("bert", strategy)
    adapter.save(tmp_path / "a")
    found = examine_adapter(adapter)
    assert tuple(finding.name for finding in found) == ("weights", "canaries", *NAMES[1:])
    assert wrong(found) == {}
    numbers = {finding.name: finding.numbers for finding in found}
    assert numbers["targets"]["trained"] == {"head-only": 0, "last-block": 16, "full": 53}.get(strategy, 18)
    assert numbers["canaries"]["drift"] < numbers["canaries"]["allowed"]


@pytest.fixture
def adapter(tmp_path: Any) -> Adapter:
    made = make("bert", "lora-scratch", base=tiny_base("bert"))
    made.save(tmp_path / "a")
    return made


def test_factors_that_change_nothing_and_a_head_that_never_trained(adapter: Adapter) -> None:
    state = adapter.tuned.state_dict()
    for name in state:
        if "layer.1" in name and "lora_B" in name:
            state[name].zero_()
    adapter.tuned.load_state_dict(state)
    found = wrong(examine_adapter(adapter))
    assert set(found) == {"canaries", "targets"}
    assert "6 layers change nothing, first encoder.layer.1." in found["targets"].found
    fresh = adapter.base.view(2, "mean", adapter.header.seed).head.state_dict()
    adapter.tuned.load_state_dict({**state, **{f"head.{name}": tensor for name, tensor in fresh.items()}})
    assert "the head is as before training" in wrong(examine_adapter(adapter))["targets"].found


def test_a_strategy_whose_tensors_are_the_base_s(tmp_path: Any) -> None:
    adapter = make("bert", "last-block")
    adapter.save(tmp_path / "a")
    before = dict(adapter.base.backbone.named_parameters())
    state = {name: before.get(name, tensor) for name, tensor in adapter.tuned.state_dict().items()}
    adapter.tuned.load_state_dict(state)
    assert "nothing of the backbone differs" in wrong(examine_adapter(adapter))["targets"].found


def test_another_base_and_another_tokenizer(adapter: Adapter) -> None:
    stranger = ByteTokenizer()
    stranger.__dict__["digest"] = "f" * 64  # where the cached property keeps it
    adapter.base = replace(adapter.base, tokenizer=stranger)
    found = wrong(examine_adapter(adapter))
    assert set(found) == {"tokenizer"} and "ffffffffffff, the adapter wants bytes" in found["tokenizer"].found
    other = tiny_base("bert", seed=1)
    moved = Adapter(other, make("bert", "lora-scratch", base=other).tuned, adapter.header)
    found = wrong(examine_adapter(moved))
    assert {"weights", "canaries"} <= set(found)
    assert f"the adapter wants {adapter.header.base_digest[:12]}" in found["weights"].found
    assert "Likely cause: other base" in found["canaries"].found


def test_a_processor_without_bf16_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_native_bf16", lambda device: False)
    finding = next(finding for finding in examine_base(shared_base("bert")) if finding.name == "precision")
    assert finding.passed is None and "no native bf16" in finding.found


def test_a_prompt_is_for_decoders() -> None:
    with pytest.raises(UsageError, match="tiny-bert is no decoder"):
        examine_base(shared_base("bert"), prompt="Every effort")

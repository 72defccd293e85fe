"""Which fault each canary catches, and which cause the error names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.canary import SENTENCES, SET, TOLERANCE, canaries, verify
from lora_clf.adapters.classifier import build
from lora_clf.adapters.header import Header
from lora_clf.base.base import Base
from lora_clf.base.tokenizer import Tokens
from lora_clf.errors import AdapterFormatError, WrongBaseError
from lora_clf.tuners.base import Tuned
from tests.adapters.making import make
from tests.bases import ByteTokenizer, tiny_base


@pytest.fixture
def saved(tmp_path: Path) -> Adapter:
    adapter = make("bert", "lora-scratch", "mean", base=patient_base())
    adapter.save(tmp_path / "a")
    return adapter


def patient_base() -> Base:
    """A base that reads most of the sentences whole, so that their last characters count."""
    return replace(tiny_base("bert"), max_length=96)


def drift(adapter: Adapter, base: Base | None = None, tuned: Tuned | None = None) -> str:
    with pytest.raises((AdapterFormatError, WrongBaseError)) as caught:
        verify(base or adapter.base, tuned or adapter.tuned, adapter.header)
    return str(caught.value)


def test_an_untouched_adapter_has_no_drift(saved: Adapter, tmp_path: Path) -> None:
    assert saved.verify() < TOLERANCE / 100
    assert load_adapter(tmp_path / "a", saved.base, verify=True).verify() < TOLERANCE / 100
    stored = saved.header.canaries
    assert stored is not None and stored["set"] == SET and set(stored["logits"]) == set(SENTENCES)
    assert len(SENTENCES) == 7


def test_the_sentences_are_fixed() -> None:
    """Adapters hold their logits: another text needs another number of the set."""
    text = "\n".join(f"{name}={sentence}" for name, sentence in SENTENCES.items())
    assert hashlib.sha256(text.encode()).hexdigest().startswith(PINNED) and SET == 1


PINNED = "70aae3f80d7b67f2"


@dataclass(frozen=True)
class FaultyTokenizer:
    """The byte tokenizer with one fault, under the digest of the right one."""

    fault: Callable[[str, int], tuple[str, int]]
    digest: str = "bytes"
    pad_to: int = 0
    pad_id: int = 0

    def encode(self, texts: Sequence[str], max_length: int, side: str = "right") -> Tokens:
        parts = [ByteTokenizer().encode([text], length) for text, length in self._rows(texts, max_length)]
        # Padding that nothing masks: ids like all others.
        ids = [np.pad(part.ids[0], (0, max(0, self.pad_to - len(part.ids[0])))) for part in parts]
        return Tokens(ids, np.concatenate([part.truncated for part in parts]))

    def _rows(self, texts: Sequence[str], max_length: int) -> list[tuple[str, int]]:
        return [self.fault(text, max_length) for text in texts]


def reads(fault: Callable[[str, int], tuple[str, int]], **more: Any) -> Callable[[Adapter], tuple[Base, Tuned]]:
    """The fault of a tokenizer, as what an adapter then runs on."""
    return lambda adapter: (replace(adapter.base, tokenizer=FaultyTokenizer(fault, **more)), adapter.tuned)  # type: ignore[arg-type]


def has(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Adapter], tuple[Base, Tuned]]:
    """Other tensors on the right base."""
    return lambda adapter: (adapter.base, changed(adapter, change))


def pools(pooling: str) -> Callable[[Adapter], tuple[Base, Tuned]]:
    return lambda adapter: (
        adapter.base,
        changed(adapter, lambda state: None, replace(adapter.header, pooling=pooling)),
    )


def on_another_base(adapter: Adapter) -> tuple[Base, Tuned]:
    base = replace(tiny_base("bert", seed=1), max_length=96, name="another")
    tuned = build(base, adapter.header)
    tuned.load_state_dict(adapter.tuned.state_dict())
    return base, tuned


def times(factor: float, part: str = "lora_B") -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda state: [state[name].mul_(factor) for name in state if part in name]


def permute(state: dict[str, torch.Tensor]) -> None:
    for name in ("head.linear.weight", "head.linear.bias"):
        state[name] = state[name].flip(0)


NAMES = tuple(SENTENCES)
# What is wrong; which canaries show it (x) and which do not, in the order of NAMES; what the error says of the cause.
FAULTS: dict[str, tuple[Callable[[Adapter], tuple[Base, Tuned]], str, str]] = {
    "another base of the same shape": (on_another_base, "x x x x x x x", "other base"),
    "another tokenizer": (reads(lambda t, n: (t.upper(), n), digest="other"), "x x x . x x x", "other tokenizer"),
    "special tokens read out of texts": (
        reads(lambda t, n: (t.replace("<|endoftext|>", "\1").replace("[PAD]", "\2"), n)), ". . . . x . .", "tokenizer"),
    "accents dropped": (reads(lambda t, n: (t.replace("ü", "u"), n)), ". . . . . x .", "tokenizer"),
    "an empty text filled": (reads(lambda t, n: (t or "[UNK]", n)), ". . . x . . .", "tokenizer"),
    "a token more in front": (reads(lambda t, n: ("\3" + t, n)), "x x x x x x x", "other weights"),
    "another length": (reads(lambda t, n: (t, n - 1)), ". . . . . x x", "truncation"),
    "the other side cut": (reads(lambda t, n: (t[-n:] if len(t) > 200 else t, n)), ". . . . . . x", "truncation"),
    "padding that counts in a batch of short texts": (
        reads(lambda t, n: (t, n), pad_to=16), ". . x x . . .", "padding"),
    "padding that counts in a batch of long texts": (
        reads(lambda t, n: (t, n), pad_to=96), "x x x x x . .", "padding"),
    "pooling by the first token": (pools("first"), "x x x . x x x", "pooling first instead of mean"),
    "pooling by the last token": (pools("last"), "x x x . x x x", "pooling last instead of mean"),
    "scaled rank times too much": (has(times(3.0)), "x x x x x x x", "scaled by alpha / rank²"),
    "scaled rank times too little": (has(times(1 / 3)), "x x x x x x x", "scaled by alpha."),
    "factors missing in one block": (has(times(0.0, "layer.1.output.dense.lora_B")), "x x x x x x x", "other weights"),
    "a head of zeros": (has(times(0.0, "head")), "x x x x x x x", "missing head"),
    "a head as before training": (
        lambda a: has(_first_head(a))(a), "x x x x x x x", "missing head"),
    "permuted labels": (has(permute), "x x x x x x x", "permuted labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_which_canary_catches_which_fault(name: str, saved: Adapter) -> None:
    fault, cells, cause = FAULTS[name]
    base, tuned = fault(saved)
    now = canaries(base, tuned, saved.header)["logits"]
    stored = saved.header.canaries
    assert stored is not None
    shown = {
        key: "x" if max(abs(a - b) / max(1, abs(a)) for a, b in zip(row, now[key], strict=True)) > TOLERANCE else "."
        for key, row in stored["logits"].items()
    }
    assert " ".join(shown[key] for key in NAMES) == cells  # those that show it, and those that do not
    message = drift(saved, base, tuned)
    assert cause in message.split("Likely cause: ")[1] and f"{cells.count('x')} of 7" in message


def test_the_table_of_faults_is_whole() -> None:
    table = {name: cells.split() for name, (_, cells, _) in FAULTS.items()}
    assert NAMES == ("plain", "promotion", "short", "empty", "special", "foreign", "long")
    assert len(table) == 18 and {len(cells) for cells in table.values()} == {7}
    assert sum(cells.count("x") for cells in table.values()) == 87
    for place, name in enumerate(NAMES):
        column = [cells[place] for cells in table.values()]
        assert {"x", "."} == set(column), name  # each canary shows something, and none shows everything
    # Four of them are there for a fault that no other shows, and one for padding, which shows on short texts alone.
    alone = {NAMES[cells.index("x")] for cells in table.values() if cells.count("x") == 1}
    assert alone == {"empty", "special", "foreign", "long"}


def changed(adapter: Adapter, change: Callable[[dict[str, torch.Tensor]], Any], header: Header | None = None) -> Tuned:
    """The adapter with other tensors, or as another header would build it."""
    tuned = build(adapter.base, header or adapter.header)
    state = {name: tensor.clone() for name, tensor in adapter.tuned.state_dict().items()}
    change(state)
    tuned.load_state_dict(state)
    return tuned


def test_causes_that_the_file_alone_shows(saved: Adapter) -> None:
    assert "other weights" in drift(saved, tuned=changed(saved, times(1.5)))
    claims = replace(saved.header, pooling="first")
    liar = Adapter(saved.base, changed(saved, lambda state: None, claims), claims)
    assert "it was saved with mean, not first" in drift(liar)


def _first_head(adapter: Adapter) -> Callable[[dict[str, torch.Tensor]], Any]:
    head = adapter.base.view(2, "mean", seed=adapter.header.seed).head.state_dict()
    return lambda state: state.update({f"head.{name}": tensor for name, tensor in head.items()})


def test_canaries_of_another_set(saved: Adapter) -> None:
    for stored in ({"set": 9, "logits": {"plain": [0.0, 0.0]}}, {"set": 1, "logits": {"new": [0.0, 0.0]}}, None):
        with pytest.raises(AdapterFormatError, match="set of sentences"):
            verify(saved.base, saved.tuned, replace(saved.header, canaries=stored))

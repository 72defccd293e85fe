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
from lora_clf.adapters.classifier import rebuilt
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
    pad_id: int = 0

    def encode(self, texts: Sequence[str], max_length: int, side: str = "right") -> Tokens:
        parts = [ByteTokenizer().encode([text], length) for text, length in self._rows(texts, max_length)]
        return Tokens([part.ids[0] for part in parts], np.concatenate([part.truncated for part in parts]))

    def _rows(self, texts: Sequence[str], max_length: int) -> list[tuple[str, int]]:
        return [self.fault(text, max_length) for text in texts]


FAULTS: dict[str, tuple[Callable[[str, int], tuple[str, int]], set[str], str]] = {
    "special tokens read out of texts": (
        lambda t, n: (t.replace("<|endoftext|>", "\1").replace("[PAD]", "\2"), n), {"special"}, "tokenizer"
    ),
    "accents dropped": (lambda t, n: (t.replace("ü", "u"), n), {"foreign"}, "tokenizer"),
    "another length": (lambda t, n: (t, n - 1), {"long", "foreign"}, "truncation"),
    "the end kept": (lambda t, n: (t[-n:] if len(t) > 200 else t, n), {"long"}, "truncation"),
    "an empty text filled": (lambda t, n: (t or "[UNK]", n), {"empty"}, "tokenizer"),
    "a token more in front": (lambda t, n: ("\3" + t, n), set(SENTENCES), "weights|tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_which_canary_catches_which_fault(name: str, saved: Adapter) -> None:
    fault, caught, cause = FAULTS[name]
    base = replace(saved.base, tokenizer=FaultyTokenizer(fault))  # type: ignore[arg-type]
    now = canaries(base, saved.tuned, saved.header.max_length, "right")["logits"]
    stored = saved.header.canaries
    assert stored is not None
    drifted = {
        key
        for key, row in stored["logits"].items()
        if max(abs(a - b) / max(1, abs(a)) for a, b in zip(row, now[key], strict=True)) > TOLERANCE
    }
    assert drifted == caught
    message = drift(saved, base)
    assert cause.split("|")[0] in message and f"{len(caught)} of 7" in message


def test_padding_that_counts(saved: Adapter) -> None:
    """Mean pooling over a padded length: a batch of a short and a long text must not show it."""
    view = saved.tuned.view
    tokens = saved.encode([SENTENCES["short"]])
    ids = torch.zeros(1, 40, dtype=torch.int64)
    ids[0, : len(tokens.ids[0])] = torch.from_numpy(tokens.ids[0])
    with torch.inference_mode():
        wrong = view(ids, torch.ones_like(ids))[0]
    stored = saved.header.canaries
    assert stored is not None
    assert (wrong - torch.tensor(stored["logits"]["short"])).abs().max() > 100 * TOLERANCE


def changed(adapter: Adapter, change: Callable[[dict[str, torch.Tensor]], Any]) -> Tuned:
    tuned = rebuilt(adapter.base, adapter.tuned)
    state = tuned.state_dict()
    change(state)
    tuned.load_state_dict(state)
    return tuned


def test_the_error_names_the_likely_cause(saved: Adapter) -> None:
    other = tiny_base("bert", seed=1)
    assert "other base (tiny-bert instead of tiny-bert)" in drift(saved, other, make(base=other).tuned)

    def permute(state: dict[str, torch.Tensor]) -> None:
        for name in ("head.linear.weight", "head.linear.bias"):
            state[name] = state[name].flip(0)

    assert "permuted labels" in drift(saved, tuned=changed(saved, permute))
    assert "missing head" in drift(saved, tuned=changed(saved, _first_head(saved)))
    assert "missing head" in drift(saved, tuned=changed(saved, lambda s: [s[n].zero_() for n in s if "head" in n]))

    def scale(factor: float) -> Callable[[dict[str, torch.Tensor]], Any]:
        return lambda state: [state[name].mul_(factor) for name in state if "lora_B" in name]

    # An adapter that was scaled twice, or not at all: the canaries were made with another scaling.
    assert "scaled by alpha" in drift(saved, tuned=changed(saved, scale(1 / 3)))
    assert "scaled by alpha / rank²" in drift(saved, tuned=changed(saved, scale(3)))
    assert "other weights" in drift(saved, tuned=changed(saved, scale(1.5)))
    first = make("bert", "lora-scratch", "first", base=saved.base)
    assert "pooling first instead of mean" in drift(saved, tuned=first.tuned)
    claims = replace(saved.header, pooling="first")
    liar = Adapter(saved.base, make("bert", "lora-scratch", "first", base=saved.base).tuned, claims)
    liar.tuned.load_state_dict(saved.tuned.state_dict())
    assert "it was saved with mean, not first" in drift(liar)


def _first_head(adapter: Adapter) -> Callable[[dict[str, torch.Tensor]], Any]:
    head = adapter.base.view(2, "mean", seed=adapter.header.seed).head.state_dict()
    return lambda state: state.update({f"head.{name}": tensor for name, tensor in head.items()})


def test_another_tokenizer_is_named(saved: Adapter) -> None:
    tokenizer = FaultyTokenizer(lambda t, n: (t.upper(), n), digest="other")
    base = replace(saved.base, tokenizer=tokenizer)  # type: ignore[arg-type]
    with pytest.raises(WrongBaseError, match="other tokenizer"):
        verify(base, saved.tuned, saved.header)


def test_canaries_of_another_set(saved: Adapter) -> None:
    for stored in ({"set": 9, "logits": {"plain": [0.0, 0.0]}}, {"set": 1, "logits": {"new": [0.0, 0.0]}}, None):
        with pytest.raises(AdapterFormatError, match="set of sentences"):
            verify(saved.base, saved.tuned, replace(saved.header, canaries=stored))

"""Whatever a text is, it gets an answer: no exception, no special id out of it, in bounded time, and nothing hidden."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.base.base import load_base
from lora_clf.data.dataset import load_data
from lora_clf.errors import BaseNotFoundError
from tests.adapters.making import make
from tests.adapters.whole_bases import whole_base
from tests.stress.conftest import Counted
from tests.stress.texts import GIANTS, KINDS, MARKS, nonsense

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH: Final = 50


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    """One on pieces of words with special tokens around a text, one on pairs of bytes with nothing around."""
    root = tmp_path_factory.mktemp("bases")
    bert = whole_base("bert", root / "bert")
    gpt2 = whole_base("gpt2", root / "gpt2", bytes_only=True)
    return [
        make("bert", "lora", "mean", base=bert, max_length=48),
        make("gpt2", "lora", "family", base=gpt2, max_length=48, truncation="left"),
    ]


def answered(adapter: Adapter, numbers: range, seed: int) -> Counter[str]:
    """Answers for the texts of these numbers; what holds for every one is asserted. Counts what was cut, by kind."""
    drawn = [nonsense(seed, number) for number in numbers]
    texts = [text for _, text in drawn]
    tokens = adapter.encode(texts)
    tokenizer = adapter.base.tokenizer
    front, back = tokenizer.around
    # What stands for the unknown is in every vocabulary of pieces; the others are never made out of a text.
    special = {*tokenizer.special.values()} - {tokenizer.unknown_id}
    cut: Counter[str] = Counter()
    for (kind, text), ids, truncated in zip(drawn, tokens.ids, tokens.truncated, strict=True):
        what = f"{kind}: {text[:80]!r}"
        assert 1 <= len(ids) <= adapter.header.max_length, what
        body = ids[len(front) : len(ids) - len(back)]
        assert tuple(ids[: len(front)]) == front and tuple(ids[len(ids) - len(back) :]) == back, what
        if len(body) > 1 or front:  # without anything around, a text of nothing gets one token that stands for it
            assert not special & set(body.tolist()), what
        cut[kind] += bool(truncated)
    predictions = adapter.predict(texts)
    assert len(predictions) == len(texts)
    for (kind, _), answer, truncated in zip(drawn, predictions, tokens.truncated, strict=True):
        assert answer.label in adapter.labels and math.isfinite(answer.probability), kind
        assert answer.truncated == truncated, kind
    return cut


def many(adapters: list[Adapter], count: int, seed: int) -> dict[str, int]:
    cut: Counter[str] = Counter()
    for start in range(0, count, BATCH):
        cut += answered(adapters[start // BATCH % 2], range(start, start + BATCH), seed)
    assert cut["long and no space"] and set(cut) <= set(KINDS)
    return {"texts": count, "answered": count, "marked as cut": cut.total(), "special ids out of a text": 0}


def test_some_nonsense(adapters: list[Adapter]) -> None:
    assert many(adapters, 400, seed=1)["marked as cut"] > 20


@pytest.mark.stress
def test_ten_thousand_texts_of_nonsense(adapters: list[Adapter], counted: Counted) -> None:
    counted("nonsense texts", many(adapters, 10_000, seed=2))


@pytest.mark.parametrize("kind", ["one letter", "combining marks", "lone surrogates", "special tokens"])
def test_ten_megabytes_are_answered(kind: str, adapters: list[Adapter]) -> None:
    text = GIANTS[kind]()
    for adapter in adapters:
        (answer,) = adapter.predict([text])
        tokens = adapter.encode([text])
        assert len(tokens.ids[0]) <= 48
        assert answer.truncated is (kind not in {"combining marks"})


# With the real base


@pytest.fixture(scope="module")
def spam() -> Adapter:
    """The adapter for SMS spam that lies in the repository, where its base is in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        import tests.conftest as every

        if every.REAL_CACHE is None:
            patch.delenv("LORA_CLF_CACHE")
        else:
            patch.setenv("LORA_CLF_CACHE", every.REAL_CACHE)
        try:
            base = load_base("minilm", device="cpu")
        except BaseNotFoundError:
            pytest.skip("needs minilm in the cache: lora-clf bases fetch minilm")
    return load_adapter(REPOSITORY / "adapters" / "sms-spam-lora", base, verify=True)


def around(text: str) -> dict[str, str]:
    """What a sender might put before or behind a message so that a filter does not see it."""
    storm = MARKS * 25_000
    return {
        "special token in front": f"<|endoftext|>{text}",
        "special token behind": f"{text}<|endoftext|>",
        "special tokens around": f"[SEP] {text} [PAD][PAD][CLS]",
        "storm in front": storm + text,
        "storm behind": text + storm,
        "NUL in front": "\0" * 200_000 + text,
        "NUL between": "\0".join(text),
        "white space in front": "\n" * 200_000 + text,
        "white space behind": text + " " * 200_000,
        "invisible in front": "\u200b\u2060" * 100_000 + text,
        "right to left": f"\u202e{text}\u202c",
        "surrogates behind": text + "\ud800" * 200_000,
        "words behind": text + " ok see you" * 20_000,
    }


def inside(text: str) -> dict[str, str]:
    """The same among the words of a message, where it is text: how far that sways is counted, not promised."""
    middle = text.find(" ", len(text) // 2)
    return {
        "special token in the middle": f"{text[:middle]} <|endoftext|>{text[middle:]}",
        "special token between all words": " <|endoftext|> ".join(text.split()),
        "one mark in front": "\u0489" + text,
        "one mark on every letter": "".join(f"{letter}\u0489" for letter in text),
        "an accent on every letter": "".join(f"{letter}\u0301" for letter in text),
    }


@pytest.mark.stress
def test_spam_stays_spam_in_every_disguise_or_is_marked(spam: Adapter, counted: Counted) -> None:
    data = load_data("demo")
    parts = (data.train, data.validation, data.test)
    texts = [text for part in parts for text, label in zip(part.texts, part.labels, strict=True) if label == "spam"]
    texts = [text for text, found in zip(texts, spam.predict(texts), strict=True) if found.label == "spam"][:40]
    assert len(texts) == 40
    came: dict[str, Counter[str]] = {}
    for text in texts:
        dressed = around(text) | inside(text)
        for (way, _), found in zip(dressed.items(), spam.predict(list(dressed.values())), strict=True):
            kept = "spam" if found.label == "spam" else "marked" if found.truncated else "lost"
            came.setdefault(way, Counter())[kept] += 1
    found_in = {way: dict(sorted(counts.items())) for way, counts in came.items()}
    counted("spam in disguise", {way: counts for way, counts in found_in.items() if way in around("")})
    counted("spam with other words in it", {way: counts for way, counts in found_in.items() if way in inside("a b")})
    assert len(came) == 13 + 5
    lost = {way: counts["lost"] for way, counts in came.items() if way in around("") and counts["lost"]}
    assert not lost


@pytest.mark.stress
@pytest.mark.parametrize("kind", GIANTS)
def test_ten_megabytes_take_no_longer_than_three_full_texts(kind: str, spam: Adapter) -> None:
    """Of the processor, and with room for the clock's grain; storms have to be looked through, see SECURITY.md."""
    full = "Win a free prize now, call this number at once. " * 40
    assert spam.encode([full]).truncated[0]

    def took(text: str) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            spam.predict([text])
            times.append(time.process_time() - start)
        return statistics.median(times)

    giant, usual = GIANTS[kind](), took(full)
    assert took(giant) < 3 * usual + 0.05, (took(giant), usual)
    assert np.isfinite(spam.logits([giant])).all()

"""Adapters that read long texts: saved with how they read, explained by chunk, refused where they would be cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_clf.adapters import canary, rules
from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.average import average
from lora_clf.adapters.extraction import extract
from lora_clf.adapters.header import read_text
from lora_clf.adapters.plain import export, merge
from lora_clf.adapters.pool import AdapterPool
from lora_clf.adapters.provenance import make_header
from lora_clf.base.base import Base, load_base
from lora_clf.base.reading import Reading
from lora_clf.errors import AdapterFormatError, UsageError
from lora_clf.tuners import create
from tests.adapters.making import LABELS, shared_base
from tests.adapters.making import make as plain_adapter
from tests.adapters.whole_bases import whole_base
from tests.bases import randomise
from tests.data.test_transcript import MEETING

READINGS = (
    Reading("chunk", overlap=8, aggregate="mean"),
    Reading("chunk", overlap=8, aggregate="max"),
    Reading("chunk", overlap=8, aggregate="vote"),
    Reading("chunk", segment="turns", aggregate="score", clean="transcript", prior=(0.75, 0.25)),
    Reading("hierarchical", overlap=8, combine="attention"),
    Reading("hierarchical", overlap=8, combine="mlp", segment="minutes", minutes=2),
    Reading("hierarchical", overlap=8, combine="bilstm", clean="transcript"),
    Reading(clean="transcript"),
)
TEXTS = ("Are you there?", "WIN a prize. " * 20, "", MEETING)


def make(
    reading: Reading,
    strategy: str = "lora-scratch",
    pooling: str = "mean",
    seed: int = 7,
    base: Base | None = None,
) -> Adapter:
    base = base or shared_base("bert")
    settings = {"rank": 3, "alpha": 7.0} if strategy.startswith("lora") else {}
    tuned = create(strategy, **settings).prepare(base.view(2, pooling, 3, reading.combiner))
    randomise(tuned, seed)
    header = make_header(base, tuned, labels=LABELS, positive_label="spam", seed=3, max_length=40,
                         reading=reading.settings())  # fmt: skip
    return Adapter(base, tuned, header)


@pytest.fixture(autouse=True)
def _a_shorter_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the long sentence is still dozens of chunks, each of which is a pass of its own."""
    whole = canary.SENTENCES
    monkeypatch.setattr(canary, "SENTENCES", {**whole, "long": whole["long"][: len(whole["long"]) // 10]})


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_how_it_reads_is_saved_with_it(reading: Reading, tmp_path: Path) -> None:
    adapter = make(reading)
    adapter.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", adapter.base, verify=True)
    assert loaded.header.how == reading and loaded.header.as_dict()["requires"] == ["reading"]
    np.testing.assert_allclose(loaded.logits(TEXTS), adapter.logits(TEXTS), atol=1e-5)
    answers = loaded.predict(TEXTS)
    assert [answer.truncated for answer in answers] == [False, not reading.whole, False, not reading.whole]
    assert list(loaded.stream(iter(TEXTS))) == answers
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "b" / "adapter_model.safetensors"
    ).read_bytes()


def test_canaries_are_read_as_texts_are(tmp_path: Path) -> None:
    """The long sentence goes through the chunks: another reading of the same weights drifts."""
    adapter = make(READINGS[0])
    adapter.save(tmp_path / "a")
    assert adapter.verify() < 1e-5
    wrong = replace(adapter.header, reading=READINGS[1].settings())
    with pytest.raises(AdapterFormatError, match="drift"):
        Adapter(shared_base("bert"), make(READINGS[0]).tuned, wrong).verify()


def test_a_version_that_does_not_know_it_refuses_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make(READINGS[0])
    adapter.save(tmp_path / "a")
    known = {name: rule for name, rule in rules.OPTIONAL.items() if name != "reading"}
    from lora_clf.adapters import header as header_module

    text = adapter.header.text()
    assert read_text(text).how == READINGS[0]
    with monkeypatch.context() as patch:
        patch.setattr(header_module, "OPTIONAL", known)
        with pytest.raises(AdapterFormatError, match=r"does not know: reading\. Upgrade"):
            load_adapter(tmp_path / "a", adapter.base)
    for wrong in ({"long": "backwards"}, {"long": "chunk"}, [], {"long": "truncate"}, {"long": "chunk", "stride": 3}):
        values = {**json.loads(text), "reading": wrong}
        with pytest.raises(AdapterFormatError, match="reading is"):
            read_text(json.dumps(values, sort_keys=True, separators=(",", ":")))


SCORE = Reading("chunk", aggregate="score").settings()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"reading": {**SCORE, "prior": [0.5, 0.3, 0.2]}},
            "the prior of a reading has one share a label: reading is {",
        ),
        ({"reading": {**SCORE, "prior": []}}, "the prior of a reading has one share a label"),
        *[
            (
                {"reading": {**SCORE, "aggregate": join}, "task": task, "task_settings": {}},
                "by vote or score only where",
            )
            for join in ("vote", "score")
            for task in ("multilabel", "ordinal")
        ],
    ],
)
def test_a_reading_that_cannot_join_the_outputs_is_refused(changes: dict[str, Any], says: str) -> None:
    header = replace(plain_adapter().header, canaries=None, digest="0" * 64)
    fine = {**header.as_dict(), "requires": ["reading"], "reading": {**SCORE, "prior": [0.75, 0.25]}}
    assert not [problem for problem in rules.problems(fine) if "reading" in problem]
    wrong = {**fine, **changes}
    (found,) = [problem for problem in rules.problems(wrong) if "reading" in problem]
    assert says in found


def test_truncation_leaves_no_trace(tmp_path: Path) -> None:
    adapter = plain_adapter()
    adapter.save(tmp_path / "a")
    assert "reading" not in adapter.header.as_dict() and adapter.header.as_dict()["requires"] == []


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_an_answer_explains_itself(reading: Reading) -> None:
    adapter = make(reading)
    found = adapter.explain(TEXTS)
    assert [each.answer for each in found] == adapter.predict(TEXTS)
    for text, each in zip(TEXTS, found, strict=True):
        assert each.text == text and sum(chunk.share for chunk in each.chunks) == pytest.approx(1, abs=1e-5)
        assert all(0 <= chunk.start <= chunk.end <= len(text) and chunk.share >= 0 for chunk in each.chunks)
        assert json.loads(json.dumps(each.as_dict()))["chunks"][0].keys() == {
            "start", "end", "share", "label", "probability",
        }  # fmt: skip
    counts = [len(each.chunks) for each in found]
    assert counts[0] == counts[2] == 1 and (counts[1] > 1) == (counts[3] > 1) == reading.whole
    if reading.long == "chunk" and reading.aggregate in ("mean", "vote"):
        each = found[1]
        own = np.mean([chunk.probability for chunk in each.chunks])
        if reading.aggregate == "mean":  # the answer's probability is the mean of the chunks' own
            assert each.answer.probability == pytest.approx(own, abs=1e-5)
        else:
            voted = [chunk for chunk in each.chunks if chunk.label == each.answer.label]
            assert all((chunk.share > 0) == (chunk in voted) for chunk in each.chunks)


def test_a_chunk_can_be_found_in_the_text() -> None:
    chunks = make(READINGS[3]).explain([MEETING])[0].chunks
    said = [MEETING[chunk.start : chunk.end] for chunk in chunks]
    assert len(said) >= 5 and said[0].startswith("JOHN SMITH: Um") and "Anna" in said[2] + said[1]


def test_what_would_read_it_otherwise_refuses(tmp_path: Path) -> None:
    chunked = make(READINGS[1])
    pool = AdapterPool(chunked.base)
    chunked.save(tmp_path / "a")
    for given in (chunked, tmp_path / "a"):
        with pytest.raises(
            UsageError, match=r"'a' reads texts its own way \(chunks joined by max; windows, overlap 8\)"
        ):
            pool.add("a", given)
    assert len(pool) == 0
    family = make(READINGS[1], pooling="family")
    with pytest.raises(UsageError, match=r"which the pipeline of transformers does not: .*--long truncate"):
        export(family, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"the reading of the first is .*aggregate mean.*aggregate max"):
        average([make(READINGS[0]), chunked])


@pytest.mark.parametrize("reading", [READINGS[3], READINGS[4]], ids=str)
def test_averages_and_extracts_read_as_their_parts(reading: Reading, tmp_path: Path) -> None:
    parts = [make(reading, seed=seed) for seed in (1, 2)]
    both = average(parts).adapter
    assert both.header.how == reading and both.logits(TEXTS).shape == (4, 2)
    same = average([parts[0], parts[0]]).adapter
    np.testing.assert_allclose(same.logits(TEXTS), parts[0].logits(TEXTS), atol=1e-4)
    whole = make(reading, "last-block")
    found = extract(whole, rank=32).adapter
    assert found.header.how == reading and found.header.strategy == "lora"


def test_a_merged_adapter_reads_as_before(tmp_path: Path) -> None:
    base = whole_base("bert", tmp_path / "base")
    for number, reading in enumerate((READINGS[0], READINGS[4])):
        adapter, out = make(reading, base=base), tmp_path / f"merged-{number}"
        _, head = merge(adapter, out)
        again = load_adapter(out / "head", load_base(out, device="cpu"), verify=True)
        assert head.header.how == again.header.how == reading
        np.testing.assert_allclose(again.logits(TEXTS), adapter.logits(TEXTS), atol=1e-4)


def test_cards_say_how_it_reads(tmp_path: Path) -> None:
    adapter = make(READINGS[5])
    adapter.save(tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "chunks combined by mlp; minutes of 2, overlap 8" in card

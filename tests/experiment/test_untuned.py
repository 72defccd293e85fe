"""What the base can do untuned: centroids, a random head, a question to a decoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lora_clf.base.base import Base, load_base
from lora_clf.base.byte_pairs import byte_of_character
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset
from lora_clf.errors import UsageError
from lora_clf.experiment.untuned import CENTROID, PROMPT, UNTRAINED, measure_untuned, nearest_centroid
from lora_clf.inference import prompt
from lora_clf.inference.prompt import ask, question_of
from lora_clf.training.settings import TrainSettings
from tests.bases import tiny_base

TEXTS = tuple(f"{'win a prize now' if number % 3 == 0 else 'see you at home'} {number}" for number in range(24))
LABELS = tuple("spam" if number % 3 == 0 else "ham" for number in range(24))


def dataset(labels: tuple[str, ...] = ("ham", "spam")) -> Dataset:
    def part(start: int, end: int) -> Part:
        return Part(TEXTS[start:end], LABELS[start:end], tuple(range(start + 1, end + 1)))

    positive = "spam" if len(labels) == 2 else None
    return Dataset("made", part(0, 12), part(12, 18), part(18, 24), labels, positive, "given", "d" * 64, None, "m.csv")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A GPT-2 of one byte a token that writes what its last bias says, whatever it is asked."""
    import json

    folder = tmp_path_factory.mktemp("decoders") / "tiny"
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=160, bos_token_id=256, eos_token_id=256
    )
    folder.mkdir()
    vocabulary = {character: id for id, character in enumerate(byte_of_character())}
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "<|endoftext|>": 256}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    GPT2LMHeadModel(config).save_pretrained(folder)
    return load_base(folder, device="cpu", max_length=48)


def test_the_nearest_centroid_by_hand() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0, 2] * 20)
    train = random.normal(size=(40, 5)) + 4 * np.eye(5)[labels]
    test = 7.0 * (random.normal(size=(30, 5)) * 0.1 + np.eye(5)[np.array([0, 2] * 15)])
    found = nearest_centroid({"train": train, "validation": test[:4], "test": test}, labels, 3, reading=2.0)
    assert (found.test_probabilities.argmax(axis=1) == np.array([0, 2] * 15)).all()
    assert not found.test_probabilities[:, 1].any()  # a class that training lacks
    assert np.allclose(found.test_probabilities.sum(axis=1), 1) and found.parameters == 10 and found.seconds >= 2.0
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    means = np.stack([unit[labels == 0].mean(axis=0), unit[labels == 2].mean(axis=0)])
    spread = np.mean([((row - means[label // 2]) ** 2).sum() for row, label in zip(unit, labels, strict=True)])
    point = test[0] / np.linalg.norm(test[0])
    gaps = ((means - point) ** 2).sum(axis=1)
    expected = 1 / (1 + np.exp((gaps[0] - gaps[1]) / (2 * spread)))
    assert found.test_probabilities[0, 0] == pytest.approx(expected)


def test_an_encoder_has_two_and_says_why_not_three() -> None:
    base = tiny_base("bert")
    before = base.digest, {name: value.clone() for name, value in base.backbone.named_parameters()}
    found = measure_untuned(base, {(0, None): dataset()}, TrainSettings(precision="fp32"))
    assert [one.label for one in found.outcomes] == [CENTROID, UNTRAINED] and not found.failures
    centroid, untrained = found.outcomes
    assert centroid.test.correct.mean() == 1.0 and centroid.baseline.parameters == 2 * 32
    assert untrained.baseline.parameters == 0 and untrained.test.probabilities.shape == (6, 2)
    (left,) = found.left_out
    assert left["label"] == PROMPT and "encoder" in left["reason"]
    assert all(torch.equal(before[1][name], value) for name, value in base.backbone.named_parameters())


def test_a_decoder_is_asked(decoder: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_untuned(decoder, {(0, None): dataset()}, TrainSettings(precision="fp32"))
    assert [one.label for one in found.outcomes] == [CENTROID, UNTRAINED, PROMPT] and not found.failures
    assert not found.left_out and found.outcomes[-1].baseline.parameters == 0
    assert "'spam'? Answer with 'yes' or 'no'" in str(found.outcomes[-1].baseline.choice["prompt"])
    monkeypatch.setattr(prompt, "read_language_model", lambda *_: None)
    without = measure_untuned(decoder, {(0, None): dataset()}, TrainSettings(precision="fp32"))
    assert [one["label"] for one in without.left_out] == [PROMPT] and "language model" in without.left_out[0]["reason"]


@pytest.mark.parametrize(("labels", "positive"), [(("ham", "spam"), "spam"), (("a", "bb", "ccc"), None)])
def test_answers_are_scored_as_the_language_model_scores_them(
    decoder: Base, labels: tuple[str, ...], positive: str | None
) -> None:
    """One text at a time through transformers' own model: the mean log-probability of each answer's tokens."""
    assert decoder.folder is not None
    texts = ["short", "a longer text than the other one", "x" * 200]
    found = ask(decoder, texts, labels, positive)
    assert found is not None and found.shape == (3, len(labels)) and np.allclose(found.sum(axis=1), 1)
    model = GPT2LMHeadModel.from_pretrained(decoder.folder).eval()
    before, behind, answers = question_of(labels, positive)
    assert positive is None or answers == [" no", " yes"]
    for text, row in zip(texts[:2], found, strict=False):
        scores = []
        for answer in answers:
            question = [byte for piece in (before, text, behind) for byte in ids(decoder, piece)]
            said = ids(decoder, answer)
            with torch.no_grad():
                shares = model(torch.tensor([question + said])).logits[0].log_softmax(dim=-1)
            places = range(len(question) - 1, len(question) + len(said) - 1)
            scores.append(float(np.mean([shares[place, id] for place, id in zip(places, said, strict=True)])))
        powers = np.exp(np.array(scores) - max(scores))
        assert row == pytest.approx(powers / powers.sum(), abs=1e-5)


def ids(base: Base, text: str) -> list[int]:
    found = [int(id) for id in base.tokenizer.encode([text], 4096).ids[0]]
    assert len(found) == len(text)  # one byte a token, the space in front of an answer included
    return found


def test_what_cannot_be_asked_is_refused(decoder: Base) -> None:
    with pytest.raises(UsageError, match="no decoder"):
        ask(tiny_base("bert"), ["a"], ("x", "y"), "y")
    with pytest.raises(UsageError, match=r"leave .* of the 160 tokens"):
        ask(decoder, ["a"], ("x" * 150, "y", "z"), None)


def test_a_baseline_that_fails_is_reported() -> None:
    base = tiny_base("bert")
    broken = replace(base, max_length=0)
    found = measure_untuned(broken, {(0, None): dataset()}, TrainSettings(precision="fp32", max_length=10_000))
    assert not found.outcomes and [failure.label for failure in found.failures] == [CENTROID]

"""Temperature and threshold: found on validation, stored in the adapter, used in every answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.pool import AdapterPool
from lora_clf.data.dataset import Dataset, Part
from lora_clf.errors import UsageError
from lora_clf.metrics.probability import softmax
from lora_clf.training.decision import Decision, decide
from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.bases import tiny_base

FAST = TrainSettings(epochs=3, batch_size=8, lr=1e-2, precision="fp32")


def noisy(classes: int = 2, validation: int = 60) -> Dataset:
    """Texts whose class shows in their letters, one label in eight wrong, so that no classifier is right always."""
    random = np.random.default_rng(0)

    def part(count: int, start: int) -> Part:
        letters = ["abcdefgh", "stuvwxyz", "01234567"]
        labels, texts = [], []
        for i in range(count):
            texts.append("".join(random.choice(list(letters[i % classes]), 3 + (7 * i) % 19)))
            labels.append(f"c{(i + (random.random() < 0.125)) % classes}")
        return Part(tuple(texts), tuple(labels), tuple(range(start, start + count)), {})

    parts = part(96, 1), part(validation, 200), part(40, 400)
    labels = tuple(f"c{i}" for i in range(classes))
    return Dataset("noisy", *parts, labels, "c1" if classes == 2 else None, "given", "0" * 64, "CC0-1.0", "made here")


def test_both_are_stored_and_used_by_every_way_to_answer(tmp_path: Path) -> None:
    base, data = tiny_base("bert"), noisy()
    result = train(base, data, create("last-block"), FAST, decision=Decision(threshold="f1"))
    assert result.decided is not None and result.decided.temperature is not None
    assert result.decided.threshold is not None and result.decided.threshold.rule == "f1"
    header = result.adapter.header
    assert header.temperature == result.decided.scale and header.threshold == result.decided.cut
    assert header.temperature not in (None, 1.0) and header.threshold is not None
    assert header.training["threshold"]["positives"] == data.validation.labels.count("c1")
    assert header.training["temperature"]["rows"] == 60 and header.training["epochs"] == 3

    shares = softmax(result.test_logits / header.temperature)
    labels = [data.labels[int(share >= header.threshold)] for share in shares[:, 1]]
    result.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", base, verify=True)
    pool = AdapterPool(base)
    pool.add("a", tmp_path / "a")
    for found in (
        loaded.predict(data.test.texts),
        pool.predict(data.test.texts, "a"),
        pool.predict_all(data.test.texts)["a"],
    ):
        assert [each.label for each in found] == labels
        np.testing.assert_allclose([each.probabilities["c1"] for each in found], shares[:, 1], atol=1e-5)
        assert all(each.probability == each.probabilities[each.label] for each in found)

    right = np.mean([one == other for one, other in zip(labels, data.test.labels, strict=True)])
    assert result.test["accuracy"] == pytest.approx(right) and result.test["threshold"] == header.threshold
    assert result.test["calibrated"]["temperature"] == header.temperature
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert f"from a probability of {header.threshold:g} on" in card
    assert f"| temperature | {header.temperature:g}, fitted on 60 validation rows" in card
    assert f"| threshold | {header.threshold:g}, the best f1 on 60 validation rows" in card
    assert "{" not in card.split("## How it was made")[1]


def test_same_seed_same_bytes_with_a_decision(tmp_path: Path) -> None:
    data, decision = noisy(), Decision(target_precision=0.8)
    for name in ("one", "two"):
        train(tiny_base("bert"), data, create("head-only"), FAST, decision=decision).save(tmp_path / name)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and len(one) == 3
    assert json.loads(one["adapter_config.json"])["threshold"] is not None


def test_a_temperature_is_the_default_and_can_be_left_out() -> None:
    base, data = tiny_base("bert"), noisy(3)
    plain = train(base, data, create("last-block"), FAST)
    off = train(base, data, create("last-block"), FAST, decision=Decision(temperature=False))
    assert plain.adapter.header.temperature is not None and plain.adapter.header.threshold is None
    assert off.adapter.header.temperature is None and "temperature" not in off.adapter.header.training
    assert plain.test_logits.tobytes() == off.test_logits.tobytes()
    changed = {name for name in plain.test if plain.test[name] != off.test.get(name)}
    assert changed == {"calibrated"}  # labels and scores as trained stay
    few = train(base, noisy(validation=20), create("head-only"), FAST)
    assert few.adapter.header.temperature is None and few.decided is not None and few.decided.temperature is not None
    assert "20 rows are too few" in few.decided.temperature.reason and not few.warnings


LOGITS = np.array([[0.0, score] for score in (3, 2, 1, 0.5, -1, -2, -3, -4, -5, -6)], dtype=np.float32)
TRUTH = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])


def test_doubts_are_said() -> None:
    names = ("ham", "spam")
    found = decide(Decision(target_precision=0.9), TRUTH, LOGITS, names, "spam")
    assert found.threshold is not None and (found.threshold.flagged, found.threshold.hits) == (2, 2)
    few, bound = found.warnings
    assert "chosen on 3 validation rows of spam" in few
    assert (
        "2 of the 2 validation rows" in bound and "lower 95 % bound at 0.224" in bound and "at least 29 rows" in bound
    )
    wrong = decide(Decision(target_precision=0.9), 1 - TRUTH, LOGITS, names, "spam")
    assert wrong.threshold is None and wrong.cut is None and not wrong.record()
    assert wrong.warnings[0].startswith(
        "No threshold has a precision of 0.9 for spam on the 10 validation rows (7 spam)"
    )
    absent = decide(Decision(threshold="f1"), np.zeros(10, dtype=int), LOGITS, names, "spam")
    assert absent.threshold is None and "10 validation rows of which 0 are spam" in absent.warnings[0]
    given = decide(Decision(threshold=0.7), TRUTH, LOGITS, names, "spam")
    assert given.cut == 0.7 and given.warnings == () and given.record()["threshold"]["rule"] == "given"
    assert decide(Decision(), TRUTH, LOGITS * np.nan, names, "spam").scale is None


def test_many_rows_that_show_a_precision_leave_no_doubt() -> None:
    truth = np.repeat([1, 0], 200)
    found = decide(Decision(target_precision=0.9), truth, np.column_stack([1 - truth, truth]) * 4.0, ("a", "b"), "b")
    assert found.threshold is not None and found.threshold.value == 0.5 and found.warnings == ()
    assert found.threshold.bound == pytest.approx(0.05 ** (1 / 200))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threshold": 1.5}, r"--threshold 1\.5: expected a number between 0 and 1"),
        ({"threshold": True}, "--threshold True"),
        ({"threshold": "f2"}, "'f2'.*a number between 0 and 1, balanced-accuracy, f1, mcc"),
        ({"target_precision": 0}, "--target-precision 0"),
        ({"target_precision": float("nan")}, "--target-precision nan"),
        ({"target_precision": 0.9, "threshold": "f1"}, "Give one of them"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Decision(**asked)  # type: ignore[arg-type]


def test_no_threshold_without_a_positive_label() -> None:
    with pytest.raises(UsageError, match="there are 3: c0, c1, c2"):
        train(
            tiny_base("bert"), noisy(3), create("head-only"), replace(FAST, epochs=1), decision=Decision(threshold=0.4)
        )

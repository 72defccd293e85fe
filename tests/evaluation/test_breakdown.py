from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from lora_clf.errors import UsageError
from lora_clf.evaluation.breakdown import Answered, breakdown, by_column, by_length, errors, thresholds
from lora_clf.evaluation.intervals import clustered
from lora_clf.metrics.classification import assess


def made(rows: int = 120, classes: int = 2, seed: int = 0, **named: object) -> Answered:
    """Answers of which some are wrong; lengths 1 to 30."""
    draw = np.random.default_rng(seed)
    names = ("ham", "spam") if classes == 2 else tuple(f"c{number}" for number in range(classes))
    truth = draw.integers(0, classes, rows)
    logits = draw.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), truth] += 1.5
    known = {"positive": "spam" if classes == 2 else None, "threshold_label": "spam" if classes == 2 else None}
    texts = [f"text {number}" for number in range(rows)]
    lengths = draw.integers(1, 31, rows)
    return Answered(names, truth, logits, texts, range(1, rows + 1), lengths, **{**known, **named})  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [2, 4])
def test_every_part_adds_up_to_the_whole(classes: int) -> None:
    answered = made(classes=classes)
    wrong = int((answered.predicted != answered.truth).sum())
    assert 5 < wrong < 60
    column = [["a", "b", None, " "][number % 4] for number in range(120)]
    found = breakdown(answered, {"speaker": column})
    json.dumps(found)
    assert set(found) == {"by_class", "by_length", "thresholds", "recall_at", "reliability", "errors", "by"}
    for parts in (found["by_class"], found["by_length"], found["by"]["speaker"]):
        assert sum(each["n"] for each in parts) == 120 and sum(each["errors"] for each in parts) == wrong
        assert all(0 <= each["low"] <= each["accuracy"] <= each["high"] <= 1 for each in parts)
    assert [each["label"] for each in found["by_class"]] == list(answered.names)
    assert [(each["value"], each["n"]) for each in found["by"]["speaker"]] == [("(empty)", 60), ("a", 30), ("b", 30)]
    assert len(found["errors"]) == wrong and len(found["thresholds"]) == (12 if classes == 2 else 0)
    assert sum(each["n"] for each in found["reliability"]["before_temperature"]) == 120


def test_lengths_are_cut_into_quarters_that_share_no_length() -> None:
    found = by_length(made())
    assert len(found) == 4 and all(15 <= each["n"] <= 45 for each in found)
    assert found[0]["from"] >= 1 and found[-1]["to"] <= 30
    assert all(one["to"] < other["from"] for one, other in itertools.pairwise(found))
    alike = by_length(_of_one_length())
    assert len(alike) == 1 and (alike[0]["from"], alike[0]["to"], alike[0]["n"]) == (7, 7, 120)


def _of_one_length() -> Answered:
    answered = made()
    return Answered(
        answered.names, answered.truth, answered.logits, answered.texts, answered.rows, np.full(120, 7),
        positive="spam", threshold_label="spam",
    )  # fmt: skip


def test_errors_are_worst_first_and_follow_the_threshold() -> None:
    answered = made(threshold=0.9, temperature=2.0)
    found = errors(answered)
    shares = [each["probability_of_label"] for each in found]
    assert len(found) == int((answered.predicted != answered.truth).sum()) > 10 and shares == sorted(shares)
    for each in found:
        place = each["row"] - 1
        assert each["text"] == f"text {place}" and each["label"] == answered.names[answered.truth[place]]
        assert each["label"] != each["predicted"]
        assert each["probability"] == pytest.approx(answered.shares[place, answered.names.index(each["predicted"])])
    assert any(each["predicted"] == "ham" and each["probability"] < 0.5 for each in found)  # below 0.9, above a half
    assert len(errors(made(threshold=0.5, temperature=2.0))) < len(found)


def test_the_sweep_agrees_with_the_scores_at_each_threshold() -> None:
    answered = made(temperature=1.7)
    found = thresholds(answered)
    assert len(found) == 12
    for each in found:
        scores = assess(
            answered.truth, answered.logits, answered.names, "spam", temperature=1.7, threshold=each["threshold"]
        )
        for name in ("precision", "recall", "f1", "false_positive_rate", "accuracy"):
            assert each[name] == pytest.approx(scores[name]), (name, each["threshold"])
    assert [each["recall"] for each in found] == sorted((each["recall"] for each in found), reverse=True)


def test_near_copies_widen_the_interval() -> None:
    alone, copies = made(), made(groups=np.arange(120) // 6)
    one, other = (by_column(each, ["x"] * 120)[0] for each in (alone, copies))
    assert one["accuracy"] == other["accuracy"] and other["high"] - other["low"] > one["high"] - one["low"]
    wrong = (copies.predicted != copies.truth).astype(float)
    assert other["low"] == pytest.approx(1 - clustered(wrong, (np.arange(120) // 6).tolist()).high)


def test_reliability_before_and_after() -> None:
    found = breakdown(made(temperature=3.0))["reliability"]
    before, after = found["before_temperature"], found["after_temperature"]
    assert len(before) == len(after) == 15
    assert after[-1]["confidence"] < before[-1]["confidence"] and after[-1]["accuracy"] == before[-1]["accuracy"]


def test_nothing_and_misfits() -> None:
    nothing = breakdown(made(rows=0))
    assert nothing["errors"] == [] == nothing["by_length"] and nothing["by_class"][0]["accuracy"] is None
    with pytest.raises(UsageError, match="3 values came for 120"):
        by_column(made(), ["a"] * 3)

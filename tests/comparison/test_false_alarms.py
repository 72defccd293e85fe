"""What is found at few false alarms: from the predictions of all folds, or said to need them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_clf.comparison.comparison import Comparison
from lora_clf.comparison.outcome import Predictions
from lora_clf.evaluation.recall import RATES
from tests.comparison.invented import invented, write

FOLDS = 3


def folded(rows: int, seeds: int = 2) -> Comparison:
    """Each run cut into three folds; the scores of the classes overlap."""
    found = invented({"head-only": 0.8, "lora": 0.9}, rows=rows, seeds=seeds)
    draw = np.random.default_rng(1)

    def blurred(part: Predictions, fold: int) -> Predictions:
        places = np.arange(fold, rows, FOLDS)
        logit = draw.normal(size=len(places)) + 3.0 * part.labels[places]
        positive = 1 / (1 + np.exp(-logit))
        return Predictions(part.rows[places], part.labels[places], np.stack([1 - positive, positive], axis=1))

    plan = replace(found.plan, data=replace(found.plan.data, folds=FOLDS))
    outcomes = [
        replace(one, fold=fold, test=blurred(one.test, fold)) for one in found.outcomes for fold in range(FOLDS)
    ]
    plain = [replace(one, fold=fold, test=blurred(one.test, fold)) for one in found.baselines for fold in range(FOLDS)]
    return replace(found, plan=plan, outcomes=tuple(outcomes), baselines=tuple(plain))


@pytest.mark.usefixtures("inside")
def test_all_folds_stand_behind_the_recall(tmp_path: Path) -> None:
    found = folded(2200)
    assert RATES == (0.01, 0.001)
    assert set(found.found_at) == {"head-only", "lora", "TF-IDF + LR"}
    for label, (one, thousandth) in found.found_at.items():
        pool = found.pools[label]
        assert len(one.seeds) == len(pool.seeds)
        for part, each in zip(pool.predictions, one.seeds, strict=True):
            scores, spam = part.probabilities[:, 1], part.labels == 1
            assert each.negatives == int((~spam).sum()) >= 1000 and each.threshold is not None
            assert each.recall == pytest.approx((scores[spam] >= each.threshold).mean())
            assert (scores[~spam] >= each.threshold).mean() <= 0.01
        assert one.recall is not None and one.interval is not None
        assert 0.3 < one.interval[0] < one.recall < one.interval[1] < 1
        assert thousandth.recall is None and thousandth.text.startswith("needs 10,000 negatives, has 1,")
    out = write(found, tmp_path)
    text = (out / "report.md").read_text()
    assert "## With few false alarms" in text and "found at 1 % false alarms, %" in text
    value = json.loads((out / "results.json").read_text())["recall_at"]
    assert value["lora"][0]["recall"] == found.found_at["lora"][0].recall and len(value["lora"][0]["seeds"]) == 2


def test_too_few_negatives_are_said_to_be_too_few() -> None:
    one, _ = folded(600, seeds=1).found_at["lora"]
    assert one.recall is None and one.interval is None and one.text.startswith("needs 1,000 negatives, has ")


@pytest.mark.usefixtures("inside")
def test_one_test_part_gives_no_figure(tmp_path: Path) -> None:
    found = invented({"head-only": 0.8, "lora": 0.9}, rows=200)
    assert found.found_at == {}
    out = write(found, tmp_path)
    assert "needs 1,000 negatives at 1 % and 10,000 negatives at 0.1 %, has none" in (out / "report.md").read_text()
    assert "recall_at" not in json.loads((out / "results.json").read_text())


@pytest.mark.usefixtures("inside")
def test_without_a_class_that_is_looked_for_nothing_is_said(tmp_path: Path) -> None:
    found = invented({"head-only": 0.8, "lora": 0.9}, rows=90, labels=("a", "b", "c"))
    assert "false alarms" not in (write(found, tmp_path) / "report.md").read_text() and found.found_at == {}

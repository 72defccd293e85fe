"""What to take is decided by validation rows, by bounds of loss, and it is said where it cannot be decided."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_clf.comparison.comparison import Comparison
from lora_clf.comparison.outcome import Predictions
from lora_clf.comparison.recommendation import check_margin, sentences_of
from lora_clf.errors import UsageError
from lora_clf.reports.table import as_csv, as_json
from tests.comparison.invented import invented, write

RATES = {"full": 0.96, "lora": 0.96, "head-only": 0.9}


def alike(found: Comparison, changed: float = 0.002, flips: dict[str, float] | None = None) -> Comparison:
    """The same comparison, in which strategies err on the same validation rows but for a share of their own."""
    random = np.random.default_rng(0)
    first = found.outcomes[0].validation
    common = random.random(len(first)) < 0.04  # wrong for all
    outcomes = []
    for outcome in found.outcomes:
        own = random.random(len(first)) < (flips or {}).get(outcome.label, changed)
        guess = np.where(common ^ own, (first.labels + 1) % 2, first.labels)
        outcomes.append(replace(outcome, validation=Predictions(first.rows, first.labels, np.eye(2)[guess])))
    return replace(found, outcomes=tuple(outcomes))


def test_the_cheapest_within_the_margin_is_taken() -> None:
    found = alike(invented(RATES, rows=2000), flips={"head-only": 0.05, "full": 0.0})
    chosen = found.recommendation
    assert chosen is not None and chosen.label == "lora" and chosen.labelled_needed is None
    assert [one.label for one in chosen.candidates] == ["head-only", "lora", "full"]
    assert [one.within for one in chosen.candidates] == [False, True, True]
    assert all(one.bound >= one.loss for one in chosen.candidates)
    assert found.verdict_lines[0].startswith("Take lora: it trains 332,546 numbers and is at most 0.")
    assert [row.label for row in found.standings if row.recommended] == ["lora"]
    assert chosen.labelled == 6000 and chosen.rows == 2000 and chosen.seeds == 3


def test_of_equals_in_parameters_the_faster_is_taken() -> None:
    found = alike(invented({"lora": 0.96, "lora-scratch": 0.96, "full": 0.96}, rows=2000))
    slow = {"lora": 90.0, "lora-scratch": 9.0, "full": 99.0}
    outcomes = tuple(replace(one, cold_seconds=slow[one.label]) for one in found.outcomes)
    chosen = replace(found, outcomes=outcomes).recommendation
    assert chosen is not None and chosen.label == "lora-scratch"


@pytest.mark.parametrize(
    ("first", "second", "seconds", "taken"),
    [
        ("lora", "lora-scratch", 9.5, "lora"),
        ("lora", "lora-scratch", 20.0, "lora-scratch"),
        ("lora-scratch", "lora", 9.5, "lora-scratch"),
    ],
)
def test_the_clock_does_not_choose_between_two_that_are_right_alike(
    first: str, second: str, seconds: float, taken: str
) -> None:
    """Two layers of one function: the first of the plan, unless it takes longer than noise explains."""
    found = invented({first: 0.96, second: 0.96, "full": 0.5}, rows=400)
    said = {outcome.seed: outcome.validation for outcome in found.outcomes_of("lora")}
    took = {first: seconds, second: 9.0, "full": 99.0}
    outcomes = tuple(
        replace(one, cold_seconds=took[one.label], validation=one.validation if one.label == "full" else said[one.seed])
        for one in found.outcomes
    )
    chosen = replace(found, outcomes=outcomes).recommendation
    assert chosen is not None and (chosen.label, chosen.best) == (taken, taken)


def test_the_test_part_has_no_say() -> None:
    found = alike(invented(RATES, rows=2000), flips={"head-only": 0.05})
    turned = {"head-only": 1.0, "lora": 0.3, "full": 0.2}

    def other(label: str, part: Predictions) -> Predictions:
        wrong = np.arange(len(part)) >= turned[label] * len(part)
        return Predictions(part.rows, part.labels, np.eye(2)[np.where(wrong, 1 - part.labels, part.labels)])

    outcomes = tuple(replace(one, test=other(one.label, one.test)) for one in found.outcomes)
    changed = replace(found, outcomes=outcomes)
    assert changed.recommendation == found.recommendation
    assert next(row.label for row in changed.standings if row.best) == "head-only"


def test_too_few_rows_decide_nothing_and_it_is_said_how_many_would() -> None:
    found = alike(invented({"full": 0.96, "lora": 0.96}, rows=150, seeds=1), changed=0.02)
    chosen = found.recommendation
    assert chosen is not None and chosen.label is None and chosen.labelled == 450
    assert chosen.labelled_needed is not None and 450 < chosen.labelled_needed < 100_000
    first, second = sentences_of(chosen)
    assert first.startswith("This data cannot decide which strategy to take")
    assert "labelled rows would decide it (there are 450)" in first and "may be up to" in second
    assert not any(row.recommended for row in found.standings)


def test_a_wider_margin_decides_sooner() -> None:
    found = alike(invented(RATES, rows=400), changed=0.01, flips={"head-only": 0.03})
    labels = []
    for margin in (0.01, 2.0, 60.0):
        chosen = replace(found, facts={**found.facts, "margin": margin}).recommendation
        assert chosen is not None and chosen.margin == margin
        labels.append(chosen.label)
    assert labels[0] is None and labels[-1] == "head-only"
    assert json.loads(as_json(found))["recommendation"]["margin"] == 1.0


def test_the_best_is_taken_where_no_cheaper_one_is_shown_to_be_near() -> None:
    found = alike(invented({"full": 0.96, "head-only": 0.96}, rows=600), changed=0.0, flips={"head-only": 0.006})
    chosen = found.recommendation
    assert chosen is not None and chosen.best == "full" and chosen.label in ("full", "head-only")
    far = alike(invented({"full": 0.96, "head-only": 0.96}, rows=2000), changed=0.0, flips={"head-only": 0.2})
    worse = far.recommendation
    assert worse is not None and worse.label == "full"
    assert "every cheaper strategy is seen 1 point or more below it" in sentences_of(worse)[0]


def test_with_one_strategy_there_is_nothing_to_choose() -> None:
    assert invented({"lora": 0.9}).recommendation is None


def test_a_margin_that_is_none_is_refused() -> None:
    for margin in (0.0, -1.0, float("nan"), 101.0):
        with pytest.raises(UsageError, match="--margin"):
            check_margin(margin)
    assert check_margin(0.5) == 0.5


def test_validation_rows_that_are_all_copies_decide_nothing() -> None:
    found = invented({"lora": 0.9, "full": 0.9}, rows=40)
    data = found.datasets[0, None]
    same = replace(data.validation, texts=("one and the same text here",) * 40)
    again = replace(found, datasets={(0, None): replace(data, validation=same)})
    assert (
        again.recommendation is None and "all validation rows are near copies of each other" in again.verdict_lines[0]
    )
    assert "cannot decide" not in replace(again, plan=replace(again.plan, contenders=again.plan.contenders[:1])).verdict


def test_it_stands_in_every_format(tmp_path: Path) -> None:
    found = alike(invented(RATES, rows=2000), flips={"head-only": 0.05})
    out = write(found, tmp_path)
    assert "Take lora" in (out / "report.html").read_text().split("<table>")[0]
    page = (out / "report.md").read_text()
    assert "## Which one to take" in page and "What a comparison of this size can see" in page
    value = json.loads((out / "results.json").read_text())
    assert value["recommendation"]["label"] == "lora" and set(value["power"]) == {"1", "2"}
    assert sum(line.split(",")[6] == "True" for line in as_csv(found).splitlines()[1:]) == 1

"""Tuning: which trials there are, which wins, and that only the training part is looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.comparison import Comparison
from lora_clf.comparison.contender import contenders_of
from lora_clf.comparison.plan import Cell, Plan
from lora_clf.experiment.materials import Materials
from lora_clf.experiment.run import compare
from lora_clf.experiment.tuning import INNER_FOLDS, Trial, TrialOutcome, Tuning, read_trial, trials_of, tuned
from lora_clf.experiment.work import PlanProgress
from lora_clf.tuners import create
from tests.bases import tiny_base

pytestmark = pytest.mark.usefixtures("all_inside")


def cell(strategy: str, settings: dict[str, object] | None = None, **training: object) -> Cell:
    return Plan(contenders_of([strategy], {strategy: settings or {}}), (5,), training=training).cells()[0]


def test_trials_are_the_usual_settings_and_others_without_repeats() -> None:
    first = cell("lora", epochs=2)
    trials = trials_of(first, 12)
    assert len(trials) == 12 and trials == trials_of(first, 12) and trials[:5] == trials_of(first, 5)
    assert trials[0].cell == replace(first, seed=0) and [trial.number for trial in trials] == list(range(1, 13))
    choices = {(t.cell.contender.settings["rank"], t.cell.training.get("lr")) for t in trials}
    assert len(choices) == 12 and len({rank for rank, _ in choices}) > 2 and len({rate for _, rate in choices}) > 2
    assert all(trial.cell.training["epochs"] == 2 and trial.cell.contender.settings["alpha"] == 16 for trial in trials)
    assert len({trial.digest for trial in trials}) == len({trial.name for trial in trials}) == 12
    space = create("lora").search
    assert len(trials_of(first, 1000)) == len(space["lr"]) * len(space["rank"])
    assert trials_of(replace(first, fold=1), 12)[1:] != [replace(t, cell=replace(t.cell, fold=1)) for t in trials[1:]]
    assert Trial.from_json(json.loads(json.dumps(trials[3].to_json()))) == trials[3]


def test_what_is_set_by_hand_is_not_searched() -> None:
    assert len(trials_of(cell("head-only"), 9)) == 1
    recipe = {"class_weight": "balanced", "schedule": "cosine"}
    weighed = trials_of(cell("lora", **recipe), 5)
    assert all(recipe.items() <= trial.cell.training.items() for trial in weighed)
    assert not {trial.digest for trial in weighed} & {trial.digest for trial in trials_of(cell("lora"), 5)}
    as_usual = trials_of(cell("lora"), 99, fixed=["rank"])  # set by hand to what it is anyway
    assert len(as_usual) > 2 and {trial.cell.contender.settings["rank"] for trial in as_usual} == {8}
    fixed = trials_of(cell("lora", {"rank": 3}), 99)
    assert len(fixed) == 7 and {trial.cell.contender.settings["rank"] for trial in fixed} == {3}
    assert {trial.cell.training["lr"] for trial in trials_of(cell("lora", lr=0.01), 99)} == {0.01}
    assert len(trials_of(cell("full", lr=0.01), 9)) == 1


def test_choices_that_the_base_cannot_take_are_left_out() -> None:
    base = tiny_base("bert")  # three blocks
    blocks = {trial.cell.contender.settings["blocks"] for trial in trials_of(cell("last-block"), 99, base)}
    assert blocks == {1, 2} and len(trials_of(cell("last-block"), 99)) == 21


def tried(
    number: int, cost: float | None, loss: float | None, rank: int = 8, rate: float | None = None
) -> TrialOutcome:
    return TrialOutcome("d", number, {"rank": rank}, rate, cost, loss, 2.0, "nan" if cost is None else None)


def test_the_most_accurate_wins_then_the_surest_then_the_first() -> None:
    trials = (tried(1, 0.1, 0.3), tried(2, 0.05, 0.5), tried(3, 0.05, 0.4, 16, 1e-3), tried(4, None, None))
    tuning = Tuning("lora", 0, None, 6, (*trials, tried(5, 0.05, 0.4, 2)))
    assert tuning.chosen is not None and tuning.chosen.number == 3 and tuning.seconds == 10
    value = tuning.to_json()
    assert (
        value["chosen"] == 3 and value["trials"][2]["changed"] == {"rank": 16} and value["trials"][0]["changed"] == {}
    )
    json.dumps(value, allow_nan=False)
    start = replace(cell("lora"), split_seed=0)
    changed = tuned(start, [tuning])
    assert changed.contender.settings == {"rank": 16} and changed.training == {"lr": 1e-3}
    assert changed.seed == start.seed and tuned(replace(start, fold=1), [tuning]).training == {}
    failed = replace(tuning, trials=(tried(1, None, None),))
    assert failed.chosen is None and tuned(start, [failed]) == start


def test_inner_folds_hold_no_row_of_validation_or_test(table: Path) -> None:
    materials, source = Materials(), DataArguments(str(table))
    outer = materials.split(source, 0)
    inner = materials.inner(source, 0, None, INNER_FOLDS)
    assert len(inner) == INNER_FOLDS and materials.inner(source, 0, None, INNER_FOLDS) is inner
    outside = {*outer.validation.rows, *outer.test.rows}
    for data in inner:
        used = {row for part in data.parts.values() for row in part.rows}
        assert used == set(outer.train.rows) and not used & outside


@pytest.fixture(scope="module")
def searched(base_folder: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("tuned") / "out"
    return start(base_folder, table, out, []), out


def start(base_folder: Path, table: Path, out: Path, heard: list[PlanProgress]) -> Comparison:
    return compare(
        BaseArguments(str(base_folder), device="cpu"),
        table,
        ["head-only", "last-block"],
        seeds=1,
        out=out,
        tune=3,
        training={"epochs": 1, "batch_size": 8, "precision": "fp32"},
        progress=heard.append,
    )


def test_the_chosen_settings_are_used_and_reported(searched: tuple[Comparison, Path]) -> None:
    found, out = searched
    assert not found.failures
    head, block = found.tunings
    assert (head.label, len(head.trials)) == ("head-only", 1) and (block.label, len(block.trials)) == ("last-block", 3)
    best = min(block.trials, key=lambda trial: (trial.cost, trial.loss))
    assert block.chosen == best
    outcome = found.outcomes_of("last-block")[0]
    assert outcome.settings == best.settings
    assert outcome.training["lr"] == (best.rate or create("last-block").learning_rate)
    value = json.loads((out / "results.json").read_text())
    assert value["tuning"][1]["budget"] == 3 and value["tuning"][1]["chosen"] == best.number
    assert value["plan"]["tune"] == 3
    seconds = {row.label: row.tuning_seconds for row in found.standings}
    assert seconds["last-block"] == pytest.approx(block.seconds) and seconds["TF-IDF + LR"] is None
    report = (out / "report.md").read_text()
    assert "## What was tuned" in report and "tuning s" in report and "3 of 3" in report


def test_a_second_time_nothing_is_tried_again(
    searched: tuple[Comparison, Path], base_folder: Path, table: Path
) -> None:
    found, out = searched
    (out / "cells" / "last-block-seed-0" / "result.json").unlink()
    heard: list[PlanProgress] = []
    again = start(base_folder, table, out, heard)
    assert [now.cell for now in heard if now.event == "done"] == ["last-block-seed-0"]
    assert sum(now.event == "kept" for now in heard) == 5 and again.tunings == found.tunings
    name = "last-block-trial-1-split-0"
    assert read_trial(out / "tuning" / name, "other") is None and (out / "tuning" / name / "trial.json").is_file()

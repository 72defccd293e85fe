"""Learning curves: what is planned, what is said of invented figures, and one real curve on a tiny base."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.comparison import BaselineOutcome, Comparison
from lora_clf.comparison.contender import contenders_of
from lora_clf.comparison.curve import CurveRuns, curve_csv, sentence_of, who_beats
from lora_clf.comparison.outcome import Predictions, read_outcome
from lora_clf.comparison.plan import Cell, Curve, Plan, curve_of
from lora_clf.errors import UsageError
from lora_clf.experiment import work
from lora_clf.experiment.child import run_batches
from lora_clf.experiment.run import compare
from lora_clf.experiment.work import PlanProgress
from tests.comparison.invented import invented

pytestmark = pytest.mark.usefixtures("all_inside")

PLAIN = {"majority", "TF-IDF + LR", "nearest centroid"}
MEASURED = {
    *("seconds", "cold_seconds", "total_seconds", "peak_memory_bytes", "training_memory_bytes", "tuning_seconds"),
    "texts_per_second",
    *("command", "jobs"),
}


def strip(value: Any) -> Any:
    """``value`` without what differs from run to run: seconds, memory and how it was started."""
    if isinstance(value, dict):
        return {key: strip(part) for key, part in value.items() if key not in MEASURED}
    return [strip(part) for part in value] if isinstance(value, list) else value


def test_a_curve_is_planned_draw_by_draw() -> None:
    curve = curve_of(" 64, 16,all,256 ,16", 10)
    assert curve == Curve((16, 64, 256), 10, True) and not curve_of([4, 8]).whole
    assert [curve.draws_of(k) for k in (2, 64, 128, 256, 4096)] == [10, 10, 5, 3, 3]
    assert Curve((2,), draws=2).draws_of(4096) == 2
    plan = Plan(contenders_of(["head-only", "lora"]), (0, 1), curve=curve)
    cells = plan.curve_cells()
    assert Counter((cell.contender.label, cell.k) for cell in cells) == {
        (label, k): draws for label in ("head-only", "lora") for k, draws in ((16, 10), (64, 10), (256, 3))
    }
    assert len({cell.name for cell in cells}) == len({cell.digest for cell in cells}) == 46
    assert cells[12].name == "head-only-k-64-draw-2" and cells[12].seed == 2
    assert Cell.from_json(json.loads(json.dumps(cells[12].to_json()))) == cells[12]
    assert len(plan.cells()) == 4 and "curve" not in replace(plan, curve=None).to_json()


def test_few_examples_are_seen_often_enough() -> None:
    assert [Curve.epochs(rows, {}) for rows in (16, 24, 96, 4000)] == [100, 50, 17, 3]
    assert Curve.epochs(24, {"batch_size": 4, "accumulate": 2}) == 34 and Curve.epochs(24, {"epochs": 2}) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: curve_of("16,many"), "--curve many: expected examples"),
        (lambda: curve_of("all"), "no number of examples"),
        (lambda: curve_of("1,8"), "1 of each class"),
        (lambda: curve_of("8", 0), "--draws 0"),
        (lambda: Plan(contenders_of(["full"]), curve=Curve((4,)), resplit=True), "one split"),
        (lambda: Plan(contenders_of(["full"]), data=DataArguments(folds=3), curve=Curve((4,))), "one split"),
        (lambda: Plan(contenders_of(["full"]), curve=Curve((4,)), tune=2), "--tune and --curve together"),
        (lambda: Plan(contenders_of(["full"]), tune=0), "--tune 0"),
    ],
)
def test_a_wrong_curve_says_what_is_wrong(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def with_curve(accuracy: dict[str, dict[int, float]], tfidf: dict[int, float], draws: int = 6) -> Comparison:
    """An invented comparison with a curve of these accuracies, each draw wrong on rows of its own."""
    comparison = invented({label: rates[max(rates)] for label, rates in accuracy.items()}, baseline=tfidf[max(tfidf)])
    sizes = sorted(tfidf)
    truth = comparison.outcomes[0].test.labels
    rows = comparison.outcomes[0].test.rows
    random = np.random.default_rng(1)

    def said(rate: float) -> Predictions:
        right = np.zeros(len(rows), dtype=bool)
        right[random.permutation(len(rows))[: round(rate * len(rows))]] = True
        probabilities = np.full((len(rows), 2), 0.1)
        probabilities[np.arange(len(rows)), np.where(right, truth, 1 - truth)] = 0.9
        return Predictions(rows, truth, probabilities)

    outcomes = [
        replace(
            next(outcome for outcome in comparison.outcomes if outcome.label == label),
            k=k,
            seed=draw,
            test=said(rates[k]),
            scores={part: {"accuracy": rates[k], "macro_f1": rates[k]} for part in ("validation", "test")},
        )
        for label, rates in accuracy.items()
        for k in sizes
        for draw in range(draws)
    ]
    plain = comparison.baselines[0].baseline
    baselines = [
        BaselineOutcome("TF-IDF + LR", draw, k, plain, said(tfidf[k]), 0.5) for k in sizes for draw in range(draws)
    ]
    data = next(iter(comparison.datasets.values()))
    return replace(
        comparison,
        plan=replace(comparison.plan, curve=Curve(tuple(sizes), draws)),
        curve=CurveRuns(tuple(outcomes), tuple(baselines), {(draw, k): data for draw in range(draws) for k in sizes}),
    )


def test_the_sentence_says_from_where_on_who_beats_the_baseline() -> None:
    tfidf = {16: 0.7, 32: 0.75, 64: 0.8}
    accuracy = {
        "lora": {16: 0.7, 32: 0.9, 64: 0.95},
        "full": {16: 0.9, 32: 0.9, 64: 0.95},
        "head-only": {16: 0.9, 32: 0.7, 64: 0.8},
    }
    found = with_curve(accuracy, tfidf)
    sentence = sentence_of(found)
    proof = "By more than the interval (95 %, corrected for all strategies and sizes): "
    assert sentence == (
        f"{proof}lora beats TF-IDF + LR from 32 examples of each class on; full beats TF-IDF + LR from 16 examples of "
        "each class on; head-only beats TF-IDF + LR with 16 examples of each class, not with all training rows."
    )
    assert who_beats({"a": [16, 32], "b": [16, 32], "c": [None], "d": []}, (16, 32, None)) == (
        f"{proof}a and b beat TF-IDF + LR with 16 and 32 examples of each class, not with all training rows; c beats "
        "TF-IDF + LR with all training rows; d at no size."
    )
    assert (
        who_beats({"a": [16, 64]}, (16, 32, 64)) == f"{proof}a beats TF-IDF + LR with 16 and 64 examples of each class."
    )
    once = with_curve(accuracy, tfidf, draws=1)
    assert sentence_of(once).endswith("another draw may say otherwise.")
    nobody = sentence_of(with_curve({"lora": {16: 0.7, 32: 0.75, 64: 0.8}}, tfidf))
    assert nobody.startswith("No strategy beats TF-IDF + LR at any size by more than the interval")


def test_points_have_intervals_over_draws_and_paired_differences() -> None:
    found = with_curve({"lora": {16: 0.7, 64: 0.95}}, {16: 0.72, 64: 0.8})
    points = {(point.label, point.k): point for point in found.curve_points}
    assert len(points) == 2 * 3 and {k for _, k in points} == {16, 64, None}
    low, high = points["lora", 16], points["lora", 64]
    assert low.draws == high.draws == 6 and points["lora", None].draws == 3 and points["TF-IDF + LR", None].draws == 1
    assert points["TF-IDF + LR", None].accuracy.low is None and points["TF-IDF + LR", 16].to_rival is None
    for point, gap in ((low, -0.02), (high, 0.15)):
        assert point.to_rival is not None and point.to_rival.low is not None and point.to_rival.high is not None
        assert point.to_rival.mean == pytest.approx(gap, abs=1e-9)
        assert point.to_rival.low < gap < point.to_rival.high
    assert low.to_rival.low < 0 < high.to_rival.low  # type: ignore[union-attr,operator]
    lines = list(csv.DictReader(curve_csv(found).splitlines()))
    assert len(lines) == 6 and {line["k"] for line in lines} == {"16", "64", ""}
    assert float(lines[0]["accuracy"]) == pytest.approx(0.7)


def test_a_rival_with_one_draw_left_is_compared_on_that_draw_alone() -> None:
    """The others learned from other examples."""
    found = with_curve({"lora": {16: 0.9}}, {16: 0.7})
    assert found.curve is not None
    lost = tuple(one for one in found.curve.baselines if one.split_seed == 0)
    points = replace(found, curve=replace(found.curve, baselines=lost)).curve_points
    gap = next(point.to_rival for point in points if (point.label, point.k) == ("lora", 16))
    assert gap is not None and gap.sd is None
    whole = next(point.to_rival for point in found.curve_points if (point.label, point.k) == ("lora", 16))
    assert whole is not None and whole.sd is not None


@pytest.fixture(scope="module")
def drawn(base_folder: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("curve") / "out"
    return start(base_folder, table, out), out


def start(base_folder: Path, table: Path, out: Path, **more: Any) -> Comparison:
    return compare(
        BaseArguments(str(base_folder), device="cpu"),
        table,
        ["head-only", "lora-scratch"],
        seeds=1,
        out=out,
        training={"epochs": 1, "batch_size": 8, "precision": "fp32"},
        **{"curve": "4,8,all", "draws": 3, **more},
    )


def test_a_real_curve(drawn: tuple[Comparison, Path]) -> None:
    found, _ = drawn
    assert not found.failures and found.curve is not None
    assert len(found.curve.outcomes) == 2 * 2 * 3 and len(found.curve.baselines) == 3 * 2 * 3
    assert len(found.curve_points) == 5 * 3
    assert {point.label for point in found.curve_points if point.kind == "baseline"} == PLAIN
    test = found.outcomes[0].test.rows
    for outcome in found.curve.outcomes:
        assert outcome.k is not None and np.array_equal(outcome.test.rows, test)
        data = found.curve.datasets[outcome.seed, outcome.k]
        assert np.array_equal(outcome.validation.rows, data.validation.rows)
        assert Counter(data.train.labels + data.validation.labels) == {"ham": outcome.k, "spam": outcome.k}
    assert not found.pools.keys() - {
        *("head-only", "lora-scratch", "majority", "TF-IDF + LR", "nearest centroid", "untrained head")
    }
    assert len(found.outcomes_of("head-only")) == 1  # the curve's runs are not in the table
    assert len({outcome.test.probabilities.tobytes() for outcome in found.curve.outcomes}) > 6


def test_the_curve_is_in_every_result(drawn: tuple[Comparison, Path], table: Path) -> None:
    found, out = drawn
    value = json.loads((out / "results.json").read_text())
    assert [size["k"] for size in value["curve"]["sizes"]] == [4, 8]
    assert [size["draws"] for size in value["curve"]["sizes"]] == [3, 3]
    assert [size["epochs"] for size in value["curve"]["sizes"]] == [1, 1]
    assert value["curve"]["sizes"][1]["rows"]["train"] == 12 and value["curve"]["sizes"][1]["rows"]["validation"] == 4
    assert len(value["curve"]["points"]) == 15 and len(value["curve"]["runs"]) == 12
    assert value["curve"]["sentence"] == sentence_of(found) and value["plan"]["curve"]["sizes"] == [4, 8]
    assert len((out / "curve.csv").read_text().splitlines()) == 16
    assert (out / "learning-curve.png").read_bytes().startswith(b"\x89PNG")
    report = (out / "report.md").read_text()
    assert "## With fewer examples" in report and "learning-curve.png" in report
    page = (out / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") >= 3
    facts = value["facts"]["provenance"]
    assert len(facts["code_digest"]) == 64 and facts["precision"] == "fp32" and facts["jobs"] == 1
    assert facts["git_commit"] is None or len(facts["git_commit"]) == 40


def test_what_is_missing_is_done_by_several_at_a_time_with_the_same_results(
    drawn: tuple[Comparison, Path], base_folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(work, "run_batches", run_batches)  # in processes of their own
    _, there = drawn
    out = tmp_path / "again"
    shutil.copytree(there, out)
    gone = ["head-only-seed-0", "lora-scratch-seed-0", "lora-scratch-k-4-draw-1", "head-only-k-8-draw-2"]
    for name in gone:
        shutil.rmtree(out / "cells" / name)
    (out / "cells" / "lora-scratch-k-4-draw-0" / "result.json").write_text("{")
    (out / "cells" / ".head-only-seed-0-0123456789ab").mkdir()
    heard: list[PlanProgress] = []
    start(base_folder, table, out, jobs=2, progress=heard.append)
    done = {now.cell for now in heard if now.event == "done"}
    assert done == {*gone, "lora-scratch-k-4-draw-0"} and sum(now.event == "kept" for now in heard) == 14 - 5
    assert [now.total for now in heard] == [14] * len(heard) and heard[-1].done == 14
    before, after = (json.loads((folder / "results.json").read_text()) for folder in (there, out))
    assert strip(after) == strip(before)
    assert not list((out / "cells").glob(".*-????????????"))


def test_a_size_that_no_class_has(base_folder: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--curve 500: no class has so many"):
        start(base_folder, table, tmp_path / "out", curve="4,500")
    assert not (tmp_path / "out").exists()


def test_a_cell_of_a_curve_is_read_by_its_digest(drawn: tuple[Comparison, Path]) -> None:
    found, out = drawn
    assert found.curve is not None
    outcome = found.curve.outcomes[0]
    folder = out / "cells" / f"{outcome.label}-k-{outcome.k}-draw-{outcome.seed}"
    again = read_outcome(folder, outcome.digest)
    assert again is not None and again.k == outcome.k and read_outcome(folder, "other") is None

"""What stands behind the answer: scores without copies, plots, and errors with texts in the report alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_clf.comparison.comparison import Comparison
from lora_clf.metrics.classification import average_precision
from lora_clf.reports.evidence import mistakes_of, without_copies
from lora_clf.reports.evidence_plots import precision_recall
from lora_clf.reports.plots import ACCURACY, EVIDENCE, rendered, write_plots
from tests.comparison.invented import invented, write

RATES = {"head-only": 0.7, "lora": 0.95, "full": 0.9}


def copied(found: Comparison, rows: int) -> Comparison:
    """The same comparison, in which the first test rows stand in training too."""
    data = found.datasets[0, None]
    train = replace(data.train, texts=(*data.test.texts[:rows], *data.train.texts[rows:]))
    return replace(found, datasets={(0, None): replace(data, train=train)})


def learnt(found: Comparison, epochs: int = 3) -> Comparison:
    """The same comparison with a history."""
    history = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "examples": 400 * epoch,
            "validation": {"loss": 1.1 / epoch, "accuracy": 1 - 0.2 / epoch},
        }
        for epoch in range(1, epochs + 1)
    ]
    return replace(found, outcomes=tuple(replace(outcome, history=history) for outcome in found.outcomes))


@pytest.mark.usefixtures("inside")
def test_both_scores_where_test_rows_have_copies(tmp_path: Path) -> None:
    found = copied(invented(RATES, rows=200), 50)
    table = without_copies(found)
    assert set(table) == {*RATES, "TF-IDF + LR"} and set(table["lora"]) == {"exact", "0.7"}
    for label, scores in table.items():
        parts = found.pools[label].predictions
        expected = np.mean([part.correct[50:].mean() for part in parts])
        assert scores["exact"].mean == pytest.approx(expected) and scores["exact"].n == 150
        assert scores["exact"].low < expected < scores["exact"].high
    out = write(found, tmp_path)
    assert "## Without copies" in (out / "report.md").read_text()
    value = json.loads((out / "results.json").read_text())
    assert value["without_copies"]["lora"]["exact"]["n"] == 150
    leaks = value["facts"]["data"]["leaks"]
    assert [entry["class"] for entry in leaks] == ["all", "ham", "spam"]


def test_nothing_is_said_of_copies_where_there_are_none() -> None:
    assert without_copies(invented(RATES, rows=100)) == {}


def test_errors_stand_with_their_texts_in_the_report_alone(tmp_path: Path) -> None:
    found = invented({"lora": 0.9, "full": 0.8}, rows=60, seeds=1)
    mistakes = mistakes_of(found, "lora")
    (part,) = found.pools["lora"].predictions
    assert {one.row for one in mistakes} == set(part.rows[~part.correct].tolist()) and len(mistakes) == 6
    assert all(one.true != one.said and one.probability == pytest.approx(0.9) for one in mistakes)
    out = write(found, tmp_path)
    page = (out / "report.md").read_text()
    shown = [one.text for one in mistakes if one.text in page]
    other = mistakes_of(found, "full")
    assert len(shown) == 6 or sum(one.text in page for one in other) == len(other) == 12
    for name in ("results.json", "results.csv"):
        content = (out / name).read_text()
        assert not [text for text in found.datasets[0, None].test.texts if text in content], name


def test_a_row_that_most_runs_get_right_is_no_error() -> None:
    found = invented({"lora": 0.9}, rows=100, seeds=3)
    wrong = sum((~part.correct).astype(int) for part in found.pools["lora"].predictions)
    assert {one.row for one in mistakes_of(found, "lora")} == set((np.flatnonzero(wrong >= 2) + 1).tolist())


def test_precision_and_recall_enclose_the_average_precision() -> None:
    random = np.random.default_rng(0)
    hits = random.random(300) < 0.3
    scores = np.round(random.random(300) + 0.5 * hits, 2)  # with ties
    recall, precision = precision_recall(hits, scores)
    assert recall[-1] == 1.0 and precision[-1] == pytest.approx(hits.mean())
    area = float((np.diff(recall, prepend=0) * precision).sum())
    assert area == pytest.approx(average_precision(hits, scores))


@pytest.mark.parametrize("labels", [(), ("a", "b", "c")], ids=["two classes", "three"])
def test_every_plot_is_drawn_alike_each_time(labels: tuple[str, ...], tmp_path: Path) -> None:
    found = learnt(invented(RATES, rows=80, labels=labels))
    assert [evidence.name for evidence in EVIDENCE] == ["confusion", "reliability", "precision-recall", "training"]
    for evidence in EVIDENCE:
        first = rendered(found, evidence, "svg")
        assert first is not None and first == rendered(found, evidence, "svg")
    write_plots(found, EVIDENCE, tmp_path, "pdf")
    files = list(tmp_path.iterdir())
    assert len(files) == 4 and all(file.read_bytes().startswith(b"%PDF") for file in files)


@pytest.mark.parametrize("labels", [("$0_$50", "$5#_$10", "$50-$100")])
def test_labels_are_no_formulas(labels: tuple[str, ...], tmp_path: Path) -> None:
    found = learnt(invented(RATES, rows=40, labels=labels))
    write_plots(found, [*ACCURACY, *EVIDENCE], tmp_path, "svg")
    assert len(list(tmp_path.iterdir())) == 6


def test_training_has_two_axes() -> None:
    figure = EVIDENCE[-1].draw(learnt(invented(RATES, rows=40)))
    assert figure is not None
    for axes in figure.axes:
        (above,) = axes.child_axes
        assert axes.get_xlabel() == "epochs" and above.get_xlabel() == "examples seen"
        assert [text.get_text() for text in above.get_xticklabels()] == ["400", "800", "1,200"]
    assert EVIDENCE[-1].draw(invented(RATES, rows=40)) is None  # one entry or none is no curve

"""The benchmark of skewed labels: runs what is missing, pairs what it compares, says what is more than chance."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("skewed_classes")
    monkeypatch.setattr(module, "RESAMPLES", 40)
    return module


def test_it_runs_and_goes_on_where_it_stopped(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.json"
    flags = ["--quick", "--device", "cpu", "--out", str(out), "--seeds", "1"]
    assert script.main([*flags, "--sides", "head-only"]) == 0
    assert set(json.loads(out.read_text())["runs"]) == {"head-only/none/0", "head-only/balanced weights/0"}
    ran: list[str] = []
    real = script.run
    monkeypatch.setattr(script, "run", lambda *args: ran.append(f"{args[3]}/{args[4]}") or real(*args))
    assert script.main([*flags, "--sides", "head-only,last-block"]) == 0
    assert ran == [f"last-block/{recipe}" for recipe in script.RECIPES] and len(ran) == 4
    found = json.loads(out.read_text())
    assert len(found["scores"]) == 3 + 5  # with the threshold of each
    assert all(each["more"]["mcc"][0] == 0 for name, each in found["scores"].items() if name.endswith("/none"))
    text = script.table(found)
    assert text.splitlines()[2].startswith("| head-only | none |") and "All other differences may be chance" in text
    assert "13 ham, 11 spam" in text and text in capsys.readouterr().out


def test_the_scores_are_scikit_learns(script: Any) -> None:
    random = np.random.default_rng(0)
    truth = (random.random(200) < 0.13).astype(int)
    logits = random.normal(size=200) + 2 * truth - 1
    guess = logits >= 0.3
    expected = (
        metrics.recall_score(truth, guess),
        metrics.precision_score(truth, guess),
        metrics.f1_score(truth, guess, average="macro"),
        metrics.matthews_corrcoef(truth, guess),
        metrics.average_precision_score(truth, logits),
        metrics.brier_score_loss(truth, 1 / (1 + np.exp(-logits))),
    )
    np.testing.assert_allclose(script.scores(truth, logits, 0.3), expected)


def test_copies_are_drawn_together(script: Any) -> None:
    picks = script.resamples(np.array([0, 0, 0, 1, 2, 2]), np.random.default_rng(0))
    assert len(picks) == 40
    for rows in picks:
        times = np.bincount(rows, minlength=6)
        assert times[0] == times[1] == times[2] and times[4] == times[5]

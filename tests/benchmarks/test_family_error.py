"""The simulation's result file holds what the promise is about, and the script runs."""

from __future__ import annotations

import json
from pathlib import Path

import family_error
import pytest
from simulation import Design


def test_the_table_of_the_result_file_keeps_the_promise() -> None:
    value = json.loads(family_error.OUT.read_text(encoding="utf-8"))
    designs = {json.dumps(entry["design"], sort_keys=True): entry for entry in value["designs"]}
    assert len(designs) == len(family_error.designs()) == 56
    assert {entry["design"]["strategies"] for entry in value["designs"]} == {2, 3, 5, 16}
    # Where 5,000 rows leave the seeds alone to vary and one strategy does, three seeds are not enough: said there.
    kept = [entry for entry in value["designs"] if entry["design"]["rows"] <= 1100]
    assert len(kept) == 52
    for entry in kept:
        assert entry["family_error"] <= 0.05 + 2.6 * (0.05 * 0.95 / entry["repeats"]) ** 0.5, entry["design"]
        wrong, repeats = entry["recommendation_error"], entry["recommendation_repeats"]
        assert wrong <= 0.05 + 2.6 * (0.05 * 0.95 / repeats) ** 0.5, entry["design"]
        assert entry["power_1"] < entry["power_2"] + 0.02
    text = family_error.table(value)
    assert text.count("\n| ") == 56 and "2 with 1.1, 3 with 0" in text and "30 % near copies" in text


def test_it_runs_quickly_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(family_error, "designs", lambda quick: [Design(2, 60, 3, 0.0)] if quick else [])
    assert family_error.main(["--quick", "--out", str(tmp_path / "a.json")]) == 0
    assert not (tmp_path / "a.json").exists() and "| 2 | 3 | 60 |" in capsys.readouterr().out

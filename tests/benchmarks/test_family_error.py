"""The simulation's result file holds what the promise is about, and the script runs."""

from __future__ import annotations

import json
from pathlib import Path

import family_error
import pytest

from lora_clf.evaluation.simulation import Design


def test_the_table_of_the_result_file_keeps_the_promise() -> None:
    value = json.loads(family_error.OUT.read_text(encoding="utf-8"))
    designs = {json.dumps(entry["design"], sort_keys=True): entry for entry in value["designs"]}
    assert len(designs) == len(family_error.designs()) == 41
    slack = 2.6 * (0.05 * 0.95 / value["repeats"]) ** 0.5
    even = [entry for entry in value["designs"] if not isinstance(entry["design"]["seed_sd"], list)]
    assert len(even) == 39 and {entry["design"]["strategies"] for entry in even} == {2, 5, 16}
    assert {entry["design"]["seed_sd"] for entry in even} >= {0.0, 0.0055, 0.011}
    assert max(entry["family_error"] for entry in even) <= 0.05 + slack
    assert all(entry["power_1"] < entry["power_2"] + 0.02 for entry in even)
    text = family_error.table(value)
    assert text.count("\n| ") == 41 and "0 or 1.1" in text and "30 % near copies" in text


def test_it_runs_quickly_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(family_error, "designs", lambda quick: [Design(2, 60, 3, 0.0)] if quick else [])
    assert family_error.main(["--quick", "--out", str(tmp_path / "a.json")]) == 0
    assert not (tmp_path / "a.json").exists() and "| 2 | 3 | 60 |" in capsys.readouterr().out

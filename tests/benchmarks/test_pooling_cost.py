"""The benchmark of heads: runs what is missing, pairs what it compares, writes its table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("pooling_cost")


def test_it_runs_and_goes_on_where_it_stopped(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.json"
    flags = ["--quick", "--device", "cpu", "--strategy", "lora-scratch", "--out", str(out)]
    assert script.main([*flags, "--seeds", "1", "--poolings", "mean"]) == 0
    first = json.loads(out.read_text())
    assert list(first["runs"]) == ["mean/0"] and first["difference"] is None
    ran: list[str] = []
    real = script.run
    monkeypatch.setattr(script, "run", lambda *args: ran.append(f"{args[3]}/{args[4]}") or real(*args))
    assert script.main([*flags, "--seeds", "2"]) == 0
    found = json.loads(out.read_text())
    assert ran == ["mean/1", "family/0", "family/1"] and len(found["runs"]) == 4
    assert found["runs"]["mean/0"] == first["runs"]["mean/0"]
    accuracy = {name: sum(each["right"]) / 8 for name, each in found["runs"].items()}
    assert all(each["accuracy"] == accuracy[name] for name, each in found["runs"].items())
    gap = (accuracy["family/0"] + accuracy["family/1"] - accuracy["mean/0"] - accuracy["mean/1"]) / 2
    assert found["difference"]["value"] == pytest.approx(gap) and found["difference"]["seeds"] == 2
    assert "family less mean" in capsys.readouterr().out
    assert script.table(found).splitlines()[2].startswith("| mean |")

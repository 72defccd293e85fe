"""Flips between an adapter and itself in bf16, and the cost of the canaries: counted by hand on tiny ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import adapter_dtype
import canary_cost
import pytest
import tables

from lora_clf.adapters.prediction import Prediction
from lora_clf.errors import UsageError
from tests.adapters.making import make


def test_flips_are_counted_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_clf.adapters.adapter import Adapter

    # What the fp32 file and the bf16 file say of six texts; the truth is spam for the first three.
    said = {"F32": [0.9, 0.9, 0.4, 0.1, 0.6, 0.2], "BF16": [0.9, 0.4, 0.6, 0.1, 0.4, 0.6]}

    def predict(self: Adapter, texts: Any, **how: Any) -> list[Prediction]:
        dtype = {entry.dtype for entry in self.header.tensors}.pop()
        return [Prediction("spam", share, {"ham": 1 - share, "spam": share}) for share in said[dtype]]

    monkeypatch.setattr(Adapter, "predict", predict)
    part: Any = SimpleNamespace(texts=["x"] * 6, labels=["spam"] * 3 + ["ham"] * 3, rows=[11, 12, 13, 14, 15, 16])
    adapter = make("bert", "full")
    found = adapter_dtype.compared(adapter, part, tmp_path)
    assert (found["texts"], found["flips"], found["flipped_rows"]) == (6, 4, [12, 13, 15, 16])
    assert (found["right_to_wrong"], found["wrong_to_right"], found["net_share"]) == (2, 2, 0)
    assert found["accuracy"] == {"fp32": 4 / 6, "bf16": 4 / 6}
    assert found["largest_change_of_a_probability"] == pytest.approx(0.5) and found["size_ratio"] < 0.7
    adapter.save(tmp_path / "b", dtype="bf16")
    with pytest.raises(UsageError, match="not in fp32"):
        adapter_dtype.compared(adapter, part, tmp_path / "again")
    shown = adapter_dtype.table({"full": found})
    assert "| full | 6 |" in shown and "| 2 | 2 | 0.000 | 0.5000 |" in shown


@pytest.mark.parametrize("script", [adapter_dtype, canary_cost])
def test_quick_runs_from_end_to_end(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    assert script.main(["--quick", "--out", str(out)]) == 0
    (found,) = json.loads(out.read_text()).values()
    assert found["base"] == "tiny-bert" and found["provenance"]["commit"]
    assert "tiny-bert" in script.table({"quick": found}) or "| quick |" in script.table({"quick": found})
    assert tables.OWN[script.OUT.stem] == script.__name__
    assert script.main(["--out", str(out)]) == 2 and "--quick" in capsys.readouterr().err
    if script is canary_cost:
        assert found["sentences"] == 7 and found["tokens"] > 100 and found["seconds"]["verified"] > 0
    else:
        assert found["texts"] == 64 and found["strategy"] == "lora-scratch"

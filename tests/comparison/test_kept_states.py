"""Cells share the states of frozen layers through the disk; each is charged what they cost, and no more differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_clf.comparison.comparison import Comparison
from lora_clf.comparison.plan import BaseArguments
from lora_clf.comparison.run import compare


def test_every_cell_pays_the_cold_price(
    base_folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))

    def run(name: str, size: str) -> Comparison:
        monkeypatch.setenv("LORA_CLF_CACHE_SIZE", size)
        return compare(
            BaseArguments(str(base_folder), device="cpu"),
            table,
            ["last-block"],
            seeds=2,
            out=tmp_path / name,
            training={"epochs": 1, "precision": "fp32"},
        )

    shared = run("shared", "1GB")
    files = list((tmp_path / "cache" / "prefix").glob("*/*.safetensors"))
    assert len(files) == 1  # of the one split that both seeds share
    first, second = shared.outcomes
    prices = [cell.cold_seconds - cell.seconds for cell in (first, second)]
    assert prices[0] == pytest.approx(prices[1]) and prices[0] > 0
    alone = run("alone", "0")
    for mine, other in zip(shared.outcomes, alone.outcomes, strict=True):
        assert mine.history == other.history and mine.scores == other.scores
    assert first.history != second.history
